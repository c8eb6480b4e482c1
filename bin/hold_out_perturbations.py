#!/usr/bin/env python3
"""Write the held-out perturbations of a prepared data set as an h5ad of their own, with the sheet's row to prepare it by."""

import argparse
from pathlib import Path

from plumbline.common.arguments import SEEDS, Parser, whole
from plumbline.common.errors import NotApplicable, run_script


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--counts", type=Path, required=True, help="counts.h5ad, as prepare_dataset.py writes it")
    parser.add_argument("--tables", type=Path, required=True, help="its tables folder")
    parser.add_argument("--seed", type=whole(*SEEDS), required=True, help="the split whose held-out part (test2) is taken")
    parser.add_argument("--name", required=True, help="name of the new data set")
    parser.add_argument("--output", required=True, help="prefix: PREFIX.h5ad, PREFIX.row.json, PREFIX.objectives.json")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    from plumbline.common.files import write_json
    from plumbline.experiments.hold_out import held_out_rows, write_part

    about = {"name": args.name, "seed": args.seed, "status": "ok"}
    try:
        rows = held_out_rows(args.tables, args.seed)
        write_part(args.counts, args.tables, rows, args.name, args.output)
        about["n_cells"] = len(rows)
    except NotApplicable as reason:
        about |= {"status": "not_applicable", "reason": str(reason)}
    write_json(f"{args.output}.objectives.json", about)


if __name__ == "__main__":
    run_script(main)
