"""Mean average precision of profiles, as copairs defines it (Kalinin et al. 2025, Nature Communications 16:5181).

A query ranks candidates by cosine; its average precision is the mean, over its positives, of the share of positives among the
candidates down to that one. p values relabel profiles and repeat the whole calculation: queries of one group share
similarities, so that the mean of their average precisions varies more than that of independent ones, and less than one of them.
"""

import numpy as np

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


def precision_moves(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far m times the average precision moves with the weight of each positive (m,) and negative (n,), given their ranks.

    With weights w, average precision is the mean by weight, over the positives, of p / (p + q), the weights of the positives
    (itself included) and of the negatives down to it. The moves add up to 0. Ranks are distinct.
    """
    order = np.argsort(positives)
    ordered, place = positives[order], np.arange(1, len(positives) + 1)
    ahead = np.searchsorted(np.sort(negatives), ordered)
    precision, square = place / (place + ahead), (place + ahead) ** 2.0
    of_positives = np.empty(len(positives))
    of_positives[order] = precision - precision.mean() + _from_here_on(ahead / square)
    below = np.append(_from_here_on(place / square), 0)
    return of_positives, -below[np.searchsorted(ordered, negatives)]


def _from_here_on(values: np.ndarray) -> np.ndarray:
    """Sum of each value and those after it."""
    return values[::-1].cumsum()[::-1]


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

    def influence(self) -> np.ndarray:
        """Influence (g,) of each gene, as a mate and as a candidate of others, on the mean over sets of the mean over members.

        The derivative by its weight, beyond that as a query (infinitesimal jackknife; Efron 1982, The Jackknife, the Bootstrap
        and Other Resampling Plans, chapter 6).
        """
        total = np.zeros(len(self.rank))
        for members in self.sets:
            for one in members:
                mates, others = members[members != one], np.flatnonzero(~self.related[one])
                share = len(self.sets) * len(members) * len(mates)
                moved = precision_moves(self.rank[one, mates], self.rank[one, others])
                for rows, values in zip((mates, others), moved, strict=True):
                    total[rows] += values / share
        return total

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
