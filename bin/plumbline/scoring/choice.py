"""A post-processing chosen on a few validation cells is chance in part: what that adds to the uncertainty of the score."""

from dataclasses import replace
from itertools import combinations
from zlib import crc32

import numpy as np

from plumbline.scoring.scores import Items, Score
from plumbline.scoring.stats import draws
from plumbline.scoring.units import canonical, deviation

DRAWS = 200


def chances(scores: dict[str, Score], direction: int, seed: int) -> dict[str, float]:
    """How often each method would be chosen, had other units been the validation part: 0..1, by the bootstrap.

    scores: the validation score of each method, on the same units; those on other units than the best one's are left out.
    """
    items = {m: canonical(one.items) for m, one in scores.items() if one.items is not None and np.isfinite(one.value)}
    if not items:
        return {}
    best = max(items, key=lambda method: direction * items[method].value)
    items = {method: one for method, one in items.items() if np.array_equal(one.unit, items[best].unit)}
    drawn = direction * draws(list(items.values()), DRAWS, seed)
    first = np.argmax(np.where(np.isfinite(drawn), drawn, -np.inf), axis=1)  # ties go to the simpler method
    return dict(zip(items, np.bincount(first, minlength=len(items)) / DRAWS, strict=True))


def with_choice(scores: list[Score], reported: dict[str, list[Score]], chance: dict[str, float], seed: int) -> list[Score]:
    """``scores`` of the chosen method with the choice as something that their units share.

    Its influence is the standard deviation of the score over two draws of a method, by their chances. The choice is an
    embedding's own, so that its name is one that no other has: made of its scores, but for the last digits, which another
    number of threads changes.
    """
    values = " ".join(f"{score.value:.6g}" for score in scores)
    name = f"choice {seed} {crc32(values.encode()):08x}"
    return [_with_choice(score, reported, chance, name) for score in scores]


def _with_choice(score: Score, reported: dict[str, list[Score]], chance: dict[str, float], name: str) -> Score:
    own = score.items
    if own is None:
        return score
    found = {method: one.items for method, scores in reported.items() for one in scores if one.metric == score.metric}
    known = {m: one for m, one in found.items() if chance.get(m) and one is not None and np.array_equal(one.unit, own.unit)}
    total = sum(chance[method] for method in known)
    spread = sum(chance[a] * chance[b] * _apart(known[a], known[b]) for a, b in combinations(known, 2))
    if not spread:
        return score
    influence = {**own.influence, name: float(np.sqrt(spread) / total)}
    return replace(score, items=replace(own, influence=influence))


def _apart(a: Items, b: Items) -> float:
    """Square of the difference of two scores, beyond what the noise of their units, which intervals hold already, makes it."""
    noise = deviation(a) - deviation(b)
    return max(0.0, (a.value - b.value) ** 2 - float(noise @ noise))
