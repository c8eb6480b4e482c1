"""Consistency: the mean pairwise cosine of a perturbation's cells, and what chance makes of it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from plumbline.common.random import seed_of
from plumbline.metrics.draws import draw_sums
from plumbline.metrics.groups import Groups, enough_relabellings, group_by

MAX_CELLS = 1000  # cells of one perturbation that are tested; more are sub-sampled (its reported value uses all of them)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """A float32 copy of x (n, d) with rows of length 1. A row of zeros stays zero: its cosine with anything is 0."""
    unit = np.array(x, dtype=np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", unit, unit, dtype=np.float64))
    unit /= np.where(length > 0, length, 1).astype(np.float32)[:, None]
    return unit


def mean_cosine(x: np.ndarray, groups: Groups) -> np.ndarray:
    """Mean cosine over the pairs of cells of each group, (g,) in -1..1; NaN for a group with fewer than two cells.

    Closed form: with unit rows u and s = sum of u, (s.s - sum of u.u) / (n (n - 1)); O(n d). x: (n, d).
    """
    return np.array([_mean_cosine(unit_rows(x[groups.rows(group)])) for group in range(len(groups.names))])


def _mean_cosine(unit: np.ndarray) -> float:
    n = len(unit)
    if n < 2:
        return float("nan")
    total = unit.sum(axis=0, dtype=np.float64)
    value = total @ total - np.einsum("ij,ij->", unit, unit, dtype=np.float64)
    return float(np.clip(value / (n * (n - 1)), -1, 1))


@dataclass(frozen=True)
class _Cells:
    """Cells in a canonical order: by batch, then by id; positions in that order, not row numbers, are drawn."""

    order: np.ndarray  # row of each position
    batch: np.ndarray  # batch of each position
    starts: np.ndarray  # batch b holds the positions starts[b]:starts[b + 1]
    code: np.ndarray  # perturbation of each position
    groups: Groups  # positions by perturbation


def matched_null(
    x: np.ndarray,
    cell_id: np.ndarray,
    perturbation: np.ndarray,
    batch: np.ndarray,
    names: np.ndarray,
    n_draws: int,
    seed: int,
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean cosine of a perturbation's cells, and the same under relabellings of the cells within their batches.

    x: (n, d). cell_id, batch (n,). perturbation (n,): controls too, under their label. names (g,): perturbations to test.
    Returns (observed (g,), null (g, n_draws), tested (g,)): tested is the number of cells, observed and null are NaN if it
    is below two or if there are fewer than MIN_RELABELLINGS (metrics/groups.py) relabellings. A relabelling draws as many
    cells from each batch, without replacement, from the tested cells and those of other perturbations and controls: draws
    from the others alone vary less than the observed value where they are few (noise is then significant in 9 % with 3
    others in a batch, in 45 % with one). In a batch at most half as many cells are tested as there are others (one, if there
    is only one other), and at most MAX_CELLS in all. Neither the order of the rows nor which perturbations are tested changes
    a result.
    """
    cells = _in_order(cell_id, perturbation, batch)
    unit = unit_rows(x)
    weight = np.einsum("ij,ij->i", unit, unit)
    codes = np.searchsorted(cells.groups.names, names)
    observed, null = np.full(len(names), np.nan), np.full((len(names), n_draws), np.nan)
    tested = np.zeros(len(names), dtype=np.int64)

    def test(items: np.ndarray) -> None:
        stamp = np.full(len(cells.order), -1, dtype=np.int64)  # the last draw a cell was in
        barred = np.zeros(len(cells.order), dtype=np.bool_)
        for item in items:
            start = seed_of(seed, str(names[item]))
            everyone = cells.groups.rows(codes[item])
            own, where, wanted, others = _tested(cells, everyone, np.random.default_rng(start))
            tested[item] = len(own)
            if len(own) < 2 or not enough_relabellings(wanted, others):
                continue
            observed[item] = _mean_cosine(unit[cells.order[own]])
            barred[everyone], barred[own] = True, False  # its cells that are not tested take no part
            pools = cells.starts[where], cells.starts[where + 1], wanted
            draw_sums(unit, weight, cells.order, barred, *pools, stamp, item * n_draws, start, null[item])
            barred[everyone] = False

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(test, np.array_split(np.arange(len(names)), threads)))
    return observed, null, tested


def _in_order(cell_id: np.ndarray, perturbation: np.ndarray, batch: np.ndarray) -> _Cells:
    by_batch = group_by(batch)
    order = np.lexsort((cell_id, by_batch.codes))
    groups = group_by(np.asarray(perturbation)[order])
    return _Cells(order, by_batch.codes[order], by_batch.starts, groups.codes, groups)


def _tested(cells: _Cells, own: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the cells of a perturbation that are tested, their batches, how many are drawn from each, and how many
    cells of others each has."""
    where, count = np.unique(cells.batch[own], return_counts=True)
    others = cells.starts[where + 1] - cells.starts[where] - count
    wanted = np.minimum(count, np.where(others > 0, np.maximum(others // 2, 1), 0))
    parts = np.split(own, np.cumsum(count)[:-1])
    kept = [part if w == len(part) else rng.choice(part, w, replace=False) for part, w in zip(parts, wanted, strict=True)]
    own = np.concatenate(kept)
    if len(own) > MAX_CELLS:
        own = rng.choice(own, MAX_CELLS, replace=False)
    batches, wanted = np.unique(cells.batch[own], return_counts=True)
    return own, batches, wanted, others[np.searchsorted(where, batches)]
