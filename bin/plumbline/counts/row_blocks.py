"""Any stored matrix (CSR, CSC or dense) as a stream of CSR row blocks, within a stated memory budget."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import UserError
from plumbline.counts.hdf5 import check_positions

BUDGET = 32 << 20  # bytes of stored values held at once; the arithmetic on a block takes seven times that
WHOLE_16 = 2048  # up to here float16 has every whole number
SCRATCH_BLOCKS = 4  # budgets per scratch file of a CSC matrix: fewer files, to which fewer pieces are appended


def row_blocks(
    node: h5py.Group | h5py.Dataset | sp.spmatrix, kind: str, size: tuple[int, int], budget: int
) -> Iterator[tuple[int, sp.csr_matrix]]:
    """Yield (first row, CSR block in the stored number type) over all rows; about ``budget`` bytes of values at a time.

    A stored matrix was checked before (hdf5.check_matrix); its positions are checked here, block by block.
    """
    if kind == "dense":
        step = max(1, budget // max(1, size[1] * node.dtype.itemsize))
        for start in range(0, size[0], step):
            yield start, sp.csr_matrix(usable(node[start : start + step]))
    elif isinstance(node, sp.spmatrix | sp.sparray):
        matrix = sp.csr_matrix(node)
        for start, stop in _windows(matrix.indptr, budget):
            yield start, matrix[start:stop]
    elif kind == "csr":
        indptr = node["indptr"][:]
        for start, stop in _windows(indptr, budget):
            low, high = int(indptr[start]), int(indptr[stop])
            indices = check_positions(node["indices"][low:high], size[1], f"{node.file.filename}: {node.name}/indices")
            parts = (usable(node["data"][low:high]), indices, indptr[start : stop + 1] - low)
            yield start, sp.csr_matrix(parts, shape=(stop - start, size[1]))
    else:
        yield from _csc_blocks(node, size, SCRATCH_BLOCKS * budget)


def _windows(indptr: np.ndarray, budget: int) -> Iterator[tuple[int, int]]:
    """Consecutive row ranges that hold at most budget / 8 values each (a float32 and an int32), and at least one row."""
    n_rows, start, values = len(indptr) - 1, 0, max(1, budget // 8)
    while start < n_rows:
        stop = int(np.searchsorted(indptr, indptr[start] + values, side="right")) - 1
        stop = min(max(stop, start + 1), n_rows, start + (1 << 16))
        yield start, stop
        start = stop


def _csc_blocks(node: h5py.Group, size: tuple[int, int], budget: int) -> Iterator[tuple[int, sp.csr_matrix]]:
    """Columns are read once and dealt to one scratch file per row range; each file then fits in memory as CSR."""
    indptr = node["indptr"][:]
    step = max(1, size[0] // max(1, -(-int(indptr[-1]) * 16 // budget)))
    entry = np.dtype([("row", np.int32), ("column", np.int32), ("value", node["data"].dtype)])
    with tempfile.TemporaryDirectory(prefix="plumbline_csc_") as folder:
        files = [Path(folder) / str(number) for number in range(-(-size[0] // step))]
        for first, last in _windows(indptr, budget):
            for number, part in _deal(node, indptr, (first, last), entry, step, size[0]):
                with open(files[number], "ab") as stream:
                    part.tofile(stream)
        for number, file in enumerate(files):
            start, stop = number * step, min(size[0], (number + 1) * step)
            part = np.fromfile(file, dtype=entry) if file.exists() else np.zeros(0, dtype=entry)
            file.unlink(missing_ok=True)
            values = _roomy(usable(part["value"]))
            yield start, sp.csr_matrix((values, (part["row"] - start, part["column"])), shape=(stop - start, size[1]))


def usable(values: np.ndarray) -> np.ndarray:
    """Numbers in a type that sparse matrices may have: of this machine's byte order, 32 bits in place of 16.

    Raises UserError for numbers of 16 bits beyond those that have every whole number: counts there were rounded already.
    """
    if values.dtype.kind == "f" and values.dtype.itemsize == 2:
        if values.size and np.abs(values).max() > WHOLE_16:
            raise UserError(
                f"the values are stored as float16, which has whole numbers up to {WHOLE_16} only, but go up to "
                f"{values.max():g}: larger counts were rounded. Write them again from the original, as float32."
            )
        return values.astype(np.float32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _roomy(values: np.ndarray) -> np.ndarray:
    """Small integers as large ones: scipy adds up a value that is stored in parts, and the sum may not fit into their type."""
    return values.astype(np.int64) if values.dtype.kind in "iu" and values.dtype.itemsize < 4 else values


def _deal(
    node: h5py.Group, indptr: np.ndarray, columns: tuple[int, int], entry: np.dtype, step: int, n_rows: int
) -> Iterator[tuple[int, np.ndarray]]:
    first, last = columns
    low, high = int(indptr[first]), int(indptr[last])
    part = np.empty(high - low, dtype=entry)
    part["row"] = check_positions(node["indices"][low:high], n_rows, f"{node.file.filename}: {node.name}/indices")
    part["column"] = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(indptr[first : last + 1]))
    part["value"] = node["data"][low:high]
    owner = part["row"] // step
    order = np.argsort(owner, kind="stable")
    numbers, starts = np.unique(owner[order], return_index=True)
    yield from zip(numbers.tolist(), np.split(part[order], starts[1:]), strict=True)
