"""Models that answered the same question: their intervals, their paired differences, their rank intervals."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from plumbline.scoring.scores import Items
from plumbline.scoring.stats import (
    Difference,
    bh,
    canonical,
    difference_of_draws,
    draws,
    interval_of_draws,
    n_units,
    paired_difference,
    pool,
    shared,
)


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
    def of(parts: dict[str, dict[int, Items]], n_boot: int = 1000, seed: int = 0) -> "Contest":
        """A contest between models; ``parts`` as above, in any form (made canonical here)."""
        parts = {name: {s: canonical(part) for s, part in sorted(seeds.items())} for name, seeds in parts.items()}
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
        return interval_of_draws(self.pooled[name].value, self.drawn[name], n_units(self.pooled[name]))

    def difference(self, a: str, b: str) -> Difference:
        """Score of a less score of b on what both have."""
        if self.footing[a] == self.footing[b]:
            return difference_of_draws(self.pooled[a], self.pooled[b], self.drawn[a], self.drawn[b])
        seeds = [seed for seed in self.parts[a] if seed in self.parts[b]]
        pairs = [shared(self.parts[a][seed], self.parts[b][seed]) for seed in seeds]
        pairs = [pair for pair in pairs if len(pair[0].unit)]
        if not pairs:
            n_all = len(self.pooled[a].unit) + len(self.pooled[b].unit)
            return Difference(float("nan"), float("nan"), float("nan"), float("nan"), 0, n_all)
        joined = [pool(side) for side in zip(*pairs, strict=True)]
        result = paired_difference(*joined, self.n_boot, self.seed)
        n_all = max(len(self.pooled[a].unit), len(self.pooled[b].unit))
        return Difference(result.value, result.low, result.high, result.p, result.n_shared, n_all - result.n_shared)

    def ranks(self, names: list[str], higher_is_better: bool = True, fdr: float = 0.05) -> dict[str, tuple[int, int]]:
        """Rank interval (best, worst) of each of ``names``, 1 being the best.

        Every pair is compared (Benjamini-Hochberg over the pairs, q <= ``fdr``). Best rank = 1 + the number of models told
        to be better; worst = number of models less those told to be worse. Models that nobody tells apart share a rank.
        """
        pairs = list(combinations(names, 2))
        found = [self.difference(a, b) for a, b in pairs]
        told = bh(np.array([result.p for result in found])) <= fdr
        losses, wins = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        for (a, b), result, clear in zip(pairs, found, told, strict=True):
            if clear:
                winner, loser = (a, b) if (result.value > 0) == higher_is_better else (b, a)
                wins[winner] += 1
                losses[loser] += 1
        return {name: (1 + losses[name], len(names) - wins[name]) for name in names}


def _footing(seeds: dict[int, Items]) -> str:
    """What a model's score stands on: its seeds and, in each, its units."""
    digest = hashlib.sha256()
    for seed, part in seeds.items():
        names = part.unit if part.unit2 is None else np.concatenate([part.unit, part.unit2])
        digest.update(f"{seed} {part.kind} ".encode() + "\n".join(names.tolist()).encode())
    return digest.hexdigest()
