"""The cells that scvi-tools trains on as one CSR matrix, put together without a second copy.

scvi-tools draws cells at random from a matrix in memory. Stacking blocks holds them twice, and leaving out cells without
counts twice again; here arrays grow in place, and counts are stored as uint16 where they fit (scvi-tools converts each
batch to float32): 6 bytes per value instead of 16 at the peak.
"""

from collections.abc import Iterable

import numpy as np
import scipy.sparse as sp

GROWTH = 1.2


def stacked(blocks: Iterable[sp.csr_matrix], n_genes: int, whole: bool) -> tuple[sp.csr_matrix, np.ndarray]:
    """(the cells that have values, CSR; their positions among all cells).

    whole: the values are counts: uint16 if none is larger than 65,535, else float32, which is what other values are.
    """
    data, indices = _Growing(np.uint16 if whole else np.float32), _Growing(np.int32)
    lengths = []
    for block in blocks:
        if data.dtype == np.uint16 and block.data.max(initial=0) > np.iinfo(np.uint16).max:
            data = data.converted(np.float32)
        data.append(block.data)
        indices.append(block.indices)
        lengths.append(np.diff(block.indptr))
    length = np.concatenate(lengths)
    filled = np.flatnonzero(length)  # a cell without counts has no library size
    indptr = np.concatenate([[0], np.cumsum(length[filled], dtype=np.int64)])
    return sp.csr_matrix((data.trimmed(), indices.trimmed(), indptr), shape=(len(filled), n_genes)), filled


class _Growing:
    """An array that is appended to; large ones are moved by the operating system without being copied."""

    def __init__(self, dtype: type) -> None:
        self.values, self.n = np.empty(0, dtype=dtype), 0

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    def append(self, more: np.ndarray) -> None:
        stop = self.n + len(more)
        if stop > len(self.values):
            self.values.resize(int(stop * GROWTH), refcheck=False)
        self.values[self.n : stop], self.n = more, stop

    def converted(self, dtype: type) -> "_Growing":
        new = _Growing(dtype)
        new.append(self.values[: self.n])
        return new

    def trimmed(self) -> np.ndarray:
        self.values.resize(self.n, refcheck=False)
        return self.values
