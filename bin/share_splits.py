#!/usr/bin/env python3
"""Export the splits of a prepared data set to a file, or import such a file, so that others score on the same cells.

Examples: share_splits.py export results/data/rpe1 --output rpe1.splits.tsv.gz
share_splits.py import rpe1.splits.tsv.gz --data results/data/rpe1 --output data/rpe1
"""

import argparse
from pathlib import Path

from plumbline.common.arguments import Parser, seeds
from plumbline.common.errors import UserError, run_script


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["export", "import"])
    parser.add_argument(
        "source", type=Path, help="export: the prepared data set (results/data/NAME); import: the file of splits"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="export: file to write (.tsv or .tsv.gz); import: new folder"
    )
    parser.add_argument("--seeds", type=seeds, default="", help="export: split seeds, separated by commas (default: all)")
    parser.add_argument("--data", type=Path, help="import: the prepared data set that gets the splits")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    from plumbline.bundles.splits import export_splits, import_splits
    from plumbline.data.splits import split_seeds

    if args.action == "export":
        if not (args.source / "tables/dataset.json").is_file():
            raise UserError(f"{args.source} is not a prepared data set: give results/data/NAME of a run.")
        numbers = args.seeds or split_seeds(args.source / "tables")
        if not numbers:
            raise UserError(f"{args.source} holds no splits. Name the seeds to make them of: --seeds 42,43.")
        export_splits(args.source / "tables", numbers, args.output)
        print(f"splits of the seeds {', '.join(map(str, numbers))}: {args.output}")
        return
    if args.data is None:
        raise UserError("import needs the data set that gets the splits: add --data results/data/NAME.")
    numbers = import_splits(args.source, args.data, args.output)
    print(f"{args.output} has the splits of the seeds {', '.join(map(str, numbers))}. Score on it with plumbline.Screen.read")


if __name__ == "__main__":
    run_script(main)
