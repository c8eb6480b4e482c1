"""An h5ad as users have it, of any version of anndata: tables, and which of its matrices is asked for."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from plumbline.common.errors import UserError, did_you_mean
from plumbline.counts.frames import as_text, frame_columns, read_column, read_index
from plumbline.counts.hdf5 import check_matrix, layout, shape

RAW = ("raw/X", "raw.X")  # today's place of adata.raw, and that of anndata before 0.7


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
    known = _matrices(file)
    if layer not in known:
        raise UserError(f"{path.name} has no layer {layer!r}.{did_you_mean(layer, list(known))}")
    node = known[layer]
    var = _gene_table(_var_of(file, node))
    cell_id = read_index(file["obs"])
    size = shape(file[node])
    if size != (len(cell_id), len(var)):
        raise UserError(f"{path.name}: {layer} is {size[0]} x {size[1]} but obs and var hold {len(cell_id)} x {len(var)}.")
    check_matrix(file[node], layout(file[node]), size)
    _, columns = frame_columns(file["obs"])
    others = [other for other in known.values() if other != node]
    return StoredTables(cell_id=cell_id, var=var, columns=columns, node=node, layers=others)


def layer_name(node: str) -> str:
    """What the column layer of the sheet calls a matrix."""
    return "raw" if node in RAW else node.removeprefix("layers/")


def _matrices(file: h5py.File) -> dict[str, str]:
    nodes = ["X", *(f"layers/{name}" for name in file.get("layers", {})), *RAW]
    return {layer_name(node): node for node in nodes if node in file}


def _var_of(file: h5py.File, node: str) -> h5py.Group | h5py.Dataset:
    own = {"raw/X": "raw/var", "raw.X": "raw.var"}.get(node, "var")
    if own not in file and "var" not in file:
        raise UserError(
            f"{file.filename} has no gene table (var). It holds {', '.join(file)}. Write the file again with anndata."
        )
    return file[own if own in file else "var"]


def _gene_table(node: h5py.Group | h5py.Dataset) -> pd.DataFrame:
    _, columns = frame_columns(node)
    table = {name: as_text(read_column(node, name), missing=()).fillna("").to_numpy(dtype=str) for name in columns}
    return pd.DataFrame(table, index=read_index(node), dtype=str)
