"""Counts streamed from an h5ad file in blocks of rows: memory never grows with the number of cells."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import UserError, did_you_mean
from plumbline.common.missing import NO_NAME, is_missing
from plumbline.counts.frames import as_text, frame_columns, read_column, read_index
from plumbline.counts.gene_columns import ENSEMBL_COLUMNS, SYMBOL_COLUMNS, ensembl_ids, gene_names
from plumbline.counts.hdf5 import check_matrix, check_positions, layout, open_hdf5, shape
from plumbline.counts.matrices import are_whole, looks_like, matrices, var_of
from plumbline.counts.row_blocks import usable
from plumbline.counts.thinning import thin

BLOCK = 2048
SPAN = 16_777_216  # stored values read at once: 128 MB and as much again while they are picked from


@dataclass(frozen=True)
class Counts:
    """An open-on-demand view of a CSR or dense h5ad.

    cell_id (n_cells,), ensembl_id (n_genes,) and symbol (n_genes,) are string arrays ('' where unknown).
    matrix: which matrix of the file is read; X unless ``layer`` chose another. x_kind: counts, log or signed.
    columns: genes kept, by ``take_genes``.
    sums: (genes read, genes) zeros and ones that add columns up, by ``renamed``.
    thinned: share of the counts that are kept of what the file holds (thinning.py).
    """

    path: Path
    cell_id: np.ndarray
    ensembl_id: np.ndarray
    symbol: np.ndarray
    matrix: str = "X"
    columns: np.ndarray | None = None
    sums: sp.csr_matrix | None = None
    x_kind: str = "counts"
    thinned: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """(n_cells, n_genes)."""
        return len(self.cell_id), len(self.ensembl_id)

    def layer(self, name: str) -> "Counts":
        """The same cells and genes with ``layers[name]`` in place of X. Raises UserError if the file has no such layer."""
        with open_hdf5(self.path) as file:
            layers = sorted(file["layers"]) if "layers" in file else []
            if name not in layers:
                raise UserError(f"{self.path} has no layer {name!r}.{did_you_mean(name, layers)}")
            _check_stored(file[f"layers/{name}"], f"{self.path}: layer {name}", shape(file["X"]))
        return replace(self, matrix=f"layers/{name}")

    def take_genes(self, genes: np.ndarray) -> "Counts":
        """The same cells with the genes of column numbers ``genes`` alone, in that order."""
        names = {"ensembl_id": self.ensembl_id[genes], "symbol": self.symbol[genes]}
        if self.sums is not None:
            return replace(self, **names, sums=self.sums[:, genes])
        columns = np.arange(self.shape[1]) if self.columns is None else self.columns
        return replace(self, **names, columns=columns[genes])

    def renamed(self, ensembl_id: np.ndarray, symbol: np.ndarray) -> "Counts":
        """The same cells and columns under other names of the genes, (n_genes,) each, '' where unknown.

        Columns of one name are added up in the first of them (logarithms as what they are logarithms of); the others are left
        empty, of counts and of names. Raises UserError for signed scores, which cannot be added.
        """
        first: dict[tuple[str, str], int] = {}
        names = list(zip(ensembl_id.tolist(), symbol.tolist(), strict=True))
        target = np.array([first.setdefault(name, n) if any(name) else n for n, name in enumerate(names)], dtype=np.int64)
        column = np.arange(len(target))
        if (target == column).all():
            return replace(self, ensembl_id=ensembl_id, symbol=symbol)
        if self.x_kind == "signed":
            name = " ".join(filter(None, names[int(np.flatnonzero(target != column)[0])]))
            raise UserError(
                f"{self.path}: several genes have the name {name}, and signed scores cannot be added. Keep one of them."
            )
        ensembl_id, symbol = (np.where(target == column, values, "") for values in (ensembl_id, symbol))
        sums = sp.csr_matrix((np.ones(len(target), np.float32), (column, target)), shape=(len(target),) * 2)
        return replace(
            self, ensembl_id=ensembl_id, symbol=symbol, sums=sums if self.sums is None else (self.sums @ sums).tocsr()
        )

    def blocks(self, rows: np.ndarray | None = None, size: int = BLOCK) -> Iterator[tuple[np.ndarray, sp.csr_matrix]]:
        """Yield (row numbers, float32 CSR block) over all rows, or over distinct ``rows`` in their order, ``size`` a time."""
        rows = np.arange(len(self.cell_id)) if rows is None else np.asarray(rows)
        with open_hdf5(self.path) as file:
            for start in range(0, len(rows), size):
                chunk = rows[start : start + size]
                block = _read_rows(file[self.matrix], chunk)
                block = block if self.thinned == 1 else thin(block, self.cell_id[chunk], self.thinned)
                block = block if self.columns is None else block[:, self.columns]
                block = block if self.sums is None else _added(block, self.sums, self.x_kind)
                if not np.isfinite(block.data).all():
                    raise UserError(
                        f"{self.path}: {self.matrix} holds NaN or infinite values. Set them to 0 or drop those cells."
                    )
                yield chunk, block


def open_counts(path: Path | str, layer: str = "X") -> Counts:
    """Open an h5ad with raw counts in X, raw or a layer. Raises UserError: damaged, or a matrix of a kind we do not stream."""
    path = Path(path)
    with open_hdf5(path) as file:
        known = matrices(file)
        if "obs" not in file or not known:
            raise UserError(f"{path} is not an h5ad of counts: it holds {', '.join(file) or 'nothing'}, not obs, var and X.")
        if layer not in known:
            raise UserError(f"{path} has no layer {layer!r}.{did_you_mean(layer, list(known))}")
        cell_id = read_index(file["obs"])
        ensembl, symbol = _gene_names(var_of(file, known[layer]))
        _check_stored(file[known[layer]], f"{path}: {layer}", (len(cell_id), len(symbol)))
    return Counts(path, cell_id, ensembl, symbol, known[layer])


def require_raw(counts: Counts) -> None:
    """Raise UserError if the first cells hold other values than counts, naming the matrices of the file that do not."""
    rows = np.arange(min(BLOCK, len(counts.cell_id)))
    block = next((block for _, block in counts.blocks(rows)), sp.csr_matrix((0, 0)))
    if are_whole(block) or not len(block.data):
        return
    with open_hdf5(counts.path) as file:
        others = [name for name, node in matrices(file).items() if node != counts.matrix and _whole(file[node], len(rows))]
    hint = f"The file holds whole numbers in: {', '.join(others)}; add --layer {others[0]}." if others else (
        "Give a file with raw counts, or run it through PREPARE with x_kind log (or signed) and add --tables."
    )  # fmt: skip
    text = "they are negative in part." if block.data.min() < 0 else looks_like(block)[0]
    raise UserError(f"{counts.path}: {counts.matrix} does not hold raw counts; {text} {hint}")


def _whole(matrix: h5py.Dataset | h5py.Group, n: int) -> bool:
    if layout(matrix) == "csc" or not n or shape(matrix)[0] < n:
        return False
    check_matrix(matrix, layout(matrix), shape(matrix))
    return are_whole(_read_rows(matrix, np.arange(n)))


def _check_stored(matrix: h5py.Dataset | h5py.Group, name: str, size: tuple[int, int]) -> None:
    kind = layout(matrix)
    if kind == "csc":
        raise UserError(f"{name} is stored as csc_matrix; run it through PREPARE (or write it as CSR) first.")
    if shape(matrix) != size:
        found = " x ".join(map(str, shape(matrix)))
        raise UserError(f"{name} is {found} but obs and var hold {size[0]} x {size[1]}. Write the file again with anndata.")
    check_matrix(matrix, kind, size)


def require_counts(block: sp.csr_matrix) -> None:
    """Raise UserError if a block holds negative values, which no raw counts do."""
    if len(block.data) and block.data.min() < 0:
        raise UserError("X holds negative values, but this model needs raw counts. Put the counts into X.")


def obs_column(counts: Counts, name: str) -> np.ndarray:
    """One column of obs as strings (n_cells,). Raises UserError, with the columns there are, if the file lacks it."""
    with open_hdf5(counts.path) as file:
        _, columns = frame_columns(file["obs"])
        if name not in columns:
            raise UserError(f"{counts.path} has no obs column {name!r}.{did_you_mean(name, columns)}")
        return as_text(read_column(file["obs"], name)).fillna("").to_numpy(dtype=str)


def _gene_names(var: h5py.Group | h5py.Dataset) -> tuple[np.ndarray, np.ndarray]:
    _, names = frame_columns(var)
    wanted = [name for name in (*ENSEMBL_COLUMNS, *SYMBOL_COLUMNS) if name in names]
    whole = (name in wanted for name in (ENSEMBL_COLUMNS[0], SYMBOL_COLUMNS[0]))
    columns = {name: as_text(read_column(var, name), missing=()).fillna("").to_numpy(dtype=str) for name in wanted}
    if all(whole):  # as PREPARE writes it, where '' means that there is none
        return columns[ENSEMBL_COLUMNS[0]], columns[SYMBOL_COLUMNS[0]]
    ensembl, symbol = gene_names(columns, read_index(var))
    given = columns.get(ENSEMBL_COLUMNS[0], np.zeros(0, dtype=str))
    if (ensembl_ids(given) != "").sum() > len(given) / 2:  # as it stands: each model looks ids up as its authors do
        ensembl = np.where(is_missing(given, NO_NAME), ensembl, given)
    return ensembl, symbol


def _added(block: sp.csr_matrix, sums: sp.csr_matrix, x_kind: str) -> sp.csr_matrix:
    if x_kind == "log":
        block = block.astype(np.float64).expm1()
    block = (block @ sums).tocsr()
    block = block.log1p().astype(np.float32) if x_kind == "log" else block
    block.sort_indices()
    return block


def _read_rows(matrix: h5py.Dataset | h5py.Group, rows: np.ndarray) -> sp.csr_matrix:
    low, high = int(rows.min()), int(rows.max()) + 1
    if isinstance(matrix, h5py.Dataset):
        order = np.argsort(rows)  # h5py wants increasing row numbers
        dense = matrix[low:high] if high - low <= 2 * len(rows) else matrix[rows[order]]
        dense = dense[rows - low] if high - low <= 2 * len(rows) else dense[np.argsort(order)]
        return sp.csr_matrix(usable(dense), dtype=np.float32)
    n_genes, indptr = shape(matrix)[1], matrix["indptr"][low : high + 1]
    order = np.argsort(rows, kind="stable")
    starts, stops = indptr[rows[order] - low], indptr[rows[order] - low + 1]
    groups = np.flatnonzero(_apart(starts, stops, matrix["data"].chunks)) + 1
    parts = [_gather(matrix, a, b) for a, b in zip(np.split(starts, groups), np.split(stops, groups), strict=True)]
    data, indices = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    block = sp.csr_matrix((data, indices, np.concatenate([[0], np.cumsum(stops - starts)])), shape=(len(rows), n_genes))
    block.sum_duplicates()  # a value may be stored in parts
    return block if (np.diff(rows) > 0).all() else block[np.argsort(order)]


def _apart(starts: np.ndarray, stops: np.ndarray, chunks: tuple[int] | None) -> np.ndarray:
    """Between which neighbouring rows a new read begins: reading on costs more than another chunk, or too much memory."""
    return (starts[1:] - stops[:-1] > (chunks or (4096,))[0]) | (starts[1:] // SPAN != starts[:-1] // SPAN)


def _gather(matrix: h5py.Group, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(data, indices) of some rows that lie close to each other, by one read of the span they lie in."""
    low, high = int(starts[0]), int(stops[-1])
    lengths = stops - starts
    take = np.arange(lengths.sum()) + np.repeat(starts - low - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    data, indices = matrix["data"][low:high], matrix["indices"][low:high]
    check_positions(indices, shape(matrix)[1], f"{matrix.file.filename}: {matrix.name}/indices")
    if len(take) < high - low:
        data, indices = data[take], indices[take]
    return usable(data).astype(np.float32, copy=False), indices
