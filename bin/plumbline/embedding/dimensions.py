"""Tables whose columns are the dimensions of an embedding: what else lies in them must not become one."""

import re
from collections import Counter

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError

KEEP = "Keep the dimensions only, and the cell ids as column cell_id or as index"


def table_values(table: pd.DataFrame, name: str) -> np.ndarray:
    """The columns of a table as dimensions, float64 (n_cells, d), NaN where missing. name: of the table, for messages.

    Raises UserError for columns of something else: text, dates, lists; truth values among numbers; and single columns that are
    not named as the others are (``n_counts`` or ``batch`` beside ``d0``, ``d1``, ...). A code of the perturbation or a row
    number among the dimensions would be scored as if a model had found it.
    """
    names, kinds = [str(column) for column in table], list(table.dtypes)
    is_text = [not pd.api.types.is_numeric_dtype(kind) for kind in kinds]
    if any(is_text):
        raise UserError(f"{name}: the columns {_listed(names, is_text)} are not numeric. {KEEP}.{_if_lists(table, is_text)}")
    is_flag = [pd.api.types.is_bool_dtype(kind) for kind in kinds]
    other = [(flag and not all(is_flag)) or single for flag, single in zip(is_flag, _named_alone(names), strict=True)]
    if any(other):
        raise UserError(
            f"{name}: the columns {_listed(names, other)} seem to be annotations of the cells, not dimensions, next to columns "
            f"such as {names[other.index(False)]}. {KEEP}; if they are dimensions, name them as the others are."
        )
    return table.to_numpy(dtype=np.float64, na_value=np.nan)


def _named_alone(names: list[str]) -> list[bool]:
    """Which names are the only ones of their kind, where at least half of all are one word with numbers: d0, d1, ..."""
    stems = [re.sub(r"\d+$", "", name) for name in names]
    numbered = Counter(stem for stem, name in zip(stems, names, strict=True) if stem != name)
    most = max(numbered.values(), default=0)
    of_a_stem = Counter(stems)
    return [most > 1 and 2 * most >= len(names) and of_a_stem[stem] == 1 for stem in stems]


def _listed(names: list[str], which: list[bool]) -> str:
    listed = [name for name, one in zip(names, which, strict=True) if one]
    return ", ".join(listed[:5]) + (" ..." if len(listed) > 5 else "")


def _if_lists(table: pd.DataFrame, is_text: list[bool]) -> str:
    first = table.iloc[:1, is_text.index(True)].tolist()
    if not first or not isinstance(first[0], (list, tuple, np.ndarray)):
        return ""
    column = table.columns[is_text.index(True)]
    return f" Of lists, make a column per dimension: pd.DataFrame(np.stack(table[{str(column)!r}]), index=table.index)."
