"""A post-processing chosen on a few validation cells is chance in part: what that adds to the uncertainty of the score."""

from dataclasses import replace
from itertools import combinations
from zlib import crc32

import numpy as np

from plumbline.scoring.scores import Items, Score
from plumbline.scoring.stats import ROUNDING, draws
from plumbline.scoring.units import canonical, deviation

DRAWS = 200
NAMED_BY = 64  # cells of an embedding that name its choices


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
    return dict(zip(items, np.bincount(best_of(drawn), minlength=len(items)) / DRAWS, strict=True))


def best_of(scores: np.ndarray) -> np.ndarray:
    """Number of the method with the highest score in each row (n,); of equal ones, but for rounding, the first.

    scores (n, k): of k methods, the simpler ones first; those that are not finite are passed over.
    """
    known = np.where(np.isfinite(scores), scores, -np.inf)
    room = ROUNDING * np.abs(known[np.isfinite(known)]).max(initial=1.0)
    return np.argmax(known >= known.max(axis=1, keepdims=True) - room, axis=1)


def name_of_choice(vectors: np.ndarray, seed: int) -> str:
    """The name under which a choice is shared by the units of one embedding, and by those of no other.

    vectors (k, d): some of its cells. What counts is which of two cells is larger in each dimension: last digits, which another
    processor or number of threads changes, change neither that nor the noise that an interval draws by this name.
    """
    larger = np.sign(np.diff(vectors, axis=0)).astype(np.int8)
    return f"choice {seed} {crc32(larger.tobytes()):08x}"


def with_choice(scores: list[Score], reported: dict[str, list[Score]], chance: dict[str, float], name: str) -> list[Score]:
    """``scores`` of the chosen method with the choice, by its name, as something that their units share.

    Its influence is the standard deviation of the score over two draws of a method, by their chances.
    """
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
