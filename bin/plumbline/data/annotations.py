"""A table of cell annotations (CSV, TSV or parquet) that brings labels to counts that have none."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError
from plumbline.common.files import reading
from plumbline.common.labels import among

ADVICE = "Is it the table its name says (.csv, .tsv, .txt, each also .gz, or .parquet)? An .xlsx must be exported as CSV."


def read_annotations(path: Path, cell_id: np.ndarray, counts: str) -> pd.DataFrame:
    """The annotations of ``cell_id`` (n,), strings; NaN for cells that the table does not name. counts: name of their file.

    The first column holds the cell id (or, as R writes it, a column without a heading). Raises UserError: unreadable, a cell
    named twice, none of these cells named.
    """
    if not path.exists():
        raise UserError(f"the table of cell annotations {path} does not exist. Check the column cell_table of the sheet.")
    with reading(path, ADVICE):
        table = pd.read_parquet(path) if path.suffix == ".parquet" else _read_text(path)
    if not len(table) or not len(table.columns):
        raise UserError(f"{path} holds no cells. Its first line must name the columns; each further line is a cell.")
    if isinstance(table.index, pd.MultiIndex):
        raise UserError(
            f"{path} has more values in a line than its first line names ({', '.join(map(str, table.columns[:3]))}). The first "
            "line must name the columns: remove comments above it."
        )
    if isinstance(table.index, pd.RangeIndex):
        table = table.set_index(table.columns[0])
    table.index = table.index.astype(str).str.strip()
    table.columns = table.columns.astype(str).str.strip()
    _check_names(table, path, cell_id, counts)
    return table.reindex(cell_id)


def _read_text(path: Path) -> pd.DataFrame:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig") as stream:
        heading = stream.readline() + stream.readline()  # R leaves the heading one column short
    separator = "\t" if ".tsv" in path.name or ".txt" in path.name else ","
    if separator not in heading:
        separator = next((other for other in "\t,; " if other in heading.strip()), separator)
    # what is missing is decided in one place (as_text), for all formats alike
    table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    return table.loc[:, ~table.columns.str.startswith("Unnamed:") | (np.arange(table.shape[1]) == 0)]


def _check_names(table: pd.DataFrame, path: Path, cell_id: np.ndarray, counts: str) -> None:
    if table.index.duplicated().any():
        raise UserError(f"{path.name} names the cell {table.index[table.index.duplicated()][0]!r} more than once.")
    if table.columns.duplicated().any():
        raise UserError(
            f"{path.name} has the column {table.columns[table.columns.duplicated()][0]!r} twice. Rename one of them."
        )
    if not among(cell_id, table.index.to_numpy(dtype=str)).any():
        raise UserError(
            f"{path.name} names no cell of {counts}: its first column must hold cell ids such as "
            f"'{cell_id[0]}', but begins with '{table.index[0]}'.{_elsewhere(table, cell_id)}"
        )


def _elsewhere(table: pd.DataFrame, cell_id: np.ndarray) -> str:
    """Which other column holds cell ids, as after the row numbers that pandas writes."""
    found = [name for name in table if among(table[name].astype(str).str.strip().to_numpy(dtype=str), cell_id).any()]
    return f" Its column {found[0]!r} holds them: make that the first." if found else ""
