"""The linear probe within a budget: what is left out where its recipe would take hours on a CPU.

A softmax over thousands of perturbations (C) costs 4 d C operations a cell. The gradient of an update is the mean over its
minibatch of p x, less that of y x (p: probabilities, y: the true class, x: the cell). The second costs nothing, so it stays
that of the whole minibatch; the first is the mean over some of its cells. That alone would lose what the two have in common:
where a class is well known, p is all but y. So a share k of y x is taken from the same few cells, k being the mean
probability that the class has lately had in its own cells (a control variate; k = 0 and k = 1 are the two extremes). The
expected gradient is that of the recipe for any k. And ``merged`` updates are made as one, at as many times the rate.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from plumbline.common.compiled import compiled
from plumbline.metrics.probe import (
    BETA1,
    BETA2,
    EPSILON,
    WEIGHT_DECAY,
    Layer,
    Schedule,
    corrected_schedule,
    fit_linear,
    initial,
    layer_of,
    learning_rates,
    n_steps,
    paper_schedule,
    with_ones,
)
from plumbline.metrics.rows import Rows, blocks
from plumbline.scoring.vectors import RowSource

OPERATIONS = 1e13  # multiplications and additions of one training on a CPU: about two minutes of one core
_PER_LOGIT = 200.0  # measured: exponential, sums and division of one logit take as long as so many operations
FEWEST_UPDATES, MOST_MERGED, FEWEST_CELLS = 1_000, 8, 64
_SUMS = 2**28  # numbers up to which the class sums of all minibatches are kept (1 GB)
_MEMORY = 8  # of so many of its own cells is the probability of a class averaged


@dataclass(frozen=True, kw_only=True)
class ProbePlan:
    """How a probe is trained. cells: of each minibatch, over which the softmax is taken (0: all, the recipe itself).
    merged: updates made as one. ``note`` says it all."""

    schedule: Schedule
    cells: int = 0
    merged: int = 1
    note: str = ""


def plan(protocol: str, n_train: int, d: int, n_classes: int, device: str = "cpu", exact: bool = False) -> ProbePlan:
    """The training that a protocol asks for, or what of it fits a CPU; nothing is cut on a GPU or if ``exact``."""
    schedule = (paper_schedule if protocol == "paper" else corrected_schedule)(n_train)
    note = f"{schedule.epochs} epochs of minibatches of {schedule.batch}"
    updates, size = schedule.epochs * n_steps(n_train, schedule), min(schedule.batch, n_train)
    if exact or device != "cpu" or updates * size * operations(d, n_classes) <= OPERATIONS:
        return ProbePlan(schedule=schedule, note=note)
    merged = int(np.clip(updates // FEWEST_UPDATES, 1, MOST_MERGED))
    afforded = int(OPERATIONS / (updates // merged * operations(d, n_classes)))
    cells = min(size, max(FEWEST_CELLS, afforded))
    cut = f", cut to fit a CPU: softmax over {cells} cells of each"
    cut += f", {updates // merged} updates at {merged} times the rate for {updates}" if merged > 1 else ""
    return ProbePlan(schedule=schedule, cells=cells, merged=merged, note=note + cut)


def operations(d: int, n_classes: int) -> float:
    """Multiplications and additions that one cell costs in one update."""
    return (4.0 * (d + 1) + _PER_LOGIT) * n_classes


def fit(values: RowSource, code: np.ndarray, n_classes: int, how: ProbePlan, seed: int, device: str = "cpu") -> Layer:
    """Train the probe as planned. values (n, d): a source of rows; code (n,): classes 0 .. n_classes - 1."""
    if not how.cells:
        return fit_linear(values, code, n_classes, how.schedule, seed, device=device)
    random, classes = np.random.default_rng(seed), _Known(n_classes, how.cells)
    layer = initial(values.shape[1], n_classes, random)
    first, second = np.zeros_like(layer), np.zeros_like(layer)
    rates = learning_rates(n_steps(len(code), how.schedule), how.schedule.epochs)[how.merged // 2 :: how.merged] * how.merged
    updates = islice(_updates(values, code, n_classes, how, random), len(rates))
    for step, (rate, (x, y, means)) in enumerate(zip(rates.tolist(), updates, strict=True), start=1):
        known = classes.share()
        gradient, own = _expected(layer, x, y, known)
        gradient -= (1 - known)[:, None] * means
        classes.add(y, own)
        _adamw(layer, gradient, first, second, np.float32(rate), np.float32(1 - BETA1**step), np.float32(1 - BETA2**step))
    return layer_of(layer)


class _Known:
    """How well each class is known: the mean probability it has lately had in its own cells, from 0 on."""

    def __init__(self, n_classes: int, cells: int) -> None:
        self.kept = np.float32(1 - min(1.0, cells / (_MEMORY * n_classes)))
        self.total, self.count = np.zeros(n_classes, np.float32), np.ones(n_classes, np.float32)

    def share(self) -> np.ndarray:
        """(n_classes,), of the updates so far: what an update subtracts must not depend on its own cells.

        Of a class that was not met for thousands of updates nothing is remembered (both sums underflow): 0, as at the start.
        """
        return self.total / np.maximum(self.count, np.float32(1e-30))

    def add(self, y: np.ndarray, probability: np.ndarray) -> None:
        """After an update: the probabilities (m,) that its cells gave to their own classes y."""
        n = len(self.total)
        self.total = self.kept * self.total + np.bincount(y, probability, n).astype(np.float32)
        self.count = self.kept * self.count + np.bincount(y, minlength=n).astype(np.float32)


def _expected(layer: np.ndarray, x: np.ndarray, y: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over some cells of (softmax - known share of the true class) times the cell, and the cells' own probabilities."""
    odds, rows = x @ layer.T, np.arange(len(x))
    odds -= odds.max(axis=1)[:, None]
    np.exp(odds, out=odds)
    odds /= odds.sum(axis=1)[:, None]
    own = odds[rows, y]
    odds[rows, y] -= known[y]
    return odds.T @ x / np.float32(len(x)), own


