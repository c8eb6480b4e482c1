#!/usr/bin/env python3
"""Check and harmonise one data set: raw input -> counts.h5ad and tables/ (cells, genes, splits, facts, data report)."""

import argparse
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
    from plumbline.data.ingest import input_sha256, open_source
    from plumbline.data.quality import data_report
    from plumbline.data.tables import facts, write_tables

    start = time.monotonic()
    source = open_source(path, dataset.layer, annotations or dataset.cell_table or None)
    prepared = harmonise(source, dataset, seeds, folder / "counts.h5ad")
    report = data_report(prepared)
    about = facts(prepared, report, input_sha256(path))
    write_tables(folder / "tables", prepared, about, report | {"usage": usage(start)})
    return about


def harmonise(source, dataset, seeds: list[int], counts: Path):
    """Write ``counts`` in one pass over the source; return what was found out (plumbline.data.prepared.Prepared)."""
    from plumbline.data.cells import harmonise_cells
    from plumbline.data.genes import harmonise_genes
    from plumbline.data.prepare import write_counts
    from plumbline.data.prepared import Prepared
    from plumbline.data.splits import split_by
    from plumbline.data.tables import cell_table, gene_table, split_table

    labels, genes = harmonise_cells(source, dataset), harmonise_genes(source, dataset)
    sums = write_counts(counts, source, dataset, labels, genes)
    cells = cell_table(labels, sums)
    by = split_by(cells["is_control"].to_numpy(), cells["batch"].to_numpy())
    return Prepared(
        dataset=dataset,
        annotations=source.columns,
        labels=labels,
        genes=genes,
        sums=sums,
        cells=cells,
        gene_table=gene_table(genes, sums),
        splits=split_table(cells, seeds, by),
        split_by=by,
        seeds=seeds,
    )


def read_row(path: Path) -> dict:
    from plumbline.common.files import read_json_object

    return read_json_object(path, "--row names a JSON object: the columns of one row of the sheet.")


def read_seeds(text: str) -> list[int]:
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise UserError(f"--seeds {text}: expected whole numbers separated by commas, such as 42,43.") from error
    if not all(0 <= seed < 2**32 for seed in seeds):
        raise UserError(f"--seeds {text}: a seed lies between 0 and 4294967295.")
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
