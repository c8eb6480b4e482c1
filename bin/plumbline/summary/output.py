"""The output folder of a run, read again: what another version wrote, or what is not whole, is refused by what it lacks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from plumbline.common.errors import UserError
from plumbline.common.files import read_json_object, reading
from plumbline.scoring.scores import COLUMNS
from plumbline.summary.finished import ABOUT, check_finished
from plumbline.summary.items import ItemTable

AGAIN = "Is the folder complete, and of this version? Copy all of it, or run the same command again with -resume."
_RUN = ["dataset", "model", "variant", "fit_on", "protocol", "task", "metric"]
NEEDED = {  # what readers use, of a run's folder or of a bundle
    "scores": COLUMNS,
    "comparisons": [
        *(*_RUN, "role", "main", "status", "value", "ci_low", "ci_high", "difference", "diff_low", "diff_high", "calibrated"),
        *("verdict", "note", "reason", "compared_with", "direction", "q"),
    ],
    "items": [*_RUN, "postprocess", "seed", "unit_kind", "unit", "unit2", "numerator", "denominator", "offset", "scale"],
}
_OF_RUN = {"comparisons": ["experiment"]}  # in the folder of a run, not in a bundle
_WITHIN = {"datasets": ("facts",), "tasks": ("main_metric", "rules", "version"), "models": ()}


def read_about(folder: Path, keys: Sequence[str]) -> dict:
    """about.json with at least ``keys``, and what its data sets and tasks must have. Raises UserError if one is missing."""
    check_finished(folder)
    about = read_json_object(folder / ABOUT, AGAIN)
    missing = [text for key in keys for text in _missing(about, key)]
    if missing:
        raise UserError(f"{folder / 'about.json'} does not state {', '.join(missing[:5])}. {AGAIN}")
    return about


def _missing(about: dict, key: str) -> list[str]:
    """What is missing of one key, by name: 'seeds', 'tasks.recall.rules'."""
    if key not in about or key not in _WITHIN:
        return [] if key in about else [key]
    parts = about[key]
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        return [key]
    return [f"{key}.{name}.{one}" for name, part in parts.items() for one in _WITHIN[key] if one not in part]


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """Scores or comparisons of a run's folder. Raises UserError if a column is missing or the file is damaged."""
    return read_columns(folder / f"{name}.parquet", [*NEEDED[name], *_OF_RUN.get(name, [])])


def read_columns(path: Path, needed: Sequence[str], **how: Any) -> pd.DataFrame:
    """A parquet table that has at least the columns ``needed``. how: as for ``pandas.read_parquet``."""
    _check_columns(path, needed)
    with reading(path, AGAIN):
        return pd.read_parquet(path, **how)


def read_tsv(path: Path, needed: Sequence[str], types: dict[str, type] | None = None) -> pd.DataFrame:
    """A tab-separated table of a run's folder that has at least the columns ``needed``. types: of columns."""
    _check_exists(path)
    with reading(path, AGAIN):
        how: dict[str, Any] = {"keep_default_na": False, "na_values": [""], "float_precision": "round_trip"}
        table = pd.read_csv(path, sep="\t", dtype=types, **how)
    _refuse(path, [column for column in needed if column not in table])
    return table


def read_items(folder: Path) -> ItemTable:
    """The item table of a run's folder, left in its file. Raises UserError if a column is missing or the file is damaged."""
    import pyarrow.parquet as parquet

    path = folder / "items.parquet"
    _check_columns(path, [])
    if parquet.read_metadata(path).num_rows:  # where nothing has a score, there is no column either
        _check_columns(path, NEEDED["items"])
    return ItemTable([path])


def _check_columns(path: Path, needed: Sequence[str]) -> None:
    import pyarrow.parquet as parquet

    _check_exists(path)
    with reading(path, AGAIN):
        columns = parquet.read_schema(path).names
    _refuse(path, [column for column in needed if column not in columns])


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} does not exist. {AGAIN}")


def _refuse(path: Path, missing: list[str]) -> None:
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing[:5])}. {AGAIN}")
