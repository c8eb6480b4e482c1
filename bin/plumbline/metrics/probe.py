"""Which perturbation is a cell from? A linear probe and a k-nearest-neighbour vote, trained on some cells, asked of others.

The linear probe is the paper's (arXiv 2410.13956): one linear layer, cross-entropy, AdamW, warm-up and cosine decay.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from plumbline.metrics.arrays import arrays
from plumbline.metrics.class_ranks import rank_of
from plumbline.metrics.neighbours import neighbour_chunks, odd_at_most, principal_components
from plumbline.metrics.rows import Rows, blocks, fits, held
from plumbline.scoring.vectors import RowSource

EPOCHS, WARM_UP = 250, 10
START_RATE, RATE, WEIGHT_DECAY = 3e-5, 1e-3, 1e-6
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
UPDATES = 2_000  # accuracy on standardised features no longer moves beyond; 250 (one batch an epoch) leave it underfitted
FULL_BATCH = 64_768  # the paper's batch: all of a smaller train set at once
K, COMPONENTS = 251, 32
VOTE_CELLS = 4_194_304  # entries of one block of the table of votes (cells x classes)
LOGITS = 2**25  # entries of one block of logits (cells x classes) in training

Array = Any  # of numpy or of torch


@dataclass(frozen=True)
class Schedule:
    """How long and in which portions a probe is trained. drop_last: leave an incomplete last minibatch out."""

    batch: int
    epochs: int = EPOCHS
    drop_last: bool = False


@dataclass(frozen=True)
class Layer:
    """A linear layer: weight (n_classes, d) and bias (n_classes,), float32."""

    weight: np.ndarray
    bias: np.ndarray

    def ranks(self, values: RowSource, code: np.ndarray) -> np.ndarray:
        """Rank (n,) of the true class among the logits of (n, d) cells; 0 is the highest, ties go to the lower class."""
        parts = blocks(values, max(1, VOTE_CELLS // len(self.bias)))
        return np.concatenate([rank_of(block @ self.weight.T + self.bias, code[rows]) for rows, block in parts])


def paper_schedule(n_train: int) -> Schedule:
    """The paper's: all cells at once up to 64,768, else shuffled batches of that many and the incomplete last one dropped."""
    return Schedule(min(n_train, FULL_BATCH), drop_last=True)


def corrected_schedule(n_train: int) -> Schedule:
    """Minibatches of about a sixteenth of the cells (a power of two in 16 .. 1,024), as many epochs as make 2,000 updates.

    At least 10 epochs and at most the paper's 250. AdamW moves a weight by at most the rate in an update, so updates, not
    epochs, decide whether the probe gets anywhere: the paper's single batch an epoch gives 250 on any small data set.
    """
    batch = int(np.clip(2 ** int(math.log2(max(n_train / 16, 1))), 16, 1024))
    return Schedule(batch, int(np.clip(math.ceil(UPDATES * batch / n_train), 10, EPOCHS)))


def fit_linear(
    values: RowSource,
    code: np.ndarray,
    n_classes: int,
    schedule: Schedule,
    seed: int,
    start: Layer | None = None,
    device: str = "cpu",
) -> Layer:
    """Train the probe on values (n, d) with classes code (n,) in 0 .. n_classes - 1; the weights after the last epoch.

    AdamW (Loshchilov and Hutter 2019, algorithm 2; rate 1e-3, decay 1e-6); the rate rises linearly from 3e-5 over 10 of 250
    epochs, then falls as a cosine to 0. ``start``: initial weights; else uniform in +-1/sqrt(d) from ``seed``, which also
    shuffles the minibatches. On the CPU numpy computes it, with the threads its BLAS may use: torch takes seconds to import
    and is no faster.
    """
    xp, there, back = arrays(device)
    random, n = np.random.default_rng(seed), len(code)
    layer = there(np.column_stack((start.weight, start.bias)) if start else initial(values.shape[1], n_classes, random))
    read = _reader(xp, values, code, there, device)
    first, second = xp.zeros_like(layer), xp.zeros_like(layer)
    rates = learning_rates(n_steps(n, schedule), schedule.epochs)
    batches = (rows for _ in range(schedule.epochs) for rows in minibatches(n, schedule, random))
    for step, (rate, rows) in enumerate(zip(rates.tolist(), batches, strict=True), start=1):
        gradient = _gradient(xp, layer, read, n if rows is None else rows, there)
        first += (1 - BETA1) * (gradient - first)
        second += (1 - BETA2) * (gradient * gradient - second)
        layer *= 1 - rate * WEIGHT_DECAY
        layer -= rate / (1 - BETA1**step) * first / (xp.sqrt(second) / math.sqrt(1 - BETA2**step) + EPSILON)
    return layer_of(back(layer))


def layer_of(weights: np.ndarray) -> Layer:
    """The layer whose biases are the last column of (n_classes, d + 1) weights."""
    return Layer(np.ascontiguousarray(weights[:, :-1]), weights[:, -1].copy())


