"""Uncertainty of a score: bootstrap intervals, paired differences between models, false discovery rates.

Everything rests on ``draws``: scores under resampled units, plus the noise of what the units share (``Items.influence``).
Models over the same units are drawn together, so that their draws are paired and their difference is the paired bootstrap.
What was measured: benchmarks/trust.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri, stdtr, stdtrit

from plumbline.scoring.scores import Items
from plumbline.scoring.units import (
    by_gene,
    canonical,
    counted_twice,
    influence_of,
    n_units,
    shared,
    unit_names,
)

ROUNDING = 1e-5  # of the larger score, or of 1: closer ones are equal, as another scale, processor or thread may turn them
FEW = 8  # units below which a percentile interval is too narrow
_CHUNK = 2_000_000  # resampling weights held at once (float64: 16 MB)


@dataclass(frozen=True)
class Difference:
    """Score of a less score of b on the ``n_shared`` units both have (``n_left_out`` are in one only).

    n_units: how many of what is resampled they have in common: units, or the genes of ``n_shared`` pairs.
    """

    value: float
    low: float
    high: float
    p: float
    n_shared: int
    n_left_out: int
    n_units: int


def interval(items: Items, n_boot: int = 1000, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval (low, high) of a score, over its units and what they share; for kind 'pair' over genes (``draws``).

    The expanded percentile interval (Hesterberg 2015, The American Statistician 69:371, section 4.3): with many units the
    usual 2.5 and 97.5 percentiles. With fewer than 8 units no percentile is wide enough: the score plus or minus Student's
    t (n - 1 degrees of freedom) times the bootstrap standard error times sqrt(n / (n - 1)), which may leave the range of
    the metric. Fewer than two units say nothing about spread: (nan, nan). Deterministic for a seed.
    """
    items = canonical(items)
    drawn = narrowed(items.value, draws([items], n_boot, seed)[:, 0], counted_twice(items))
    return interval_of_score(items, drawn, level)


