"""A good prediction of expression, and ways to damage it by a known amount.

The truth of a cell is: mean of its batch's controls + mean effect of its perturbation + cell-to-cell variation. The good
prediction keeps the first two and half of the third. Arrays are (genes, n_cells), cells sorted by batch; draws are nested:
a larger level of a damage adds to a smaller one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from plumbline.metrics.effects import ControlMean, mean_of_groups

KEPT = 0.5  # share of the cell-to-cell variation in the good prediction


@dataclass(frozen=True)
class Case:
    """Cells (n,), sorted by batch, every batch with controls; their true expression and a prediction of it, (genes, n)."""

    batch: np.ndarray
    perturbation: np.ndarray
    is_control: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray

    def take(self, cells: np.ndarray) -> "Case":
        """Some of the cells, by increasing index."""
        labels = {name: getattr(self, name)[cells] for name in ("batch", "perturbation", "is_control")}
        return Case(**labels, truth=self.truth[:, cells], prediction=self.prediction[:, cells])


@dataclass(frozen=True)
class Decomposition:
    """The parts of a prediction: control means, effects (0 for controls) and cell-to-cell variation (``own``), (genes, n)."""

    centre: np.ndarray
    effect: np.ndarray
    own: np.ndarray


def take_apart(case: Case) -> Decomposition:
    """Control means and effects of the truth; cell-to-cell variation, reduced to KEPT."""
    centre = ControlMean(case.batch, case.is_control).predict(case.truth)
    names, code = np.unique(case.perturbation, return_inverse=True)
    means = mean_of_groups(code, np.flatnonzero(~case.is_control), len(names), len(code))
    effect = (means @ (case.truth - centre).T).T.astype(np.float32)[:, code]
    effect[:, case.is_control] = 0
    return Decomposition(centre, effect, KEPT * (case.truth - centre - effect))


def undamaged(case: Case, parts: Decomposition) -> Case:
    """The case with the good prediction."""
    return replace(case, prediction=parts.centre + parts.effect + parts.own)


Damage = Callable[[Case, Decomposition, float, np.random.Generator], Case]


def noise(case: Case, parts: Decomposition, level: float, rng: np.random.Generator) -> Case:
    """Normal noise; level 1 = as large as the true deviations from the control mean (root mean square)."""
    size = np.sqrt(np.mean((case.truth - parts.centre) ** 2))
    drawn = rng.standard_normal(case.truth.shape, dtype=np.float32)
    return replace(case, prediction=case.prediction + np.float32(level * size) * drawn)


def mean_only(case: Case, parts: Decomposition, level: float, _rng: np.random.Generator) -> Case:
    """Shrunk towards control mean + the same mean effect for every perturbation (level 1)."""
    perturbed = np.flatnonzero(~case.is_control)
    _, first = np.unique(case.perturbation[perturbed], return_index=True)
    common = parts.effect[:, perturbed[first]].mean(axis=1, keepdims=True) * ~case.is_control
    return replace(case, prediction=parts.centre + (1 - level) * (parts.effect + parts.own) + level * common)


def effect_erased(case: Case, parts: Decomposition, level: float, _rng: np.random.Generator) -> Case:
    """The perturbation's mean effect is removed, cell-to-cell variation stays."""
    return replace(case, prediction=case.prediction - level * parts.effect)


def own_erased(case: Case, parts: Decomposition, level: float, _rng: np.random.Generator) -> Case:
    """Cell-to-cell variation is removed, the perturbation's mean effect stays."""
    return replace(case, prediction=case.prediction - level * parts.own)


def genes_shuffled(case: Case, parts: Decomposition, level: float, rng: np.random.Generator) -> Case:
    """Predicted deviations from the control mean are assigned to wrong genes, for this share of the genes."""
    picked = rng.permutation(len(case.truth))[: round(level * len(case.truth))]
    beyond = parts.effect + parts.own
    beyond[picked] = beyond[np.roll(picked, 1)]
    return replace(case, prediction=parts.centre + beyond)


def wrong_scale(case: Case, parts: Decomposition, level: float, _rng: np.random.Generator) -> Case:
    """The perturbation's mean effect is predicted 1 + level times as large."""
    return replace(case, prediction=case.prediction + level * parts.effect)


def batch_leaked(case: Case, parts: Decomposition, level: float, rng: np.random.Generator) -> Case:
    """Perturbed cells (not the controls) are predicted with this much of another batch's shift."""
    return replace(case, prediction=case.prediction + level * _other_shift(case, parts, rng) * ~case.is_control)


def labels_swapped(case: Case, parts: Decomposition, level: float, rng: np.random.Generator) -> Case:
    """This share of the perturbations (two or more) get each other's effects."""
    perturbed = np.flatnonzero(~case.is_control)
    names, first, code = np.unique(case.perturbation[perturbed], return_index=True, return_inverse=True)
    picked = rng.permutation(len(names))[: max(2, round(level * len(names)))]
    source = np.arange(len(names))
    source[picked] = np.roll(picked, 1)
    effects = parts.effect[:, perturbed[first]]
    wrong = case.prediction.copy()
    wrong[:, perturbed] += effects[:, source[code]] - effects[:, code]
    return replace(case, prediction=wrong)


