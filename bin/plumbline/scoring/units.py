"""Scores as sums over units, brought into one form so that those of two models or seeds can be joined, pooled and compared."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from plumbline.scoring.scores import Items, Score


def canonical(items: Items) -> Items:
    """The same score with offset 0 and scale 1, one entry a name, in the order of names: items of two models now align."""
    numerator = items.offset * items.denominator + items.scale * items.numerator
    unit, unit2 = np.asarray(items.unit).astype(str), None
    if items.unit2 is not None:
        other = np.asarray(items.unit2).astype(str)
        swap = other < unit
        unit, unit2 = np.where(swap, other, unit), np.where(swap, unit, other)
    bare = Items(items.kind, unit, numerator, np.asarray(items.denominator, dtype=float), unit2)
    _, first, group = np.unique(unit_names(bare), return_index=True, return_inverse=True)
    top, bottom = (np.bincount(group, values, minlength=len(first)) for values in (bare.numerator, bare.denominator))
    unit2 = None if unit2 is None else unit2[first]
    return Items(items.kind, unit[first], top, bottom, unit2, influence=items.influence, most=_most(items))


def _most(items: Items) -> float:
    """``Items.most``, found from what units can be: hits (1) and misses (0) of equal weight."""
    if not np.isnan(items.most) or items.unit2 is not None or items.offset:
        return items.most
    return items.scale if np.isin(items.numerator, (0, 1)).all() and (items.denominator == 1).all() else items.most


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
    return canonical(
        replace(scaled[0], unit=unit, numerator=numerator, denominator=denominator, unit2=unit2, influence=influence)
    )


def joined(scores: Sequence[Score]) -> Score:
    """One score from those of several parts of the cells: their units' sums added up. Parts without a score are left out."""
    good = [(score, canonical(score.items)) for score in scores if score.items is not None]
    if len(scores) == 1 or not good:
        return scores[0]
    first, parts = good[0][0], [items for _, items in good]
    unit = np.concatenate([items.unit for items in parts])
    sums = [np.concatenate([getattr(items, name) for items in parts]) for name in ("numerator", "denominator")]
    total, names = sums[1].sum() or 1.0, sorted({name for items in parts for name in items.influence})
    weight = [items.denominator.sum() / total for items in parts]
    influence = {
        name: sum(w * items.influence.get(name, 0.0) for w, items in zip(weight, parts, strict=True)) for name in names
    }
    whole = replace(parts[0], unit=unit, numerator=sums[0], denominator=sums[1], influence=influence)
    items = canonical(replace(whole, most=parts[0].most if len({str(items.most) for items in parts}) == 1 else float("nan")))
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
    _, in_a, in_b = np.intersect1d(unit_names(a), unit_names(b), assume_unique=True, return_indices=True)
    return _take(a, in_a), _take(b, in_b)


def _take(items: Items, rows: np.ndarray) -> Items:
    unit2 = None if items.unit2 is None else items.unit2[rows]
    sums = {"numerator": items.numerator[rows], "denominator": items.denominator[rows]}
    return replace(items, unit=items.unit[rows], unit2=unit2, **sums)


def n_units(items: Items) -> int:
    """How many units are resampled: genes for kind 'pair', else the units themselves."""
    return len(items.genes[0]) or len(items.unit)


def unit_names(items: Items) -> np.ndarray:
    if items.unit2 is None:
        return np.asarray(items.unit).astype(str)
    return np.char.add(np.char.add(np.asarray(items.unit).astype(str), "\t"), np.asarray(items.unit2).astype(str))


def influence_of(items: Items, names: Sequence[str]) -> np.ndarray:
    """Influence (len(names),) on a score of what its units share; 0 for what it does not name."""
    return np.array([items.influence.get(name, 0.0) for name in names], dtype=float)


def deviation(items: Items) -> np.ndarray:
    """Influence (k,) of each unit on the score, which the units' own values make: they add up to 0."""
    total = items.denominator.sum()
    ratio = items.numerator.sum() / total if total else 0.0
    return items.scale * (items.numerator - ratio * items.denominator) / (total or 1.0)


def by_gene(items: Items, genes: Sequence[str]) -> np.ndarray:
    """Influence (len(genes),) of each gene on a score of pairs: that of all its pairs, and what ``Items.influence`` adds."""
    _, ends = items.genes
    own = deviation(items)
    pairs = [np.bincount(end, own, minlength=len(genes)) for end in ([] if ends is None else ends)]
    return np.sum(pairs, axis=0) + influence_of(items, genes)


def counted_twice(a: Items, b: Items | None = None) -> float:
    """Share of the variance of pair ``draws`` (of a, or of a less b) that is too much, since a pair stands at both its genes.

    Less that share, it is the dyadic cluster-robust variance: the covariances of all pairs with a gene in common, each once
    (Fafchamps & Gubert 2007, J Dev Econ 83:326; Aronow, Samii & Assenova 2015, Political Analysis 23:564). It may fall below
    that of independent pairs, which is then taken. 0 for other kinds.
    """
    if a.unit2 is None:
        return 0.0
    genes, _ = a.genes
    alone, whole = deviation(a), by_gene(a, genes.tolist())
    if b is not None:
        alone, whole = alone - deviation(b), whole - by_gene(b, genes.tolist())
    total, single = float(whole @ whole), float(alone @ alone)
    return min(single / total, 1 - single / total) if total > single else 0.0
