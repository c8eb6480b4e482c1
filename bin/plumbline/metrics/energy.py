"""Magnitude: the energy distance of a perturbation's cells to control cells, and its permutation test.

Euclidean distances, V-statistic: 2 E|x-y| - E|x-x'| - E|y-y'|, each mean over all pairs, those of a cell with itself
included (Szekely & Rizzo 2013, J Stat Plan Inference 143:1249). It is >= 0, and 0 only for equal samples.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from plumbline.common.random import seed_of
from plumbline.metrics.draws import draw_members
from plumbline.metrics.groups import Groups, enough_relabellings, group_by
from plumbline.metrics.influence import CONTROL_GROUPS, control_group, influence_of_controls

MAX_CELLS = 500  # cells of a perturbation in the permutation test; more are sub-sampled
MAX_CONTROLS = 300  # batch-matched controls in the permutation test; more are sub-sampled
MIN_CELLS = 5  # a perturbation with fewer cells is not scored
_BLOCK = 1024


def mean_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Mean Euclidean distance over all pairs of rows of x (n, d) and y (m, d); in blocks of rows, float64."""
    y = np.asarray(y, dtype=np.float64)
    square = np.einsum("ij,ij->i", y, y)
    total = 0.0
    for start in range(0, len(x), _BLOCK):
        total += _distances(np.asarray(x[start : start + _BLOCK], dtype=np.float64), y, square).sum()
    return total / (len(x) * len(y))


def _distances(x: np.ndarray, y: np.ndarray, square: np.ndarray) -> np.ndarray:
    d = x @ y.T
    d *= -2
    d += np.einsum("ij,ij->i", x, x)[:, None]
    d += square
    return np.sqrt(np.maximum(d, 0, out=d), out=d)


def _distances_within(x: np.ndarray) -> np.ndarray:
    d = _distances(x, x, np.einsum("ij,ij->i", x, x))
    np.fill_diagonal(d, 0)  # exactly, not up to rounding
    return d


def mean_distance_within(x: np.ndarray) -> float:
    """Mean Euclidean distance over all ordered pairs of rows of x (n, d), a row with itself included (0)."""
    x = np.asarray(x, dtype=np.float64)
    if len(x) <= _BLOCK:
        return float(_distances_within(x).mean())
    starts = range(0, len(x), _BLOCK)
    total = sum(_distances_within(x[s : s + _BLOCK]).sum() for s in starts)
    for s in starts[1:]:
        total += 2 * mean_distance(x[s : s + _BLOCK], x[:s]) * len(x[s : s + _BLOCK]) * s
    return total / len(x) ** 2


def energy_distances(x: np.ndarray, groups: Groups, controls: np.ndarray) -> np.ndarray:
    """Energy distance of each group of rows of x (n, d) to ``controls`` (m, d): (g,), >= 0; NaN below MIN_CELLS cells.

    The term among the controls is computed once. Source: EFAAR (Celik et al. 2024), whose geomloss value this is, doubled.
    """
    centre = controls.mean(axis=0, dtype=np.float64)  # distances do not change, their rounding does
    y = controls - centre
    among = mean_distance_within(y)
    values = np.full(len(groups.names), np.nan)
    for group in np.flatnonzero(groups.sizes >= MIN_CELLS):
        own = x[groups.rows(group)] - centre
        values[group] = 2 * mean_distance(own, y) - mean_distance_within(own) - among
    return values


def permutation_test(
    distances: np.ndarray, wanted: np.ndarray, starts: np.ndarray, n_draws: int, seed: int
) -> tuple[float, np.ndarray]:
    """Energy distance of marked cells to the others, and under ``n_draws`` relabellings within strata.

    distances: (N, N). Stratum b holds the positions starts[b]:starts[b + 1], of which the first wanted[b] are marked.
    Returns (observed, null (n_draws,)). All relabellings are one matrix product: with M (draws, N) of 0 and 1, the sums
    within the marked cells are the row sums of (M @ D) * M, and the others follow from the row sums of D.
    """
    members = np.zeros((n_draws + 1, len(distances)), dtype=np.float32)
    for start, count in zip(starts[:-1], wanted, strict=True):
        members[0, start : start + count] = 1  # the observed labels take the same arithmetic as the draws
    draw_members(starts, wanted, seed, members[1:])
    d = distances.astype(np.float32)
    within = np.einsum("ij,ij->i", members @ d, members, dtype=np.float64)
    cross = members @ d.sum(axis=1, dtype=np.float64) - within
    n, m = wanted.sum(), len(d) - wanted.sum()
    among = d.sum(dtype=np.float64) - within - 2 * cross
    values = 2 * cross / (n * m) - within / n**2 - among / m**2
    return float(values[0]), values[1:]


