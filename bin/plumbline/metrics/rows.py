"""Some rows of a large embedding, standardised or projected when they are read: never a copy of all cells.

What a metric makes of the vectors that it is given: one affine map for all of them, and passes over them in blocks. What gives
a metric its vectors, the cells of a view with a post-processing per batch, is ``scoring/vectors.py``.
A source of rows (``RowSource``) has ``shape`` and gives float32 rows for an array of row numbers: a numpy array, ``Vectors``,
or ``Rows`` of either.
"""

from collections.abc import Iterator

import numpy as np

from plumbline.scoring.vectors import RowSource

HELD = 2**27  # numbers (512 MB of float32) up to which a table is held in memory; above, it is read in blocks
READ = 2**25  # numbers of such a block


class Rows:
    """Rows of a source: less ``shift`` (d,), divided by ``scale`` (d,), times ``axes`` (d, r), where these are given.

    As ``Vectors`` they take rows without reading any; unlike them, they stack: rows of rows, projections of standardised ones.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        source: RowSource,
        rows: np.ndarray | None = None,
        shift: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        axes: np.ndarray | None = None,
    ) -> None:
        self.source, self.shift, self.scale, self.axes = source, shift, scale, axes
        self.rows = np.arange(source.shape[0]) if rows is None else rows
        self.shape = (len(self.rows), source.shape[1] if axes is None else axes.shape[1])
        self.width = max(self.shape[1], width(source))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        values = self.source[self.rows[rows]]
        values = values if self.shift is None else values - self.shift
        values = values if self.scale is None else values / self.scale
        return np.asarray(values if self.axes is None else values @ self.axes, dtype=np.float32)


def width(source: RowSource) -> int:
    """How many numbers are read for one row: of rows that are projected, those from which they are."""
    return getattr(source, "width", source.shape[1])


def between(source: RowSource, start: int, stop: int) -> np.ndarray:
    """Rows start .. stop - 1 of a source; of an array without copying them."""
    return source[start:stop] if isinstance(source, np.ndarray) else source[np.arange(start, min(stop, source.shape[0]))]


def blocks(source: RowSource, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """A source in blocks of ``size`` rows (READ numbers by default): (which rows, their values)."""
    n, size = source.shape[0], size or max(1, READ // max(width(source), 1))
    return ((slice(start, min(start + size, n)), between(source, start, start + size)) for start in range(0, n, size))


def fits(source: RowSource) -> bool:
    """Whether a source is small enough to be held in memory."""
    return source.shape[0] * source.shape[1] <= HELD


def held(source: RowSource) -> RowSource:
    """A source as an array where that fits in memory, else as it is."""
    if isinstance(source, np.ndarray) or not fits(source):
        return source
    values = np.empty(source.shape, dtype=np.float32)
    for rows, block in blocks(source):
        values[rows] = block
    return values


def column_means(source: RowSource) -> np.ndarray:
    """Mean (d,) of the rows of a source, float64."""
    if isinstance(source, np.ndarray):
        return source.mean(axis=0, dtype=np.float64)
    return sum(block.sum(axis=0, dtype=np.float64) for _, block in blocks(source)) / source.shape[0]


def moments(source: RowSource) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (d,) of the rows of a source, float64, in two passes."""
    mean = column_means(source)
    square = sum(((block - mean) ** 2).sum(axis=0) for _, block in blocks(source)) / source.shape[0]
    return mean, np.sqrt(square)
