"""The held-out part of a data set as a data set of its own: new perturbations in new batches, with those batches' controls.

A model trained with labels must be scored on these cells alone (docs/protocol.md, "Splits": the part test2).
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.errors import NotApplicable
from plumbline.common.files import whole_file, write_json
from plumbline.counts.reading import open_counts
from plumbline.counts.writing import CsrWriter
from plumbline.data.splits import read_split

MIN_PERTURBATIONS = 2
KEPT = ("organism", "perturbation_type", "x_kind", "unexpressed_threshold", "unexpressed_scale")  # facts that stay true


def held_out_rows(tables: Path, seed: int) -> np.ndarray:
    """Row numbers of the cells of test2.

    Raises
    ------
    NotApplicable
        If too few perturbations are held out.
    """
    cells = pd.read_parquet(tables / "cells.parquet", columns=["perturbation", "is_control"])
    held = read_split(tables, seed).test2
    n = cells.loc[held & ~cells["is_control"], "perturbation"].nunique()
    if n < MIN_PERTURBATIONS:
        raise NotApplicable(f"{n} perturbation(s) are held out of training; {MIN_PERTURBATIONS} are needed to score anything.")
    return np.flatnonzero(held)


def write_part(counts_path: Path, tables: Path, rows: np.ndarray, name: str, prefix: str) -> None:
    """Write some cells as a data set: PREFIX.h5ad, and PREFIX.row.json, its row of the sheet.

    Parameters
    ----------
    counts_path, tables
        The prepared data set.
    rows
        Row numbers of the cells.
    name
        Name of the new data set.
    prefix
        Path of the files without their suffix.
    """
    counts, facts = open_counts(counts_path), json.loads((tables / "dataset.json").read_text())
    cells = pd.read_parquet(tables / "cells.parquet").iloc[rows]
    genes = pd.read_parquet(tables / "genes.parquet")
    control = next(iter(cells.loc[cells["is_control"], "perturbation"]), "")
    perturbation = np.where(cells["is_control"], control, cells["perturbation"])  # several control labels become one
    with whole_file(f"{prefix}.h5ad") as temporary, CsrWriter(temporary, counts.shape[1]) as writer:
        for _, block in counts.blocks(rows):
            writer.append(block)
        obs = {"perturbation": perturbation.astype(str), "batch": cells["batch"].to_numpy(dtype=str)}
        obs |= {"guide": cells["guide"].to_numpy(dtype=str)} if "guide" in cells else {}
        var = {column: genes[column].to_numpy(dtype=str) for column in ("ensembl_id", "symbol")}
        writer.finish(cells["cell_id"].to_numpy(dtype=str), obs, genes["gene_id"].to_numpy(dtype=str), var)
    row = {"name": name, "title": f"{facts.get('title') or facts['name']}: held-out perturbations", "min_counts": 0}
    row |= {"perturbation_column": "perturbation", "control_label": control or None, "batch_column": "batch"}
    row |= {"guide_column": "guide"} if "guide" in cells else {}
    row |= {column: facts.get(column) for column in KEPT}
    write_json(f"{prefix}.row.json", {column: value for column, value in row.items() if value not in (None, "")})
