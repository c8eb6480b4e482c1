"""Two disjoint halves of a screen, each a repeat of the experiment with its own cells and its own controls.

The effect of a perturbation is its mean embedding less the mean of the controls of the same batches. Both halves of an effect
share neither cells nor controls, so that the noise of one is independent of that of the other.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from plumbline.common.random import uniform_by_id
from plumbline.metrics.groups import Groups, group_by, group_means


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is known of the cells, arrays (n,): ids, perturbation, control flag, batch, guide ('' where none is known)."""

    cell_id: np.ndarray
    perturbation: np.ndarray
    is_control: np.ndarray
    batch: np.ndarray
    guide: np.ndarray


@dataclass(frozen=True)
class HalfEffects:
    """Effects of the perturbations that have one in both halves. names (p,); first, second: (p, d) float64."""

    names: np.ndarray
    first: np.ndarray
    second: np.ndarray


def halves_by_batch(labels: Labels, seed: int) -> np.ndarray:
    """0 or 1 for each cell, (n,): a random half of the batches with controls, the same for all perturbations; else -1."""
    usable = np.unique(labels.batch[labels.is_control])
    half = np.random.default_rng(seed).permutation(len(usable)) % 2
    place = np.minimum(np.searchsorted(usable, labels.batch), max(len(usable) - 1, 0))
    return np.where(usable[place] == labels.batch, half[place], -1) if len(usable) else np.full(len(labels.batch), -1)


def halves_by_guide(labels: Labels, seed: int) -> np.ndarray:
    """0 or 1 for each cell, (n,): every second guide of a perturbation in random order; controls by cell, within batches."""
    half = halves_by_cell(labels, seed)
    rows = np.flatnonzero(~labels.is_control)
    pairs, pair = np.unique(np.stack([labels.perturbation[rows], labels.guide[rows]]).astype(str), axis=1, return_inverse=True)
    half[rows] = _every_second(pairs[0], np.random.default_rng(seed + 1).random(pairs.shape[1]))[pair]
    return half


def halves_by_cell(labels: Labels, seed: int) -> np.ndarray:
    """0 or 1 for each cell, (n,): in random order within its batch, every second cell of a perturbation and of the controls."""
    number = uniform_by_id(labels.cell_id, seed)
    half = np.empty(len(number), dtype=np.int64)
    control = labels.is_control
    half[control] = _every_second(labels.batch[control], number[control])
    half[~control] = _every_second(labels.perturbation[~control], number[~control], labels.batch[~control])
    return half


def _every_second(label: np.ndarray, number: np.ndarray, then_by: np.ndarray | None = None) -> np.ndarray:
    """0, 1, 0, 1 ... for the entries of each label, in the order of ``then_by`` and ``number``; which is first is random."""
    code = group_by(label).codes
    order = np.lexsort((number, *(() if then_by is None else (group_by(then_by).codes,)), code))
    half = np.empty(len(code), dtype=np.int64)
    first = np.searchsorted(code[order], code[order])
    half[order] = (np.arange(len(code)) - first + (number[order[first]] < 0.5)) % 2 if len(code) else 0
    return half


def half_effects(x: np.ndarray, labels: Labels, half: np.ndarray) -> HalfEffects:
    """Effects in each half. x: (n, d), or what gives rows of it. half (n,): 0, 1, or -1 for cells that are left out.

    Cells in a batch without a control in their half are left out, too.
    """
    place = 2 * group_by(labels.batch).codes + half
    controls = _groups_of(place, labels.is_control & (half >= 0))
    usable = ~labels.is_control & (half >= 0) & np.isin(place, controls.names)
    code, names = _codes(labels.perturbation, usable)
    cells = _groups_of(2 * code + half, usable)
    means = group_means(x, cells) - _own_controls(cells, place, controls) @ group_means(x, controls)
    both = np.intersect1d(cells.names[cells.names % 2 == 0], cells.names[cells.names % 2 == 1] - 1)
    first, second = np.searchsorted(cells.names, both), np.searchsorted(cells.names, both + 1)
    return HalfEffects(names[both // 2], means[first], means[second])


def _codes(labels: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n,) of the labels of the ``used`` rows (0 elsewhere) and their sorted names."""
    groups = group_by(labels[used])
    codes = np.zeros(len(labels), dtype=np.int64)
    codes[used] = groups.codes
    return codes, groups.names


def _groups_of(number: np.ndarray, used: np.ndarray) -> Groups:
    """The ``used`` rows grouped by ``number`` (n,); ``names`` are the numbers that occur, in order."""
    rows = np.flatnonzero(used)
    names, code = np.unique(number[rows], return_inverse=True)
    codes = np.full(len(number), -1, dtype=np.int64)
    codes[rows] = code
    order = rows[np.argsort(code, kind="stable")]
    return Groups(names, order, np.searchsorted(codes[order], np.arange(len(names) + 1)), codes)


def _own_controls(cells: Groups, place: np.ndarray, controls: Groups) -> sp.csr_matrix:
    """Matrix (groups of cells, groups of controls): the share of a group's cells that lie where those controls do."""
    rows = cells.order
    group, where = cells.codes[rows], np.searchsorted(controls.names, place[rows])
    shape = len(cells.names), len(controls.names)
    return sp.csr_matrix((1.0 / cells.sizes[group], (group, where)), shape=shape)
