"""Separability: can the perturbation of a cell be read from its embedding? Trained on train cells, asked of test1 cells."""

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd

from plumbline.data.splits import n_train
from plumbline.metrics.control_auroc import MAX_DIMENSIONS, MIN_CELLS, Cells, control_auroc, placements
from plumbline.metrics.probe import Layer, knn_k, knn_ranks
from plumbline.metrics.probe_budget import ProbePlan, fit, plan
from plumbline.metrics.rows import Rows, blocks, moments
from plumbline.scoring.parts import EACH_BATCH
from plumbline.scoring.records import Metric, Task
from plumbline.scoring.sampling import asked
from plumbline.scoring.scores import Items, Score, counted
from plumbline.scoring.screen import View
from plumbline.scoring.units import joined
from plumbline.scoring.vectors import RowSource

METRICS = (
    Metric(name="linear_top1", title="linear probe, top-1 accuracy"),
    Metric(name="linear_top5", title="linear probe, top-5 accuracy"),
    Metric(name="knn_top1", title="kNN, top-1 accuracy"),
    Metric(name="knn_top5", title="kNN, top-5 accuracy"),
    Metric(name="linear_balanced", title="linear probe, balanced accuracy"),
    Metric(name="auroc_control", title="AUROC against controls", chance=0.5, compares_controls=True),
)
TOP = 5
_PROBES: dict[bytes, Layer] = {}  # probes trained last: validation and report ask one probe about different cells
_PROBES_KEPT = 8


def not_applicable(facts: dict) -> str:
    """Why the task does not apply to this data set; '' if it does."""
    if facts["n_perturbations"] < 1:
        return "the data set has no perturbed cells"
    few = n_train(facts["n_perturbations"]) < 2
    return "one perturbation and no controls: there is nothing to tell apart" if few and not facts["has_controls"] else ""


def main_metric(facts: dict) -> str:
    """linear_top1, or auroc_control where fewer than two perturbations are for training."""
    return "linear_top1" if n_train(facts["n_perturbations"]) > 1 else "auroc_control"


def run(view: View) -> list[Score]:
    """Score the test1 cells; accuracies and AUROC in 0..1. Items: perturbations.

    linear_*: linear probe over the train perturbations, controls removed; linear_balanced: mean of the perturbations'
    accuracies. knn_*: weighted vote of k nearest train cells; `paper` keeps the controls, as a class of their own.
    auroc_control: see control_auroc; `corrected` only. `corrected` standardises features on the train cells; with fewer than
    seven batches each is left out of training once, and the cells of all are scored.
    """
    if view.embedding.shape[1] == 0:
        return TASK.absent("the model gives no embedding")
    parts = [_trained(part) for part in _rotations(view)]
    return [*map(joined, zip(*parts, strict=True)), _auroc(view.compared() if view.compared else view)]


def _rotations(view: View) -> list[View]:
    """The view; where every batch is to be left out in turn, one view per batch, its cells the test cells."""
    if view.split.by != EACH_BATCH:
        return [view]
    batch = view.screen.batch
    return [replace(view, split=replace(view.split, train=batch != name, test1=batch == name))
            for name in np.unique(batch[~view.screen.is_control].astype(str))]  # fmt: skip


def _trained(view: View) -> list[Score]:
    """The scores of what is trained on train cells."""
    values = _standardised(view) if view.protocol == "corrected" else Rows(view.embedding)
    return [*_linear(view, values), *_knn(view, values)]


def _standardised(view: View) -> Rows:
    """The embedding with features standardised on the train cells, controls left out."""
    train = np.flatnonzero(view.split.train & ~view.screen.is_control)
    if not len(train):
        return Rows(view.embedding)
    mean, deviation = moments(Rows(view.embedding, train))
    scale = np.where(deviation > 1e-7 * np.abs(mean), deviation, 1.0)
    return Rows(view.embedding, shift=mean.astype(np.float32), scale=scale.astype(np.float32))


