"""The labelled cells an objective is trained on: the fitting cells alone, their validation part, their mini-batches.

Labels are read for the fitting cells only. Controls are one class; the batch stratifies the mini-batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from plumbline.common.errors import NotApplicable, UserError
from plumbline.embedding.options import Options
from plumbline.models.shared.fit_on import read_fit_on
from plumbline.models.shared.fitting import Fitting, read_cells

VALIDATION_SHARE = 0.2
MIN_CELLS = 5  # of a class, so that training and validation both hold two
MIN_BATCHES = 3  # from here on validation is by batch
PER_CLASS = 4  # cells of a class that stay together in a mini-batch


@dataclass(frozen=True)
class Labelled:
    """Cells sorted by id. rows: row numbers in the counts they were read for. code, batch: class and batch number of each.

    classes: names, '' for the controls. validation: cells that training does not see. by: 'batch' or 'cell'.
    """

    cell_id: np.ndarray
    rows: np.ndarray
    code: np.ndarray
    batch: np.ndarray
    classes: np.ndarray
    validation: np.ndarray
    by: str

    def take(self, keep: np.ndarray) -> "Labelled":
        """Some of the cells; classes are renumbered to those that training holds, and validation loses all others."""
        parts = {name: getattr(self, name)[keep] for name in ("cell_id", "rows", "batch", "validation")}
        code, known = self.code[keep], np.unique(self.code[keep & ~self.validation])
        inside = np.isin(code, known)
        parts = {name: array[inside] for name, array in parts.items()}
        return Labelled(**parts, code=np.searchsorted(known, code[inside]), classes=self.classes[known], by=self.by)


def labelled_cells(part: Fitting, options: Options) -> Labelled:
    """The cells of ``part`` with their labels; their rows are those of the data set itself, or (with a source) of a stack
    that begins with them.

    Raises UserError without labels or where the labels of the cells to be embedded would be trained on; NotApplicable with
    fewer than two perturbations of MIN_CELLS cells.
    """
    perturbation, is_control = read_labels(part, options)
    rows = np.arange(len(part.rows)) if options.source else part.rows
    classes, code = np.unique(np.where(is_control, "", perturbation), return_inverse=True)
    sizes = np.bincount(code)
    enough = int((sizes[classes != ""] >= MIN_CELLS).sum())
    if enough < 2:
        raise NotApplicable(
            f"an objective tells perturbations apart, and {enough} of the fitting part's have {MIN_CELLS} cells; 2 are needed."
        )
    batch = np.unique(part.batch, return_inverse=True)[1]
    cell_id = part.counts.cell_id[part.rows]
    order = np.argsort(cell_id, kind="stable")  # nothing that follows depends on the order of the file
    validation, by = validation_part(code[order], batch[order], options.seed)
    found = Labelled(cell_id[order], rows[order], code[order], batch[order], classes, validation, by)
    return found.take(np.ones(len(order), dtype=bool))


def read_labels(part: Fitting, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """(perturbation, is_control) of the cells of ``part``, each (n,).

    Raises UserError where there are none, or where they are those of all cells to be embedded.
    """
    if not options.source and read_fit_on(options.fit_on, False).part != "train":
        raise UserError(
            f"--fit-on {options.fit_on}: an objective with labels would be trained on the cells it is scored on. "
            "Use --fit-on train, or another data set (--source)."
        )
    path = part.tables / "cells.parquet" if part.tables else None
    if path is None or not path.exists():
        raise UserError("an objective needs labels: give --tables, the folder PREPARE wrote (cells.parquet).")
    cells = read_cells(part.tables, part.counts.cell_id[part.rows])
    missing = [name for name in ("perturbation", "is_control") if name not in cells]
    if missing:
        raise UserError(f"{path} has no column {' and '.join(missing)}: an objective needs labels. Run PREPARE again.")
    if cells["perturbation"].isna().any():
        raise UserError(f"{path} has no perturbation for {int(cells['perturbation'].isna().sum())} of the fitting cells.")
    return cells["perturbation"].to_numpy(dtype=str), cells["is_control"].to_numpy(dtype=bool)


def validation_part(code: np.ndarray, batch: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Cells (bool) on which training stops early: whole batches where there are MIN_BATCHES, else a share of each class.

    By batch only if both parts then hold two cells of two classes. Deterministic for cells in a given order.
    """
    rng = np.random.default_rng(seed)
    names = rng.permutation(np.unique(batch))
    if len(names) >= MIN_BATCHES:
        held_out = np.isin(batch, names[: max(1, round(VALIDATION_SHARE * len(names)))])
        if all((np.bincount(code[part], minlength=1) >= 2).sum() >= 2 for part in (held_out, ~held_out)):
            return held_out, "batch"
    rank = _rank_within(code, rng)
    size = np.bincount(code)
    take = np.where(size >= MIN_CELLS, np.maximum(2, np.round(VALIDATION_SHARE * size)), 0)
    return rank < take[code], "cell"


def minibatches(code: np.ndarray, batch: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Every cell once, ``size`` a time: a class comes in groups of PER_CLASS cells, of different batches as far as possible."""
    turn = _rank_within(_pairs(code, batch), rng)  # 0 for the first cell of each batch, 1 for the second ...
    order = np.lexsort((rng.random(len(code)), turn, code))
    place = np.arange(len(code)) - np.searchsorted(code[order], code[order])
    group = _pairs(code[order], place // PER_CLASS)
    shuffled = order[np.argsort(rng.permutation(group.max() + 1)[group], kind="stable")]
    n = max(1, round(len(code) / size))
    yield from np.array_split(shuffled, n)


def _rank_within(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random rank of each cell within its group, from 0."""
    order = np.lexsort((rng.random(len(group)), group))
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    return rank


def _pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One number for each distinct pair."""
    return np.unique(a.astype(np.int64) * (int(b.max()) + 1) + b, return_inverse=True)[1]
