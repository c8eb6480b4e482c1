#!/usr/bin/env python3
"""Which distribution the counts follow, gene by gene: Poisson, negative binomial or zero-inflated negative binomial."""

import argparse
from pathlib import Path

from plumbline.common.arguments import Parser, whole
from plumbline.common.errors import run_script
from plumbline.common.threads import limit_threads


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--counts", type=Path, required=True, help="counts.h5ad, as PREPARE writes it")
    parser.add_argument("--tables", type=Path, required=True, help="tables/ beside it")
    parser.add_argument("--cells", choices=("auto", "controls", "all"), default="auto", help="auto: controls if there are 200")
    parser.add_argument("--offset", choices=("auto", "depth", "batch"), default="auto",
                        help="batch: depth x the gene's mean in the batch; auto: batch if batches have 20 cells")  # fmt: skip
    parser.add_argument("--threads", type=whole(1), default=1)
    parser.add_argument("--output", required=True, help="prefix: PREFIX.count_distribution.parquet and .json are written")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    limit_threads(args.threads)
    from plumbline.common.files import write_json, write_parquet
    from plumbline.experiments.count_distribution import describe

    table, summary = describe(args.counts, args.tables, args.cells, args.offset, args.threads)
    write_parquet(f"{args.output}.count_distribution.parquet", table)
    write_json(f"{args.output}.count_distribution.json", summary)
    print(f"{args.output}: {summary.get('reason') or summary['shares']}")


if __name__ == "__main__":
    run_script(main)
