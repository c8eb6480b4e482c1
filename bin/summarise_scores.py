#!/usr/bin/env python3
"""Join the scores of every run into one table, and say what beats the baseline, by how much, with which uncertainty."""

import argparse
from pathlib import Path

from plumbline.common.arguments import SEEDS, Parser, whole
from plumbline.common.errors import run_script
from plumbline.common.threads import limit_threads


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="folder of score tables (parquet)")
    parser.add_argument("--items", type=Path, help="folder of item tables (parquet)")
    parser.add_argument("--provenance", type=Path, help="folder of the embeddings' JSON files")
    parser.add_argument("--expected", type=Path, required=True, help="JSON list of the runs that should have left scores")
    parser.add_argument("--models", type=Path, required=True, help="assets/models.csv")
    parser.add_argument("--published", type=Path, help="assets/published_scores.csv")
    parser.add_argument("--baseline", default="pca", help="the variant every model is compared with")
    parser.add_argument("--experiments", default="", help="experiments that were asked for, separated by commas")
    parser.add_argument("--data-reports", type=Path, help="folder with the tables of every data set")
    # settings of EVALUATE, which about.json states
    parser.add_argument("--n-draws", type=whole(1, 1_000_000), default=1000, help="size of permutation nulls")
    parser.add_argument("--decoder-budget", type=whole(1), default=200, help="billions of operations of one decoder's training")
    parser.add_argument("--exact", choices=("true", "false"), default="false", help="large data were not approximated")
    parser.add_argument("--plans", type=Path, help="folder of what plan_evaluation.py wrote of every data set")
    parser.add_argument("--n-boot", type=whole(1, 1_000_000), default=1000, help="bootstrap resamples")
    parser.add_argument("--seed", type=whole(*SEEDS), default=0, help="seeds the resampling")
    parser.add_argument("--outdir", type=Path, required=True)
    return parser.parse_args()


def summarise(args: argparse.Namespace) -> None:
    """Read everything, compare, check, write."""
    import pandas as pd

    from plumbline.summary import tables
    from plumbline.summary.absent import absent_rows
    from plumbline.summary.costs import costs
    from plumbline.summary.distributions import distributions
    from plumbline.summary.experiments import Comparison, absent_datasets, comparison_table
    from plumbline.summary.item_writing import write_items
    from plumbline.summary.items import ItemTable
    from plumbline.summary.published import beside_published
    from plumbline.summary.schema import check_scores
    from plumbline.summary.steps import steps
    from plumbline.summary.writing import about, check_baseline, write_json_nan, write_table

    models, expected = tables.read_models(args.models), tables.read_expected(args.expected)
    datasets, scores = tables.read_datasets(args.data_reports, args.plans), tables.read_scores(args.scores)
    facts = {name: found["facts"] for name, found in datasets.items()}
    provenance = tables.read_provenance(args.provenance, expected)
    expected = expected.drop(absent_datasets(expected, datasets).index)
    missing = absent_rows(scores, expected, provenance)
    scores = pd.concat([part for part in (scores, missing) if len(part)] or [scores], ignore_index=True)
    check_baseline(scores, args.baseline)
    check_scores(scores)

    items = ItemTable(sorted(args.items.rglob("*.parquet")) if args.items else [])
    how = Comparison(roles=models["role"].to_dict(), facts=facts, baseline=args.baseline, n_boot=args.n_boot, seed=args.seed)
    comparisons = comparison_table(scores, items, expected, how)
    written = {"scores": scores, "comparisons": comparisons, "cost": costs(provenance, expected),
               "steps": steps(args.scores, provenance, datasets),
               "distributions": distributions(comparisons[comparisons["experiment"] == ""], items),
               "published": beside_published(scores, args.published, facts)}  # fmt: skip
    for name, table in written.items():
        write_table(args.outdir, name, table, parquet=name in ("scores", "comparisons"))
    write_items(items, args.outdir / "items.parquet")
    write_json_nan(args.outdir / "about.json", about(scores, models, datasets, args))


def main() -> None:
    args = arguments()
    limit_threads(1)  # a second would mostly wait busily for its turn
    summarise(args)


if __name__ == "__main__":
    run_script(main)