def interval_of_score(items: Items, drawn: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The interval of ``interval``, from canonical items and the draws (n_boot,) of their score, already ``narrowed``."""
    n = n_units(items)
    if items.unit2 is not None and 0 < items.value < 1:
        drawn = _as_odds(items.value, drawn)
    ends = interval_of_draws(items.value, drawn, n, level)
    if np.isnan(ends[0]) or np.isnan(items.most):
        return ends
    floor = wilson(items.value / items.most, n, level)
    return min(ends[0], items.most * floor[0]), max(ends[1], items.most * floor[1])


def _as_odds(value: float, drawn: np.ndarray) -> np.ndarray:
    """Draws of a share, as far from it in logits as the delta method says: the error of a small share grows with it, so that an
    even interval is too short above (Agresti 2013, Categorical Data Analysis, section 3.1)."""
    return expit(logit(value) + (drawn - value) / (value * (1 - value)))


def wilson(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share in 0..1 of n units (Brown, Cai & DasGupta 2001, Stat Sci 16:101, equation 4)."""
    z = -ndtri((1 - level) / 2)
    middle, reach = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (float(middle - reach) / (1 + z**2 / n), float(middle + reach) / (1 + z**2 / n))


def interval_of_draws(value: float, drawn: np.ndarray, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a score or of a difference over n units, from its draws (n_boot,)."""
    drawn = drawn[np.isfinite(drawn)]
    if n < 2 or len(drawn) < 2 or not np.isfinite(value):
        return float("nan"), float("nan")
    if n < FEW:
        reach = -stdtrit(n - 1, (1 - level) / 2) * _standard_error(drawn, n)
        return float(value - reach), float(value + reach)
    tail = ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def paired_difference(items_a: Items, items_b: Items, n_boot: int = 1000, seed: int = 0, level: float = 0.95) -> Difference:
    """Difference of two scores on the units they share, with a paired bootstrap interval and a two-sided p value.

    Units are joined by name; those in only one are left out and counted. p: the difference over its bootstrap standard
    error (times sqrt(n / (n - 1))) against Student's t with n - 1 degrees of freedom, n being the number of shared units
    (genes for kind 'pair'). If every unit agrees (standard error 0) it is 1 without a difference, and otherwise 2^(1 - n),
    the smallest p of a sign-flip test. Scores that are equal but for rounding (ROUNDING) have no difference: p is 1, and the
    interval holds 0. Fewer than two shared units: low, high and p are nan.
    """
    a, b = canonical(items_a), canonical(items_b)
    n_all = len(np.union1d(unit_names(a), unit_names(b)))
    a, b = shared(a, b)
    drawn = draws([a, b], n_boot, seed)
    return difference_of_draws(a, b, drawn[:, 0], drawn[:, 1], n_all - len(a.unit), level)


def rounding_of(*scores: float) -> float:
    """The difference up to which scores are equal."""
    return ROUNDING * max(1.0, *map(abs, scores))


def difference_of_draws(
    a: Items, b: Items, draws_a: np.ndarray, draws_b: np.ndarray, n_left_out: int = 0, level: float = 0.95
) -> Difference:
    """As ``paired_difference``, for canonical items over the same units whose ``draws`` (same seed) are at hand."""
    value, n = a.value - b.value, n_units(a)
    difference = narrowed(value, draws_a - draws_b, counted_twice(a, b))
    low, high = interval_of_draws(value, difference, n, level)
    p, room = _p_value(value, difference, n), rounding_of(a.value, b.value)
    if 0 < abs(value) <= room and np.isfinite(p):
        low, high, p = min(low, -room), max(high, room), 1.0
    return Difference(value=value, low=low, high=high, p=p, n_shared=len(a.unit), n_left_out=n_left_out, n_units=n)


def draws(parts: Sequence[Items], n_boot: int = 1000, seed: int = 0) -> np.ndarray:
    """Scores under ``n_boot`` resamplings of the units they share, (n_boot, len(parts)); nan where nothing is left to score.

    Units are drawn with replacement; what ``Items.influence`` names moves the score by its influence times a standard normal
    number, the same for every part, or, where it names a unit, times how often that was drawn less one. For kind 'pair' genes
    are drawn, and a score moves by the influence of all pairs of a gene, in which every pair stands at both its genes
    (``counted_twice`` gives what is too much). ``parts`` are canonical and stand on the same units.
    """
    first = parts[0]
    sums = np.column_stack([column for part in parts for column in (part.numerator, part.denominator)])
    if not np.isfinite(sums).all():
        raise ValueError("a unit of a score has a numerator or denominator that is not finite")
    genes, _ = first.genes
    own = (genes if len(genes) else np.asarray(first.unit).astype(str)).tolist()
    others = sorted({name for part in parts for name in part.influence}.difference(own))
    influence = np.column_stack([by_gene(part, own) if len(genes) else influence_of(part, own) for part in parts])
    influence = np.vstack([influence, np.column_stack([influence_of(part, others) for part in parts])])
    units, noise, start = np.random.default_rng(seed), _noise(others, n_boot, seed), 0
    drawn = [np.zeros((0, len(parts)))]
    for counts in _resample(units, len(own), n_boot, len(own)):
        score = np.array([part.value for part in parts]) if len(genes) else _ratios(counts @ sums)
        drawn.append(score + np.hstack([counts - 1, noise[start : start + len(counts)]]) @ influence)
        start += len(counts)
    return np.concatenate(drawn)


def _noise(names: Sequence[str], n_boot: int, seed: int) -> np.ndarray:
    """Standard normal numbers (n_boot, len(names)), those of a name the same in any company: another model changes nothing."""
    each = [np.random.default_rng([seed, crc32(name.encode())]).standard_normal(n_boot) for name in names]
    return np.column_stack([np.zeros((n_boot, 0)), *each])


def _ratios(totals: np.ndarray) -> np.ndarray:
    """Numerators (columns 0, 2, ...) over denominators (columns 1, 3, ...); nan where that is 0."""
    numerator, denominator = totals[:, ::2], totals[:, 1::2]
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def narrowed(value: float, drawn: np.ndarray, share: float) -> np.ndarray:
    """Draws whose variance about ``value`` is smaller by ``share``."""
    return drawn if not share else value + np.sqrt(1 - share) * (drawn - value)


def bh(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p values, same shape as ``p`` (k,); a nan stays nan and is not counted as a test.

    Why not ``scipy.stats.false_discovery_control``, with which the tests compare it: that refuses nan, and it multiplies in
    another order, so that nearly every value would differ from those of earlier releases in its last digit.
    """
    p = np.asarray(p, dtype=float)
    q = np.full(p.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * (len(order) / np.arange(1, len(order) + 1))  # the largest p stays what it is, to the last digit
    q[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0)
    return q


def _resample(rng: np.random.Generator, k: int, n_boot: int, width: int) -> Iterator[np.ndarray]:
    """Chunks of how often each of k units is drawn, (rows, k) float64, ``n_boot`` rows in all."""
    step = max(1, _CHUNK // max(width, 1))
    for start in range(0, n_boot if k else 0, step):
        rows = min(step, n_boot - start)
        drawn = rng.integers(0, k, (rows, k)) + k * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * k).reshape(rows, k).astype(float)


def _standard_error(drawn: np.ndarray, n: int) -> float:
    return float(drawn.std(ddof=1) * np.sqrt(n / (n - 1)))


def _p_value(value: float, differences: np.ndarray, n: int) -> float:
    differences = differences[np.isfinite(differences)]
    if n < 2 or len(differences) < 2 or not np.isfinite(value):
        return float("nan")
    error = _standard_error(differences, n)
    if error <= 1e-12 * max(abs(value), 1e-300):
        return 1.0 if value == 0 else float(2.0 ** (1 - n))
    return float(2 * stdtr(n - 1, -abs(value) / error))
