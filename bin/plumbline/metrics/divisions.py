"""Divisions of a screen into disjoint parts, each a repeat of the experiment with its own cells and its own controls."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from plumbline.common.random import uniform_by_id
from plumbline.metrics.groups import Groups, group_by
from plumbline.scoring.screen import Screen


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is known of the cells, arrays (n,): ids, perturbation, control flag, batch, guide ('' where none is known)."""

    cell_id: np.ndarray
    perturbation: np.ndarray
    is_control: np.ndarray
    batch: np.ndarray
    guide: np.ndarray


def labels_of(screen: Screen) -> Labels:
    """What the parts of a screen are made from."""
    return Labels(
        cell_id=screen.cell_id,
        perturbation=screen.perturbation,
        is_control=screen.is_control,
        batch=screen.batch,
        guide=np.full(len(screen.batch), "") if screen.guide is None else screen.guide,
    )


Parting = Callable[[Labels, int, int], np.ndarray]  # (labels, number of parts, seed) -> part of each cell, -1: left out


def by_batch(labels: Labels, n_parts: int, seed: int) -> np.ndarray:
    """The part of each cell, (n,): batches with controls are dealt out at random, the same for all perturbations; else -1."""
    batches = group_by(labels.batch)
    usable = _with_controls(labels, batches)
    part = np.full(len(usable), -1)
    part[usable] = np.random.default_rng(seed).permutation(int(usable.sum())) % n_parts
    return part[batches.codes]


def _with_controls(labels: Labels, batches: Groups) -> np.ndarray:
    """Which batches have a control, a mask over them."""
    return np.bincount(batches.codes[labels.is_control], minlength=len(batches.names)) > 0


def by_guide(labels: Labels, n_parts: int, seed: int) -> np.ndarray:
    """The part of each cell, (n,): the guides of each perturbation are dealt out at random; controls by cell.

    A perturbed cell of which no guide is known is left out: -1.
    """
    part = by_cell(labels, n_parts, seed)
    part[~labels.is_control] = -1
    rows = np.flatnonzero(~labels.is_control & (labels.guide != ""))
    perturbation, guides = group_by(labels.perturbation[rows]).codes, group_by(labels.guide[rows])
    pairs, pair = np.unique(perturbation * len(guides.names) + guides.codes, return_inverse=True)
    number = np.random.default_rng(seed + 1).random(len(pairs))
    part[rows] = _dealt(pairs // max(len(guides.names), 1), n_parts, number)[pair]
    return part


def by_cell(labels: Labels, n_parts: int, seed: int) -> np.ndarray:
    """The part of each cell, (n,): cells of a perturbation, and controls, are dealt out in random order, batch by batch."""
    number = uniform_by_id(labels.cell_id, seed)
    part, control = np.empty(len(number), dtype=np.int64), labels.is_control
    part[control] = _dealt(labels.batch[control], n_parts, number[control])
    part[~control] = _dealt(labels.perturbation[~control], n_parts, number[~control], labels.batch[~control])
    return part


def mixed(labels: Labels, part: np.ndarray, seed: int) -> np.ndarray:
    """``part`` (n,) with the cells of each perturbation, and the controls of each batch, dealt out anew, batch by batch.

    Each perturbation keeps its numbers of cells in the parts, which then differ in nothing but the cells they have.
    """
    number, found = uniform_by_id(labels.cell_id, seed), np.full(len(part), -1, dtype=np.int64)
    control, rows = labels.is_control & (part >= 0), np.flatnonzero(~labels.is_control & (part >= 0))
    code, own = group_by(labels.perturbation[rows]).codes, part[rows]
    pair = group_by(code * (int(part.max(initial=0)) + 1) + own)
    place = np.empty(len(rows))  # where the cells of a part lie among those of the perturbation, evenly from 0 to 1
    place[pair.order] = np.arange(len(rows)) - np.repeat(pair.starts[:-1], pair.sizes)
    place = (place + 0.5) / pair.sizes[pair.codes]
    cells = np.lexsort((number[rows], group_by(labels.batch[rows]).codes, code))
    found[rows[cells]] = own[np.lexsort((own, place, code))]
    found[control] = _dealt(labels.batch[control], int(part.max(initial=0)) + 1, number[control])
    return found


def _dealt(label: np.ndarray, n_parts: int, number: np.ndarray, by: np.ndarray | None = None) -> np.ndarray:
    """0, 1 ... n_parts - 1, 0, 1 ... for the entries of each label, ordered by ``by`` and ``number``; the first is random."""
    code = group_by(label).codes
    order = np.lexsort((number, *(() if by is None else (group_by(by).codes,)), code))
    first = np.searchsorted(code[order], code[order])
    part = np.empty(len(code), dtype=np.int64)
    part[order] = (np.arange(len(code)) - first + np.floor(number[order][first] * n_parts).astype(np.int64)) % n_parts
    return part


def parting_for(labels: Labels) -> tuple[str, Parting]:
    """(what the parts consist of, how they are made): the most independent repeat that half of the perturbations have."""
    perturbed, batches = ~labels.is_control, group_by(labels.batch)
    if _repeated(labels.perturbation, labels.batch, perturbed & _with_controls(labels, batches)[batches.codes]) >= 0.5:
        return "batches", by_batch
    if _repeated(labels.perturbation, labels.guide, perturbed & (labels.guide != "")) >= 0.5:
        return "guides", by_guide
    return "cells", by_cell


def _repeated(perturbation: np.ndarray, unit: np.ndarray, used: np.ndarray) -> float:
    """Share of the perturbations of the ``used`` cells that are met in two units or more."""
    if not used.any():
        return 0.0
    units = group_by(unit[used])
    pairs = np.unique(group_by(perturbation[used]).codes * len(units.names) + units.codes)
    return float((np.bincount(pairs // len(units.names)) > 1).mean())
