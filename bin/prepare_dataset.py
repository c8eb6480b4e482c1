#!/usr/bin/env python3
"""Check and harmonise one data set: raw input -> counts.h5ad and tables/ (cells, genes, splits, facts, data report)."""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbline.common.arguments import Parser
from plumbline.common.errors import UserError, run_script


def main() -> None:
    arguments = parse_arguments()
    from plumbline.data.catalogue import CATALOGUE, read_catalogue, resolve

    catalogue = arguments.catalogue or (CATALOGUE if CATALOGUE.exists() else None)
    dataset = resolve(read_row(arguments.row), read_catalogue(catalogue) if catalogue else {})
    path = arguments.input or (Path(dataset.path) if dataset.path else None)
    if path is None:
        raise UserError(
            f"data set {dataset.name!r}: no input. Give --input FILE (fetch_dataset.py fetches what the catalogue has)."
        )
    with staged(arguments.outdir) as folder:
        about = prepare(dataset, path, arguments.cell_table, read_seeds(arguments.seeds), folder)
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
    parser.add_argument("--seeds", default="42,43,44,45,46", help="split seeds, comma separated")
    parser.add_argument("--outdir", type=Path, default=Path("."), help="where counts.h5ad and tables/ go")
    return parser.parse_args()


def prepare(dataset, path: Path, annotations: Path | None, seeds: list[int], folder: Path) -> dict:
    """Write counts.h5ad and tables/ of one data set into ``folder``; return the facts (dataset.json)."""
    from plumbline.common.usage import usage
    from plumbline.data.harmonise import harmonise_cells, harmonise_genes
    from plumbline.data.ingest import input_sha256, open_source
    from plumbline.data.prepare import write_counts
    from plumbline.data.quality import data_report
    from plumbline.data.splits import split_by
    from plumbline.data.tables import cell_table, facts, gene_table, split_table, write_tables

    start = time.monotonic()
    source = open_source(path, dataset.layer, annotations or dataset.cell_table or None)
    labels, genes = harmonise_cells(source, dataset), harmonise_genes(source, dataset)
    sums = write_counts(folder / "counts.h5ad", source, dataset, labels, genes)
    cells, table = cell_table(labels, sums), gene_table(genes, sums)
    by = split_by(cells["is_control"].to_numpy(), cells["batch"].to_numpy())
    splits = split_table(cells, seeds, by)
    report = data_report(dataset, labels, genes, sums, cells, table, splits)
    about = facts(dataset, cells, len(table), seeds, by, report, input_sha256(path))
    frames = {"cells": cells, "genes": table, "splits": splits}
    report |= {"usage": usage(start)}
    write_tables(folder / "tables", frames, about, report, labels.cell_id)
    return about


def read_row(path: Path) -> dict:
    try:
        row = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"--row {path} cannot be read as JSON ({error}).") from error
    if not isinstance(row, dict):
        raise UserError(f"--row {path} must hold one JSON object: the columns of one row of the sheet.")
    return row


def read_seeds(text: str) -> list[int]:
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise UserError(f"--seeds {text}: expected whole numbers separated by commas, such as 42,43.") from error
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: a seed is given twice.")
    return seeds


@contextmanager
def staged(outdir: Path) -> Iterator[Path]:
    """A folder beside the results; what was written there moves into ``outdir`` at the end, or disappears on an error.

    Scratch files go there too: they can be as large as the input, and a node's /tmp may be small or in memory.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".prepare_", dir=outdir))
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield folder
        shutil.rmtree(outdir / "tables", ignore_errors=True)
        for name in ("counts.h5ad", "tables"):
            (folder / name).replace(outdir / name)
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run_script(main)
