"""Mean average precision of profiles, as copairs defines it (Kalinin et al. 2025, Nature Communications 16:5181).

A query ranks candidates by cosine; its average precision is the mean, over its positives, of the share of positives among the
candidates down to that one. p values relabel profiles and repeat the whole calculation: queries of one group share
similarities, so that the mean of their average precisions varies more than that of independent ones, and less than one of them.
"""

import numpy as np

from plumbline.metrics.groups import MIN_RELABELLINGS
from plumbline.metrics.ranks import draw_p_value
from plumbline.metrics.repeats import Effects
from plumbline.metrics.units import unit_rows


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Average precision (...,) of positives with similarities (..., m) among negatives (..., n); ties count half.

    A similarity of -inf among the negatives is a candidate that does not count.
    """
    ordered = -np.sort(-positives, axis=-1)[..., None]
    above = (negatives[..., None, :] > ordered).sum(axis=-1)
    ahead = above + ((negatives[..., None, :] == ordered) & np.isfinite(ordered)).sum(axis=-1) / 2
    place = np.arange(1, positives.shape[-1] + 1)
    return (place / (place + ahead)).mean(axis=-1)


class Activity:
    """Are a perturbation's profiles nearer to each other than to profiles of controls?

    profiles (m, d): effects, less the mean of all controls of their part. controls: Effects of groups of controls, at least two
    in each part that counts. A profile is compared with those of other parts alone, as all effects of one part share the
    noise of its controls. The last control of each part stands in for the perturbation in the null, and is never a negative
    of the observed value: both then have as many negatives.
    """

    def __init__(self, profiles: np.ndarray, controls: Effects, n_controls: np.ndarray, n_draws: int, seed: int) -> None:
        self.unit, self.part = unit_rows(profiles), controls.part
        self.to_controls, self.gram = self.unit @ unit_rows(controls.values).T, controls.values @ controls.values.T
        # without one of them, the mean of a part's controls lies so much of its profile further away from it
        self.moves = controls.n_cells / np.maximum(n_controls[controls.part] - controls.n_cells, 1)
        self.negative = ~np.append(self.part[1:] != self.part[:-1], True)
        self.n_draws, self.seed = n_draws, seed
        self.nulls: dict[tuple[int, ...], np.ndarray] = {}

    def observed(self, rows: np.ndarray, part: np.ndarray) -> float:
        """Mean average precision of the profiles ``rows`` of one perturbation, which lie in the parts ``part``."""
        own = self.unit[rows] @ self.unit[rows].T
        found = []
        for place in range(len(rows)):
            others = part != part[place]
            against = self.negative & np.isin(self.part, part[others])
            found.append(average_precision(own[place, others], self.to_controls[rows[place], against]))
        return float(np.mean(found))

    def p_value(self, value: float, part: np.ndarray) -> float:
        """Share of the relabellings (one control profile of each part for the perturbation's) that reach ``value``."""
        null = self.null(part)
        return float(draw_p_value(np.array([value]), null[None])[0]) if len(null) >= MIN_RELABELLINGS else float("nan")

    def null(self, part: np.ndarray) -> np.ndarray:
        """Mean average precision of pseudo-perturbations made of one control profile in each part: all, or n_draws of them."""
        key = tuple(sorted(part.tolist()))
        if key not in self.nulls:
            choices = [np.flatnonzero(self.part == one) for one in key]
            self.nulls[key] = self._mean_precision(_combinations(choices, self.n_draws, self.seed))
        return self.nulls[key]

    def _mean_precision(self, chosen: np.ndarray) -> np.ndarray:
        """chosen (k, r): control profiles that play the perturbation, one per part."""
        found, length = [], np.sqrt(np.diag(self.gram)).clip(1e-300)
        for place in range(chosen.shape[1]):
            query, others = chosen[:, place], np.delete(chosen, place, axis=1)
            positives = self.gram[query[:, None], others] / (length[query, None] * length[others])
            negatives = [self._without(query, played) for played in others.T]
            found.append(average_precision(positives, np.hstack(negatives) / length[query, None]))
        return np.mean(found, axis=0)

    def _without(self, query: np.ndarray, played: np.ndarray) -> np.ndarray:
        """Projections of ``query`` (k,) on the controls of another part, relative to their mean without ``played`` (k,)."""
        others = np.flatnonzero(self.part == self.part[played[0]])
        moved, square = self.moves[played, None], np.diag(self.gram)
        dot = self.gram[query[:, None], others] + moved * self.gram[query, played][:, None]
        length = square[others] + 2 * moved * self.gram[played[:, None], others] + moved**2 * square[played, None]
        return np.where(others == played[:, None], -np.inf, dot / np.sqrt(length.clip(1e-300)))


def _combinations(choices: list[np.ndarray], n_draws: int, seed: int) -> np.ndarray:
    """All combinations of one entry of each of ``choices``, or n_draws random ones where there are more; (k, r)."""
    total = 1.0
    for options in choices:
        total *= len(options)
    if total <= n_draws:
        return np.stack([grid.ravel() for grid in np.meshgrid(*choices)], axis=1)
    random = np.random.default_rng(seed)
    return np.stack([random.choice(options, n_draws) for options in choices], axis=1)


class Consistency:
    """Are the profiles of a set (a complex) nearer to each other than to those of the other sets?

    x (g, d): a profile per gene that is in any set at all: others could be mates that nobody knows. sets: arrays of at least
    two rows of x. related (g, g): who shares a set; a member is ranked against its mates and the genes it shares no set with.
    """

    def __init__(self, x: np.ndarray, sets: list[np.ndarray], related: np.ndarray, seed: int) -> None:
        self.sets, self.related, self.rank = sets, related, _ranks(unit_rows(x), seed)

    def observed(self) -> list[np.ndarray]:
        """Average precision of each member of each set: s arrays."""
        unchanged = np.arange(len(self.rank))[None]
        return [np.array([self._of(one, members, unchanged)[0] for one in members]) for members in self.sets]

    def null(self, n_draws: int, seed: int) -> np.ndarray:
        """Mean average precision of each set, (s, n_draws), in random permutations of the genes' profiles."""
        random = np.random.default_rng(seed)
        orders = np.stack([random.permutation(len(self.rank)) for _ in range(n_draws)])
        return np.stack([np.mean([self._of(one, members, orders) for one in members], axis=0) for members in self.sets])

    def _of(self, one: int, members: np.ndarray, orders: np.ndarray) -> np.ndarray:
        """Average precision of a member as a query, (k,), where gene i has the profile of gene orders[:, i]; orders (k, g).

        Related genes that are no mates are not among the candidates.
        """
        query = orders[:, one, None]
        mates = np.sort(self.rank[query, orders[:, members[members != one]]], axis=1)
        related = np.sort(self.rank[query, orders[:, np.flatnonzero(self.related[one])]], axis=1)
        skipped = (related[:, None, :] < mates[:, :, None]).sum(axis=2)
        place = np.arange(1, mates.shape[1] + 1)
        return (place / (mates - skipped + place)).mean(axis=1)


def _ranks(unit: np.ndarray, seed: int) -> np.ndarray:
    """Place of gene j among all genes by their cosine to gene i, (g, g), 0 being the nearest; ties are in random order."""
    n, cosine = len(unit), unit @ unit.T
    shuffled = np.random.default_rng(seed).permutation(n)
    rank = np.empty((n, n), dtype=np.int32)
    for row in range(n):
        rank[row, shuffled[np.argsort(-cosine[row, shuffled], kind="stable")]] = np.arange(n)
    return rank
