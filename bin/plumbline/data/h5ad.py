"""An h5ad as users have it, of any version of anndata: tables, and which of its matrices is asked for."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from plumbline.common.errors import UserError, did_you_mean
from plumbline.counts.frames import as_text, frame_columns, read_column, read_index
from plumbline.counts.hdf5 import check_matrix, layout, shape
from plumbline.counts.matrices import matrices, var_of


@dataclass(frozen=True, kw_only=True)
class StoredTables:
    """Tables of an h5ad. node: the matrix asked for; layers: the other matrices; columns: names of the cell annotations."""

    cell_id: np.ndarray
    var: pd.DataFrame
    columns: list[str]
    node: str
    layers: list[str]

    @staticmethod
    def read(file: h5py.File, name: str) -> pd.Series:
        """One cell annotation as it is stored."""
        return read_column(file["obs"], name)


def read_h5ad(path: Path, file: h5py.File, layer: str) -> StoredTables:
    """The tables of an h5ad of which ``layer`` (X, raw or a layer's name) is to be read. Raises UserError if it lacks it."""
    known = matrices(file)
    if layer not in known:
        raise UserError(f"{path.name} has no layer {layer!r}.{did_you_mean(layer, list(known))}")
    node = known[layer]
    var = _gene_table(var_of(file, node))
    cell_id = read_index(file["obs"])
    size = shape(file[node])
    if size != (len(cell_id), len(var)):
        raise UserError(f"{path.name}: {layer} is {size[0]} x {size[1]} but obs and var hold {len(cell_id)} x {len(var)}.")
    check_matrix(file[node], layout(file[node]), size)
    _, columns = frame_columns(file["obs"])
    others = [other for other in known.values() if other != node]
    return StoredTables(cell_id=cell_id, var=var, columns=columns, node=node, layers=others)


def _gene_table(node: h5py.Group | h5py.Dataset) -> pd.DataFrame:
    _, columns = frame_columns(node)
    table = {name: as_text(read_column(node, name), missing=()).fillna("").to_numpy(dtype=str) for name in columns}
    return pd.DataFrame(table, index=read_index(node), dtype=str)
