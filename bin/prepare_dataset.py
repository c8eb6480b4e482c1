#!/usr/bin/env python3
"""Check and harmonise one data set: raw input -> counts.h5ad and tables/ (cells, genes, facts, data report)."""

import argparse
from pathlib import Path

from plumbline.common.arguments import Parser
from plumbline.common.errors import UserError, run_script


def main() -> None:
    arguments = parse_arguments()
    from plumbline.data.catalogue import CATALOGUE, read_catalogue, resolve
    from plumbline.data.harmonise import prepare, staged

    catalogue = arguments.catalogue or (CATALOGUE if CATALOGUE.exists() else None)
    dataset = resolve(read_row(arguments.row), read_catalogue(catalogue) if catalogue else {})
    path = arguments.input or (Path(dataset.path) if dataset.path else None)
    if path is None:
        raise UserError(
            f"data set {dataset.name!r}: no input. Give --input FILE (fetch_dataset.py fetches what the catalogue has)."
        )
    with staged(arguments.outdir) as folder:
        about = prepare(dataset, path, arguments.cell_table, folder)
    print(f"{about['name']}: {about['n_cells']} cells x {about['n_genes']} genes, {about['n_perturbations']} perturbations, "
          f"{about['n_controls']} controls, {about['n_batches']} batches")  # fmt: skip
    for warning in about["warnings"]:
        print(f"WARNING: {warning}")


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--row", type=Path, required=True, help="JSON file: one row of the sheet, keys are its columns")
    parser.add_argument(
        "--input", type=Path, help="the counts: h5ad, 10x h5, 10x mtx folder, .tar or .zip (default: the row's path)"
    )
    parser.add_argument("--cell-table", type=Path, help="CSV, TSV or parquet of cell annotations; first column = cell id")
    parser.add_argument("--catalogue", type=Path, help="catalogue of public data sets (default: assets/catalogue.csv)")
    parser.add_argument("--outdir", type=Path, default=Path("."), help="where counts.h5ad and tables/ go")
    return parser.parse_args()


def read_row(path: Path) -> dict:
    from plumbline.common.files import read_json_object

    return read_json_object(path, "--row names a JSON object: the columns of one row of the sheet.")


if __name__ == "__main__":
    run_script(main)
