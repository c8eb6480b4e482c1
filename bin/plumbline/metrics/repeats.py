"""Effects of perturbations in disjoint parts of a screen (divisions.py), each a repeat of the experiment.

The effect of a perturbation is its mean embedding less the mean of the controls of the same batches. Effects of different
parts share neither cells nor controls, so that the noise of one is independent of that of the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from plumbline.common.random import uniform_by_id
from plumbline.metrics.divisions import Labels
from plumbline.metrics.groups import ROWS, Groups, group_by, means_of, numbered
from plumbline.metrics.units import without_rounding
from plumbline.scoring.vectors import Vectors

SUMS = 2**26  # numbers (512 MB) of sums that are taken in one pass


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Effects of perturbations in the parts in which they have cells and controls, one per row.

    names (p,): perturbations. code (m,): perturbation of each row; part (m,); n_cells (m,); values (m, d) float64.
    """

    names: np.ndarray
    code: np.ndarray
    part: np.ndarray
    n_cells: np.ndarray
    values: np.ndarray

    def halves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Names (k,) of the perturbations with an effect in both part 0 and part 1, and the two effects of each, (k, d)."""
        first, second = (np.flatnonzero(self.part == part) for part in (0, 1))
        both, in_first, in_second = np.intersect1d(self.code[first], self.code[second], return_indices=True)
        return self.names[both], self.values[first[in_first]], self.values[second[in_second]]


def effects(x: Vectors | np.ndarray, labels: Labels, part: np.ndarray) -> Effects:
    """Effects of all perturbations in all parts. x: (n, d). part (n,): -1 for cells left out.

    Cells in a batch without a control in their part are left out, too.
    """
    return next(effects_in(x, labels, [part]))


def effects_in(x: Vectors | np.ndarray, labels: Labels, divisions: list[np.ndarray]) -> Iterator[Effects]:
    """``effects`` in each of several divisions of the cells into parts; x is read once for as many as fit in memory."""
    vectors = Vectors.of(x)
    rows = max(2 * len(group_by(labels.perturbation).names), 1)
    at_once = max(1, SUMS // max(rows * vectors.shape[1], 1))
    for start in range(0, len(divisions), at_once):
        grouped = [_grouped(labels, part) for part in divisions[start : start + at_once]]
        means = means_of(vectors, [groups for _, cells, _, controls, _ in grouped for groups in (cells, controls)])
        for (names, cells, place, controls, n_parts), *own in zip(grouped, means[::2], means[1::2], strict=True):
            values = _less(own[0], own_controls(cells, place, controls), own[1])
            code, part = np.divmod(cells.names, n_parts)
            yield Effects(names=names, code=code, part=part, n_cells=cells.sizes, values=values)


def _grouped(labels: Labels, part: np.ndarray) -> tuple[np.ndarray, Groups, np.ndarray, Groups, int]:
    """Names of perturbations; their usable cells by perturbation and part; the place of each cell; controls by place; parts."""
    n_parts = int(part.max(initial=0)) + 1
    place, controls = _controls(labels, part, n_parts)
    usable = ~labels.is_control & (part >= 0) & np.isin(place, controls.names)
    groups = group_by(labels.perturbation[usable])
    code = np.zeros(len(place), dtype=np.int64)
    code[usable] = groups.codes
    return groups.names, numbered(n_parts * code + part, usable), place, controls, n_parts


@dataclass(frozen=True, kw_only=True)
class EffectMap:
    """The linear map from cells to the effects of perturbations in the parts of the data, one per row.

    names (p,): perturbations. code (m,): perturbation of each row; part (m,); the effect is the mean over its cells less
    ``own`` times the means of the controls.
    """

    names: np.ndarray
    code: np.ndarray
    part: np.ndarray
    cells: sp.csr_matrix
    own: sp.csr_matrix
    controls: sp.csr_matrix

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Effects (m, g) of any values (n, g) of the cells."""
        return self.cells @ x - self.own @ (self.controls @ x)

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows, (k,) and (k,), of the perturbations that have an effect in both part 0 and part 1."""
        first, second = (np.flatnonzero(self.part == part) for part in (0, 1))
        _, in_first, in_second = np.intersect1d(self.code[first], self.code[second], return_indices=True)
        return first[in_first], second[in_second]


def effect_map(labels: Labels, part: np.ndarray) -> EffectMap:
    """What ``effects`` does, for values that come some columns at a time: as a map. part (n,): -1 for cells left out."""
    names, cells, place, controls, n_parts = _grouped(labels, part)
    code, of_part = np.divmod(cells.names, n_parts)
    own = own_controls(cells, place, controls)
    return EffectMap(names=names, code=code, part=of_part, cells=_mean_map(cells), own=own, controls=_mean_map(controls))


def _mean_map(groups: Groups) -> sp.csr_matrix:
    """Matrix (g, n) that takes the mean over each group."""
    values = np.repeat(1.0 / groups.sizes, groups.sizes)
    return sp.csr_matrix((values, groups.order, groups.starts), shape=(len(groups.names), len(groups.codes)))


def control_profiles(
    x: Vectors | np.ndarray, labels: Labels, part: np.ndarray, size: np.ndarray, most: int, seed: int
) -> Effects:
    """Pseudo-perturbations of controls: in each part up to ``most`` groups of ``size[part]`` controls, less the control means.

    Each is a contrast among the controls of its batches, and so is independent of the mean of all of them, which the effects
    of perturbations have in common. A batch with a single control in a part has no contrast.
    """
    cells, place, controls = controls_by_profile(labels, part, size, most, seed)
    of_cells, of_controls = means_of(x, [cells, controls])
    values = _less(of_cells, own_controls(cells, place, controls), of_controls)
    return Effects(names=cells.names, code=np.arange(len(values)), part=cells.names // most, n_cells=cells.sizes, values=values)


def controls_by_profile(
    labels: Labels, part: np.ndarray, size: np.ndarray, most: int, seed: int
) -> tuple[Groups, np.ndarray, Groups]:
    """The controls of each profile of controls; the place of each cell; controls by place."""
    n_parts = len(size)
    place, controls = _controls(labels, part, n_parts)
    rows = np.flatnonzero(labels.is_control & (part >= 0))
    rows = rows[controls.sizes[np.searchsorted(controls.names, place[rows])] > 1]
    number = uniform_by_id(labels.cell_id, seed)
    rows = rows[np.lexsort((number[rows], part[rows]))]
    position = np.arange(len(rows)) - np.searchsorted(part[rows], part[rows])
    profile = position // size[part[rows]]
    full = np.bincount(part[rows], minlength=n_parts) // size
    kept = profile < np.minimum(full, most)[part[rows]]
    numbers = np.zeros(len(part), dtype=np.int64)
    numbers[rows[kept]] = most * part[rows[kept]] + profile[kept]
    used = np.isin(np.arange(len(part)), rows[kept])
    return numbered(numbers, used), place, controls


def _less(values: np.ndarray, own: sp.csr_matrix, controls: np.ndarray) -> np.ndarray:
    """``values`` (g, d), in place, less ``own`` times ``controls``, 0 where nothing but rounding is left: some rows at a time.

    Of eight parts of 9,866 perturbations in 1,280 dimensions each array of all rows is 0.8 GB.
    """
    for start in range(0, len(values), ROWS):
        rows = slice(start, start + ROWS)
        mean = own[rows] @ controls
        values[rows] = without_rounding(values[rows] - mean, mean)
    return values


def _controls(labels: Labels, part: np.ndarray, n_parts: int) -> tuple[np.ndarray, Groups]:
    """A number per batch and part, for each cell, and the controls grouped by it."""
    place = n_parts * group_by(labels.batch).codes + part
    return place, numbered(place, labels.is_control & (part >= 0))


def own_controls(cells: Groups, place: np.ndarray, controls: Groups) -> sp.csr_matrix:
    """Matrix (groups of cells, groups of controls): the share of a group's cells that lie where those controls do."""
    rows = cells.order
    group, where = cells.codes[rows], np.searchsorted(controls.names, place[rows])
    shape = len(cells.names), len(controls.names)
    return sp.csr_matrix((1.0 / cells.sizes[group], (group, where)), shape=shape)
