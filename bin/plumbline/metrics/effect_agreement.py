"""Effects of perturbations, predicted from one half of their cells and observed in the other (protocol, task 6).

A decoder that rebuilds each cell rebuilds the noise of its counts, too, and so would be paid for it by the mean of the same
cells. Halves that share neither cells nor controls have no noise in common. Genes are in rows, and added chunk by chunk.
"""

from dataclasses import dataclass

import numpy as np

from plumbline.common.random import seed_of
from plumbline.metrics.divisions import Labels, by_cell
from plumbline.metrics.repeats import EffectMap, effect_map
from plumbline.scoring.scores import Items

DIVISIONS = 3  # of the cells into halves, each scored in both directions
_GENES = 256  # at a time
_NOTHING = 1e-12  # a predicted effect smaller than this share of the observed one, squared, is rounding
SUMS = ("x", "y", "xx", "yy", "xy")


@dataclass(frozen=True)
class _Division:
    """One division: the map from cells to effects, the rows of both halves, the perturbation (k,) of each pair of rows."""

    effects: EffectMap
    first: np.ndarray
    second: np.ndarray
    code: np.ndarray


class EffectAgreement:
    """Sums over genes of effects in two halves of the cells of each perturbation, k of them.

    names (k,): perturbations; those without cells and controls in both halves of any division are in no score.
    """

    def __init__(self, labels: Labels, seed: int) -> None:
        self.names = np.unique(np.asarray(labels.perturbation)[~labels.is_control]).astype(str)
        self.divisions = [self._division(labels, seed_of(seed, f"halves {number}")) for number in range(DIVISIONS)]
        shape = (DIVISIONS, 2, len(SUMS), len(self.names))
        self.predicted, self.observed, self.n_genes = np.zeros(shape), np.zeros((DIVISIONS, 1, *shape[2:])), 0
        self.met = np.zeros((DIVISIONS, len(self.names)), dtype=bool)
        for division, met in zip(self.divisions, self.met, strict=True):
            met[division.code] = True

    def _division(self, labels: Labels, seed: int) -> _Division:
        found = effect_map(labels, by_cell(labels, 2, seed))
        first, second = found.pairs()
        return _Division(found, first, second, np.searchsorted(self.names, found.names[found.code[first]].astype(str)))

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Take in some genes: true and predicted expression, (genes, n_cells), each gene once."""
        for low in range(0, len(truth), _GENES):
            some = slice(low, low + _GENES)
            self._add(*(np.ascontiguousarray(values[some].T, dtype=np.float64) for values in (truth, prediction)))
        self.n_genes += len(truth)

    def _add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        for number, division in enumerate(self.divisions):
            true, guess = division.effects(truth), division.effects(prediction)
            halves = division.first, division.second
            for way, (own, other) in enumerate((halves, halves[::-1])):
                self.predicted[number, way][:, division.code] += _sums(guess[own], true[other])
            self.observed[number, 0][:, division.code] += _sums(true[division.first], true[division.second])

    def pearson(self, ceiling: bool = False) -> Items:
        """Mean over perturbations of the correlation over genes of predicted and observed effect, -1..1.

        ceiling: what the exact effect would reach, the root of the correlation of the two observed halves (correction for
        attenuation, Spearman 1904); of a negative one, minus the root of its size, so that noise has a mean of 0.
        """
        correlation = self._mean(_correlation(self.observed if ceiling else self.predicted, self.n_genes))
        value = np.sign(correlation) * np.sqrt(np.abs(correlation)) if ceiling else correlation
        return self._items(value, np.ones(len(value)))

    def integrity(self, ceiling: bool = False) -> Items:
        """1 - sum_p |P_p - T_p| / sum_p |T_p|: P_p the predicted, T_p the observed effect, norms over genes; no lower bound.

        0: no effect predicted, 1: perfect, but for the noise of T_p. ceiling: what the exact effect would reach: the squared
        distance of two observed halves has the noise of both, half of it is that of one.
        """
        _, _, xx, yy, xy = np.moveaxis(self.observed if ceiling else self.predicted, 2, 0)
        squared = np.maximum(xx + yy - 2 * xy, 0)
        size = np.sqrt((xx + yy) / 2) if ceiling else np.sqrt(yy)
        residual = self._mean(np.sqrt(squared / 2 if ceiling else squared))
        return self._items(residual, self._mean(size), offset=1.0, scale=-1.0)

    def halves_agree(self) -> float:
        """Mean over perturbations of the correlation of the effects observed in two halves; NaN without perturbations."""
        return self._items(self._mean(_correlation(self.observed, self.n_genes)), np.ones(len(self.names))).value

    def _mean(self, values: np.ndarray) -> np.ndarray:
        """Mean over divisions and directions of ``values`` (divisions, ways, k); NaN for perturbations in none."""
        times = self.met.sum(axis=0)
        total = (values * self.met[:, None]).sum(axis=(0, 1)) / values.shape[1]
        return np.divide(total, times, out=np.full(len(times), np.nan), where=times > 0)

    def _items(self, numerator: np.ndarray, denominator: np.ndarray, offset: float = 0.0, scale: float = 1.0) -> Items:
        used = np.isfinite(numerator)
        parts = self.names[used], numerator[used], denominator[used]
        return Items("perturbation", *parts, offset=offset, scale=scale)


def _sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sums over genes (columns) of SUMS, (5, k)."""
    products = [np.einsum("ij,ij->i", a, b) for a, b in ((x, x), (y, y), (x, y))]
    return np.stack([x.sum(axis=1), y.sum(axis=1), *products])


def _correlation(sums: np.ndarray, n: int) -> np.ndarray:
    """Pearson correlation from SUMS (divisions, ways, 5, k) of n genes; 0 where nothing is predicted, or nothing observed."""
    x, y, xx, yy, xy = np.moveaxis(sums, 2, 0)
    spread = np.maximum(xx - x * x / max(n, 1), 0), np.maximum(yy - y * y / max(n, 1), 0)
    real = (spread[0] > _NOTHING * spread[1]) & (spread[1] > 0)
    value = np.divide(xy - x * y / max(n, 1), np.sqrt(spread[0] * spread[1]), out=np.zeros_like(xy), where=real)
    return np.clip(value, -1, 1)