def with_ones(values: np.ndarray) -> np.ndarray:
    """float32 (n, d + 1): the bias is a weight of 1."""
    inputs = np.ones((len(values), values.shape[1] + 1), dtype=np.float32)
    inputs[:, :-1] = values
    return inputs


def _reader(xp: ModuleType, values: RowSource, code: np.ndarray, there: Callable, device: str) -> Callable:
    """What gives inputs and classes of some rows (a slice or an array) where the probe is trained: from memory if they fit."""
    if not fits(values) and device == "cpu":
        return lambda rows: (with_ones(values[rows]), code[rows])
    inputs = xp.concatenate([there(with_ones(block)) for _, block in blocks(values)])
    targets = there(code.astype(np.int64))
    return lambda rows: (inputs[rows], targets[rows])


def _gradient(xp: ModuleType, layer: Array, read: Callable, rows: int | np.ndarray, there: Callable) -> Array:
    """Gradient of the mean cross-entropy of softmax(x @ layer.T) over some rows, or all of so many; in blocks of rows."""
    n, total = rows if isinstance(rows, int) else len(rows), None
    step = max(1, LOGITS // len(layer))
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        x, y = read(part if isinstance(rows, int) else there(rows[part]))
        odds = x @ layer.T
        odds -= xp.amax(odds, 1)[:, None]
        odds = xp.exp(odds)
        odds /= xp.sum(odds, 1)[:, None]
        odds[there(np.arange(len(x))), y] -= 1
        total = odds.T @ x if total is None else total + odds.T @ x
    return total / n


def learning_rates(steps: int, epochs: int, peak: float = RATE, warm_up: float = WARM_UP / EPOCHS) -> np.ndarray:
    """The rate of every step (epochs * steps,): linear warm-up from 3e-5 to ``peak`` over a share of them, then cosine to 0."""
    total = steps * epochs
    warm = max(1, round(total * warm_up))
    step = np.arange(total)
    rising = START_RATE + (peak - START_RATE) * step / max(warm - 1, 1)
    falling = peak * (1 + np.cos(np.pi * (step - warm) / max(total - warm, 1))) / 2
    return np.where(step < warm, rising, falling)


def knn_ranks(
    train: RowSource, train_code: np.ndarray, test: RowSource, test_code: np.ndarray, k: int, threads: int, device: str
) -> np.ndarray:
    """Rank (m,) of each test cell's class among the votes of its k nearest train cells; a class without a vote ranks last.

    train (n, d), test (m, d): reduced to 32 principal components fitted on train. Votes weigh 1 / (distance + 1e-5).
    """
    n_classes = int(max(train_code.max(), test_code.max())) + 1
    if train.shape[1] > COMPONENTS:
        mean, axes, _ = principal_components(train)
        train, test = (held(Rows(part, shift=mean, axes=axes[:, :COMPONENTS])) for part in (train, test))
    ranks, step = np.empty(len(test_code), dtype=np.int64), max(1, VOTE_CELLS // n_classes)
    for rows, distances, indices in neighbour_chunks(train, k, test, threads, device):
        weights, classes, code = 1.0 / (distances.astype(np.float64) + 1e-5), train_code[indices], test_code[rows]
        parts = (slice(start, start + step) for start in range(0, len(code), step))
        ranks[rows] = np.concatenate([_vote(weights[part], classes[part], code[part], n_classes) for part in parts])
    return ranks


def knn_k(n_train: int, protocol: str) -> int:
    """The paper's k = 251, or the largest odd number at most a quarter of the train cells; `corrected`: at most their square
    root, for 251 of few cells reach far beyond a perturbation's own (the square root of the paper's 64,768 is 254)."""
    return min(K, odd_at_most(n_train / 4 if protocol == "paper" else math.sqrt(n_train)))


def _vote(weights: np.ndarray, classes: np.ndarray, code: np.ndarray, n_classes: int) -> np.ndarray:
    rows = np.arange(len(code))
    cells = (rows[:, None] * n_classes + classes).ravel()
    votes = np.bincount(cells, weights=weights.ravel(), minlength=len(code) * n_classes).reshape(len(code), n_classes)
    return np.where(votes[rows, code] > 0, rank_of(votes, code), n_classes)


def initial(d: int, n_classes: int, random: np.random.Generator) -> np.ndarray:
    """Weights and, as last column, biases as torch.nn.Linear starts them."""
    return random.uniform(-1 / math.sqrt(d), 1 / math.sqrt(d), (n_classes, d + 1)).astype(np.float32)


def n_steps(n: int, schedule: Schedule) -> int:
    """Optimiser steps in an epoch."""
    return max(1, n // schedule.batch if schedule.drop_last else math.ceil(n / schedule.batch))


def minibatches(n: int, schedule: Schedule, random: np.random.Generator) -> list[np.ndarray | None]:
    """Row numbers of each minibatch of an epoch; one None if all rows are in one."""
    if n <= schedule.batch:
        return [None]
    shuffled = random.permutation(n)
    return [shuffled[start : start + schedule.batch] for start in range(0, n, schedule.batch)][: n_steps(n, schedule)]
