"""Models that answered the same question: their intervals and their paired differences."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from plumbline.scoring.scores import Items
from plumbline.scoring.stats import Difference, difference_of_draws, draws, interval_of_score, narrowed, paired_difference
from plumbline.scoring.units import canonical, counted_twice, pool, shared


@dataclass(frozen=True)
class Contest:
    """One metric on one data set: for every model its seeds pooled (value = mean over seeds) and its bootstrap draws.

    parts: model -> seed -> canonical items. Models over the same units and seeds are drawn together, hence paired; two
    models that are not are joined seed by seed on the units both have.
    """

    parts: dict[str, dict[int, Items]]
    pooled: dict[str, Items]
    drawn: dict[str, np.ndarray]
    footing: dict[str, str]
    n_boot: int
    seed: int

    @staticmethod
    def of(given: Iterable[tuple[str, dict[int, Items]]], n_boot: int = 1000, seed: int = 0) -> "Contest":
        """A contest between models; ``given``: model and its ``parts`` as above, in any form (made canonical here)."""
        names: dict[bytes, Items] = {}
        parts = {name: {s: _sharing(names, canonical(part)) for s, part in sorted(seeds.items())} for name, seeds in given}
        pooled = {name: pool(list(seeds.values())) for name, seeds in parts.items()}
        footing = {name: _footing(seeds) for name, seeds in parts.items()}
        groups, drawn = defaultdict(list), {}
        for name, key in footing.items():
            groups[key].append(name)
        for names in groups.values():
            together = draws([pooled[name] for name in names], n_boot, seed)
            drawn |= dict(zip(names, together.T, strict=True))
        return Contest(parts, pooled, drawn, footing, n_boot, seed)

    def interval(self, name: str) -> tuple[float, float]:
        """95 % interval of one model's score."""
        items = self.pooled[name]
        return interval_of_score(items, narrowed(items.value, self.drawn[name], counted_twice(items)))

    def difference(self, a: str, b: str) -> Difference:
        """Score of a less score of b on what both have."""
        if self.footing[a] == self.footing[b]:
            return difference_of_draws(self.pooled[a], self.pooled[b], self.drawn[a], self.drawn[b])
        seeds = [seed for seed in self.parts[a] if seed in self.parts[b]]
        pairs = [shared(self.parts[a][seed], self.parts[b][seed]) for seed in seeds]
        pairs = [pair for pair in pairs if len(pair[0].unit)]
        if not pairs:
            n_all = len(self.pooled[a].unit) + len(self.pooled[b].unit)
            nan = float("nan")
            return Difference(value=nan, low=nan, high=nan, p=nan, n_shared=0, n_left_out=n_all, n_units=0)
        joined = [pool(side) for side in zip(*pairs, strict=True)]
        result = paired_difference(*joined, self.n_boot, self.seed)
        n_all = max(len(self.pooled[a].unit), len(self.pooled[b].unit))
        return replace(result, n_left_out=n_all - result.n_shared)

    def pairs(self, names: list[str]) -> pd.DataFrame:
        """Every pair of ``names``: columns a, b, value (score of a less that of b), p, and n_units that both have."""
        found = [(a, b, self.difference(a, b)) for a, b in combinations(names, 2)]
        rows = [(a, b, result.value, result.p, result.n_units) for a, b, result in found]
        return pd.DataFrame(rows, columns=["a", "b", "value", "p", "n_units"])


def _sharing(names: dict[bytes, Items], part: Items) -> Items:
    """The same items, with the very names of others over the same units: those of a hundred thousand pairs are 10 MB."""
    first = names.setdefault(_named(part), part)
    return part if first is part else replace(part, unit=first.unit, unit2=first.unit2)


def _named(part: Items) -> bytes:
    """A digest of the units."""
    units = part.unit if part.unit2 is None else np.concatenate([part.unit, part.unit2])
    return hashlib.sha256(f"{part.kind} ".encode() + "\n".join(units.tolist()).encode()).digest()


def _footing(seeds: dict[int, Items]) -> str:
    """What a model's score stands on: its seeds and, in each, its units."""
    return " ".join(f"{seed} {_named(part).hex()}" for seed, part in seeds.items())
