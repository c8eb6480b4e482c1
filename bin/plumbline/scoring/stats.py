"""Uncertainty of a score: bootstrap intervals, paired differences between models, false discovery rates.

Everything rests on ``draws``: scores under resampled units, plus the noise of what the units share (``Items.influence``).
Models over the same units are drawn together, so that their draws are paired and their difference is the paired bootstrap.
What was measured: benchmarks/trust.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

from plumbline.scoring.scores import Items, Score

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
    return interval_of_draws(items.value, drawn, n_units(items), level)


def interval_of_draws(value: float, drawn: np.ndarray, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of ``interval``, from the draws (n_boot,) of a score over n units."""
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
    the smallest p of a sign-flip test. Fewer than two shared units: low, high and p are nan.
    """
    a, b = canonical(items_a), canonical(items_b)
    n_all = len(np.union1d(_names(a), _names(b)))
    a, b = shared(a, b)
    drawn = draws([a, b], n_boot, seed)
    return difference_of_draws(a, b, drawn[:, 0], drawn[:, 1], n_all - len(a.unit), level)


def difference_of_draws(
    a: Items, b: Items, draws_a: np.ndarray, draws_b: np.ndarray, n_left_out: int = 0, level: float = 0.95
) -> Difference:
    """As ``paired_difference``, for canonical items over the same units whose ``draws`` (same seed) are at hand."""
    value, n = a.value - b.value, n_units(a)
    difference = narrowed(value, draws_a - draws_b, counted_twice(a, b))
    low, high = interval_of_draws(value, difference, n, level)
    p = _p_value(value, difference, n)
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
    genes, _ = _genes(first)
    own = (genes if len(genes) else np.asarray(first.unit).astype(str)).tolist()
    others = sorted({name for part in parts for name in part.influence}.difference(own))
    influence = np.column_stack([_by_gene(part, own) if len(genes) else _influence(part, own) for part in parts])
    influence = np.vstack([influence, np.column_stack([_influence(part, others) for part in parts])])
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


def _influence(items: Items, names: Sequence[str]) -> np.ndarray:
    """Influence (len(names),) on a score of what its units share; 0 for what it does not name."""
    return np.array([items.influence.get(name, 0.0) for name in names], dtype=float)


def _by_gene(items: Items, genes: Sequence[str]) -> np.ndarray:
    """Influence (len(genes),) of each gene on a score of pairs: that of all its pairs, and what ``Items.influence`` adds."""
    _, ends = _genes(items)
    own = deviation(items)
    pairs = [np.bincount(end, own, minlength=len(genes)) for end in ([] if ends is None else ends)]
    return np.sum(pairs, axis=0) + _influence(items, genes)


def counted_twice(a: Items, b: Items | None = None) -> float:
    """Share of the variance of pair ``draws`` (of a, or of a less b) that is too much, since a pair stands at both its genes.

    Less that share, it is the dyadic cluster-robust variance: the covariances of all pairs with a gene in common, each once
    (Fafchamps & Gubert 2007, J Dev Econ 83:326; Aronow, Samii & Assenova 2015, Political Analysis 23:564). It may fall below
    that of independent pairs, which is then taken. 0 for other kinds.
    """
    if a.unit2 is None:
        return 0.0
    genes, _ = _genes(a)
    alone, by_gene = deviation(a), _by_gene(a, genes.tolist())
    if b is not None:
        alone, by_gene = alone - deviation(b), by_gene - _by_gene(b, genes.tolist())
    total, single = float(by_gene @ by_gene), float(alone @ alone)
    return min(single / total, 1 - single / total) if total > single else 0.0


def deviation(items: Items) -> np.ndarray:
    """Influence (k,) of each unit on the score, which the units' own values make: they add up to 0."""
    total = items.denominator.sum()
    ratio = items.numerator.sum() / total if total else 0.0
    return items.scale * (items.numerator - ratio * items.denominator) / (total or 1.0)


def narrowed(value: float, drawn: np.ndarray, share: float) -> np.ndarray:
    """Draws whose variance about ``value`` is smaller by ``share``."""
    return drawn if not share else value + np.sqrt(1 - share) * (drawn - value)


