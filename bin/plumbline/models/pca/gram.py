"""The gene covariance as a dense matrix: the Gram matrix of the centred cells, summed over a stream of them.

Sums are taken in float32 by BLAS (SYRK: one triangle only) over ROWS cells, then in float64; genes that few cells express
(RARE) are multiplied as sparse rows instead. Cells are centred before they are multiplied, so that no large mean is left to
cancel. ``gram_error`` compares the result with the exact products and states what float32 cost.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg.blas import dsyrk, ssyrk

from plumbline.models.pca.sparse_products import add_rare_rows

CELLS = 512  # held dense at once: at 8,000 genes they stay in the L3 cache while the rare genes are added
ROWS = 16_384  # cells summed in float32
RARE = 0.04  # share of cells with a value below which the sparse product is faster
MAX_GENES = 16_384  # 2 GB of float64, 1 GB of float32
PROBES = 16
SPARSE_COST = 20  # time of a sparse multiplication relative to one of SYRK in float32; measured on one core
DOUBLE_COST = 2


@dataclass(frozen=True)
class Gram:
    """matrix (genes, genes): symmetric, of the genes in ``order`` (genes,). Products are in its precision."""

    matrix: np.ndarray
    order: np.ndarray

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """The matrix times ``vectors`` (genes, b), genes in their original order."""
        image = np.empty_like(vectors)
        image[self.order] = self.matrix @ vectors[self.order].astype(self.matrix.dtype)
        return image

    def single(self) -> "Gram":
        """The same in float32: products take half the time, and what that rounds is part of ``gram_error``."""
        return Gram(self.matrix.astype(np.float32), self.order)


def gram_is_cheaper(n_cells: int, n_values: int, n_genes: int, n_vectors: int) -> bool:
    """Whether a Gram matrix costs less than ``n_vectors`` products with the stream of cells, and fits in memory."""
    gram = n_cells * n_genes**2 / 2 + DOUBLE_COST * n_vectors * n_genes**2
    return n_genes <= MAX_GENES and gram < 2 * SPARSE_COST * n_values * n_vectors


def centred_gram(blocks: Iterator[sp.csr_matrix], mean: np.ndarray, share: np.ndarray, precision: type = np.float32) -> Gram:
    """The sum of (x - mean)(x - mean)' over all cells.

    Parameters
    ----------
    blocks : the cells, CSR (n, genes)
    mean, share : (genes,), the mean and the share of cells that hold a value
    precision : of products and sums over ROWS cells, np.float32 or np.float64
    """
    common = share >= RARE
    order, n_common = np.argsort(~common, kind="stable"), int(common.sum())
    matrix = np.zeros((len(mean), len(mean)))
    sums = _Sums(matrix, n_common, precision)
    for dense, rare in _chunks(blocks, order, mean, n_common, precision):
        sums.add(dense, rare)
    sums.flush()
    _make_symmetric(matrix, n_common)
    return Gram(matrix, order)


def gram_error(exact: Callable[[np.ndarray], np.ndarray], gram: Gram, vectors: np.ndarray) -> float:
    """An upper bound of ``|(C - gram) v|`` over the columns v of ``vectors`` (genes, k), where exact(v) = C v.

    It is the Frobenius norm over all columns, estimated from PROBES sums of them with random signs: the expected square of
    such a sum is the square of that norm. That the estimate is less than a third of it has a probability of about 1e-6.
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(vectors.shape[1], PROBES))
    probes = vectors @ signs
    return float(np.linalg.norm(exact(probes) - gram.apply(probes)) / np.sqrt(PROBES))


def _chunks(
    blocks: Iterator[sp.csr_matrix], order: np.ndarray, mean: np.ndarray, n_common: int, precision: type
) -> Iterator[tuple[np.ndarray, sp.csr_matrix]]:
    """(centred cells (n, genes), their values of rare genes as CSR (rare genes, n)), genes in ``order``."""
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    centre = mean[order].astype(precision)
    for block in blocks:
        parts = (block.data.astype(precision), place[block.indices], block.indptr)
        ordered = sp.csr_matrix(parts, shape=block.shape)
        for start in range(0, block.shape[0], CELLS):
            cells = ordered[start : start + CELLS]
            yield cells.toarray() - centre, cells[:, n_common:].T.tocsr()


class _Sums:
    """Sums into ``matrix`` (genes, genes): the upper triangle of the common genes, all columns of the rare ones."""

    def __init__(self, matrix: np.ndarray, n_common: int, precision: type) -> None:
        self.common, self.rare = matrix[:n_common, :n_common], matrix[n_common:]
        self.syrk = ssyrk if precision == np.float32 else dsyrk
        self.recent_common = np.zeros(self.common.shape, dtype=precision, order="F")
        self.recent_rare = np.zeros(self.rare.shape, dtype=precision)
        self.n_recent = 0

    def add(self, dense: np.ndarray, rare: sp.csr_matrix) -> None:
        """Add cells: ``dense`` centred (n, genes), ``rare`` not centred: the other factor is, which is enough."""
        if len(self.common):
            part = np.ascontiguousarray(dense[:, : len(self.common)])
            self.syrk(1.0, part.T, beta=1.0, c=self.recent_common, lower=1, overwrite_c=1)
        add_rare_rows(rare.data, rare.indices, rare.indptr, dense, self.recent_rare)
        self.n_recent += len(dense)
        if self.n_recent >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Move what was summed in float32 to float64."""
        self.common += self.recent_common.T
        self.rare += self.recent_rare
        self.recent_common[:], self.recent_rare[:], self.n_recent = 0, 0, 0


def _make_symmetric(matrix: np.ndarray, n_common: int, step: int = 1024) -> None:
    """Fill the lower triangle of the common genes and the columns of the rare ones, in place."""
    for start in range(0, n_common, step):
        rows = slice(start, min(start + step, n_common))
        square = np.triu(matrix[rows, rows])
        matrix[rows, rows] = square + np.triu(square, 1).T
        matrix[rows.stop : n_common, rows] = matrix[rows, rows.stop : n_common].T
    matrix[:n_common, n_common:] = matrix[n_common:, :n_common].T
    square = matrix[n_common:, n_common:]
    square[:] = (square + square.T) / 2
