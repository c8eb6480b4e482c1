"""Magnitude: the energy distance of a perturbation's cells to control cells, and its permutation test.

Euclidean distances, V-statistic: 2 E|x-y| - E|x-x'| - E|y-y'|, each mean over all pairs, those of a cell with itself
included (Szekely & Rizzo 2013, J Stat Plan Inference 143:1249). It is >= 0, and 0 only for equal samples.
"""

from dataclasses import dataclass

import numpy as np

from plumbline.common.devices import is_gpu
from plumbline.common.random import seed_of
from plumbline.common.threads import side_by_side
from plumbline.metrics.arrays import arrays
from plumbline.metrics.distances import distances_within, mean_distance, mean_distance_within
from plumbline.metrics.draws import draw_members
from plumbline.metrics.effect_size import EffectSizes, effect_sizes
from plumbline.metrics.groups import Groups, enough_relabellings, group_by
from plumbline.metrics.influence import CONTROL_GROUPS, control_group, influence_of_controls
from plumbline.metrics.ranks import rounds, undecided
from plumbline.scoring.vectors import BLOCK_BYTES, Vectors

MAX_CELLS = 500  # cells of a perturbation in the permutation test; more are sub-sampled
MAX_CONTROLS = 300  # batch-matched controls in the permutation test; more are sub-sampled
MIN_CELLS = 5  # a perturbation with fewer cells is not scored


def energy_distances(
    x: Vectors | np.ndarray, groups: Groups, controls: np.ndarray, precision: type = np.float64, device: str = "cpu"
) -> np.ndarray:
    """Energy distance of each group of rows of x (n, d) to ``controls`` (m, d): (g,), >= 0; NaN below MIN_CELLS cells.

    The term among the controls is computed once. precision: of distances between two cells; float32 on large data.
    Source: EFAAR (Celik et al. 2024), whose geomloss value this is, doubled.
    """
    centre = controls.mean(axis=0, dtype=np.float64)  # distances do not change, their rounding does
    y = controls - centre
    among = mean_distance_within(y, device=device)
    values = np.full(len(groups.names), np.nan)
    for part in _portions(groups.sizes, x.shape[1]):
        rows = x[np.concatenate([groups.rows(group) for group in part])]
        for group, own in zip(part, np.split(rows, np.cumsum(groups.sizes[part])[:-1]), strict=True):
            if len(own) >= MIN_CELLS:
                within = mean_distance_within(own - own.mean(axis=0, dtype=np.float64), precision, device)
                values[group] = 2 * mean_distance(own - centre, y, precision, device) - within - among
    return values


def _portions(sizes: np.ndarray, d: int) -> list[np.ndarray]:
    """Things of so many rows of d values each, in portions that are read at once."""
    portion = np.cumsum(4 * d * np.asarray(sizes, dtype=np.int64)) // BLOCK_BYTES
    return np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(portion)) + 1)


def permutation_test(
    distances: np.ndarray,
    wanted: np.ndarray,
    starts: np.ndarray,
    n_draws: int,
    seed: int,
    curtailed: bool = False,
    device: str = "cpu",
) -> tuple[float, np.ndarray]:
    """Energy distance of marked cells to the others, and under ``n_draws`` relabellings within strata.

    distances: (N, N). Stratum b holds the positions starts[b]:starts[b + 1], of which the first wanted[b] are marked.
    Returns (observed, null (n_draws,)). curtailed: the null ends, in NaN, once p cannot become 0.05 or less.
    """
    first = np.zeros((1, len(distances)), dtype=np.float32)
    for start, count in zip(starts[:-1], wanted, strict=True):
        first[0, start : start + count] = 1
    d, state, urn = distances.astype(np.float32), np.array([seed], dtype=np.uint64), np.arange(len(distances))
    to_all, observed, null = d.sum(axis=1, dtype=np.float64), np.full(1, np.nan), np.full(n_draws, np.nan)
    for draws in rounds(n_draws, curtailed):
        if draws.start and curtailed and not undecided(observed, null[None], n_draws).all():
            break
        members = np.zeros((1 + draws.stop - draws.start, len(d)), dtype=np.float32)
        members[0] = first  # the observed labels take the same arithmetic as the draws
        draw_members(starts, wanted, state, urn, members[1:])
        values = _energies(_within(members, d, device), members, to_all)
        observed[0], null[draws] = values[0], values[1:]
    return float(observed[0]), null


def _within(members: np.ndarray, d: np.ndarray, device: str) -> np.ndarray:
    """Sum of the distances ``d`` (N, N) among the marked cells, for each row of ``members`` (k, N) of 0 and 1: one product."""
    if not is_gpu(device):
        return np.einsum("ij,ij->i", members @ d, members, dtype=np.float64)
    torch, there, back = arrays(device)
    marked = there(members)
    return back(((marked @ there(d)) * marked).sum(dim=1, dtype=torch.float64))


def _energies(within: np.ndarray, members: np.ndarray, to_all: np.ndarray) -> np.ndarray:
    """Energy distance of the marked cells to the others for each row of ``members`` (k, N), from the sums among the marked ones
    and those of each cell's distances to all (N,): the other sums follow."""
    cross = members @ to_all - within
    n = members[0].sum(dtype=np.float64)
    m, among = len(to_all) - n, to_all.sum() - within - 2 * cross
    return 2 * cross / (n * m) - within / n**2 - among / m**2


