"""Which cells fit a post-processing, which choose one, and which are reported on."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from plumbline.data.splits import Split
from plumbline.scoring.postprocess import postprocess
from plumbline.scoring.records import Task
from plumbline.scoring.scores import Score
from plumbline.scoring.screen import Screen, View
from plumbline.scoring.vectors import Vectors

FEW_BATCHES, FEW_UNITS = 7, 20
FEW_PERTURBATIONS = 8  # of fewer, batches are the repeats of the experiment; as many as a verdict needs
EACH_BATCH = "each batch"  # how a split parts the cells in which every batch is left out in turn


def fitting_controls(screen: Screen, seed: int) -> np.ndarray:
    """A seeded half of each batch's controls, (n_cells,) bool, the same in any order of the cells.

    An odd control goes to the other half, but a batch's only one is tossed. Whitening by the very controls that a
    perturbation is then compared with makes any perturbation, even noise, look far from them.
    """
    rows = np.flatnonzero(screen.is_control)
    rows = rows[np.argsort(screen.cell_id[rows])]
    toss = np.random.default_rng(seed).random(len(rows))
    table = pd.DataFrame({"batch": screen.batch[rows], "toss": toss})
    rank, size = table.groupby("batch").toss.rank(), table.groupby("batch").toss.transform("size")
    fit = np.zeros(len(screen.cell_id), dtype=bool)
    fit[rows] = np.where(size == 1, toss < 0.5, rank <= size // 2)
    return fit


def whole_split(screen: Screen, split: Split, task: Task) -> Split | None:
    """All cells as train and test cells, where a screen has too few batches to spare some for testing; else None.

    Split 70 to 30 and halved for validation, fewer than FEW_BATCHES leave a single batch to report on. Where there are so few
    perturbations that the batches are the units, FEW_UNITS of them leave three.
    """
    if not task.whole_if_few:
        return None
    n_batches, units = len(pd.unique(screen.batch[~screen.is_control])), screen.facts["n_perturbations"] < FEW_PERTURBATIONS
    few = FEW_UNITS if units else FEW_BATCHES if task.uses_split else 0
    if not 1 < n_batches < few:
        return None
    every = np.ones(len(screen.batch), dtype=bool)
    return replace(split, by=EACH_BATCH, train=every, test1=every, test2=~every, validation=~every)


@dataclass(frozen=True)
class Parts:
    """The cells of one split under every post-processing.

    spares: the controls ``fit`` (n_cells,) are not to be compared with, as they fit the post-processing. ``processed`` is
    fitted on them where all metrics compare with controls (``whole``), and on all controls otherwise.
    """

    base: View
    task: Task
    fit: np.ndarray
    spares: bool
    whole: bool
    processed: dict[str, Vectors]

    @property
    def can_choose(self) -> bool:
        """Whether there are cells that a post-processing may be chosen on."""
        return bool((self.base.split.train if self.task.chooses_on_train else self.base.split.validation).any())

    def run(self, method: str, part: str) -> list[Score]:
        """Scores of one post-processing on a part of the cells: 'validation', 'report' or 'all'.

        Without post-processing nothing was fitted: then all controls are compared with. To choose, every post-processing
        is scored on the same cells, as always where the controls are themselves among the cells that are scored.
        """
        view = replace(self.base, embedding=self.processed[method])
        nothing_fitted = method == "none" and part != "validation" and not self.task.scores_controls
        spares = self.spares and not nothing_fitted
        if spares and self.whole:
            view = view.take(np.flatnonzero(~self.fit))
        view = self._part(view, part)
        if spares and not self.whole:
            view = replace(view, compared=lambda: self._part(self._spared(method), part))
        return self.task.run(view)

    def _spared(self, method: str) -> View:
        """The cells less the controls that fit the post-processing; less all controls if there are none to fit it."""
        if not self.fit.any():
            return self.base.take(np.flatnonzero(~self.base.screen.is_control))
        vectors, _ = postprocess(self.base.embedding, self.fit, self.base.screen.batch, method)
        return replace(self.base, embedding=vectors).take(np.flatnonzero(~self.fit))

    def _part(self, view: View, part: str) -> View:
        split = view.split
        if part == "all" or (part == "report" and self.task.chooses_on_train):
            return view
        if self.task.chooses_on_train:
            return replace(view, split=replace(split, test1=_as_many(split.train, int(split.test1.sum()), split.seed)))
        keep = split.validation if part == "validation" else ~split.validation
        if not self.task.uses_split:
            return view.take(np.flatnonzero(keep))
        return replace(view, split=replace(split, test1=split.test1 & keep, test2=split.test2 & keep))


def _as_many(mask: np.ndarray, n: int, seed: int) -> np.ndarray:
    """At most n of the cells of a mask, drawn with the seed, as a mask."""
    rows = np.flatnonzero(mask)
    some = np.zeros_like(mask)
    some[np.random.default_rng(seed).permutation(rows)[:n]] = True
    return some
