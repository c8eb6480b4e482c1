"""Log-normalised expression of chosen cells, held sparse or streamed, and dense a part at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from plumbline.counts.lognorm import log_normalise
from plumbline.counts.reading import BLOCK, open_counts

_POOL = 32  # blocks held at once where cells are streamed in random order: 65,536 cells
_SMALL = 2**28  # bytes of one matrix that is kept for the next to ask for it, and of train cells that are held dense
_KEPT = 3
_kept: dict[tuple, sp.csr_matrix] = {}  # read last: every view of a screen asks for the expression of the same few parts


def read_expression(path: Path, rows: np.ndarray, x_kind: str) -> sp.csr_matrix:
    """Log-normalised expression of ``rows`` (n,) of counts.h5ad, in that order: CSR float32 (n, genes), 8 bytes a non-zero.

    A small one is kept for the next call: it is not to be changed in place.
    """
    key = (str(path), x_kind, np.ascontiguousarray(rows).tobytes())
    if key not in _kept:
        whole = _read_expression(path, rows, x_kind)
        if whole.data.nbytes + whole.indices.nbytes > _SMALL:
            return whole
        if len(_kept) >= _KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = whole
    return _kept[key]


def _read_expression(path: Path, rows: np.ndarray, x_kind: str) -> sp.csr_matrix:
    order = np.argsort(rows, kind="stable")  # read forwards, whatever order is asked for
    counts = open_counts(path)
    blocks = [log_normalise(block, x_kind) for _, block in counts.blocks(rows[order])]
    whole = sp.vstack(blocks, format="csr") if blocks else sp.csr_matrix((0, counts.shape[1]), dtype=np.float32)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return whole[back]


def weighted_sum(path: Path, rows: np.ndarray, weights: np.ndarray, x_kind: str) -> np.ndarray:
    """Sum over cells of weight x log-normalised expression, (genes,) float64; one pass. rows, weights: (n,)."""
    order = np.argsort(rows, kind="stable")
    counts = open_counts(path)
    total, start = np.zeros(counts.shape[1]), 0
    for chunk, block in counts.blocks(rows[order]):
        weight = weights[order[start : start + len(chunk)]]
        total += log_normalise(block, x_kind).astype(np.float64).T @ weight
        start += len(chunk)
    return total


class ShuffledExpression:
    """Minibatches of (position, log-normalised expression) in random order, epoch after epoch.

    Up to 65,536 cells are held sparse (few cells and genes dense) and shuffled as a whole; of more, blocks of neighbouring
    cells are drawn at random into pools of that size, which are shuffled: memory does not grow with the number of cells.
    """

    def __init__(self, path: Path, rows: np.ndarray, x_kind: str) -> None:
        self.path, self.x_kind = path, x_kind
        self.order = np.argsort(rows, kind="stable")
        self.rows = rows
        self.held = read_expression(path, rows[self.order], x_kind) if len(rows) <= _POOL * BLOCK else None
        if self.held is not None and 4 * np.prod(self.held.shape) <= _SMALL:
            self.held = self.held.toarray()

    def n_batches(self, size: int) -> int:
        """Minibatches of an epoch."""
        blocks = -(-len(self.order) // BLOCK)
        if self.held is not None:
            return -(-len(self.order) // size)
        return sum(-(-min(_POOL, blocks - start) * BLOCK // size) for start in range(0, blocks, _POOL))

    def mean(self) -> np.ndarray:
        """Mean of each gene over the cells, (genes,) float64."""
        if self.held is not None:
            return np.asarray(self.held.mean(axis=0, dtype=np.float64)).ravel()
        return weighted_sum(self.path, self.rows, np.full(len(self.rows), 1 / len(self.rows)), self.x_kind)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One epoch: (positions in ``rows`` (k,), dense float32 (k, genes)); the last batch of a pool may be smaller."""
        for positions, expression in self._pools(rng):
            shuffled = rng.permutation(len(positions))
            for start in range(0, len(shuffled), size):
                part = shuffled[start : start + size]
                cells = expression[part]
                yield positions[part], cells.toarray() if sp.issparse(cells) else cells

    def _pools(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, sp.csr_matrix | np.ndarray]]:
        if self.held is not None:
            yield self.order, self.held
            return
        blocks = np.array_split(self.order, -(-len(self.order) // BLOCK))
        drawn = rng.permutation(len(blocks))
        for start in range(0, len(drawn), _POOL):
            positions = np.concatenate([blocks[block] for block in drawn[start : start + _POOL]])
            yield positions, read_expression(self.path, self.rows[positions], self.x_kind)
