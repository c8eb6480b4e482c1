"""Highly variable genes, streamed: one pass over the fitting cells, memory of a few vectors of genes.

Counts: the normalised dispersion of Satija et al. 2015 (doi:10.1038/nbt.3192), as scanpy's
``highly_variable_genes(flavor="seurat")``: needs no fit by a further library, and one pass. Log-scale or signed values
have no mean-variance law of counts, so their genes are ranked by plain variance.
"""

import numpy as np
import scipy.sparse as sp

from plumbline.counts.reading import Counts
from plumbline.models.shared.fitting import transform

N_BINS = 20
ROUNDING = 1e-12  # a variance below this share of the squared mean is rounding of a constant gene


def select_genes(counts: Counts, rows: np.ndarray, kind: str, n_hvg: int) -> np.ndarray:
    """Column numbers, increasing, of the ``n_hvg`` most variable genes over ``rows``; all expressed genes if fewer.

    A gene that is constant over ``rows`` is never selected. Ties go to the lower column number.
    """
    mean, variance = moments(counts, rows, kind)
    score = normalised_dispersion(mean, variance) if kind == "counts" else np.where(variance > 0, variance, np.nan)
    usable = np.flatnonzero(np.isfinite(score))
    best = usable[np.argsort(-score[usable], kind="stable")[:n_hvg]]
    return np.sort(best)


def moments(counts: Counts, rows: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased variance (genes,) over ``rows``, float64: of counts to 10,000 per cell (not logged), or of X as given.

    Blocks are merged by the parallel update of Chan et al. 1983, which does not cancel for large means.
    """
    apply = transform(kind, "lognorm")
    n, mean, squares = 0, np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for _, block in counts.blocks(rows):
        values = apply(block)
        data = values.data.astype(np.float64)
        size, block_mean, block_squares = _block_moments(np.expm1(data) if kind == "counts" else data, values)
        delta = block_mean - mean
        squares += block_squares + delta**2 * n * size / (n + size)
        mean += delta * size / (n + size)
        n += size
    variance = squares / max(n - 1, 1)
    return mean, np.where(variance > ROUNDING * mean**2, variance, 0.0)


def _block_moments(data: np.ndarray, pattern: sp.csr_matrix) -> tuple[int, np.ndarray, np.ndarray]:
    """(cells, mean, sum of squared deviations) of a block: ``data`` at the non-zero places of ``pattern``."""
    size, n_genes = pattern.shape
    mean = np.bincount(pattern.indices, weights=data, minlength=n_genes) / size
    deviations = np.bincount(pattern.indices, weights=(data - mean[pattern.indices]) ** 2, minlength=n_genes)
    zeros = size - np.bincount(pattern.indices, minlength=n_genes)
    return size, mean, deviations + zeros * mean**2


def normalised_dispersion(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The z-score (genes,) of log(variance / mean) among genes of similar log1p(mean); NaN for genes without variance."""
    import pandas as pd

    constant = (mean <= 0) | (variance <= 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        dispersion = np.where(constant, np.nan, np.log(variance / mean))
    bins = pd.cut(pd.Series(np.log1p(mean)), bins=N_BINS, labels=False)
    grouped = pd.Series(dispersion).groupby(bins)
    centre, spread = grouped.mean(), grouped.std(ddof=1)
    lone = spread.isna()  # a gene alone in its bin scores 1, as in scanpy
    spread[lone], centre[lone] = centre[lone], 0.0
    return ((dispersion - centre.reindex(bins).to_numpy()) / spread.reindex(bins).to_numpy()).astype(np.float64)
