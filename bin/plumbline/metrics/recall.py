"""Recall of known relationships among the pairwise cosines of perturbation embeddings (EFAAR, Celik et al. 2024)."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from plumbline.metrics.units import apart, unit_rows

_BLOCK = 512
_QUANTILES = 200


@dataclass(frozen=True)
class Similarities:
    """Cosines of all pairs i < j of p entities, less ``common``: ``values`` (p (p - 1) / 2,) float32, in the order of
    numpy.triu_indices. common: squared length of the mean direction, without which float32 holds how near cosines differ."""

    p: int
    values: np.ndarray
    common: float = 0.0

    def index(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Where the pairs (i, j), i < j, stand in ``values``."""
        i, j = np.asarray(i, dtype=np.int64), np.asarray(j, dtype=np.int64)
        return i * (2 * self.p - i - 1) // 2 + j - i - 1

    def pairs(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs (i, j) at the positions ``index`` of ``values``."""
        first = self.index(np.arange(self.p), np.arange(1, self.p + 1))  # where each i begins
        i = np.searchsorted(first, index, side="right") - 1
        return i, index - first[i] + i + 1


def pairwise_cosines(x: np.ndarray) -> Similarities:
    """Cosines of all pairs of rows of x (p, d); in blocks of rows, so that the square matrix is never held."""
    unit, p = unit_rows(x, np.float64), len(x)
    common, nowhere = unit.mean(axis=0), ~unit.any(axis=1)
    rest, along = apart(unit, common)
    values = np.empty(p * (p - 1) // 2, dtype=np.float32)
    end = 0
    for start in range(0, p, _BLOCK):
        block = rest[start : start + _BLOCK] @ rest[start:].T + along[start : start + _BLOCK, None] + along[start:]
        block[nowhere[start : start + _BLOCK]] = block[:, nowhere[start:]] = -common @ common
        for row in range(len(block)):
            part = block[row, row + 1 :]
            values[end : end + len(part)] = part
            end += len(part)
    return Similarities(p, values, float(common @ common))


def in_band(null: np.ndarray, share: float) -> tuple[float, float]:
    """Limits (low, high) of the two tails: a cosine c is recalled if c < low or c > high.

    EFAAR: c is recalled if at most ``share`` of ``null`` (n,) is <= c, or at least 1 - share of it is < c. Two order
    statistics say the same without a sort.
    """
    n = len(null)
    # rounding of count / n decides at the limits, so it is asked, near them
    near = np.array([[share * n], [(1 - share) * n]]) + np.arange(-2, 4)
    counts = np.clip(np.floor(near), 0, n).astype(np.int64)
    low = counts[0][counts[0] / n <= share].max()
    high = counts[1][counts[1] / n >= 1 - share].min()
    ordered = np.partition(null, [low, high - 1])
    return float(ordered[low]), float(ordered[high - 1])


def recalled(values: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    """Which cosines lie in a tail: boolean, shape of ``values``."""
    return (values < band[0]) | (values > band[1])


@dataclass(frozen=True)
class Band:
    """The two tails, each of which holds a share of all pairs. limits: ``in_band``; around: those of half the share less and
    more; tails: the pairs (i, j) below and above; p: how many entities there are."""

    share: float
    limits: tuple[float, float]
    around: tuple[tuple[float, float], tuple[float, float]]
    tails: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    p: int

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs (i, j) of both tails."""
        low, high = self.tails
        return np.concatenate((low[0], high[0])), np.concatenate((low[1], high[1]))

    def influence(self, known: np.ndarray) -> np.ndarray:
        """Influence (p,) of each entity, through the limits, on the share of the ``known`` cosines in the tails.

        A tail holds a fixed share of all pairs, so that an entity with many pairs in it leaves fewer places to others: minus
        its excess of pairs over the mean, as a share of all pairs, times the density of the known pairs at the limit,
        relative to that of all. The sum over both tails.
        """
        fewer, more = (np.array([(known < low).mean(), (known > high).mean()]) for low, high in self.around)
        counts = np.array([sum(np.bincount(end, minlength=self.p) for end in tail) for tail in self.tails])
        excess = (counts - counts.mean(axis=1, keepdims=True)) / (self.p * (self.p - 1) / 2)
        return -(more - fewer) / self.share @ excess


def band_of(similarities: Similarities, share: float) -> Band:
    """The tails, each of which holds ``share`` of all pairs."""
    limits, *around = (in_band(similarities.values, part * share) for part in (1, 0.5, 1.5))
    outside = similarities.values < limits[0], similarities.values > limits[1]
    low, high = (similarities.pairs(np.flatnonzero(tail)) for tail in outside)
    return Band(share=share, limits=limits, around=tuple(around), tails=(low, high), p=similarities.p)


def known_among(names: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Known pairs (k, 2) both of whose genes are among the sorted ``names`` (p,): indices (i, j), i < j."""
    place = np.minimum(np.searchsorted(names, pairs), max(len(names) - 1, 0))
    both = (names[place] == pairs).all(axis=1) if len(names) else np.zeros(len(pairs), dtype=bool)
    place = np.sort(place[both], axis=1)
    return place[:, 0], place[:, 1]


def cluster_separation(unit: np.ndarray, members: np.ndarray) -> tuple[float, float, float]:
    """Do the cosines within a cluster differ from those to the rest? (Kolmogorov-Smirnov statistic 0..1, two-sided p,
    mean cosine within less mean cosine to the rest). unit: rows of length 1 (p, d); members: indices (m,), 2 <= m < p.

    Source: EFAAR's cluster benchmark (Celik et al. 2024).
    """
    from scipy.stats import ks_2samp

    inside = np.zeros(len(unit), dtype=bool)
    inside[members] = True
    own = unit[inside]
    within = (own @ own.T)[np.triu_indices(len(own), k=1)]
    between = (own @ unit[~inside].T).ravel()
    test = ks_2samp(within, between)
    return float(test.statistic), float(test.pvalue), float(within.mean() - between.mean())


def recall_of_exact(reliability: np.ndarray, tail: float = 0.05) -> np.ndarray:
    """The recall that noise leaves: the share of the pairs in the band of the exact similarities that are in the observed one.

    reliability (...): squared correlation of observed and exact similarities, 0..1 (clipped). tail: the part of all pairs at
    each end. For normal similarities: P(|X| > z | |Y| > z) at a correlation of sqrt(reliability); 2 x tail without any, 1 at 1.
    """
    r = np.sqrt(np.clip(np.asarray(reliability, dtype=float), 0, 1 - 1e-9))[..., None]
    z, spread = -ndtri(tail), np.sqrt(1 - r**2)
    exact = -ndtri(tail * (np.arange(_QUANTILES) + 0.5) / _QUANTILES)  # quantiles of those beyond z
    inside = ndtr((r * exact - z) / spread) + ndtr((-z - r * exact) / spread)
    return inside.mean(axis=-1)
