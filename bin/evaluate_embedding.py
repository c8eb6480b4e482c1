#!/usr/bin/env python3
"""Score one embedding on one task: every seed, protocol and post-processing, with intervals and per-item values."""

import argparse
import json
import time
from pathlib import Path

from plumbline.common.arguments import Parser, whole
from plumbline.common.errors import UserError, run_script
from plumbline.common.threads import limit_threads

ABOUT = ("dataset", "model", "variant", "fit_on", "code")


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--embedding", type=Path, required=True, help="embedding.npz (its JSON lies beside it)")
    parser.add_argument("--tables", type=Path, required=True, help="the tables folder that prepare_dataset.py wrote")
    parser.add_argument("--counts", type=Path, help="counts.h5ad; only the reconstruction task reads it")
    parser.add_argument("--task", required=True, help="a file of bin/plumbline/tasks")
    parser.add_argument("--seeds", required=True, help="split seeds, separated by commas")
    parser.add_argument("--protocols", default="paper,corrected")
    parser.add_argument("--n-draws", type=whole(1, 1_000_000), default=1000, help="size of permutation nulls")
    parser.add_argument("--n-boot", type=whole(1, 1_000_000), default=1000, help="bootstrap resamples of an interval")
    parser.add_argument("--threads", type=whole(1), default=1)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    for name in ABOUT:
        parser.add_argument(f"--{name.replace('_', '-')}", default="", help="copied into every row")
    parser.add_argument("--output", required=True, help="prefix: PREFIX.scores.parquet and PREFIX.items.parquet")
    return parser.parse_args()


def rows_of(args: argparse.Namespace) -> list:
    """Every row: scores where the task applies, reasons where it does not."""
    from plumbline import tasks
    from plumbline.data.splits import read_split
    from plumbline.embedding.contract import align, read_embedding
    from plumbline.scoring.evaluation import absent_rows, evaluate
    from plumbline.scoring.screen import Subject, read_screen

    task, seeds, protocols = tasks.load(args.task), [int(seed) for seed in args.seeds.split(",")], args.protocols.split(",")
    screen, embedding = read_screen(args.tables), read_embedding(args.embedding)
    if embedding.provenance["status"] != "ok":
        return absent_rows(task, seeds, protocols, embedding.provenance["reason"])
    if task.needs_counts and args.counts is None:
        raise UserError(f"the task {args.task} reads expression: give --counts counts.h5ad.")
    values = align(embedding, screen.cell_id, str(args.embedding))
    subject = Subject.of_embedded(
        values,
        screen,
        counts=args.counts,
        predictor=embedding.provenance.get("predictor", ""),
        n_draws=args.n_draws,
        threads=args.threads,
        device=device_of(args.device),
    )
    splits = [read_split(args.tables, seed).take(subject.rows) for seed in seeds]
    return evaluate(subject, task, splits, protocols)


def device_of(option: str) -> str:
    """'cuda' where one is visible; torch is asked only if the driver's device file exists, for its import is slow."""
    if option != "auto":
        return option
    if not Path("/dev/nvidiactl").exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def write_tables(rows: list, args: argparse.Namespace, start: float) -> None:
    import pandas as pd
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    from plumbline import tasks
    from plumbline.common.files import whole_file
    from plumbline.common.usage import usage
    from plumbline.scoring.evaluation import item_frames, score_rows
    from plumbline.scoring.scores import COLUMNS

    about = {name: getattr(args, name) for name in ABOUT} | {"task": args.task}
    task = tasks.load(args.task)
    scores = pd.DataFrame(list(score_rows(rows, task, args.n_boot))).assign(**about, task_version=task.version)[COLUMNS]
    frames = list(item_frames(rows))
    items = pd.concat(frames, ignore_index=True).assign(**about) if frames else pd.DataFrame({"task": []})
    # what the step cost travels in the metadata of its scores
    cost = {b"plumbline.usage": json.dumps(usage(start) | {"threads": args.threads}).encode()}
    for name, frame in (("scores", scores), ("items", items.drop(columns="code", errors="ignore"))):
        table = arrow.Table.from_pandas(frame, preserve_index=False)
        with whole_file(f"{args.output}.{name}.parquet") as temporary:
            parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **cost}), temporary)


def main() -> None:
    args, start = arguments(), time.monotonic()
    limit_threads(args.threads)
    write_tables(rows_of(args), args, start)


if __name__ == "__main__":
    run_script(main)
