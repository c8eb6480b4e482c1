"""The tables of an h5ad (obs, var) in every encoding that anndata ever wrote, and their values as text."""

from collections.abc import Collection

import h5py
import numpy as np
import pandas as pd

from plumbline.common.errors import UserError
from plumbline.common.missing import MISSING, is_missing
from plumbline.counts.hdf5 import undamaged


def frame_columns(node: h5py.Group | h5py.Dataset) -> tuple[str, list[str]]:
    """(name of the index, names of the columns) of a stored table, in new or old (compound array) encoding."""
    if isinstance(node, h5py.Dataset):
        names = list(node.dtype.names or ())
        if not names:
            raise UserError(f"{node.file.filename}: {node.name} is not a table. Write the file again with anndata.")
        index = "index" if "index" in names else "_index" if "_index" in names else names[0]
    else:
        index = node.attrs.get("_index", "_index" if "_index" in node else "index")
        names = [str(name) for name in node.attrs.get("column-order", [])] or [name for name in node if name != "__categories"]
    return str(index), [name for name in names if name != index]


def read_index(node: h5py.Group | h5py.Dataset) -> np.ndarray:
    """The index of a stored table as stripped strings (n,)."""
    name, _ = frame_columns(node)
    return as_text(_column(node, name), missing=()).fillna("").to_numpy(dtype=str)


def read_column(node: h5py.Group | h5py.Dataset, name: str) -> pd.Series:
    """One column of a stored table: plain, nullable or categorical. Raises UserError if its length is not the index's."""
    values = _column(node, name)
    index, _ = frame_columns(node)
    n = len(node) if isinstance(node, h5py.Dataset) else _length(node, index)
    if len(values) != n:
        raise UserError(
            f"{node.file.filename}: the column {name!r} of {node.name.strip('/')} has {len(values)} entries, but its index "
            f"{n}. Write the file again with anndata."
        )
    return values


def as_text(values: pd.Series, keep: Collection[str] = (), missing: tuple[str, ...] = MISSING) -> pd.Series:
    """Labels as stripped strings; NaN and the texts in ``missing`` become NaN, those in ``keep`` never; 3.0 reads as '3'."""
    values = pd.Series(values).reset_index(drop=True)
    if isinstance(values.dtype, pd.CategoricalDtype):
        names = np.append(_written(pd.Series(values.cat.categories)), "").astype(object)
        text, absent = pd.Series(names[values.cat.codes]), values.isna()
    else:
        text, absent = pd.Series(_written(values)), values.isna()
    if missing:
        absent |= is_missing(text.to_numpy(dtype=str), missing) & ~text.isin(list(keep)).to_numpy()
    return text.mask(absent.to_numpy())


def _written(values: pd.Series) -> np.ndarray:
    """Each value as it would be printed: a float of 32 bits has fewer digits than the same as 64 bits."""
    if values.dtype.kind == "f" and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    plain = isinstance(values.dtype, np.dtype) and values.dtype.kind == "f"
    items = list(values.to_numpy()) if plain else values.astype(object)
    text = [item.decode() if isinstance(item, bytes) else str(item) for item in items]
    return np.array([one.strip() for one in text], dtype=object)


def _column(node: h5py.Group | h5py.Dataset, name: str) -> pd.Series:
    if isinstance(node, h5py.Dataset):
        values, categories = node[name], node.file.get(f"uns/{name}_categories")
        return _decode(_codes(values, categories[:], node) if categories is not None else values)
    column = node[name]
    if isinstance(column, h5py.Dataset):
        categories = column.attrs.get("categories")
        values = undamaged(column, column[:])
        return _decode(_codes(values, node.file[categories][:], column) if categories is not None else values)
    if "categories" in column and "codes" in column:
        categories = column["categories"]
        labels = _column(column, "categories") if isinstance(categories, h5py.Group) else _decode(categories[:])
        return pd.Series(_codes(column["codes"][:], labels.to_numpy(), column))
    return _nullable(column)


def _nullable(column: h5py.Group) -> pd.Series:
    """Integers, booleans or text with a mask; read here, because the environments of the models have no anndata."""
    values, mask = column["values"][:], column["mask"][:].astype(bool)
    if values.dtype.kind in "OSf":
        return _decode(values).mask(mask)
    array = pd.arrays.BooleanArray if values.dtype.kind == "b" else pd.arrays.IntegerArray
    return pd.Series(array(values, mask))


def _length(node: h5py.Group, index: str) -> int:
    column = node[index]
    part = column if isinstance(column, h5py.Dataset) else column["codes"] if "codes" in column else column["values"]
    return len(part)


def _codes(codes: np.ndarray, categories: np.ndarray, node: h5py.Group | h5py.Dataset) -> pd.Categorical:
    if len(codes) and not (int(codes.min()) >= -1 and int(codes.max()) < len(categories)):
        raise UserError(
            f"{node.file.filename}: {node.name.strip('/')} names category {int(codes.max())} of {len(categories)}: it is "
            "damaged. Write the file again, or fetch it again."
        )
    labels = np.append(_decode(np.asarray(categories)).to_numpy(dtype=object), np.array([np.nan], dtype=object))
    return labels[codes]  # a missing value has code -1: the last


def _decode(values: np.ndarray) -> pd.Series:
    if values.dtype.kind in "OS":
        values = np.array([value.decode() if isinstance(value, bytes) else value for value in values], dtype=object)
    return pd.Series(values)
