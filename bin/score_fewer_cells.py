#!/usr/bin/env python3
"""Score one embedding with a quarter, half and all cells per perturbation, and extrapolate each task's score to any number."""

import argparse
from pathlib import Path

from plumbline.common.arguments import SEEDS, Parser, whole
from plumbline.common.errors import NotApplicable, UserError, run_script
from plumbline.common.threads import limit_threads

ABOUT = ("dataset", "model", "variant", "fit_on")


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--embedding", type=Path, required=True, help="embedding.npz (its JSON lies beside it)")
    parser.add_argument("--tables", type=Path, required=True, help="the tables folder that prepare_dataset.py wrote")
    parser.add_argument("--counts", type=Path, help="counts.h5ad, for the tasks that read expression")
    parser.add_argument("--tasks", required=True, help="files of bin/plumbline/tasks, separated by commas")
    parser.add_argument("--seed", type=whole(*SEEDS), default=42, help="of the split, and of the draws of cells")
    parser.add_argument("--n-draws", type=whole(1, 1_000_000), default=1000, help="size of permutation nulls")
    parser.add_argument("--n-boot", type=whole(1, 1_000_000), default=1000, help="bootstrap resamples of an interval")
    parser.add_argument("--exact", choices=("true", "false"), default="false", help="large data sets without approximation")
    parser.add_argument("--decoder-budget", type=whole(1), default=200, help="billions of operations of a training on a CPU")
    parser.add_argument("--threads", type=whole(1), default=1)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    for name in ABOUT:
        parser.add_argument(f"--{name.replace('_', '-')}", default="", help="copied into every row")
    parser.add_argument("--output", required=True, help="prefix: PREFIX.cells_per_perturbation.parquet")
    return parser.parse_args()


def rows_of(args: argparse.Namespace) -> list[dict]:
    """The curve of every task, one row per depth; one row with the reason for a task that has none."""
    from plumbline import tasks
    from plumbline.benchmark.evaluation import Scoring, device_of, subject_of
    from plumbline.data.splits import read_splits
    from plumbline.embedding.contract import open_embedding
    from plumbline.experiments import cells_per_perturbation as fewer

    how = Scoring(
        seeds=[args.seed],
        protocols=["corrected"],
        n_draws=args.n_draws,
        decoder_budget=1e9 * args.decoder_budget,
        threads=args.threads,
        device=device_of(args.device),
        exact=args.exact == "true",
    )
    records = [tasks.load(name) for name in args.tasks.split(",")]
    reading = [task.name for task in records if task.needs_counts and args.counts is None]
    if reading:
        raise UserError(f"the task {reading[0]} reads expression: give --counts counts.h5ad.")
    subject = subject_of(open_embedding(args.embedding), args.embedding, args.tables, args.counts, how)
    split = read_splits(args.tables, how.seeds)[0].take(subject.rows)
    rows: list[dict] = []
    for task in records:
        try:
            rows += fewer.rows_of(fewer.curve(subject, task, split), args.n_boot, args.seed)
        except NotApplicable as reason:
            rows.append({"task": task.name, "status": "not_applicable", "reason": str(reason)})
    return rows


def main() -> None:
    args = arguments()
    limit_threads(args.threads)
    import pandas as pd

    from plumbline.common.files import write_parquet
    from plumbline.experiments.cells_per_perturbation import COLUMNS

    table = pd.DataFrame(rows_of(args)).assign(**{name: getattr(args, name) for name in ABOUT})
    write_parquet(f"{args.output}.cells_per_perturbation.parquet", table.reindex(columns=COLUMNS))


if __name__ == "__main__":
    run_script(main)
