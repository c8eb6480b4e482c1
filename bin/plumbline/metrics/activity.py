"""Activity: are the profiles of a perturbation nearer to each other than to profiles of controls? (protocol, task 8)"""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from plumbline.common.random import hashes
from plumbline.metrics.average_precision import average_precision
from plumbline.metrics.divisions import Labels
from plumbline.metrics.groups import MIN_RELABELLINGS
from plumbline.metrics.influence import control_group, influence_of_left_out
from plumbline.metrics.left_out import left_out
from plumbline.metrics.ranks import draw_p_value
from plumbline.metrics.repeats import Effects, control_profiles, controls_by_profile, effect_map, effects
from plumbline.metrics.units import unit_rows
from plumbline.scoring.vectors import Vectors

MAX_CONTROLS, MIN_CONTROLS = 16, 3  # profiles of controls in each part; one of them is kept for the null
MIN_PROFILES = 8  # profiles of controls that a part should have, be they smaller than those of perturbations
SAMPLED = 500  # perturbations by which the influence of controls is known; of more, as many are drawn


class Activity:
    """Are a perturbation's profiles nearer to each other than to profiles of controls?

    profiles (m, d): effects, less the mean of all controls of their part. controls: Effects of groups of controls, at least two
    in each part that counts. A profile is compared with those of other parts alone, as all effects of one part share the
    noise of its controls. The last control of each part stands in for the perturbation in the null, and is never a negative
    of the observed value: both then have as many negatives. Nor is one of no cells.
    """

    def __init__(self, profiles: np.ndarray, controls: Effects, n_controls: np.ndarray, n_draws: int, seed: int) -> None:
        self.unit, self.part = unit_rows(profiles), controls.part
        self.to_controls, self.gram = self.unit @ unit_rows(controls.values).T, controls.values @ controls.values.T
        # without one of them, the mean of a part's controls lies so much of its profile further away from it
        self.moves = controls.n_cells / np.maximum(n_controls[controls.part] - controls.n_cells, 1)
        self.negative = ~np.append(self.part[1:] != self.part[:-1], True) & (controls.n_cells > 0)
        self.n_draws, self.seed = n_draws, seed
        self.nulls: dict[tuple[int, ...], np.ndarray] = {}

    def observed(self, rows: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Mean average precision (k,) of the profiles ``rows`` (k, r) of each perturbation, which lie in the ``part`` (r,)."""
        own, found = self.unit[rows] @ self.unit[rows].transpose(0, 2, 1), []
        negative = self.negative & (self.part == part[:, None])
        for place in range(len(part)):
            others = part != part[place]
            against = self.to_controls[rows[:, place]][:, negative[others].any(axis=0)]
            found.append(average_precision(own[:, place, others], against))
        return np.mean(found, axis=0)

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
        found, length = [], np.sqrt(np.diag(self.gram)).clip(1e-150)
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


@dataclass(frozen=True, kw_only=True)
class Profiles:
    """Profiles of perturbations (``found``) and of controls in the parts of a screen.

    x (n, d), labels, part (n,): the cells. n_controls, size (parts,): controls of a part, and in a profile of controls.
    """

    x: Vectors | np.ndarray
    labels: Labels
    part: np.ndarray
    seed: int
    found: Effects
    n_controls: np.ndarray
    size: np.ndarray
    controls: Effects

    @staticmethod
    def of(x: Vectors | np.ndarray, labels: Labels, part: np.ndarray, seed: int) -> "Profiles":
        """Those of all perturbations in all parts. part (n,): -1 for cells left out. seed: of the profiles of controls."""
        found = effects(x, labels, part)
        n_controls = np.bincount(part[labels.is_control & (part >= 0)], minlength=int(part.max(initial=0)) + 1)
        size = _size(found, n_controls)
        controls = control_profiles(x, labels, part, size, MAX_CONTROLS, seed)
        return Profiles(x=x, labels=labels, part=part, seed=seed, found=found, n_controls=n_controls, size=size,
                        controls=controls)  # fmt: skip

    @property
    def usable(self) -> np.ndarray:
        """The parts with enough profiles of controls."""
        return np.flatnonzero(np.bincount(self.controls.part, minlength=len(self.size)) >= MIN_CONTROLS)

    def activity(self, n_draws: int, seed: int) -> Activity:
        """How they are compared. n_draws, seed: of the null."""
        return Activity(self.found.values, self.controls, self.n_controls, n_draws, seed)

    def repeated(self, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Places (k, r) among the ``rows`` of effects, and parts (r,), of the k perturbations with two or more in the same
        usable parts."""
        code, part, same = self.found.code[rows], self.found.part[rows], defaultdict(list)
        places = np.flatnonzero(np.isin(part, self.usable))
        places = places[np.lexsort((part[places], code[places]))]
        for own in np.split(places, np.flatnonzero(np.diff(code[places])) + 1):
            same[tuple(part[own].tolist())].append(own)
        return [(np.array(own), np.array(parts)) for parts, own in same.items() if len(parts) > 1]

    def influence(self, names: np.ndarray) -> dict[str, float]:
        """Influence of groups of controls on the mean over perturbations ``names`` (k,), by leaving each of them out.

        The controls are in the profiles that all are compared with, and in the mean that is subtracted from each.
        """
        some = names[np.argsort(hashes(names, "controls"))[:SAMPLED]]
        rows = np.flatnonzero(np.isin(self.found.names, some)[self.found.code])
        effect, own = self.found.values[rows], effect_map(self.labels, self.part).own[rows]
        repeated = self.repeated(rows)

        def values(moved: np.ndarray | float, controls: Effects) -> np.ndarray:
            activity = Activity(effect + moved, controls, self.n_controls, 0, 0)
            return np.concatenate([activity.observed(*same) for same in repeated])

        group, whole = control_group(self.labels.cell_id, self.labels.is_control), values(0.0, self.controls)
        placed = controls_by_profile(self.labels, self.part, self.size, MAX_CONTROLS, self.seed)
        groups, change, left, share = [], [], [], []
        for one in left_out(self.x, own, *placed, group):
            controls = replace(self.controls, values=one.values, n_cells=one.n_cells)
            change.append(values(one.moved, controls) - whole)
            groups.append(f"controls {one.group}")
            left.append(one.left)
            share.append(one.share)
        influence = influence_of_left_out(np.array(change), np.array(left), np.array(share))
        return {name: part for name, part in zip(groups, influence.tolist(), strict=True) if part}


def _size(found: Effects, n_controls: np.ndarray) -> np.ndarray:
    """Cells in a profile of controls in each part, (parts,): as many as in the median effect, fewer where controls are few."""
    sizes = pd.Series(found.n_cells).groupby(found.part).median()
    typical = sizes.reindex(range(len(n_controls))).fillna(1).to_numpy().astype(np.int64)
    return np.clip(typical, 1, np.maximum(n_controls // MIN_PROFILES, 1))
