"""Sufficient statistics for per-gene count likelihoods: two passes, memory independent of the number of cells.

The expected count of cell c is mu = depth x rate of its batch. Three statistics per gene suffice for Poisson, negative
binomial and zero-inflated fits: how often each count occurs; the sum of counts, and the number of non-zero cells, by log mu.
The last two lie on a grid of GRID points per gene; a value between two points is distributed with the weights of quadratic
interpolation, so that the sum of any smooth function over the cells is a sum over the grid, up to the fourth power of the
grid's step: the relative error of log-likelihoods is about 1e-7.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from plumbline.common.compiled import compiled
from plumbline.common.errors import NotApplicable
from plumbline.counts.reading import Counts

GRID = 256  # points on the scale of log mu
EXACT = 256  # counts below are tallied one by one, those above on a grid of their logarithm
STEP, TAIL = 0.02, 640  # up to EXACT * exp(STEP * TAIL) = 90 million


LARGE = EXACT * np.exp(STEP * np.arange(TAIL))


@dataclass(frozen=True)
class Depths:
    """The described cells: depth relative to their mean (n,), batch numbers (n,), and number of batches."""

    relative: np.ndarray
    batch: np.ndarray
    n_batches: int


class Moments(NamedTuple):
    """First pass, per gene: counts per batch (g, b); n_nonzero, sum of squares, of y log depth, of log y! (g,); and how often
    each count occurs, (g, EXACT) and, for the larger ones, on the logarithmic grid (g, TAIL). A tuple for compiled code."""

    total: np.ndarray
    n_nonzero: np.ndarray
    square: np.ndarray
    y_log_depth: np.ndarray
    log_factorial: np.ndarray
    tally: np.ndarray
    tail: np.ndarray


class OnGrid(NamedTuple):
    """Second pass, per gene: rate of each batch (g, b), first point and step of its grid (g,), and on the grid (g, GRID) the
    number of all cells, the sum of counts and the number of non-zero cells. Cells of a batch with rate 0 are on no grid."""

    rate: np.ndarray
    low: np.ndarray
    step: np.ndarray
    cells: np.ndarray
    counts: np.ndarray
    nonzero: np.ndarray


class Block(NamedTuple):
    """A block of cells: CSR counts (indptr, indices, data), log depth and batch of each cell."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    log_depth: np.ndarray
    batch: np.ndarray


def gather(counts: Counts, rows: np.ndarray, depths: Depths) -> tuple[Moments, OnGrid]:
    """Both passes over ``rows`` of counts.h5ad. Raises NotApplicable where the values are not counts."""
    moments = _first_pass(counts, rows, depths)
    depth = np.bincount(depths.batch, depths.relative, minlength=depths.n_batches)
    rate = moments.total / depth
    low, step = _grids(np.log(depths.relative), depths, rate)
    sums = dict(zip(("cells", "counts", "nonzero"), np.zeros((3, len(rate), GRID)), strict=True))
    grid = OnGrid(rate=rate, low=low, step=step, **sums)
    with np.errstate(divide="ignore"):
        log_rate = np.log(rate)
    _spread_cells(*_nodes(depths), log_rate, grid)
    for block in _blocks(counts, rows, depths):
        _spread_counts(block, log_rate, grid)
    return moments, grid


def _blocks(counts: Counts, rows: np.ndarray, depths: Depths) -> Iterator[Block]:
    start, log_depth = 0, np.log(depths.relative)
    for chunk, block in counts.blocks(rows):
        cells = slice(start, start + len(chunk))
        yield Block(
            indptr=block.indptr, indices=block.indices, data=block.data, log_depth=log_depth[cells], batch=depths.batch[cells]
        )
        start += len(chunk)


def _first_pass(counts: Counts, rows: np.ndarray, depths: Depths) -> Moments:
    n = counts.shape[1]
    per_gene = dict(zip(("n_nonzero", "square", "y_log_depth", "log_factorial"), np.zeros((4, n)), strict=True))
    moments = Moments(total=np.zeros((n, depths.n_batches)), tally=np.zeros((n, EXACT)), tail=np.zeros((n, TAIL)), **per_gene)
    for block in _blocks(counts, rows, depths):
        if len(block.data) and (block.data.min() < 0 or (block.data != np.rint(block.data)).any()):
            raise NotApplicable("X holds negative or fractional values, which are not counts")
        _tally(block, moments)
    return moments


