"""Local inverse Simpson's index: how many batches, effectively, a cell has around it (Korsunsky et al. 2019, Harmony)."""

import math

import numba
import numpy as np

from plumbline.common.compiled import compiled
from plumbline.metrics.neighbours import limit_threads, neighbour_chunks, odd_at_most, principal_components
from plumbline.metrics.rows import Rows, held
from plumbline.scoring.vectors import RowSource

K = 251  # the paper's k: perplexity 251 // 3 = 83
SCIB_NEIGHBOURS = 90  # scib-metrics' Benchmarker: 90 neighbours counting the cell itself, perplexity 90 // 3
MIN_K = 7  # the smallest odd k with a perplexity of 2
KEPT_VARIANCE, MIN_COMPONENTS = 0.9, 32


def k_for(n_cells: int) -> int:
    """k on n_cells cells: 251, or the largest odd number that is at most a quarter of the cells."""
    return min(K, odd_at_most(n_cells / 4))


def reduce_dimensions(embedding: RowSource) -> RowSource:
    """Exact principal components of (n, d): as many as explain 90 % of the variance, at least 32 (or all d). float32."""
    if embedding.shape[1] <= MIN_COMPONENTS:
        return embedding.astype(np.float32, copy=False) if isinstance(embedding, np.ndarray) else embedding
    mean, axes, variance = principal_components(embedding)
    share = np.cumsum(variance) / max(variance.sum(), np.finfo(float).tiny)
    kept = max(MIN_COMPONENTS, int(np.searchsorted(share, KEPT_VARIANCE)) + 1)
    return held(Rows(embedding, shift=mean.astype(np.float32), axes=axes[:, :kept].astype(np.float32)))


def lisi(
    points: RowSource,
    labels: np.ndarray,
    k: int,
    perplexity: int,
    threads: int = 1,
    device: str = "cpu",
    asking: np.ndarray | None = None,
) -> np.ndarray:
    """LISI of every cell, or of those of ``asking`` (row numbers (m,)), in [1, number of labels]; higher is better mixed.

    points (n, d); labels (L, n) integer codes from 0: L labellings over the same neighbours, such as the batches and the
    shuffled batches. k: neighbours, not counting the cell. Returns float64 (L, m). Weights are exp(-beta d) over Euclidean
    distances, beta such that their entropy is log(perplexity) (tolerance 1e-5).
    """
    labels = np.ascontiguousarray(np.atleast_2d(labels), dtype=np.int32)
    out = np.empty((len(labels), points.shape[0] if asking is None else len(asking)))
    limit_threads(threads)
    for rows, distances, indices in neighbour_chunks(points, k, threads=threads, device=device, asking=asking):
        out[:, rows] = _lisi(distances, indices, labels, int(labels.max()) + 1, math.log(perplexity))
    return out


def ilisi(
    embedding: RowSource, labels: np.ndarray, k: int, threads: int = 1, device: str = "cpu", asking: np.ndarray | None = None
) -> np.ndarray:
    """The paper's LISI: on principal components, perplexity k // 3, 3 * (k // 3) neighbours of which the cell itself is one."""
    perplexity = k // 3
    return lisi(reduce_dimensions(embedding), labels, 3 * perplexity - 1, perplexity, threads, device, asking)


def ilisi_scib(
    embedding: RowSource, batch: np.ndarray, threads: int = 1, device: str = "cpu", asking: np.ndarray | None = None
) -> np.ndarray:
    """Per-cell LISI of scib-metrics (``lisi_knn``) with the neighbours of its Benchmarker: (m,), in [1, n_batches].

    The embedding as it is, 90 neighbours counting the cell itself, perplexity 30. ``ilisi_knn`` is the scaled median of it.
    """
    k = min(SCIB_NEIGHBOURS, embedding.shape[0])
    return lisi(embedding, batch, k - 1, k // 3, threads, device, asking)[0]


@compiled(parallel=True)
def _lisi(distances, indices, labels, n_labels, log_perplexity):
    n, k = distances.shape
    out = np.empty((labels.shape[0], n))
    for row in numba.prange(n):
        weights = _weights(distances[row], log_perplexity)
        share = np.empty(n_labels)
        for which in range(labels.shape[0]):
            share[:] = 0.0
            for j in range(k):
                share[labels[which, indices[row, j]]] += weights[j]
            out[which, row] = 1.0 / (share * share).sum()
    return out


@compiled()
def _weights(distances, log_perplexity):
    """Weights exp(-beta d), summing to 1, whose entropy is log_perplexity. Distances count from the nearest neighbour, which
    changes neither weights nor entropy but keeps exp() from underflowing. Steps are Newton's (the slope of the entropy is
    -beta times the variance of d), or bisect, as the paper's do, where those would leave the bracket: the same root, sooner.
    """
    away = distances.astype(np.float64) - distances[0]
    mean = away.mean()
    beta, low, high = 1.0 if not mean or 1e-6 < mean < 1e6 else 1 / mean, -np.inf, np.inf  # else 51 steps do not reach it
    weights = np.empty(len(away))
    for step in range(51):
        total, moment, square = 0.0, 0.0, 0.0
        for j in range(len(away)):
            weights[j] = math.exp(-away[j] * beta)
            total += weights[j]
            moment += away[j] * weights[j]
            square += away[j] * away[j] * weights[j]
        excess = math.log(total) + beta * moment / total - log_perplexity
        if abs(excess) < 1e-5 or step == 50:
            break
        if excess > 0:
            low = beta
            halfway = beta * 2 if high == np.inf else (beta + high) / 2
        else:
            high = beta
            halfway = beta / 2 if low == -np.inf else (beta + low) / 2
        slope = beta * (square / total - (moment / total) ** 2)
        newton = beta + excess / slope if slope > 1e-12 else np.inf
        beta = newton if max(low, beta / 4) < newton < min(high, beta * 4) else halfway
    return weights / total
