#!/usr/bin/env python3
"""Score one embedding on one task: every seed, protocol and post-processing, with intervals and per-item values."""

import argparse
import json
import time
from pathlib import Path

from plumbline.common.arguments import Parser, whole
from plumbline.common.errors import run_script
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
    parser.add_argument(
        "--exact", choices=("true", "false"), default="false", help="large data sets, too, without approximation"
    )
    parser.add_argument("--decoder-budget", type=whole(1), default=200, help="billions of operations of a training on a CPU")
    parser.add_argument("--threads", type=whole(1), default=1)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    for name in ABOUT:
        parser.add_argument(f"--{name.replace('_', '-')}", default="", help="copied into every row")
    parser.add_argument("--output", required=True, help="prefix: PREFIX.scores.parquet and PREFIX.items.parquet")
    return parser.parse_args()


def rows_of(args: argparse.Namespace) -> list:
    """Every row: scores where the task applies, reasons where it does not."""
    from plumbline.benchmark.evaluation import Scoring, device_of, scored

    how = Scoring(
        seeds=[int(seed) for seed in args.seeds.split(",")],
        protocols=args.protocols.split(","),
        n_draws=args.n_draws,
        decoder_budget=1e9 * args.decoder_budget,
        threads=args.threads,
        device=device_of(args.device),
        exact=args.exact == "true",
    )
    return scored(args.embedding, args.tables, args.counts, args.task, how)


def dimensions_of(embedding: Path) -> dict[str, int]:
    from plumbline.embedding.contract import provenance_path

    n_dimensions = json.loads(provenance_path(embedding).read_text()).get("n_dimensions")
    return {} if n_dimensions is None else {"n_dimensions": n_dimensions}


def write_tables(rows: list, args: argparse.Namespace, start: float) -> None:
    from plumbline import tasks
    from plumbline.common.usage import usage
    from plumbline.scoring.writing import write_rows

    about = {name: getattr(args, name) for name in ABOUT}
    cost = usage(start) | {"threads": args.threads, "n_seeds": args.seeds.count(",") + 1} | dimensions_of(args.embedding)
    paths = tuple(Path(f"{args.output}.{name}.parquet") for name in ("scores", "items"))
    write_rows(rows, tasks.load(args.task), about, args.n_boot, cost, paths)


def main() -> None:
    args, start = arguments(), time.monotonic()
    limit_threads(args.threads)
    write_tables(rows_of(args), args, start)


if __name__ == "__main__":
    run_script(main)
