"""The tables every later step reads: cells, genes, facts. Splits are made from them where they are needed (splits.py)."""

from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError
from plumbline.common.files import write_json, write_parquet
from plumbline.data.cells import CellTable
from plumbline.data.genes import Genes
from plumbline.data.prepare import Sums
from plumbline.data.prepared import Prepared


def cell_table(cells: CellTable, sums: Sums) -> pd.DataFrame:
    """cell_id, perturbation, is_control, batch, guide (if any is known) and n_counts of the kept cells.

    Raises UserError if no perturbed cell is kept.
    """
    rows, guide = np.concatenate(sums.rows), ("guide",) if (cells.guide != "").any() else ()
    columns = {name: getattr(cells, name)[rows] for name in ("cell_id", "perturbation", "is_control", "batch", *guide)}
    table = pd.DataFrame(columns | {"n_counts": np.concatenate(sums.totals)})
    if table["is_control"].all():
        raise UserError("only controls are left after the filter on min_counts; lower min_counts in the sheet.")
    return table


def gene_table(genes: Genes, sums: Sums) -> pd.DataFrame:
    """gene_id, ensembl_id, symbol, mean_count, mean_lognorm (over kept cells), n_cells (in how many it is not 0)."""
    n = sum(map(len, sums.rows))
    means = {"mean_count": sums.gene_total / n, "mean_lognorm": sums.gene_lognorm / n}
    return genes.table.assign(**means, n_cells=sums.gene_cells.astype(np.int64))


def facts(prepared: Prepared, report: dict, digest: str) -> dict:
    """dataset.json: what tasks, models and the report ask about the data set as a whole. digest: sha256 of the input."""
    dataset, cells = prepared.dataset, prepared.cells
    n_batches, n_controls = int(cells["batch"].nunique()), int(cells["is_control"].sum())
    settings = ("name", "organism", "x_kind", "perturbation_type", "unexpressed_threshold", "unexpressed_scale")
    return {name: getattr(dataset, name) for name in (*settings, "published_as", "public_since", "split_order")} | {
        "title": dataset.title or dataset.name,
        "min_counts": dataset.min_counts if dataset.x_kind == "counts" else 0.0,
        "n_cells": len(cells),
        "n_genes": len(prepared.gene_table),
        "n_batches": n_batches,
        "n_perturbations": int(cells.loc[~cells["is_control"], "perturbation"].nunique()),
        "n_controls": n_controls,
        "has_batches": n_batches > 1,
        "has_controls": n_controls > 0,
        "split_by": prepared.split_by,
        "input_sha256": digest,
        "n_cells_dropped": report["cells"]["input"] - len(cells),
        "warnings": report["warnings"],
    }


def write_tables(folder: Path, prepared: Prepared, about: dict, report: dict) -> None:
    """Write cells and genes, the facts, the data report, and the ids of the cells that were dropped."""
    folder.mkdir(parents=True)
    for name, table in {"cells": prepared.cells, "genes": prepared.gene_table}.items():
        write_parquet(folder / f"{name}.parquet", table)
    dropped = np.setdiff1d(prepared.labels.cell_id.astype(str), prepared.cells["cell_id"].to_numpy(dtype=str))
    (folder / "dropped_cells.txt").write_text("".join(f"{name}\n" for name in dropped))
    write_json(folder / "dataset.json", about)
    write_json(folder / "data_report.json", report)
