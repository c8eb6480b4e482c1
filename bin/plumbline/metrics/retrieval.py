"""Retrieval of a perturbation among all others: is its effect in one half of the data nearest to that in the other half?

The perturbation discrimination score of cell-eval and the Virtual Cell Challenge, with the cosine as similarity.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from plumbline.metrics.units import unit_rows, without_rounding

TIE = 1e-6  # cosines closer than float32 rounding are ties
_BLOCK = 512


@dataclass(frozen=True)
class Nearer:
    """For each of p queries: how many of the p - 1 others are nearer than its own match, and how many are as near. (p,)"""

    nearer: np.ndarray
    tied: np.ndarray

    @property
    def k(self) -> np.ndarray:
        """Others nearer than the match, ties counting half."""
        return self.nearer + self.tied / 2

    @property
    def pds(self) -> np.ndarray:
        """1 - k / (p - 1): 1 where the match is the nearest, 0 where it is the farthest, 0.5 by chance."""
        return 1 - self.k / (len(self.k) - 1)

    @property
    def top1(self) -> np.ndarray:
        """1 where the match is the nearest; of t others as near, the chance 1 / (t + 1) to meet it first."""
        return (self.nearer == 0) / (self.tied + 1)

    @property
    def reciprocal_rank(self) -> np.ndarray:
        """1 / (1 + k)."""
        return 1 / (1 + self.k)


def retrieve(first: np.ndarray, second: np.ndarray) -> tuple[Nearer, Nearer]:
    """Row i of ``first`` (p, d) among the rows of ``second`` (p, d), whose row i is its match; and the other way round.

    Similarities are made in blocks of rows, so that the (p, p) matrix is never held.
    """
    queries, targets = unit_rows(first), unit_rows(second)
    own = np.einsum("ij,ij->i", queries, targets, dtype=np.float64).astype(np.float32)
    rows, columns = np.zeros((2, len(own))), np.zeros((2, len(own)))
    for start in range(0, len(own), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosine = queries[block] @ targets.T
        np.fill_diagonal(cosine[:, start:], own[block])  # a product of matrices rounds otherwise
        for found, match, axis in ((rows[:, block], own[block, None], 1), (columns, own, 0)):
            above, reaching = (cosine > match + TIE).sum(axis=axis), (cosine >= match - TIE).sum(axis=axis)
            found += above, reaching - above
    return Nearer(rows[0], rows[1] - 1), Nearer(columns[0], columns[1] - 1)  # each ties with itself


def centred(effects: np.ndarray) -> np.ndarray:
    """Effects (p, d) less the mean of all: what is left is the perturbation's own."""
    mean = effects.mean(axis=0)
    return without_rounding(effects - mean, mean)


def chance_of_reciprocal_rank(p: int) -> float:
    """The mean reciprocal rank of a random match among p candidates."""
    return float((1 / np.arange(1, p + 1)).mean())


def similarity_sums(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """For each of p rows the sums over the p - 1 others of 1, x, y, x^2, y^2 and x y, (p, 6) float64.

    x: cosine in ``first`` (p, d), y: the same in ``second``; in blocks of rows.
    """
    one, other = unit_rows(first), unit_rows(second)
    found = np.empty((len(one), 6))
    for start in range(0, len(one), _BLOCK):
        block = slice(start, start + _BLOCK)
        x, y = (unit[block] @ unit.T for unit in (one, other))
        for cosine in (x, y):
            np.fill_diagonal(cosine[:, start:], 0)
        sums = [values.sum(axis=1, dtype=np.float64) for values in (x, y, x * x, y * y, x * y)]
        found[block] = np.column_stack([np.full(len(x), len(one) - 1), *sums])
    return found


def reliability(sums: np.ndarray, of: Callable[[np.ndarray], np.ndarray] = np.asarray) -> np.ndarray:
    """Pseudo-values of the jackknife over perturbations, (p,), of the reliability of similarities; their mean estimates it.

    sums: as ``similarity_sums`` gives them, or added up over several divisions of the data. The reliability is the correlation
    of the similarities in two halves, for all of the data by Spearman and Brown: 2 r / (1 + r). of: a function of it to be
    estimated instead.
    """
    total, p = sums.sum(axis=0) / 2, len(sums)
    return p * of(_spearman_brown(total)) - (p - 1) * of(_spearman_brown(total - sums))


def _spearman_brown(sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = np.sqrt(np.maximum(xx / n - (x / n) ** 2, 0) * np.maximum(yy / n - (y / n) ** 2, 0))
    r = np.divide(xy / n - x * y / n**2, spread, out=np.zeros_like(spread), where=spread > 0)
    return 2 * r / (1 + r).clip(0.1)
