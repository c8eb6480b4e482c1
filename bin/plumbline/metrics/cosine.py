"""Consistency: the mean pairwise cosine of a perturbation's cells, and what chance makes of it."""

from dataclasses import dataclass

import numpy as np

from plumbline.common.random import seed_of
from plumbline.metrics.groups import Groups, group_by, group_sums
from plumbline.metrics.ranks import rounds, undecided
from plumbline.metrics.relabelling import Relabelled, directions_of, pair_means
from plumbline.metrics.units import unit_rows
from plumbline.scoring.vectors import Vectors

MAX_CELLS = 1000  # cells of one perturbation that are tested; more are sub-sampled (its reported value uses all of them)


def mean_cosine(x: Vectors | np.ndarray, groups: Groups) -> np.ndarray:
    """Mean cosine over the pairs of cells of each group, (g,) in -1..1; NaN for a group with fewer than two cells.

    Closed form: with unit rows u and s = sum of u, (s.s - sum of u.u) / (n (n - 1)); O(n d). x: (n, d), read in blocks.
    """
    vectors, n = Vectors.of(x), groups.sizes
    totals, alone = np.zeros((len(n), vectors.shape[1])), np.zeros(len(n))
    for positions, values in vectors.blocks():
        unit, codes = unit_rows(values, np.float64), groups.codes[positions]
        group_sums(totals, codes, unit)
        alone += np.bincount(codes, np.einsum("ij,ij->i", unit, unit, dtype=np.float64), minlength=len(n))
    pairs = np.einsum("ij,ij->i", totals, totals) - alone
    return np.clip(np.divide(pairs, n * (n - 1), out=np.full(len(n), np.nan), where=n > 1), -1, 1)


@dataclass(frozen=True)
class _Cells:
    """Cells in a canonical order: by batch, then by id; positions in that order, not row numbers, are drawn."""

    order: np.ndarray  # row of each position
    batch: np.ndarray  # batch of each position
    starts: np.ndarray  # batch b holds the positions starts[b]:starts[b + 1]
    groups: Groups  # positions by perturbation


def matched_null(  # noqa: PLR0913 - metrics are functions of arrays
    x: Vectors | np.ndarray,
    cell_id: np.ndarray,
    perturbation: np.ndarray,
    batch: np.ndarray,
    names: np.ndarray,
    n_draws: int,
    seed: int,
    threads: int = 1,
    curtailed: bool = False,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean cosine of a perturbation's cells, and the same under relabellings of the cells within their batches.

    Both are less a constant, the squared length of the mean direction of all cells, beside which they would lose their digits
    where all cells point nearly one way.

    x: (n, d). cell_id, batch (n,). perturbation (n,): controls too, under their label. names (g,): perturbations to test.
    Returns (observed (g,), null (g, n_draws), tested (g,)): tested is the number of cells, observed and null are NaN if it
    is below two or if there are fewer than MIN_RELABELLINGS (metrics/groups.py) relabellings. A relabelling draws as many
    cells from each batch, without replacement, from the tested cells and those of other perturbations and controls: draws
    from the others alone vary less than the observed value where they are few (noise is then significant in 9 % with 3
    others in a batch, in 45 % with one). In a batch at most half as many cells are tested as there are others (one, if there
    is only one other), and at most MAX_CELLS in all. Neither the order of the rows nor which perturbations are tested changes
    a result. curtailed: no more draws for a perturbation once its p cannot become 0.05 or less; the rest of its null is NaN.
    device: where draws are summed.
    """
    cells = _in_order(cell_id, perturbation, batch)
    items = [_tested(cells, cells.groups.rows(code), seed_of(seed, name)) for name, code in _codes(cells, names)]
    vectors, observed, null = Vectors.of(x), np.full(len(names), np.nan), np.full((len(names), n_draws), np.nan)
    directions = directions_of(vectors)
    scored = np.array([i for i, item in enumerate(items) if item.can_be_relabelled], dtype=np.int64)
    for draws in rounds(n_draws, curtailed):
        left = scored[undecided(observed[scored], null[scored], n_draws)] if curtailed and draws.start else scored
        if len(left):
            drawn = [items[i] for i in left], draws.stop - draws.start
            values = pair_means(vectors, directions, cells.order, *drawn, threads, device)
            observed[left], null[left, draws] = values[:, 0], values[:, 1:]
    return observed, null, np.array([len(item.own) for item in items], dtype=np.int64)


def _in_order(cell_id: np.ndarray, perturbation: np.ndarray, batch: np.ndarray) -> _Cells:
    by_batch, by_id = group_by(batch), np.argsort(cell_id, kind="stable")
    order = by_id[np.argsort(by_batch.codes[by_id], kind="stable")]
    groups = group_by(np.asarray(perturbation)[order])
    return _Cells(order, by_batch.codes[order], by_batch.starts, groups)


def _codes(cells: _Cells, names: np.ndarray) -> list[tuple[str, int]]:
    """Names of perturbations, each with its group."""
    return list(zip(map(str, names), np.searchsorted(cells.groups.names, names).tolist(), strict=True))


def _tested(cells: _Cells, everyone: np.ndarray, seed: int) -> Relabelled:
    """Which of a perturbation's cells are tested (at positions ``everyone``), and how many are drawn from each batch."""
    rng, own = np.random.default_rng(seed), everyone
    where, count = np.unique(cells.batch[own], return_counts=True)
    others = cells.starts[where + 1] - cells.starts[where] - count
    wanted = np.minimum(count, np.where(others > 0, np.maximum(others // 2, 1), 0))
    parts = np.split(own, np.cumsum(count)[:-1])
    kept = [part if w == len(part) else rng.choice(part, w, replace=False) for part, w in zip(parts, wanted, strict=True)]
    own = np.concatenate(kept)
    if len(own) > MAX_CELLS:
        own = rng.choice(own, MAX_CELLS, replace=False)
    batches, wanted = np.unique(cells.batch[own], return_counts=True)
    return Relabelled(
        own=own,
        everyone=everyone,
        low=cells.starts[batches],
        high=cells.starts[batches + 1],
        wanted=wanted,
        others=others[np.searchsorted(where, batches)],
        state=np.array([seed], dtype=np.uint64),
    )
