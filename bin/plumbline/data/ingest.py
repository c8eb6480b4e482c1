"""Open what users have (h5ad old and new, 10x h5, 10x mtx folder or archive) as one thing: labels now, counts as a stream."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from plumbline.common.errors import UserError, did_you_mean
from plumbline.common.files import sha256
from plumbline.counts.frames import as_text
from plumbline.counts.hdf5 import layout, open_hdf5, shape
from plumbline.counts.row_blocks import BUDGET, row_blocks
from plumbline.data.annotations import read_annotations
from plumbline.data.features import genes_of
from plumbline.data.formats import KNOWN, refuse_unknown
from plumbline.data.h5ad import read_h5ad
from plumbline.data.tenx import is_text_matrix, read_h5, read_mtx


@dataclass(frozen=True, kw_only=True)
class CountsFile:
    """An input file. Nothing of the matrix is read before ``blocks`` is called.

    cell_id (n_cells,) strings. var: gene table, index = the file's gene names, all columns as strings ('' = missing).
    columns: names of the cell annotations; ``column(name)`` reads one (strings, NaN where missing).
    genes: positions of the columns of the stored matrix that are used (None = all); left_out: {feature type: how many are not}.
    """

    path: Path
    cell_id: np.ndarray
    var: pd.DataFrame
    columns: list[str]
    read: Callable[[str], pd.Series]
    node: str | sp.spmatrix
    genes: np.ndarray | None = None
    layers: list[str] = field(default_factory=list)
    transposed: bool = False
    left_out: dict[str, int] = field(default_factory=dict)

    def column(self, name: str, role: str, keep: tuple[str, ...] = ()) -> pd.Series:
        """One cell annotation as strings; a text in ``keep`` never counts as missing. Raises UserError if there is none."""
        if name not in self.columns:
            raise UserError(f"{self.path.name} has no cell annotation {name!r} ({role}).{did_you_mean(name, self.columns)}")
        return as_text(self.read(name), keep)

    def blocks(self, layer: str | None = None, budget: int = 0) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Yield (first row, CSR block) over all cells. ``layer`` reads another matrix than the chosen one.

        budget: bytes of values held at once; 0 = BUDGET.
        """
        for start, block in self._stored(layer, budget or BUDGET):
            yield start, block if self.genes is None else block[:, self.genes]

    def first_block(self, layer: str) -> sp.csr_matrix:
        """The first rows of another matrix of the file, which may have other genes."""
        return next(self._stored(layer, 1 << 20))[1]

    def _stored(self, layer: str | None, budget: int) -> Iterator[tuple[int, sp.csr_matrix]]:
        if not isinstance(self.node, str):
            yield from row_blocks(self.node, self.node.format, self.node.shape, budget)
            return
        with open_hdf5(self.path) as file:
            node = file[layer or self.node]
            kind, size = ("csr", tuple(node["shape"][:][::-1])) if self.transposed else (layout(node), shape(node))
            yield from row_blocks(node, kind, size, budget)


def open_source(path: Path | str, layer: str = "X", cells: Path | str | None = None) -> CountsFile:
    """Open an input; ``layer`` is X, raw, or the name of a layer; ``cells`` an optional table of cell annotations.

    Raises UserError: missing, empty or truncated file, unknown format, unknown layer, annotations of no cell here.
    """
    path = Path(path)
    refuse_unknown(path)
    source = _from_frames(path, *read_mtx(path)) if is_text_matrix(path) else _open_hdf5(path, layer)
    if not len(source.cell_id) or not len(source.var):
        raise UserError(f"{path.name} holds {len(source.cell_id)} cells x {len(source.var)} genes: nothing to prepare.")
    source = _genes_only(source)
    return source if cells is None else _annotate(source, Path(cells))


def _open_hdf5(path: Path, layer: str) -> CountsFile:
    if not h5py.is_hdf5(path):
        packed = " Unpack it first (gunzip)." if path.suffix == ".gz" else ""
        raise UserError(f"{path} is no HDF5 file, or it is truncated.{packed} {KNOWN}")
    with open_hdf5(path) as file:
        if "obs" not in file:
            node, barcodes, var = read_h5(path, file)
            return replace(_from_frames(path, node, barcodes, var), transposed=True)
        stored = read_h5ad(path, file, layer)

    def read(name: str) -> pd.Series:
        with open_hdf5(path) as again:
            return stored.read(again, name)

    parts = {name: getattr(stored, name) for name in ("cell_id", "var", "columns", "node", "layers")}
    return CountsFile(path=path, read=read, **parts)


def _genes_only(source: CountsFile) -> CountsFile:
    """Only the features that are gene expression: counts of guides would tell the perturbation itself."""
    genes, left_out = genes_of(source.var)
    if genes is None:
        return source
    if not len(genes):
        kinds = ", ".join(f"{n} {kind}" for kind, n in left_out.items())
        raise UserError(f"{source.path.name} holds no gene expression, only {kinds}. Give the file of the gene expression.")
    return replace(source, var=source.var.iloc[genes], genes=genes, left_out=left_out)


def _from_frames(path: Path, node: str | sp.spmatrix, barcodes: np.ndarray, var: pd.DataFrame) -> CountsFile:
    suffix = pd.Series(barcodes).str.extract(r"-(\d+)$")[0]  # Cell Ranger's gem group
    read = {"gem_group": suffix}.__getitem__
    return CountsFile(path=path, cell_id=barcodes, var=var, columns=["gem_group"], read=read, node=node)


def _annotate(source: CountsFile, path: Path) -> CountsFile:
    """Add the columns of a table whose first column is the cell id; cells it does not name have missing values."""
    table = read_annotations(path, source.cell_id, source.path.name)

    def read(name: str) -> pd.Series:
        return table[name] if name in table else source.read(name)

    return replace(source, columns=list(dict.fromkeys([*table.columns, *source.columns])), read=read)


def input_sha256(path: Path | str) -> str:
    """sha256 of a file; of a folder, the sha256 of its files' names and digests."""
    path = Path(path)
    if path.is_file():
        return sha256(path)
    lines = [f"{sha256(file)}  {file.relative_to(path)}" for file in sorted(path.rglob("*")) if file.is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
