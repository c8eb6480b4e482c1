"""Cells grouped by a label, and whether they can be relabelled."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

MIN_RELABELLINGS = 20  # of fewer, not even the most extreme one has p <= 0.05


@dataclass(frozen=True)
class Groups:
    """Cells sorted by label.

    names (g,): labels in alphabetical order. order (n,): row numbers, one group after the other, in row order within one.
    starts (g + 1,): group i is ``order[starts[i]:starts[i + 1]]``. codes (n,): for each row of the input its group.
    """

    names: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    codes: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Cells in each group, (g,)."""
        return np.diff(self.starts)

    def rows(self, group: int) -> np.ndarray:
        """Row numbers of one group."""
        return self.order[self.starts[group] : self.starts[group + 1]]


def group_by(labels: np.ndarray) -> Groups:
    """Group rows by ``labels`` (n,) of strings."""
    codes, names = pd.factorize(np.asarray(labels, dtype=object), sort=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    return Groups(np.asarray(names).astype(str), order, starts, codes)


def group_means(x: np.ndarray, groups: Groups, block: int = 4096) -> np.ndarray:
    """Mean row of each group, (g, d) float64. x: (n, d); summed in blocks so that no float64 copy of x is made."""
    totals = np.zeros((len(groups.names), x.shape[1]))
    for start in range(0, len(groups.order), block):
        rows = groups.order[start : start + block]
        codes = groups.codes[rows]
        first = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
        totals[codes[first]] += np.add.reduceat(x[rows].astype(np.float64), first, axis=0)
    return totals / groups.sizes[:, None]


def enough_relabellings(marked: np.ndarray, others: np.ndarray) -> bool:
    """Whether ``marked`` of ``marked + others`` cells in each of some batches, (b,), can be chosen in MIN_RELABELLINGS ways."""
    total = 1
    for few, rest in zip(marked.tolist(), others.tolist(), strict=True):
        total *= math.comb(few + rest, few) if few + rest < MIN_RELABELLINGS else MIN_RELABELLINGS if few and rest else 1
    return total >= MIN_RELABELLINGS