def canonical(items: Items) -> Items:
    """The same score with offset 0 and scale 1, one entry a name, in the order of names: items of two models now align."""
    numerator = items.offset * items.denominator + items.scale * items.numerator
    unit, unit2 = np.asarray(items.unit).astype(str), None
    if items.unit2 is not None:
        other = np.asarray(items.unit2).astype(str)
        swap = other < unit
        unit, unit2 = np.where(swap, other, unit), np.where(swap, unit, other)
    bare = Items(items.kind, unit, numerator, np.asarray(items.denominator, dtype=float), unit2)
    _, first, group = np.unique(_names(bare), return_index=True, return_inverse=True)
    top, bottom = (np.bincount(group, values, minlength=len(first)) for values in (bare.numerator, bare.denominator))
    unit2 = None if unit2 is None else unit2[first]
    return Items(items.kind, unit[first], top, bottom, unit2, influence=items.influence)


def pool(parts: Sequence[Items]) -> Items:
    """One score from those of several seeds: its value is their mean, its units are theirs joined by name.

    Each seed gets the same weight, and a unit (or a group of controls) met in several seeds is resampled as one.
    """
    scaled = []
    for part in map(canonical, parts):
        total = part.denominator.sum()
        if total:
            scaled.append(replace(part, numerator=part.numerator / total, denominator=part.denominator / total))
    if not scaled:
        return canonical(parts[0])
    unit2 = None if scaled[0].unit2 is None else np.concatenate([part.unit2 for part in scaled])
    unit, numerator, denominator = (
        np.concatenate([getattr(part, name) for part in scaled]) for name in ("unit", "numerator", "denominator")
    )
    names = {name for part in scaled for name in part.influence}
    influence = {name: sum(part.influence.get(name, 0.0) for part in scaled) / len(scaled) for name in sorted(names)}
    return canonical(Items(scaled[0].kind, unit, numerator, denominator, unit2, influence=influence))


def joined(scores: Sequence[Score]) -> Score:
    """One score from those of several parts of the cells: their units' sums added up. Parts without a score are left out."""
    good = [(score, canonical(score.items)) for score in scores if score.items is not None]
    if len(scores) == 1 or not good:
        return scores[0]
    first, parts = good[0][0], [items for _, items in good]
    unit = np.concatenate([items.unit for items in parts])
    sums = [np.concatenate([getattr(items, name) for items in parts]) for name in ("numerator", "denominator")]
    items = canonical(Items(kind=parts[0].kind, unit=unit, numerator=sums[0], denominator=sums[1]))
    of_units = all(score.n == len(part.unit) for score, part in good)
    return Score.of(
        first.metric, items, n=len(items.unit) if of_units else sum(score.n for score, _ in good), reason=first.reason
    )


def averaged(scores: Sequence[Score]) -> Score:
    """The mean of scores of several draws of one chance, over the units of all; those without a score are left out."""
    items = [score.items for score in scores if score.items is not None]
    if len(items) < 2:
        return scores[0]
    first = next(score for score in scores if score.items is not None)
    reason = "; ".join(filter(None, (first.reason, f"mean of {len(items)} draws")))
    return Score.of(first.metric, pool(items), n=first.n, reason=reason)


def shared(a: Items, b: Items) -> tuple[Items, Items]:
    """Two canonical items reduced to the units both have (same order)."""
    _, in_a, in_b = np.intersect1d(_names(a), _names(b), assume_unique=True, return_indices=True)
    return _take(a, in_a), _take(b, in_b)


def n_units(items: Items) -> int:
    """How many units are resampled: genes for kind 'pair', else the units themselves."""
    return len(_genes(items)[0]) or len(items.unit)


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


def _names(items: Items) -> np.ndarray:
    if items.unit2 is None:
        return np.asarray(items.unit).astype(str)
    return np.char.add(np.char.add(np.asarray(items.unit).astype(str), "\t"), np.asarray(items.unit2).astype(str))


def _take(items: Items, rows: np.ndarray) -> Items:
    unit2 = None if items.unit2 is None else items.unit2[rows]
    sums = items.numerator[rows], items.denominator[rows]
    return Items(items.kind, items.unit[rows], *sums, unit2, influence=items.influence)


def _genes(items: Items) -> tuple[np.ndarray, np.ndarray | None]:
    """The genes of pairs and, for each pair, the index of its two ends (2, k); nothing for other kinds."""
    if items.unit2 is None:
        return np.zeros(0), None
    genes, ends = np.unique(np.concatenate([items.unit, items.unit2]).astype(str), return_inverse=True)
    return genes, ends.reshape(2, -1)


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
