"""Mean pairwise cosines of many draws of cells: the null of consistency.

With unit rows u, the mean cosine over the pairs of n cells is (|sum of u|^2 - n) / (n (n - 1)), and |sum of u|^2 adds up over
dimensions. So two million cells of 1,280 dimensions need not be in memory at once: as many dimensions are taken at a time as
fit, and the same draws are made for each of these parts. With m the mean of u over all cells and v = u - m,
|sum of u|^2 = n^2 |m|^2 + 2 n m . sum of v + |sum of v|^2: the first term, which draws have in common, is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.common.devices import is_gpu
from plumbline.common.threads import side_by_side
from plumbline.metrics.arrays import arrays
from plumbline.metrics.draws import LANES, add_square_lengths, draw_cells
from plumbline.metrics.groups import enough_relabellings
from plumbline.metrics.units import apart, row_lengths
from plumbline.scoring.vectors import Vectors

if TYPE_CHECKING:
    import torch

HELD_BYTES = 2**30  # of unit rows
GROUP_BYTES = 2**26  # of the draws of perturbations that are summed together


@dataclass(frozen=True, kw_only=True)
class Relabelled:
    """One perturbation: positions of the cells tested (``own``) and of all its cells; from each of its batches, the positions
    low:high, ``wanted`` cells are drawn among own and ``others``. state: of its random generator, moved on by every draw."""

    own: np.ndarray
    everyone: np.ndarray
    low: np.ndarray
    high: np.ndarray
    wanted: np.ndarray
    others: np.ndarray
    state: np.ndarray

    @property
    def can_be_relabelled(self) -> bool:
        """Whether it has a pair of cells, and enough relabellings for a p value."""
        return len(self.own) > 1 and enough_relabellings(self.wanted, self.others)


@dataclass(frozen=True)
class Directions:
    """length (n,) of each vector, float64, 0 for one without a direction; common (d,): mean of the vectors at length 1."""

    length: np.ndarray
    common: np.ndarray


def directions_of(vectors: Vectors) -> Directions:
    """The directions of vectors (n, d), read in blocks."""
    length, common = np.zeros(len(vectors)), np.zeros(vectors.shape[1])
    for positions, block in vectors.blocks():
        length[positions] = row_lengths(block)
        common += np.divide(1, length[positions], out=np.zeros(len(block)), where=length[positions] > 0) @ block
    return Directions(length, common / max(len(vectors), 1))


def pair_means(
    vectors: Vectors,
    directions: Directions,
    order: np.ndarray,
    items: list[Relabelled],
    n_draws: int,
    threads: int,
    device: str = "cpu",
) -> np.ndarray:
    """Mean pairwise cosine of the tested cells, and of the next ``n_draws`` draws, of each perturbation: (items, 1 + n_draws).

    Less |m|^2. order: row of each position. Every item's generator is moved on by these draws, which the CPU makes; ``device``
    sums them.
    """
    hold, add_to, room = (
        (partial(_there, device=device), _add_there, _room(device)) if is_gpu(device) else (_slabs, _add, HELD_BYTES)
    )
    length, square = directions.length[order], float(directions.common @ directions.common)
    n, (squares, sums) = np.array([len(item.own) for item in items])[:, None], np.zeros((2, len(items), 1 + n_draws))
    alone = np.zeros_like(squares) + n

    def add(group: slice, held: tuple[Any, np.ndarray]) -> list[np.ndarray]:
        drawn, states = _drawn(items[group], n_draws, len(order))
        add_to(held[0], items[group], drawn, squares[group])
        for total, cells in zip(sums[group], drawn, strict=True):
            total += held[1][cells].sum(axis=0)
        if not length.all():
            alone[group] = [(length[cells] > 0).sum(axis=0) for cells in drawn]
        return states

    def add_columns(columns: slice) -> list[np.ndarray]:  # a function, so that what it holds is gone before the next is made
        part = Directions(length, directions.common[columns])
        held = hold(vectors.dimensions(columns), order, part)
        with side_by_side(threads) as pool:
            return [state for states in pool.map(lambda group: add(group, held), _groups(items, n_draws)) for state in states]

    for columns in _columns(*vectors.shape, room):
        states = add_columns(columns)
    for item, state in zip(items, states, strict=True):
        item.state[:] = state
    return (squares + 2 * n * sums + (n * square - alone)) / (n * (n - 1))


def _groups(items: list[Relabelled], n_draws: int) -> list[slice]:
    """Cuts of the perturbations into those that are summed together."""
    size = np.cumsum([4 * (1 + n_draws) * (len(item.own) + LANES) for item in items]) // GROUP_BYTES
    cuts = [0, *(np.flatnonzero(np.diff(size)) + 1).tolist(), len(items)]
    return [slice(start, stop) for start, stop in pairwise(cuts)]


def _columns(n: int, d: int, room: int) -> Iterator[slice]:
    step = max(LANES, room // (4 * max(n, 1)) // LANES * LANES)
    return (slice(start, min(start + step, d)) for start in range(0, d, step))


def _slabs(vectors: Vectors, order: np.ndarray, directions: Directions) -> tuple[np.ndarray, np.ndarray]:
    """v in the order of the positions, LANES dimensions at a time: (slabs, n, LANES), filled up with zeros; and m . v (n,)."""
    n, d = vectors.shape
    slabs, along = np.zeros((-(-d // LANES), n, LANES), dtype=np.float32), np.empty(n)
    for places, rest, product in _rests(vectors, order, directions):
        along[places] = product
        for slab, start in enumerate(range(0, d, LANES)):
            part = rest[:, start : start + LANES]
            slabs[slab, places, : part.shape[1]] = part
    return slabs, along


def _there(vectors: Vectors, order: np.ndarray, directions: Directions, device: str) -> tuple["torch.Tensor", np.ndarray]:
    """The same on a GPU, all dimensions of a vector beside one another: (n, d)."""
    torch, there, _ = arrays(device)
    held, along = torch.zeros(vectors.shape, dtype=torch.float32, device=device), np.empty(len(vectors))
    for places, rest, product in _rests(vectors, order, directions):
        held[there(places)], along[places] = there(rest), product
    return held, along


def _rests(vectors: Vectors, order: np.ndarray, directions: Directions) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(positions, v, m . v) of a block of cells after the other. directions: lengths by position, m in the vectors' columns."""
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    for rows, block in vectors.blocks():
        places = position[rows]
        length = directions.length[places]
        yield places, *apart(block / np.where(length > 0, length, 1)[:, None], directions.common)