def _classes(view: View, controls: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows and codes of train, then of test1 cells whose class train holds; classes are coded in order of appearance."""
    wanted = np.ones(len(view.rows), dtype=bool) if controls else ~view.screen.is_control
    train, test = np.flatnonzero(view.split.train & wanted), np.flatnonzero(view.split.test1 & wanted)
    labels = view.screen.treatment.astype(object)
    index = pd.Index(pd.unique(labels[train]))
    code = index.get_indexer(labels[test])
    return train, index.get_indexer(labels[train]), test[code >= 0], code[code >= 0]


def _why_not(view: View) -> str:
    """Why perturbations cannot be told from one another, or ''."""
    _, train_code, test, _ = _classes(view, controls=False)
    n = len(np.unique(train_code))
    if n < 2:
        return f"{n} perturbation{'' if n == 1 else 's'} in the train cells: there is nothing to tell apart"
    return "" if len(test) else "no test cell of a train perturbation"


def _linear(view: View, values: RowSource) -> list[Score]:
    metrics, reason = ("linear_top1", "linear_top5", "linear_balanced"), _why_not(view)
    if reason:
        return [Score.absent(metric, reason) for metric in metrics]
    train, train_code, test, code = _classes(view, controls=False)
    n_classes = int(train_code.max()) + 1
    how = plan(view.protocol, len(train), values.shape[1], n_classes, view.device, view.exact)
    ranks = _probe(Rows(values, train), train_code, n_classes, how, view).ranks(Rows(values, test), code)
    names = view.screen.perturbation[test]
    return [
        _accuracy("linear_top1", ranks < 1, names, how.note),
        _top5("linear_top5", ranks, names, n_classes, how.note),
        _accuracy("linear_balanced", ranks < 1, names, how.note, balanced=True),
    ]


def _probe(values: RowSource, code: np.ndarray, n_classes: int, how: ProbePlan, view: View) -> Layer:
    digest = hashlib.blake2b(np.ascontiguousarray(code).data, digest_size=32)
    for _, block in blocks(values):
        digest.update(np.ascontiguousarray(block).data)
    digest.update(repr((values.shape, n_classes, how, view.seed, view.device)).encode())
    key = digest.digest()
    if key not in _PROBES:
        if len(_PROBES) >= _PROBES_KEPT:
            del _PROBES[next(iter(_PROBES))]
        _PROBES[key] = fit(values, code, n_classes, how, view.seed, view.device)
    return _PROBES[key]


def _knn(view: View, values: RowSource) -> list[Score]:
    reason = _why_not(view)
    if reason:
        return [Score.absent(metric, reason) for metric in ("knn_top1", "knn_top5")]
    train, train_code, test, code = _classes(view, controls=view.protocol == "paper")
    k, (rows, some) = knn_k(len(train), view.protocol), asked(view, test, "kNN")
    note, test, code = f", {some} test cells" if some else "", test[rows], code[rows]
    ranks = knn_ranks(Rows(values, train), train_code, Rows(values, test), code, k, view.threads, view.device)
    names = view.screen.treatment[test]
    return [
        _accuracy("knn_top1", ranks < 1, names, f"k = {k}{note}"),
        _top5("knn_top5", ranks, names, int(train_code.max()) + 1, f"k = {k}{note}"),
    ]


def _top5(metric: str, ranks: np.ndarray, names: np.ndarray, n_classes: int, note: str) -> Score:
    if n_classes <= TOP:
        return Score.absent(metric, f"{n_classes} classes: the top {TOP} always hold the right one")
    return _accuracy(metric, ranks < TOP, names, note)


def _accuracy(metric: str, right: np.ndarray, names: np.ndarray, note: str, balanced: bool = False) -> Score:
    code, units = pd.factorize(names.astype(object))
    n_cells = np.bincount(code).astype(float)
    n_right = np.bincount(code, weights=right)
    if balanced:
        items = Items("perturbation", units.astype(str), n_right / n_cells, np.ones(len(units)), extra={"n_cells": n_cells})
        return Score.of(metric, items, reason=note)
    return Score.of(metric, Items("perturbation", units.astype(str), n_right, n_cells), n=len(names), reason=note)


def _auroc(view: View) -> Score:
    metric, screen, test = "auroc_control", view.screen, view.split.test1
    if view.protocol == "paper":
        return Score.absent(metric, "not part of the paper's protocol")
    if not (test & screen.is_control).any() or not (view.split.train & screen.is_control).any():
        return Score.absent(metric, "no controls among the train or the test cells")
    rows = np.flatnonzero(view.split.train | test)
    control = screen.is_control[rows]
    code = np.full(len(rows), -1)
    code[~control], names = pd.factorize(screen.perturbation[rows][~control].astype(object))
    batch = pd.factorize(screen.batch[rows].astype(object))[0]
    values = Rows(_standardised(view), rows)
    cells = Cells(values=values, perturbation=code, batch=batch, test=test[rows], exact=view.exact)
    if len(names) == 1:
        return _auroc_by_batch(metric, cells, screen.batch[rows], view.seed)
    auroc, n_cells = control_auroc(cells, len(names), view.seed)
    scored, left_out = np.isfinite(auroc), int(((n_cells < MIN_CELLS) & _in_test(code, test[rows], len(names))).sum())
    few = f"{counted(left_out, 'perturbation')} with fewer than {MIN_CELLS} comparable cells not scored" if left_out else ""
    note = "; ".join(filter(None, (_components(cells), few)))
    ones = np.ones(int(scored.sum()))
    items = Items("perturbation", names[scored].astype(str), auroc[scored], ones, extra={"n_cells": n_cells[scored]})
    return Score.of(metric, items, reason=note)


def _auroc_by_batch(metric: str, cells: Cells, batch: np.ndarray, seed: int) -> Score:
    """The AUROC of a single perturbation, whose units are batches: cells of one are no repeats of the experiment."""
    share, _, position = placements(cells, 1, seed)
    if len(share) < MIN_CELLS:
        return Score.absent(metric, f"{counted(len(share), 'cell')} can be compared with controls; {MIN_CELLS} are needed")
    code, names = pd.factorize(batch[position].astype(object), sort=True)
    n_cells = np.bincount(code).astype(float)
    items = Items("batch", names.astype(str), np.bincount(code, weights=share), n_cells)
    return Score.of(metric, items, n=len(share), reason=_components(cells))


def _components(cells: Cells) -> str:
    """That principal components stand for the dimensions, or ''."""
    return f"{MAX_DIMENSIONS} principal components of {cells.values.shape[1]:,} dimensions" if cells.reduced else ""


def _in_test(code: np.ndarray, test: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(code[test & (code >= 0)], minlength=n) > 0


TASK = Task(
    name="separability",
    # 2: auroc_control spares the controls that fit it; 3: of fewer than seven batches, each is left out once;
    # 4: auroc_control in all dimensions, unless the data are large; 5: auroc_control knows the covariance of few batches, too
    version="5",
    title="Telling perturbations apart",
    question="Whether cells of one perturbation can be told from cells of the others.",
    order=10,
    metrics=METRICS,
    main_metric="linear_top1",
    choose_main=main_metric,
    not_applicable=not_applicable,
    run=run,
    uses_split=True,
    whole_if_few=True,
    uses_device=True,
)
