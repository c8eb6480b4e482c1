"""Splits as a file of their own, keyed by cell id, so that others score on the same cells."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError
from plumbline.common.files import read_json_object, reading, sha256, whole_file, write_json, write_parquet
from plumbline.data.splits import PARTS, read_split
from plumbline.summary.output import read_columns

_COLUMN = re.compile(f"({'|'.join(PARTS)})" + r"_(\d{1,10})")


def export_splits(tables: Path, seeds: list[int], output: Path) -> None:
    """Write cell_id and a column 0/1 per part and seed (train_42, ...), tab-separated; .gz compresses."""
    ids = _cells(tables, ["cell_id"])["cell_id"].astype(str)
    odd = ids[ids.str.contains("[\t\r\n]")]
    if len(odd):
        raise UserError(f"the cell id {odd.iloc[0]!r} has a tab or line end, which a tab-separated file cannot hold.")
    columns = {"cell_id": ids}
    for seed in seeds:
        split = read_split(tables, seed)
        columns |= {f"{part}_{seed}": getattr(split, part).astype(int) for part in PARTS}
    with whole_file(output) as temporary:
        pd.DataFrame(columns).to_csv(temporary, sep="\t", index=False, lineterminator="\n", quoting=3)


def import_splits(path: Path, source: Path, output: Path) -> list[int]:
    """Copy a prepared data set with the splits of a file in place of its own; returns their seeds.

    source, output: folders with tables/ (and counts.h5ad). Raises UserError if the cells differ or a split is not one.
    """
    tables = source / "tables"
    facts = read_json_object(tables / "dataset.json", "Give a prepared data set, such as results/data/NAME.")
    cells = _cells(tables, ["cell_id", "perturbation", "is_control"])
    splits = _aligned(_read(path), cells["cell_id"].to_numpy(dtype=str), path)
    labels = cells["perturbation"].mask(cells["is_control"], "").to_numpy(dtype=str)
    seeds = sorted({int(found[2]) for found in map(_COLUMN.fullmatch, splits) if found})
    for seed in seeds:
        _check(splits, seed, labels, path)
    if output.exists():
        raise UserError(f"{output} exists already. Name a new folder.")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".splits_", dir=output.parent) as folder:  # half of it has other splits
        made = Path(folder) / output.name
        shutil.copytree(tables, made / "tables")
        write_parquet(made / "tables/splits.parquet", splits)
        write_json(made / "tables/dataset.json", facts | {"splits_from": f"{path.name} (sha256 {sha256(path)})"})
        if (source / "counts.h5ad").is_file():
            _link(source / "counts.h5ad", made / "counts.h5ad")
        made.rename(output)
    return seeds


def _cells(tables: Path, columns: list[str]) -> pd.DataFrame:
    return read_columns(tables / "cells.parquet", columns, columns=columns)


def _read(path: Path) -> pd.DataFrame:
    with reading(path, "A file of splits is what ./plumb splits export writes."):
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=3)
    unknown = [name for name in table.columns if name != "cell_id" and not _COLUMN.fullmatch(str(name))]
    if "cell_id" not in table or unknown or len(table.columns) < 2:
        what = f"the column {unknown[0]!r} is unknown" if unknown else "it needs cell_id and train_42, test1_42, ..."
        raise UserError(f"{path}: {what}. Columns are cell_id and, per seed S, {', '.join(f'{part}_S' for part in PARTS)}.")
    return table


def _aligned(table: pd.DataFrame, ids: np.ndarray, path: Path) -> pd.DataFrame:
    """The columns as booleans in the order of ``ids``."""
    given = table["cell_id"].to_numpy(dtype=str)
    missing, extra = np.setdiff1d(ids, given), np.setdiff1d(given, ids)
    if len(missing) or len(extra) or len(given) != len(ids):
        example = f", such as {str((missing if len(missing) else extra)[0])!r}" if len(missing) or len(extra) else ""
        raise UserError(f"{path} and the data set do not hold the same cells: {len(missing)} missing, {len(extra)} extra"
                        f"{example}. Prepare it from the same file with the same min_counts.")  # fmt: skip
    rows = table.set_index("cell_id").loc[ids]
    odd = [name for name in rows if not rows[name].isin(["0", "1"]).all()]
    if odd:
        raise UserError(f"{path}: the column {odd[0]} holds other values than 0 and 1.")
    return (rows == "1").reset_index(drop=True)


def _check(splits: pd.DataFrame, seed: int, labels: np.ndarray, path: Path) -> None:
    """labels (n_cells,): perturbations, '' for controls, which test1 and test2 may share."""
    missing = [f"{part}_{seed}" for part in PARTS if f"{part}_{seed}" not in splits]
    if missing:
        raise UserError(f"{path} has no column {missing[0]}: a split needs {', '.join(PARTS)}.")
    train, test1, test2, validation = (splits[f"{part}_{seed}"].to_numpy() for part in PARTS)
    if not train.any() or not (test1 | test2).any():
        raise UserError(f"{path}: seed {seed} has no train cells, or no test cells.")
    if (train & (test1 | test2)).any():
        raise UserError(f"{path}: seed {seed} has cells that are in train and in a test part.")
    if (validation & ~(test1 | test2)).any():
        raise UserError(f"{path}: seed {seed} has validation cells that are in no test part.")
    if (test1 & test2 & (labels != "")).any():
        raise UserError(f"{path}: seed {seed} has perturbed cells that are in test1 and in test2.")
    known = np.intersect1d(labels[test2 & (labels != "")], labels[train])
    if len(known):
        raise UserError(
            f"{path}: seed {seed} has cells of {str(known[0])!r} in train and in test2, which is for perturbations that train "
            "lacks. Put other test cells of a train perturbation into test1."
        )


def _link(source: Path, target: Path) -> None:
    """Counts are large: the same file under a second name where the disk allows, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