def _room(device: str) -> int:
    """Bytes of unit vectors on a GPU at once: half of what is free."""
    import torch

    return torch.cuda.mem_get_info(device)[0] // 2


def _drawn(items: list[Relabelled], n_draws: int, n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Positions of the tested cells (column 0) and of the draws after them, (cells, 1 + n_draws) per item; states after it."""
    stamp, barred = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.bool_)
    found, states = [], []
    for number, item in enumerate(items):
        cells, state = np.empty((len(item.own), 1 + n_draws), dtype=np.int32), item.state.copy()
        cells[:, 0] = item.own
        barred[item.everyone], barred[item.own] = True, False  # its cells that are not tested take no part
        draw_cells(barred, item.low, item.high, item.wanted, stamp, number * n_draws, state, cells)
        barred[item.everyone] = False
        found.append(cells)
        states.append(state)
    return found, states


def _add(slabs: np.ndarray, items: list[Relabelled], drawn: list[np.ndarray], out: np.ndarray) -> None:
    """Add the squared lengths of the sums of the drawn cells to out (items, draws), batch by batch."""
    which = np.repeat(np.arange(len(items)), [len(item.own) for item in items])
    column = np.concatenate([np.arange(len(item.own)) for item in items])
    batch = np.argsort(np.concatenate([np.repeat(item.low, item.wanted) for item in items]), kind="stable")
    begins = np.cumsum([0, *(cells.size for cells in drawn)])[:-1]
    flat = np.concatenate([cells.ravel() for cells in drawn])
    total = np.empty((*out.shape, LANES), dtype=np.float32)
    add_square_lengths(slabs, flat, begins, which[batch], column[batch], total, out)


def _add_there(held: "torch.Tensor", _items: list[Relabelled], drawn: list[np.ndarray], out: np.ndarray) -> None:
    """The same on a GPU, one perturbation after the other: embedding_bag sums the rows of a draw without a copy of them."""
    import torch

    for cells, squares in zip(drawn, out, strict=True):
        sums = torch.nn.functional.embedding_bag(torch.from_numpy(cells.T.copy()).to(held.device), held, mode="sum")
        squares += (sums.double() ** 2).sum(dim=1).cpu().numpy()
