"""A score and what it is made of.

Every metric of plumbline is an affine function of a ratio of sums over exchangeable units,
``value = offset + scale * sum(numerator) / sum(denominator)``: accuracy over perturbations, mean LISI over batches,
structural integrity over batches, recall over gene pairs. One form serves intervals, paired differences and drill-down.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

KEYS = ["dataset", "model", "variant", "fit_on", "postprocess", "seed", "protocol", "task", "task_version", "metric"]
COLUMNS = [*KEYS, "value", "ci_low", "ci_high", "n", "status", "reason", "code"]

SHARED = "shared"  # unit_kind of the rows of an item table that hold what units share


def counted(n: int, noun: str) -> str:
    """'1 cell', '2 cells', '2 batches': a number and its noun, for reasons that people read."""
    several = f"{noun}es" if noun.endswith(("ch", "x", "s")) else f"{noun}s"
    return f"{n} {noun if n == 1 else several}"


@dataclass(frozen=True)
class Items:
    """The units behind a score.

    kind: what a unit is: 'perturbation', 'batch', 'gene', 'cell' or 'pair'.
    unit (k,): names. For kind 'pair', ``unit2`` (k,) names the second gene and intervals resample genes, not pairs.
    numerator, denominator (k,): float64; the score is ``offset + scale * numerator.sum() / denominator.sum()``.
    extra: further columns of the item table, each (k,), such as 'p', 'q', 'n_cells', 'value'.
    influence: what units share, name -> influence on the score: a group of controls (how far the score moves with that group's
    deviation from the mean of all controls), or a unit that moves the score beyond its own value, through a threshold or its
    neighbours. Independent; intervals add their variance.
    most: the score if every unit is a hit, where each can only be a hit or a miss and counts the same; else NaN.
    """

    kind: str
    unit: np.ndarray
    numerator: np.ndarray
    denominator: np.ndarray
    unit2: np.ndarray | None = None
    offset: float = 0.0
    scale: float = 1.0
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    influence: dict[str, float] = field(default_factory=dict)
    most: float = float("nan")

    @property
    def value(self) -> float:
        """The score these items add up to; NaN if the denominator is zero."""
        total = self.denominator.sum()
        return float(self.offset + self.scale * self.numerator.sum() / total) if total else float("nan")

    @cached_property
    def genes(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The genes of pairs and, for each pair, the index of its two ends (2, k); nothing for other kinds."""
        if self.unit2 is None:
            return np.zeros(0), None
        genes, ends = np.unique(np.concatenate([self.unit, self.unit2]).astype(str), return_inverse=True)
        return genes, ends.reshape(2, -1)


@dataclass(frozen=True)
class Score:
    """One value of one metric. ``items`` is None only for 'not_applicable' scores, which carry a ``reason``."""

    metric: str
    value: float
    n: int
    items: Items | None = None
    status: str = "ok"
    reason: str = ""

    @staticmethod
    def of(metric: str, items: Items, n: int | None = None, reason: str = "") -> "Score":
        """A score from its items; ``n`` defaults to the number of units. A score without units is not applicable."""
        if not len(items.unit):
            return Score.absent(metric, reason or "nothing to score")
        if not items.denominator.sum():
            return Score.absent(metric, "; ".join(filter(None, ("what it is measured by is 0 in all units", reason))))
        return Score(metric, items.value, len(items.unit) if n is None else n, items, "ok", reason)

    @staticmethod
    def absent(metric: str, reason: str) -> "Score":
        """A score that does not apply here, and why."""
        return Score(metric, float("nan"), 0, None, "not_applicable", reason)
