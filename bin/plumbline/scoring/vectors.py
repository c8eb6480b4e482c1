"""The vectors of cells: rows of an embedding that are read and post-processed when they are asked for.

An embedding of two million cells in 1,280 dimensions is 10 GB, and its four post-processings as much again each. So a view
holds row numbers and an affine map per batch, and a task asks for the rows it works on, a block at a time. What is small is
computed once and kept. What a metric then makes of them (standardised, projected) is ``metrics/rows.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

BLOCK_BYTES = 2**26  # rows of one block
HELD_BYTES = 2**27  # an embedding up to this size is held in memory, as is each post-processing of it


class RowSource(Protocol):
    """Where rows come from: an array, or one that lies in a file. float32 (n, d)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Some of the rows: an index array or a slice."""


class Transform(Protocol):
    """A post-processing: an affine map of the cells of each batch."""

    def __call__(self, values: np.ndarray, batch: np.ndarray, columns: slice) -> np.ndarray:
        """Some columns of the mapped rows, float32. values: (n, d) float32; batch: code of each."""


@dataclass(frozen=True)
class Vectors:
    """float32 (n, d), computed when rows are asked for: ``vectors[rows]``, ``vectors.blocks()``.

    source: what is read. rows: the row of ``source`` that each is (None: all, in order). transform: applied to what is read,
    for the batch codes ``batch``, one per row. columns: the dimensions that are looked at.
    """

    source: RowSource
    rows: np.ndarray | None = None
    transform: Transform | None = None
    batch: np.ndarray | None = None
    columns: slice = field(default_factory=lambda: slice(None))
    dtype = np.dtype(np.float32)
    ndim = 2

    @staticmethod
    def of(values: "Vectors | RowSource") -> "Vectors":
        """The same vectors of an array, or of one in a file; those of a small file are read here."""
        if isinstance(values, Vectors):
            return values
        if isinstance(values, np.ndarray):
            return Vectors(np.asarray(values, dtype=np.float32))
        return Vectors(values).held()

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        n = self.source.shape[0] if self.rows is None else len(self.rows)
        return n, len(range(*self.columns.indices(self.source.shape[1])))

    @property
    def nbytes(self) -> int:
        """Size of all of them, computed or not."""
        return 4 * self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Some vectors, float32 (k, d), not to be written to. rows: an index array, a mask or a slice; columns may follow."""
        if isinstance(rows, tuple):
            return self[rows[0]][:, rows[1]]
        rows = rows if isinstance(rows, slice) else np.asarray(rows)
        values = self.source[rows if self.rows is None else self.rows[rows]]
        if self.transform is None or self.batch is None:
            return values[:, self.columns]
        return self.transform(values, self.batch[rows], self.columns)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype=dtype, copy=copy)

    def take(self, rows: np.ndarray) -> "Vectors":
        """The vectors of some cells (index array or mask); nothing is read."""
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
        of_source = rows if self.rows is None else self.rows[rows]
        return replace(self, rows=of_source, batch=None if self.batch is None else self.batch[rows])

    def dimensions(self, columns: slice) -> "Vectors":
        """The vectors in some dimensions only, of those that there are; nothing is read."""
        return replace(self, columns=columns)

    def mapped(self, transform: Transform, batch: np.ndarray) -> "Vectors":
        """These vectors, themselves not post-processed, under a post-processing. batch: code of each (n,)."""
        if self.transform is not None:
            raise ValueError("these vectors are post-processed already")
        return replace(self, transform=transform, batch=batch).held()

    def held(self) -> "Vectors":
        """The same, computed once and for all if they are few."""
        return Vectors(self[:]) if self.nbytes <= HELD_BYTES else self

    def blocks(self, rows: np.ndarray | None = None, size: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(positions, vectors) of all vectors, or of ``rows`` (index array or mask), a block at a time.

        They come in the order in which they are stored, so that a file is read from front to end: ``positions`` says where in
        ``rows`` (or among all) each of a block stands. size: rows of a block; by default 64 MB of them.
        """
        part = self if rows is None else self.take(rows)
        size = size or max(1, BLOCK_BYTES // max(4 * self.shape[1], 1))
        order = np.arange(len(part)) if part.rows is None else np.argsort(part.rows, kind="stable")
        for start in range(0, len(order), size):
            positions = order[start : start + size]
            yield positions, part[positions]
