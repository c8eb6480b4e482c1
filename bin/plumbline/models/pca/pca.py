"""PCA of a raw-count file that is never dense and never needs to fit in memory.

Method: the leading eigenvectors of the gene covariance by block Lanczos (krylov.py), multiplied in one of two ways, whichever
is cheaper for these cells: as a dense matrix that one pass sums up (gram.py; up to 16,384 genes), or by a pass over CSR blocks
per product, ``C Q = sum_blocks B'(B Q) - n m (m'Q)``. Both give the exact PCA to one stated residual (a randomised sketch does
not, in the flat tail of 256 components), and the cells enter only through sums, so their order and the size of blocks do not
matter. Memory: CACHE_GB of CSR (re-read from disk beyond that) + 8 B x genes x 4 (k + 64) + the scores, and 12 B x genes^2 for
the dense matrix.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import NotApplicable
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.pca.gram import centred_gram, gram_error, gram_is_cheaper
from plumbline.models.pca.krylov import TOLERANCE, Eigenpairs, is_small, top_eigenpairs
from plumbline.models.pca.sparse_products import add_gram_product, add_moments, from_panels, project, small_indices, to_panels
from plumbline.models.shared.fitting import INPUTS, at_least, choice, counts_share, fitting_part, transform, x_kind
from plumbline.models.shared.variable_genes import select_genes

CACHE_GB = 2.0
VECTORS = 10  # multiplied per component until it has converged, about


@dataclass(frozen=True)
class Pca:
    """A fitted PCA: components (k, genes) orthonormal, descending variance; mean (genes,); variance (k,), of n-1 cells.

    total_variance: of all genes. solver: gram, gram64 or krylov. passes, residual: how it ended.
    """

    components: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    total_variance: float
    passes: int
    residual: float
    solver: str

    def scores(self, block: sp.csr_matrix) -> np.ndarray:
        """(X - mean) V of a CSR block (n, genes): float32 (n, k)."""
        loadings = np.ascontiguousarray(self.components.T)
        return (project(block.data, block.indices, block.indptr, loadings) - self.mean @ loadings).astype(np.float32)


def embed(counts: Counts, options: Options) -> Result:
    """PCA scores of all cells, fitted on ``options.fit_on``. Settings: n_components (256), input, n_hvg (0: all genes)."""
    kind, values = x_kind(options), choice(options, "input", INPUTS)
    n_components, n_hvg = at_least(options, "n_components", 256, 1), at_least(options, "n_hvg", 0, 0)
    part = fitting_part(counts, options)
    genes = select_genes(part.counts, part.rows, kind, n_hvg) if n_hvg else None
    apply = transform(kind, values, genes)
    cells = StreamedCells(part.counts, part.rows, apply, float(options.get("cache_gb", CACHE_GB)))
    fit = fit_pca(cells.blocks, counts.shape[1] if genes is None else len(genes), n_components)
    if fit.residual > TOLERANCE:
        print(f"warning: PCA stopped after {fit.passes} passes at a residual of {fit.residual:.1e}", file=sys.stderr)
    scores = np.empty((len(counts.cell_id), len(fit.components)), dtype=np.float32)
    for at, block in counts.blocks():
        scores[at] = fit.scores(apply(block))
    n_genes = fit.components.shape[1]
    return Result(
        values=scores,
        genes_used=n_genes,
        genes_total=counts.shape[1],
        counts_used=counts_share(counts, genes),
        unembedded=0,
        extra=_about(fit, values, n_hvg, len(part.rows)),
    )


def fit_pca(blocks: Callable[[], Iterator[sp.csr_matrix]], n_genes: int, n_components: int) -> Pca:
    """Fit on the cells that ``blocks()`` yields (each call a pass over the same CSR blocks, (n, n_genes)).

    n_components is clipped to the rank of the centred data. Signs: the largest loading of a component is positive.
    Raises NotApplicable if the cells do not differ.
    """
    moments = _first_pass(blocks, n_genes)
    n, mean, squares = moments.n, moments.mean, moments.squares
    total = (squares - n * mean**2).sum()
    if n < 2 or total <= 1e-9 * max(squares.sum(), 1e-300):
        raise NotApplicable(f"PCA needs at least two cells that differ; it was given {n} cell(s) without variance.")
    k = min(n_components, n - 1, n_genes)
    pairs, solver = _eigenpairs(blocks, moments, k)
    components = pairs.vectors.T
    largest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(len(components)), largest])[:, None]
    return Pca(components, mean, pairs.values / (n - 1), float(total / (n - 1)), pairs.products, pairs.residual, solver)


def _eigenpairs(blocks: Callable[[], Iterator[sp.csr_matrix]], cells: "_Moments", k: int) -> tuple[Eigenpairs, str]:
    """The ``k`` largest eigenpairs of the covariance times n - 1, the cheaper way, and its name: gram, gram64 or krylov."""
    n_genes = len(cells.mean)

    def exact(vectors: np.ndarray) -> np.ndarray:
        return _covariance_product(blocks, cells.n, cells.mean, vectors)

    def by_gram(precision: type) -> Eigenpairs:
        gram = centred_gram(blocks(), cells.mean, cells.filled / cells.n, precision)
        gram = gram.single() if precision is np.float32 and not is_small(n_genes, k) else gram
        pairs = top_eigenpairs(gram.apply, n_genes, k, TOLERANCE / 2)  # products are cheap here: leave room for rounding
        rounding = gram_error(exact, gram, pairs.vectors) / float(pairs.values[-1])
        return replace(pairs, residual=pairs.residual + rounding)

    n_vectors = n_genes if is_small(n_genes, k) else VECTORS * k
    if not gram_is_cheaper(cells.n, int(cells.filled.sum()), n_genes, n_vectors):
        return top_eigenpairs(exact, n_genes, k), "krylov"
    pairs = by_gram(np.float32)
    return (pairs, "gram") if pairs.residual <= TOLERANCE else (by_gram(np.float64), "gram64")


@dataclass
class StreamedCells:
    """The fitting cells as CSR blocks: the first ``cache_gb`` of them stay in memory, the rest is re-read in every pass."""

    counts: Counts
    rows: np.ndarray
    apply: Callable[[sp.csr_matrix], sp.csr_matrix]
    cache_gb: float

    def __post_init__(self) -> None:
        self._kept, self._n_kept, self._free = [], 0, self.cache_gb * 1e9

    def blocks(self) -> Iterator[sp.csr_matrix]:
        """One pass over the cells."""
        yield from self._kept
        for rows, block in self.counts.blocks(self.rows[self._n_kept :]):
            values = small_indices(self.apply(block))
            self._free -= values.data.nbytes + values.indices.nbytes + values.indptr.nbytes
            if self._free >= 0:  # once full, it stays full: what is kept is the first part of the rows
                self._kept.append(values)
                self._n_kept += len(rows)
            yield values


@dataclass(frozen=True)
class _Moments:
    """Sums over ``n`` cells, (genes,) each: mean, sum of squares, number of stored values."""

    n: int
    mean: np.ndarray
    squares: np.ndarray
    filled: np.ndarray


def _first_pass(blocks: Callable[[], Iterator[sp.csr_matrix]], n_genes: int) -> _Moments:
    n, total, squares, filled = 0, np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes)
    for block in blocks():
        n += block.shape[0]
        add_moments(block.data, block.indices, total, squares, filled)
    return _Moments(n=n, mean=total / max(n, 1), squares=squares, filled=filled)


def _covariance_product(blocks: Callable, n: int, mean: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    panels = to_panels(vectors)
    image = np.zeros_like(panels)
    for block in blocks():
        add_gram_product(block.data, block.indices, block.indptr, panels, image)
    return from_panels(image, vectors.shape[1]) - n * np.outer(mean, mean @ vectors)


def _about(fit: Pca, values: str, n_hvg: int, n_cells: int) -> dict:
    return {
        "n_components": len(fit.components),
        "input": values,
        "n_hvg": n_hvg,
        "n_fit_cells": n_cells,
        "explained_variance_ratio": float(fit.variance.sum() / fit.total_variance),
        "solver": fit.solver,
        "passes": fit.passes,
        "residual": fit.residual,
        "tolerance": TOLERANCE,
    }
