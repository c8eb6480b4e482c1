"""How far a perturbation lies from its controls, in units of the controls' own spread: an effect size that does not saturate.

Energy distances within single batches, by U-statistics: without effect their mean is 0 whatever the number of cells.
"""

from dataclasses import dataclass

import numpy as np

from plumbline.metrics.influence import CONTROL_GROUPS
from plumbline.scoring.parts import FEW_PERTURBATIONS
from plumbline.scoring.scores import Items


@dataclass(frozen=True, kw_only=True)
class EffectSizes:
    """Distances in single batches, one row each, (r,).

    perturbation, batch: names. energy, spread: sums over cells of the energy distance to the batch's controls, and of the mean
    distance between two of these. pull (r, 2, CONTROL_GROUPS): influence of each group of controls on the two.
    """

    perturbation: np.ndarray
    batch: np.ndarray
    energy: np.ndarray
    spread: np.ndarray
    pull: np.ndarray

    @staticmethod
    def of(parts: list["EffectSizes"]) -> "EffectSizes":
        """Several as one."""
        empty = EffectSizes(perturbation=np.zeros(0, dtype=str), batch=np.zeros(0, dtype=str), energy=np.zeros(0),
                            spread=np.zeros(0), pull=np.zeros((0, 2, CONTROL_GROUPS)))  # fmt: skip
        names = EffectSizes.__dataclass_fields__
        return EffectSizes(**{name: np.concatenate([getattr(part, name) for part in [empty, *parts]]) for name in names})

    def items(self) -> Items:
        """Mean energy distance over mean spread, by perturbation; by batch where there are fewer than FEW_PERTURBATIONS.

        A cell counts the same in every batch. Perturbations share controls, whose influence is added; batches do not.
        """
        by_batch = len(np.unique(self.perturbation)) < FEW_PERTURBATIONS
        unit, code = np.unique(self.batch if by_batch else self.perturbation, return_inverse=True)
        top, bottom = (np.bincount(code, values, minlength=len(unit)) for values in (self.energy, self.spread))
        if by_batch or not bottom.sum():
            return Items("batch", unit, top, bottom)
        moved = self.pull.sum(axis=0)
        influence = (moved[0] - top.sum() / bottom.sum() * moved[1]) / bottom.sum()
        return Items("perturbation", unit, top, bottom,
                     influence={f"controls {group}": float(part) for group, part in enumerate(influence) if part})  # fmt: skip


def effect_sizes(
    name: str, distances: np.ndarray, wanted: np.ndarray, starts: np.ndarray, batches: np.ndarray, group: np.ndarray
) -> EffectSizes:
    """Effect sizes of one perturbation in each of its batches.

    distances, wanted, starts: as in ``permutation_test``. batches (b,): names. group (N,): group of controls that a cell is in.
    Batches with a single cell or a single control are left out.
    """
    rows = []
    for batch, count, start, stop in zip(batches, wanted, starts[:-1], starts[1:], strict=True):
        if count > 1 and stop - start - count > 1:
            block = distances[start:stop, start:stop].astype(np.float64)
            energy, spread, pulls = _energy(block, int(count))
            pull = [np.bincount(group[start + count : stop], values, minlength=CONTROL_GROUPS) for values in count * pulls]
            rows.append((batch, count * energy, count * spread, pull))
    if not rows:
        return EffectSizes.of([])
    names, energy, spread, pull = zip(*rows, strict=True)
    return EffectSizes(perturbation=np.full(len(names), name), batch=np.array(names, dtype=str), energy=np.array(energy),
                       spread=np.array(spread), pull=np.array(pull))  # fmt: skip


def _energy(d: np.ndarray, n: int) -> tuple[float, float, np.ndarray]:
    """Energy distance of the first n cells to the m others, mean distance of two others, influence (2, m) of each
    other on both.

    d (n + m, n + m): distances, 0 on the diagonal.
    """
    m = len(d) - n
    to_cells, to_others = d[n:, :n].mean(axis=1), d[n:, n:].sum(axis=1) / (m - 1)
    cross, spread, within = to_cells.mean(), to_others.mean(), d[:n, :n].sum() / (n * (n - 1))
    own = 2 * (to_others - spread) / m
    return 2 * cross - within - spread, spread, np.stack([2 * (to_cells - cross) / m - own, own])