def _grids(log_depth: np.ndarray, depths: Depths, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First point and step of each gene's grid: from the least to the largest log mu over the batches that have the gene."""
    least, most = np.full(depths.n_batches, np.inf), np.full(depths.n_batches, -np.inf)
    np.minimum.at(least, depths.batch, log_depth)
    np.maximum.at(most, depths.batch, log_depth)
    with np.errstate(divide="ignore"):
        log_rate = np.log(rate)
    low = np.where(rate > 0, least + log_rate, np.inf).min(axis=1)
    high = np.where(rate > 0, most + log_rate, -np.inf).max(axis=1)
    seen = np.isfinite(low)
    step = np.where(seen, np.maximum(high - low, 1e-6) / (GRID - 1), 1.0) if len(low) else low
    return np.where(seen, low, 0.0), step


def _nodes(depths: Depths) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells on a fine grid of log depth: (log depth, batch, number of cells) of its points, which are few."""
    log_depth = np.log(depths.relative)
    low, points = log_depth.min(), 4 * GRID
    step = max(log_depth.max() - low, 1e-6) / (points - 1)
    held = np.zeros((depths.n_batches, points))
    _spread(log_depth, depths.batch, low, step, held)
    batch, point = np.nonzero(held)
    return low + step * point, batch, held[batch, point]


@compiled(inline="always")
def _share(place, last):
    """Nearest inner grid point of a place and the weights of its left, own and right neighbour (Lagrange, quadratic)."""
    k = min(max(int(place + 0.5), 1), last - 1)
    f = place - k
    return k, 0.5 * f * (f - 1.0), 1.0 - f * f, 0.5 * f * (f + 1.0)


@compiled(nogil=True)
def _spread(x, row, low, step, out):
    last = out.shape[1] - 1
    for i in range(len(x)):
        k, left, own, right = _share((x[i] - low) / step, last)
        out[row[i], k - 1] += left
        out[row[i], k] += own
        out[row[i], k + 1] += right


@compiled(nogil=True)
def _spread_cells(x, batch, weight, log_rate, grid):
    """All cells, gene by gene, on the gene's grid of log mu."""
    out, last = grid.cells, grid.cells.shape[1] - 1
    for gene in range(len(out)):
        for i in range(len(x)):
            rate = log_rate[gene, batch[i]]
            if rate == -np.inf:
                continue
            k, left, own, right = _share((x[i] + rate - grid.low[gene]) / grid.step[gene], last)
            out[gene, k - 1] += weight[i] * left
            out[gene, k] += weight[i] * own
            out[gene, k + 1] += weight[i] * right


@compiled(nogil=True)
def _spread_counts(block, log_rate, grid):
    counts, nonzero, last = grid.counts, grid.nonzero, grid.counts.shape[1] - 1
    for cell in range(len(block.indptr) - 1):
        for entry in range(block.indptr[cell], block.indptr[cell + 1]):
            gene, y = block.indices[entry], float(block.data[entry])
            if y == 0.0:
                continue
            place = (block.log_depth[cell] + log_rate[gene, block.batch[cell]] - grid.low[gene]) / grid.step[gene]
            k, left, own, right = _share(place, last)
            counts[gene, k - 1] += y * left
            counts[gene, k] += y * own
            counts[gene, k + 1] += y * right
            nonzero[gene, k - 1] += left
            nonzero[gene, k] += own
            nonzero[gene, k + 1] += right


@compiled(nogil=True)
def _tally(block, moments):
    for cell in range(len(block.indptr) - 1):
        for entry in range(block.indptr[cell], block.indptr[cell + 1]):
            gene, y = block.indices[entry], float(block.data[entry])
            if y == 0.0:
                continue
            moments.total[gene, block.batch[cell]] += y
            moments.n_nonzero[gene] += 1
            moments.square[gene] += y * y
            moments.y_log_depth[gene] += y * block.log_depth[cell]
            moments.log_factorial[gene] += math.lgamma(y + 1.0)
            if y < EXACT:
                moments.tally[gene, int(y)] += 1
            else:
                _tally_large(y, moments.tail[gene])


@compiled(nogil=True)
def _tally_large(y, tail):
    """A count of EXACT or more, distributed over the logarithmic grid."""
    place = min(math.log(y / EXACT) / STEP, float(len(tail) - 1))
    k = min(max(int(place), 2), len(tail) - 4)
    f = place - k
    for i in range(6):  # the sums are of the size of y log y: Lagrange's weights of fifth order
        weight = 1.0
        for j in range(6):
            if j != i:
                weight *= (f + 2 - j) / (i - j)
        tail[k - 2 + i] += weight
