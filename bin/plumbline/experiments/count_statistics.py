"""What the likelihood of a gene's counts needs to know of them: two passes, and memory that ignores the number of cells.

The expected count of cell c is mu = depth x rate of its batch. Three summaries of a gene suffice for Poisson, negative
binomial and zero-inflated fits: how often each count occurs; the sum of counts, and the number of non-zero cells, by log mu.
The last two live on a grid of GRID points a gene; a value between two points is shared out with the weights of quadratic
interpolation, so that the sum of any smooth function over the cells is a sum over the grid, up to the fourth power of the
grid's step: log-likelihoods are right to about 1e-7 of their size.
Importing this module imports numba.
"""

import math
from dataclasses import dataclass

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
    """The cells of the description: depth relative to their mean (n,), batch numbers (n,), and how many batches."""

    relative: np.ndarray
    batch: np.ndarray
    n_batches: int


@dataclass(frozen=True)
class Moments:
    """First pass, per gene: counts a batch (g, b); n_nonzero, squares, sum of y log depth, sum of log y! (g,); and how often
    each count occurs, (g, EXACT) and, for the larger ones, on the logarithmic grid (g, TAIL)."""

    total: np.ndarray
    n_nonzero: np.ndarray
    square: np.ndarray
    y_log_depth: np.ndarray
    log_factorial: np.ndarray
    tally: np.ndarray
    tail: np.ndarray


@dataclass(frozen=True)
class OnGrid:
    """Second pass, per gene: rate of each batch (g, b), first point and step of its grid (g,), and on the grid (g, GRID) the
    number of all cells, the sum of counts and the number of non-zero cells. Cells of a batch with rate 0 are on no grid."""

    rate: np.ndarray
    low: np.ndarray
    step: np.ndarray
    cells: np.ndarray
    counts: np.ndarray
    nonzero: np.ndarray


def gather(counts: Counts, rows: np.ndarray, depths: Depths) -> tuple[Moments, OnGrid]:
    """Both passes over ``rows`` of counts.h5ad. Raises NotApplicable where the values are no counts."""
    moments = _first_pass(counts, rows, depths)
    depth = np.bincount(depths.batch, depths.relative, minlength=depths.n_batches)
    rate = moments.total / depth
    low, step = _grids(np.log(depths.relative), depths, rate)
    found = OnGrid(rate, low, step, *np.zeros((3, len(rate), GRID)))
    with np.errstate(divide="ignore"):
        log_rate = np.log(rate)
    _spread_cells(*_nodes(depths), log_rate, low, step, found.cells)
    start, log_depth = 0, np.log(depths.relative)
    for chunk, block in counts.blocks(rows):
        cells = slice(start, start + len(chunk))
        place = log_depth[cells], depths.batch[cells], log_rate, low, step
        _spread_counts(block.indptr, block.indices, block.data, *place, found.counts, found.nonzero)
        start += len(chunk)
    return moments, found


def _first_pass(counts: Counts, rows: np.ndarray, depths: Depths) -> Moments:
    n = counts.shape[1]
    found = Moments(np.zeros((n, depths.n_batches)), *np.zeros((4, n)), np.zeros((n, EXACT)), np.zeros((n, TAIL)))
    start, log_depth = 0, np.log(depths.relative)
    for chunk, block in counts.blocks(rows):
        if len(block.data) and (block.data.min() < 0 or (block.data != np.rint(block.data)).any()):
            raise NotApplicable("X holds negative or fractional values, which are no counts")
        cells = slice(start, start + len(chunk))
        place = log_depth[cells], depths.batch[cells]
        _tally(
            block.indptr, block.indices, block.data, *place, *(getattr(found, name) for name in Moments.__annotations__), STEP
        )
        start += len(chunk)
    return found


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
def _spread_cells(x, batch, weight, log_rate, low, step, out):
    """All cells, gene by gene, on the gene's grid of log mu."""
    last = out.shape[1] - 1
    for gene in range(len(out)):
        for i in range(len(x)):
            rate = log_rate[gene, batch[i]]
            if rate == -np.inf:
                continue
            k, left, own, right = _share((x[i] + rate - low[gene]) / step[gene], last)
            out[gene, k - 1] += weight[i] * left
            out[gene, k] += weight[i] * own
            out[gene, k + 1] += weight[i] * right


@compiled(nogil=True)
def _spread_counts(indptr, indices, data, log_depth, batch, log_rate, low, step, counts, nonzero):
    last = counts.shape[1] - 1
    for cell in range(len(indptr) - 1):
        for entry in range(indptr[cell], indptr[cell + 1]):
            gene, y = indices[entry], float(data[entry])
            if y == 0.0:
                continue
            place = (log_depth[cell] + log_rate[gene, batch[cell]] - low[gene]) / step[gene]
            k, left, own, right = _share(place, last)
            counts[gene, k - 1] += y * left
            counts[gene, k] += y * own
            counts[gene, k + 1] += y * right
            nonzero[gene, k - 1] += left
            nonzero[gene, k] += own
            nonzero[gene, k + 1] += right


@compiled(nogil=True)
def _tally(
    indptr, indices, data, log_depth, batch, total, n_nonzero, square, y_log_depth, log_factorial, tally, tail, tail_step
):  # fmt: skip
    small, last = tally.shape[1], tail.shape[1] - 1
    for cell in range(len(indptr) - 1):
        for entry in range(indptr[cell], indptr[cell + 1]):
            gene, y = indices[entry], float(data[entry])
            if y == 0.0:
                continue
            total[gene, batch[cell]] += y
            n_nonzero[gene] += 1
            square[gene] += y * y
            y_log_depth[gene] += y * log_depth[cell]
            log_factorial[gene] += math.lgamma(y + 1.0)
            if y < small:
                tally[gene, int(y)] += 1
                continue
            place = min(math.log(y / small) / tail_step, float(last))
            k = min(max(int(place), 2), last - 3)
            f = place - k
            for i in range(6):  # the sums are of the size of y log y: Lagrange's weights of fifth order
                weight = 1.0
                for j in range(6):
                    if j != i:
                        weight *= (f + 2 - j) / (i - j)
                tail[gene, k - 2 + i] += weight