@dataclass(frozen=True)
class MatchedTest:
    """Per perturbation (g,): the observed distance, its null (g, n_draws), cells and controls used; NaN if not scored.

    pull (g, CONTROL_GROUPS): influence of each group of controls (``control_group``) on the observed distance: perturbations
    that lie far from one sample of controls are not independent.
    """

    observed: np.ndarray
    null: np.ndarray
    n_cells: np.ndarray
    n_controls: np.ndarray
    pull: np.ndarray


def matched_test(  # noqa: PLR0913 - metrics are functions of arrays
    x: np.ndarray,
    cell_id: np.ndarray,
    perturbation: np.ndarray,
    is_control: np.ndarray,
    batch: np.ndarray,
    names: np.ndarray,
    n_draws: int,
    seed: int,
    threads: int = 1,
) -> MatchedTest:
    """Energy distance of each perturbation to controls of its own batches, with relabellings within each batch.

    x: (n, d); the other arrays (n,); names (g,): perturbations to test. In each batch up to r controls per cell are used,
    r chosen so that at most MAX_CONTROLS are; cells in batches without controls are left out. Fewer than MIN_CELLS cells
    left, or fewer than MIN_RELABELLINGS (metrics/groups.py) ways to relabel them: not scored. Neither the order of the rows
    nor which perturbations are tested changes a result.
    """
    order = np.lexsort((cell_id, group_by(batch).codes))
    batch = np.asarray(batch)[order]
    _, code = np.unique(batch, return_inverse=True)
    control = np.asarray(is_control)[order]
    pools = np.split(np.flatnonzero(control), np.cumsum(np.bincount(code[control], minlength=code.max() + 1))[:-1])
    cells = group_by(np.where(control, "", np.asarray(perturbation)[order]))
    result = MatchedTest(
        np.full(len(names), np.nan),
        np.full((len(names), n_draws), np.nan),
        *np.zeros((2, len(names)), dtype=np.int64),
        np.zeros((len(names), CONTROL_GROUPS)),
    )
    group = control_group(np.asarray(cell_id)[order], control)

    def test(item: int) -> None:
        start = seed_of(seed, str(names[item]))
        own = cells.rows(np.searchsorted(cells.names, names[item]))
        picked, wanted, starts = _match(own, code, pools, np.random.default_rng(start))
        result.n_cells[item] = wanted.sum()
        if wanted.sum() < MIN_CELLS or not enough_relabellings(wanted, np.diff(starts) - wanted):
            return
        result.n_controls[item] = len(picked) - wanted.sum()
        rows = x[order[picked]].astype(np.float32)
        distances = _distances_within(rows - rows.mean(axis=0))
        result.observed[item], result.null[item] = permutation_test(distances, wanted, starts, n_draws, start)
        others, pull = influence_of_controls(distances, wanted, starts)
        result.pull[item] = np.bincount(group[picked[others]], pull, minlength=CONTROL_GROUPS)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(test, range(len(names))))
    return result


def _match(
    own: np.ndarray, code: np.ndarray, pools: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells and matched controls, batch by batch (cells first), the number of cells in each, and where each begins."""
    if len(own) > MAX_CELLS:
        own = np.sort(rng.choice(own, MAX_CELLS, replace=False))
    batches, first = np.unique(code[own], return_index=True)
    parts = {b: part for b, part in zip(batches, np.split(own, first[1:]), strict=True) if len(pools[b])}
    share = _controls_per_cell([len(part) for part in parts.values()], [len(pools[b]) for b in parts])
    picked, wanted, starts = [np.zeros(0, dtype=np.int64)], [], [0]
    for b, part in parts.items():
        some = min(len(pools[b]), max(1, int(share * len(part))))
        picked += [part, rng.choice(pools[b], some, replace=False)]
        wanted.append(len(part))
        starts.append(starts[-1] + len(part) + some)
    return np.concatenate(picked), np.array(wanted, dtype=np.int64), np.array(starts)


def _controls_per_cell(cells: list[int], controls: list[int]) -> float:
    """The largest r such that the sum over batches of min(controls, r x cells) stays within MAX_CONTROLS."""
    if sum(controls) <= MAX_CONTROLS:
        return float(MAX_CONTROLS)
    low, high = 0.0, float(MAX_CONTROLS)
    for _ in range(40):
        middle = (low + high) / 2
        total = sum(min(m, int(middle * n)) for n, m in zip(cells, controls, strict=True))
        low, high = (middle, high) if total <= MAX_CONTROLS else (low, middle)
    return low