def _updates(
    values: RowSource, code: np.ndarray, n_classes: int, how: ProbePlan, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each update some cells of a minibatch, their classes, and the whole minibatch's mean of y x (n_classes, d + 1).

    Where the means of all minibatches fit in memory (the paper's are few), they are taken once: the minibatches are then the
    same in every epoch, in another order, and leave no cell out.
    """
    n, schedule = len(code), how.schedule
    parts = np.array_split(random.permutation(n), n_steps(n, schedule))
    if len(parts) * n_classes * (values.shape[1] + 1) <= _SUMS:
        means = [_class_means(Rows(values, rows), code[rows], n_classes) for rows in parts]
        while True:
            for number in random.permutation(len(parts)):
                some = np.sort(random.choice(parts[number], min(how.cells, len(parts[number])), replace=False))
                yield with_ones(values[some]), code[some], means[number]
    while True:
        for rows in np.array_split(random.permutation(n), n_steps(n, schedule)):
            some = np.sort(rows[: how.cells])
            yield with_ones(values[some]), code[some], _class_means(Rows(values, rows), code[rows], n_classes)


def _class_means(values: RowSource, code: np.ndarray, n_classes: int) -> np.ndarray:
    """Sums over the cells of each class (n_classes, d + 1), the last column their number, over the number of all cells."""
    from scipy.sparse import csr_matrix

    total = np.zeros((n_classes, values.shape[1] + 1), dtype=np.float32)
    for rows, block in blocks(values):
        n = len(block)
        member = csr_matrix((np.ones(n, dtype=np.float32), (code[rows], np.arange(n))), shape=(n_classes, n))
        total += member @ with_ones(block)
    return total / np.float32(len(code))


@compiled()
def _adamw(layer, gradient, first, second, rate, unbiased_first, unbiased_second):
    """One update in place, in one pass over the weights."""
    beta1, beta2, decay, epsilon = np.float32(BETA1), np.float32(BETA2), np.float32(WEIGHT_DECAY), np.float32(EPSILON)
    one, root = np.float32(1), np.sqrt(unbiased_second)
    for row in range(layer.shape[0]):
        for column in range(layer.shape[1]):
            slope = gradient[row, column]
            first[row, column] += (one - beta1) * (slope - first[row, column])
            second[row, column] += (one - beta2) * (slope * slope - second[row, column])
            step = first[row, column] / unbiased_first / (np.sqrt(second[row, column]) / root + epsilon)
            layer[row, column] = layer[row, column] * (one - rate * decay) - rate * step
