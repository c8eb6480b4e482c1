"""Products of CSR blocks with tall dense matrices, on all cores (numba).

The columns of the dense matrix are split into panels of WIDTH: a panel of 8,000 genes stays in the L2 cache, the threads
share no output, and the order of sums, hence every bit of the result, does not depend on the number of threads. The width
of a panel is read from its array: a loop of constant length is unrolled before the compiler can make vectors of it.
"""

import numba
import numpy as np
import scipy.sparse as sp

from plumbline.common.compiled import compiled

WIDTH = 16


def to_panels(matrix: np.ndarray) -> np.ndarray:
    """(size, b) -> (ceil(b / WIDTH), size, WIDTH), padded with zeros."""
    n_panels = -(-matrix.shape[1] // WIDTH)
    padded = np.zeros((len(matrix), n_panels * WIDTH))
    padded[:, : matrix.shape[1]] = matrix
    return np.ascontiguousarray(padded.reshape(len(matrix), n_panels, WIDTH).transpose(1, 0, 2))


def from_panels(panels: np.ndarray, n_columns: int) -> np.ndarray:
    """The inverse of ``to_panels``."""
    return panels.transpose(1, 0, 2).reshape(panels.shape[1], -1)[:, :n_columns]


def small_indices(block: sp.csr_matrix) -> sp.csr_matrix:
    """The block with its column numbers as uint16 where they fit: a quarter less memory. Only for the products here."""
    if block.shape[1] <= np.iinfo(np.uint16).max + 1:
        block.indices = block.indices.astype(np.uint16)
    return block


@compiled()
def add_moments(data, indices, totals, squares, filled):
    """Add the values of a CSR block to the sums, the sums of squares and the numbers of stored values of its columns."""
    for t in range(len(data)):
        x, column = np.float64(data[t]), indices[t]
        totals[column] += x
        squares[column] += x * x
        filled[column] += 1


@compiled(parallel=True, fastmath=True)
def add_gram_product(data, indices, indptr, vectors, image):
    """``image += B' (B vectors)`` for the CSR block B (n, size); vectors and image are panels, float64."""
    for panel in numba.prange(vectors.shape[0]):
        width = vectors.shape[2]
        row = np.empty(width)
        for i in range(len(indptr) - 1):
            row[:] = 0.0
            for t in range(indptr[i], indptr[i + 1]):
                x, source = np.float64(data[t]), vectors[panel, indices[t]]
                for c in range(width):
                    row[c] += x * source[c]
            for t in range(indptr[i], indptr[i + 1]):
                x, target = np.float64(data[t]), image[panel, indices[t]]
                for c in range(width):
                    target[c] += x * row[c]


@compiled(parallel=True, fastmath=True)
def add_rare_rows(data, indices, indptr, dense, sums):
    """``sums += R dense`` for the CSR block R (rare genes, n) and dense (n, size)."""
    for gene in numba.prange(len(indptr) - 1):
        row = sums[gene]
        for t in range(indptr[gene], indptr[gene + 1]):
            x, cell = data[t], dense[indices[t]]
            for c in range(dense.shape[1]):
                row[c] += x * cell[c]


@compiled(parallel=True, fastmath=True)
def project(data, indices, indptr, loadings):
    """``B loadings``: float64 (n, k) for the CSR block B (n, size) and loadings (size, k)."""
    scores = np.zeros((len(indptr) - 1, loadings.shape[1]))
    for i in numba.prange(len(indptr) - 1):
        row = scores[i]
        for t in range(indptr[i], indptr[i + 1]):
            x, gene = np.float64(data[t]), indices[t]
            for c in range(loadings.shape[1]):
                row[c] += x * loadings[gene, c]
    return scores
