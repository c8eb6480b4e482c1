#!/usr/bin/env python3
"""Damage good predictions of expression in known ways, and measure how structural integrity and other metrics respond."""

import argparse
from pathlib import Path

from plumbline.common.arguments import SEEDS, Parser, whole
from plumbline.common.errors import run_script
from plumbline.common.threads import limit_threads


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--counts", type=Path, required=True, help="counts.h5ad, as PREPARE writes it")
    parser.add_argument("--tables", type=Path, required=True, help="tables/ beside it")
    parser.add_argument(
        "--seed", type=whole(*SEEDS), default=42, help="the split whose test2 cells are predicted; seeds the draws too"
    )
    parser.add_argument("--output", required=True, help="prefix: PREFIX.integrity.parquet and .json are written")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    limit_threads(1)
    from plumbline.common.files import write_json, write_parquet
    from plumbline.experiments.integrity_ablation import ablate

    table, about = ablate(args.counts, args.tables, args.seed)
    write_parquet(f"{args.output}.integrity.parquet", table)
    write_json(f"{args.output}.integrity.json", about)
    print(f"{args.output}: {about.get('reason') or f'{len(table)} values'}")


if __name__ == "__main__":
    run_script(main)