def batch_shifted(case: Case, parts: Decomposition, level: float, rng: np.random.Generator) -> Case:
    """Every cell of a batch, controls included, is predicted with this much of another batch's shift."""
    return replace(case, prediction=case.prediction + level * _other_shift(case, parts, rng))


def fewer_controls(case: Case, _parts: Decomposition, level: float, rng: np.random.Generator) -> Case:
    """This share of each batch's controls is missing; at least one stays."""
    kept = ~case.is_control
    toss = rng.random(len(kept))
    for name in np.unique(case.batch):
        rows = np.flatnonzero(case.is_control & (case.batch == name))
        kept[rows[np.argsort(toss[rows])][: max(1, round((1 - level) * len(rows)))]] = True
    return case.take(np.flatnonzero(kept))


def tiny_batches(case: Case, _parts: Decomposition, level: float, rng: np.random.Generator) -> Case:
    """Each batch is split into ``level`` batches (fewer if it has fewer controls), controls and other cells evenly."""
    toss, piece = rng.random(len(case.batch)), np.zeros(len(case.batch), dtype=int)
    for name in np.unique(case.batch):
        own = case.batch == name
        pieces = min(int(level), int((own & case.is_control).sum()))
        for group in (case.is_control, ~case.is_control):
            rows = np.flatnonzero(own & group)
            piece[rows[np.argsort(toss[rows])]] = np.arange(len(rows)) % pieces
    names = np.array([f"{name}\t{number}" for name, number in zip(case.batch, piece, strict=True)])
    return replace(case, batch=names).take(np.argsort(names, kind="stable"))


def without_controls(case: Case, _parts: Decomposition, level: float, rng: np.random.Generator) -> Case:
    """This share of the batches (one or more, not all) has no controls."""
    names = np.unique(case.batch)
    lost = rng.permutation(names)[: min(max(1, round(level * len(names))), len(names) - 1)]
    return case.take(np.flatnonzero(~(case.is_control & np.isin(case.batch, lost))))


def _other_shift(case: Case, parts: Decomposition, rng: np.random.Generator) -> np.ndarray:
    """For each cell the control mean of another batch minus that of its own, (genes, n); batches in a random cycle."""
    names, first, code = np.unique(case.batch, return_index=True, return_inverse=True)
    ring = rng.permutation(len(names))
    other = np.empty(len(names), dtype=int)
    other[ring] = np.roll(ring, 1)
    centres = parts.centre[:, first]
    return (centres[:, other] - centres)[:, code]


# name: (damage, levels, smallest number of batches). Those of SENSITIVE make a prediction worse; those of INDIFFERENT change
# the controls or batches, not how good the prediction is.
SENSITIVE: dict[str, tuple[Damage, tuple[float, ...], int]] = {
    "noise": (noise, (0.125, 0.25, 0.5, 1.0, 2.0), 1),
    "mean_only": (mean_only, (0.1, 0.25, 0.5, 0.75, 1.0), 1),
    "effect_erased": (effect_erased, (0.25, 0.5, 0.75, 1.0), 1),
    "own_erased": (own_erased, (0.25, 0.5, 0.75, 1.0), 1),
    "genes_shuffled": (genes_shuffled, (0.05, 0.1, 0.25, 0.5, 1.0), 1),
    "wrong_scale": (wrong_scale, (0.25, 0.5, 1.0, 2.0, 4.0), 1),
    "batch_leaked": (batch_leaked, (0.25, 0.5, 1.0, 2.0), 2),
    "labels_swapped": (labels_swapped, (0.1, 0.25, 0.5, 1.0), 1),
}
INDIFFERENT: dict[str, tuple[Damage, tuple[float, ...], int]] = {
    "batch_shifted": (batch_shifted, (0.25, 0.5, 1.0, 2.0), 2),
    "fewer_controls": (fewer_controls, (0.5, 0.75, 0.9, 0.95), 1),
    "tiny_batches": (tiny_batches, (2.0, 4.0, 8.0, 16.0), 1),
    "without_controls": (without_controls, (0.25, 0.5, 0.75), 2),
}


def levels_of(name: str, n_batches: int, n_perturbations: int) -> list[float]:
    """The levels of a damage that differ for these numbers of batches and perturbations; none where it is impossible."""
    _, levels, least = {**SENSITIVE, **INDIFFERENT}[name]
    if n_batches < least:
        return []
    if name == "labels_swapped":
        counts = [round(level * n_perturbations) for level in levels]
        return [level for level, count in zip(levels, counts, strict=True) if count >= 2]
    if name == "without_controls":
        counts = [min(max(1, round(level * n_batches)), n_batches - 1) for level in levels]
        return [level for place, level in enumerate(levels) if counts[place] not in counts[:place]]
    return list(levels)
