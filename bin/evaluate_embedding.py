#!/usr/bin/env python3
"""Score one embedding on a task, or on several in children of one process: every seed, protocol and post-processing."""

import argparse
import json
import time
import uuid
from functools import partial
from pathlib import Path

from plumbline.common.arguments import Parser, among, seeds, whole
from plumbline.common.errors import UserError, run_script
from plumbline.common.threads import limit_threads
from plumbline.scoring.protocol import PROTOCOLS

ABOUT = ("dataset", "model", "variant", "fit_on")


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--embedding", type=Path, required=True, help="embedding.npz (its JSON lies beside it)")
    parser.add_argument("--tables", type=Path, required=True, help="the tables folder that prepare_dataset.py wrote")
    parser.add_argument("--counts", type=Path, help="counts.h5ad; only the reconstruction task reads it")
    parser.add_argument("--task", required=True, action="append", help="a file of bin/plumbline/tasks; repeat it for more")
    parser.add_argument("--seeds", type=seeds, required=True, help="split seeds, separated by commas")
    parser.add_argument("--protocols", type=among(PROTOCOLS), default="paper,corrected", help="protocols, separated by commas")
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
    parser.add_argument("--code", action="append", help="digest of a task's code, copied into every row; one per --task")
    parser.add_argument(
        "--output",
        required=True,
        action="append",
        help="PREFIX of PREFIX.scores.parquet and PREFIX.items.parquet; one per --task",
    )
    parser.add_argument("--task-seconds", type=whole(0), default=0, help="limit of one of several tasks; 0 for none")
    args = parser.parse_args()
    args.code = args.code or [""] * len(args.task)
    if not len(args.task) == len(args.output) == len(args.code):
        parser.error("--output, and --code if given, are repeated as often as --task")
    return args


def rows_of(args: argparse.Namespace, task: str) -> list:
    """Every row: scores where the task applies, reasons where it does not."""
    from plumbline.benchmark.evaluation import Scoring, device_of, scored

    how = Scoring(
        seeds=args.seeds,
        protocols=args.protocols,
        n_draws=args.n_draws,
        decoder_budget=1e9 * args.decoder_budget,
        threads=args.threads,
        device=device_of(args.device),
        exact=args.exact == "true",
    )
    return scored(args.embedding, args.tables, args.counts, task, how)


def dimensions_of(embedding: Path) -> dict[str, int]:
    from plumbline.embedding.contract import provenance_path

    n_dimensions = json.loads(provenance_path(embedding).read_text()).get("n_dimensions")
    return {} if n_dimensions is None else {"n_dimensions": n_dimensions}


def write_tables(rows: list, args: argparse.Namespace, task: str, output: str, about: dict, used: dict) -> None:
    from plumbline import tasks
    from plumbline.scoring.writing import write_rows

    about = about | {name: getattr(args, name) for name in ABOUT}
    cost = used | {"threads": args.threads, "n_seeds": len(args.seeds), "n_draws": args.n_draws}
    cost |= dimensions_of(args.embedding)
    paths = tuple(Path(f"{output}.{name}.parquet") for name in ("scores", "items"))
    write_rows(rows, tasks.load(task), about, args.n_boot, cost, paths)


def loaded(names: list[str]) -> dict:
    """Load what every task computes with, and for several what most do; what that took. No import here starts a thread."""
    start = time.monotonic()
    import plumbline.benchmark.evaluation
    import plumbline.scoring.writing  # noqa: F401
    from plumbline import tasks
    from plumbline.common.usage import usage

    for name in names:
        tasks.load(name)
    if len(names) > 1:
        import faiss  # noqa: F401
        import numba  # noqa: F401
    return usage(start) | {"process": uuid.uuid4().hex}


def score(args: argparse.Namespace, started: dict, task: str, code: str, output: str) -> None:
    """One task, from its files to its files, and what it used itself."""
    from plumbline.common.usage import usage

    start = time.monotonic()
    before = usage(start)["cpu_seconds"]
    rows = rows_of(args, task)
    used = usage(start)
    used |= {"cpu_seconds": round(used["cpu_seconds"] - before, 3), "start": started}
    write_tables(rows, args, task, output, {"code": code}, used)


def run_apart(works: list[partial], args: argparse.Namespace, at_once: int) -> None:
    """Every task in a child of its own. Raises UserError that names those without a result."""
    from plumbline.common.children import run_children

    codes = run_children(works, at_once, args.task_seconds)
    lost = [f"{task} ({code})" for task, code in zip(args.task, codes, strict=True) if code]
    if lost:
        raise UserError(f"no result of {', '.join(lost)}, with the exit code of each. What they said stands above.")


def main() -> None:
    args = arguments()
    several, at_once = len(args.task) > 1, args.threads
    args.threads = 1 if several else args.threads  # of one task
    limit_threads(args.threads)
    started = loaded(args.task)
    works = [partial(score, args, started, *one) for one in zip(args.task, args.code, args.output, strict=True)]
    if several:
        run_apart(works, args, at_once)
    else:
        works[0]()


if __name__ == "__main__":
    run_script(main)
