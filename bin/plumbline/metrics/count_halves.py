"""Cells at the level of their counts: how much of a cell's expression is the cell's own, and how much is sampling?

One binomial half of a cell's counts predicts the other (count splitting, Neufeld et al. 2022, Biostatistics): given the
cell's rates the two are independent Poisson counts, so that what they have in common is not noise of sampling.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from plumbline.common.random import generator_of
from plumbline.counts.lognorm import log_normalise
from plumbline.counts.reading import open_counts
from plumbline.metrics.integrity import Reconstruction

CELLS = 1024  # at a time


def count_halves(block: sp.csr_matrix, cell_id: np.ndarray, seed: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Two matrices (n, genes) that add up to ``block`` of counts; every count falls in either with probability 1/2.

    Each cell draws from a stream of its own, so that its halves depend on its id and the seed alone.
    """
    first = np.empty_like(block.data)
    for row, name in enumerate(cell_id):
        span = slice(block.indptr[row], block.indptr[row + 1])
        first[span] = generator_of(f"count halves\t{seed}\t{name}").binomial(block.data[span].astype(np.int64), 0.5)
    halves = (sp.csr_matrix((data, block.indices, block.indptr), shape=block.shape) for data in (first, block.data - first))
    return tuple(halves)


def missed_by_the_best(path: Path, rows: np.ndarray, cell_id: np.ndarray, sums: Reconstruction, seed: int) -> np.ndarray:
    """Squared deviations, (batches,), that even a prediction misses which knows all of a cell but the sampling of its counts.

    rows, cell_id (n,): the cells of ``sums``, in its order; rows of counts.h5ad. With r the correlation, about the mean
    control, of the two halves of the counts (log-normalised), 2 r / (1 + r) of the squared deviations in all counts are the
    cells' own (Spearman & Brown), batch by batch; the rest is noise.
    """
    shares = [_own_share(*halves) for halves in _batches(path, rows, cell_id, sums, seed)]
    return (1 - np.array(shares)) * sums.signal


def _batches(
    path: Path, rows: np.ndarray, cell_id: np.ndarray, sums: Reconstruction, seed: int
) -> Iterator[tuple[sp.csr_matrix, sp.csr_matrix, np.ndarray]]:
    """The log-normalised halves of the cells of each batch, and which of them are controls."""
    counts = open_counts(path)
    for start, stop, controls in zip(sums.starts[:-1], sums.starts[1:], sums.controls, strict=True):
        order = start + np.argsort(rows[start:stop], kind="stable")
        parts, begin = [], 0
        for _, block in counts.blocks(rows[order]):
            names = cell_id[order[begin : begin + block.shape[0]]]
            parts.append([log_normalise(half) for half in count_halves(block, names, seed)])
            begin += block.shape[0]
        one, other = (sp.vstack(halves, format="csr") for halves in zip(*parts, strict=True))
        yield one, other, np.isin(order, controls)


def _own_share(one: sp.csr_matrix, other: sp.csr_matrix, control: np.ndarray) -> float:
    """Share of the squared deviations from the mean control, 0..1, that is the cells' own; 0 for a batch without controls."""
    if not control.any():
        return 0.0
    halves = [(half, np.asarray(half[control].mean(axis=0, dtype=np.float64)).ravel()) for half in (one, other)]
    product, square = 0.0, 0.0
    for start in range(0, one.shape[0], CELLS):
        x, y = (half[start : start + CELLS].toarray() - centre for half, centre in halves)
        product += float(np.einsum("ij,ij->", x, y))
        square += float(np.einsum("ij,ij->", x, x) + np.einsum("ij,ij->", y, y)) / 2
    r = min(max(product / square, 0.0), 1.0) if square else 0.0
    return 2 * r / (1 + r)