@dataclass(frozen=True)
class MatchedTest:
    """Per perturbation (g,): the observed distance, its null (g, n_draws), cells and controls used; NaN if not scored.

    pull (g, CONTROL_GROUPS): influence of each group of controls (``control_group``) on the observed distance: perturbations
    that lie far from one sample of controls are not independent. sizes: effect sizes, batch by batch.
    """

    observed: np.ndarray
    null: np.ndarray
    n_cells: np.ndarray
    n_controls: np.ndarray
    pull: np.ndarray
    sizes: EffectSizes


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
    curtailed: bool = False,
    precision: type = np.float64,
    device: str = "cpu",
) -> MatchedTest:
    """Energy distance of each perturbation to controls of its own batches, with relabellings within each batch.

    x: (n, d); the other arrays (n,); names (g,): perturbations to test. In each batch up to r controls per cell are used,
    r chosen so that at most MAX_CONTROLS are; cells in batches without controls are left out. Fewer than MIN_CELLS cells
    left, or fewer than MIN_RELABELLINGS (metrics/groups.py) ways to relabel them: not scored. Neither the order of the rows
    nor which perturbations are tested changes a result. curtailed, precision: as above. device: of distances and draws.
    """
    cells = _in_order(cell_id, perturbation, is_control, batch)
    found = [cells.match(name, seed_of(seed, str(name))) for name in names]
    n_cells = np.array([match.wanted.sum() for match in found], dtype=np.int64)
    observed, null = np.full(len(names), np.nan), np.full((len(names), n_draws), np.nan)
    group, pulls = control_group(np.asarray(cell_id)[cells.order], cells.is_control), np.zeros((len(names), CONTROL_GROUPS))

    batches, sizes = group_by(batch).names, {}

    def test(item: int, rows: np.ndarray) -> None:
        match, start = found[item], seed_of(seed, str(names[item]))
        distances = distances_within(rows - rows.mean(axis=0), precision, device)
        observed[item], null[item] = permutation_test(distances, match.wanted, match.starts, n_draws, start, curtailed, device)
        others, pull = influence_of_controls(distances, match.wanted, match.starts)
        pulls[item] = np.bincount(group[match.picked[others]], pull, minlength=CONTROL_GROUPS)
        met = batches[cells.batch[match.picked[match.starts[:-1]]]]
        sizes[item] = effect_sizes(str(names[item]), distances, match.wanted, match.starts, met, group[match.picked])

    scored = np.array([item for item, match in enumerate(found) if match.can_be_relabelled], dtype=np.int64)
    with side_by_side(threads) as pool:
        for part in _portions(np.array([len(found[item].picked) for item in scored]), x.shape[1]):
            picked = [found[item].picked for item in scored[part]]
            each, where = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *picked]), return_inverse=True)
            values = np.asarray(x[cells.order[each]], dtype=np.float32)
            places = np.split(where, np.cumsum([len(one) for one in picked])[:-1])
            list(pool.map(lambda item, place, values=values: test(item, values[place]), scored[part], places))
    used = np.array([match.can_be_relabelled * (len(match.picked) - match.wanted.sum()) for match in found], dtype=np.int64)
    return MatchedTest(observed, null, n_cells, used, pulls, EffectSizes.of([sizes[item] for item in sorted(sizes)]))


@dataclass(frozen=True)
class _Match:
    """The cells and controls of one test: ``picked``, batch by batch, cells first; of each batch ``wanted`` are cells, and it
    begins at ``starts``."""

    picked: np.ndarray
    wanted: np.ndarray
    starts: np.ndarray

    @property
    def can_be_relabelled(self) -> bool:
        """Whether there are cells enough, and enough relabellings for a p value."""
        return bool(self.wanted.sum() >= MIN_CELLS and enough_relabellings(self.wanted, np.diff(self.starts) - self.wanted))


@dataclass(frozen=True)
class _Ordered:
    """Cells in a canonical order, by batch and id: the row and the batch of each position, the controls of each batch, and the
    positions by perturbation."""

    order: np.ndarray
    batch: np.ndarray
    controls: list[np.ndarray]
    groups: Groups

    @property
    def is_control(self) -> np.ndarray:
        """Whether each position is a control."""
        return np.isin(np.arange(len(self.order)), np.concatenate(self.controls))

    def match(self, name: str, seed: int) -> _Match:
        """The test of one perturbation."""
        own = self.groups.rows(int(np.searchsorted(self.groups.names, name)))
        return _match(own, self.batch, self.controls, np.random.default_rng(seed))


def _in_order(cell_id: np.ndarray, perturbation: np.ndarray, is_control: np.ndarray, batch: np.ndarray) -> _Ordered:
    by_batch, by_id = group_by(batch), np.argsort(cell_id, kind="stable")
    order = by_id[np.argsort(by_batch.codes[by_id], kind="stable")]
    code, control = by_batch.codes[order], np.asarray(is_control)[order]
    controls = np.split(np.flatnonzero(control), np.cumsum(np.bincount(code[control], minlength=len(by_batch.names)))[:-1])
    return _Ordered(order, code, controls, group_by(np.where(control, "", np.asarray(perturbation)[order])))


def _match(own: np.ndarray, code: np.ndarray, pools: list[np.ndarray], rng: np.random.Generator) -> _Match:
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
    return _Match(np.concatenate(picked), np.array(wanted, dtype=np.int64), np.array(starts))


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
