#!/usr/bin/env python3
"""What the evaluation of a prepared data set involves: its splits with every seed, and the tasks that do not apply to it."""

import argparse
from pathlib import Path

from plumbline.common.arguments import Parser, seeds
from plumbline.common.errors import run_script
from plumbline.common.threads import limit_threads


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True, help="the tables folder that prepare_dataset.py wrote")
    parser.add_argument("--seeds", type=seeds, default="42,43,44,45,46", help="split seeds, separated by commas")
    parser.add_argument("--splits", type=Path, required=True, help="splits.parquet")
    parser.add_argument("--output", type=Path, required=True, help="JSON: dataset, splits, warnings, not_applicable")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    limit_threads(1)  # a second would mostly wait busily for its turn
    from plumbline import tasks
    from plumbline.common.files import write_json
    from plumbline.data.facts import read_facts
    from plumbline.data.splits import split_warnings, write_splits

    facts, sizes = read_facts(args.tables), write_splits(args.tables, args.seeds, args.splits)
    plan = {"dataset": facts["name"], "splits": sizes, "warnings": split_warnings(sizes)}
    write_json(args.output, plan | {"not_applicable": tasks.not_applicable(facts)})
    for warning in plan["warnings"]:
        print(f"{facts['name']}: WARNING: {warning}")


if __name__ == "__main__":
    run_script(main)
