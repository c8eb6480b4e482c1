"""What users give as an embedding (array, key of obsm, table, function) in the order of the prepared cells."""

from typing import Any

import numpy as np
import pandas as pd

from plumbline.benchmark.screens import Screen
from plumbline.common.errors import UserError, did_you_mean
from plumbline.common.labels import among
from plumbline.embedding.contract import Embedding, align, check_embedding, plain_ids
from plumbline.embedding.dimensions import table_values
from plumbline.embedding.numbers import as_float32

ALL = "*"


def keys_of(z: Any, screen: Screen) -> list[str] | None:
    """The keys of obsm that ``z`` names: one, several, or all of them (``'*'``); None if it is no key."""
    if isinstance(z, str):
        return sorted(screen.adata.obsm) if z == ALL else [z]
    if isinstance(z, (list, tuple)) and z and all(isinstance(key, str) for key in z):
        return list(z)
    return None


def aligned(z: Any, screen: Screen, name: str) -> np.ndarray:
    """The embedding of the prepared cells, float32 (n, d). Raises UserError: wrong ids or shape, NaN, text, unknown key."""
    found = _embedding(z, screen, name)
    known = among(found.cell_id, screen.prepared_id) | ~among(found.cell_id, screen.dropped_id)
    values = align(Embedding(found.cell_id[known], found.values[known], {}), screen.prepared_id, name)
    check_embedding(screen.prepared_id, values, name, {})
    return np.ascontiguousarray(values)


def _embedding(z: Any, screen: Screen, name: str) -> Embedding:
    if isinstance(z, str):
        return _embedding(_from_obsm(z, screen), screen, name)
    if isinstance(z, pd.DataFrame):
        z = z.set_index("cell_id") if "cell_id" in z else z
        return Embedding(plain_ids(z.index), as_float32(table_values(z, name), name, [str(column) for column in z]), {})
    if callable(z):
        return _embedding(z(screen.adata), screen, name)
    values = _numbers(z, name)
    if len(values) != len(screen.cell_id):
        raise UserError(f"{name}: an array of {len(values)} rows, but the screen has {len(screen.cell_id)} cells. Give one row "
                        "per cell in the order of screen.cell_id, or a DataFrame indexed by cell id.")  # fmt: skip
    return Embedding(screen.cell_id, values, {})


def _from_obsm(key: str, screen: Screen) -> Any:
    known = list(screen.adata.obsm)
    if key not in known:
        raise UserError(f"adata.obsm has no {key!r}.{did_you_mean(key, known)}")
    return screen.adata.obsm[key]


def _numbers(z: Any, name: str) -> np.ndarray:
    """An array, sparse matrix or tensor on any device as float32 (n, d)."""
    z = _of_torch(z.detach().cpu()) if hasattr(z, "detach") else z
    z = np.ma.filled(z.astype(float), np.nan) if isinstance(z, np.ma.MaskedArray) else z  # else masked numbers would count
    if hasattr(z, "obsm"):
        raise UserError(f"{name}: an AnnData is not an embedding. Give a key of its obsm, or adata.obsm['X_mine'] itself.")
    try:
        values = np.asarray(z.toarray() if hasattr(z, "toarray") else z)
    except ValueError as error:  # of lists of different lengths
        raise UserError(f"{name}: {error}. Expected numbers (n_cells, d).") from error
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        about = f"of shape {values.shape} and type {values.dtype}" if values.ndim else f"that is a {type(z).__name__}"
        raise UserError(f"{name}: an embedding {about}; expected numbers (n_cells, d).")
    return as_float32(values, name)


def _of_torch(z: Any) -> Any:
    """A tensor whose numbers numpy knows: dense, bfloat16 as float32; what has more digits keeps them."""
    z = z if str(z.layout) == "torch.strided" else z.to_dense()
    return z if z.element_size() > 4 else z.float()
