"""Cells grouped by a label, and whether they can be relabelled."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from plumbline.scoring.vectors import Vectors

ROWS = 4096  # rows summed in float64 at a time
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


def numbered(number: np.ndarray, used: np.ndarray) -> Groups:
    """The ``used`` rows grouped by ``number`` (n,); ``names`` are the numbers that occur, in order."""
    rows = np.flatnonzero(used)
    names, code = np.unique(number[rows], return_inverse=True)
    codes = np.full(len(number), -1, dtype=np.int64)
    codes[rows] = code
    order = rows[np.argsort(code, kind="stable")]
    return Groups(names, order, np.searchsorted(codes[order], np.arange(len(names) + 1)), codes)


def group_sums(totals: np.ndarray, codes: np.ndarray, values: np.ndarray) -> None:
    """Add the rows of ``values`` (n, d) to the totals (g, d) float64 of their groups ``codes`` (n,)."""
    for start in range(0, len(codes), ROWS):
        part = codes[start : start + ROWS]
        order = np.argsort(part, kind="stable")
        first = np.flatnonzero(np.diff(part[order], prepend=-1))
        rows = values[start : start + ROWS][order].astype(np.float64)
        totals[part[order[first]]] += np.add.reduceat(rows, first, axis=0)


def group_means(x: Vectors | np.ndarray, groups: Groups, block: int | None = None) -> np.ndarray:
    """Mean row of each group, (g, d) float64. x: (n, d), read in blocks (of so many rows)."""
    return means_of(x, [groups], block)[0]


def means_of(x: Vectors | np.ndarray, groupings: list[Groups], block: int | None = None) -> list[np.ndarray]:
    """``group_means`` of several groupings of the rows of x, in one pass; rows that are in no group (code -1) are not read."""
    vectors = Vectors.of(x)
    totals = [np.zeros((len(groups.names), vectors.shape[1])) for groups in groupings]
    rows = np.flatnonzero(np.any([groups.codes >= 0 for groups in groupings], axis=0))
    for positions, values in vectors.blocks(None if len(rows) == len(vectors) else rows, block):
        for groups, total in zip(groupings, totals, strict=True):
            code = groups.codes[rows[positions]]
            met = slice(None) if (code >= 0).all() else code >= 0  # a mask copies the block
            group_sums(total, code[met], values[met])
    for groups, total in zip(groupings, totals, strict=True):
        total /= groups.sizes[:, None]
    return totals


def enough_relabellings(marked: np.ndarray, others: np.ndarray) -> bool:
    """Whether ``marked`` of ``marked + others`` cells in each of some batches, (b,), can be chosen in MIN_RELABELLINGS ways."""
    total = 1
    for few, rest in zip(marked.tolist(), others.tolist(), strict=True):
        total *= math.comb(few + rest, few) if few + rest < MIN_RELABELLINGS else MIN_RELABELLINGS if few and rest else 1
    return total >= MIN_RELABELLINGS
