"""The post-processings as affine maps, one per batch, that are applied to the rows a task asks for."""

from dataclasses import dataclass

import numpy as np

ROWS = 8192  # rows in float64 at a time


@dataclass(frozen=True)
class Standardise:
    """(x - mean) / deviation, in float64. mean, deviation: (batches, d); deviation None: not divided."""

    mean: np.ndarray
    deviation: np.ndarray | None = None

    def __call__(self, values: np.ndarray, batch: np.ndarray, columns: slice = slice(None)) -> np.ndarray:
        """Some columns of the mapped rows (n, d), float32. batch: code of each."""
        values, mean = values[:, columns], self.mean[:, columns]
        out = np.empty_like(values)
        for start in range(0, len(values), ROWS):
            rows = slice(start, start + ROWS)
            centred = values[rows] - mean[batch[rows]]
            out[rows] = centred if self.deviation is None else centred / self.deviation[:, columns][batch[rows]]
        return out


@dataclass(frozen=True)
class Whole:
    """The map of a batch after the centring, as one matrix (d, d), float32."""

    matrix: np.ndarray


@dataclass(frozen=True)
class Factored:
    """The same where a batch has few controls: scale (x whiten - (x projection) factor), float32.

    Their covariance has a rank r well below d, and so has what its inverse root takes away from a multiple of the identity:
    factor (r, d) and projection = whiten factor^T, (d, r).
    """

    scale: float
    factor: np.ndarray
    projection: np.ndarray


@dataclass(frozen=True)
class Whiten:
    """x less the mean of all controls (d,), then the map of the cell's batch. whiten (d, d): the part that batches share."""

    mean: np.ndarray
    whiten: np.ndarray
    of_batch: list[Whole | Factored]

    def __call__(self, values: np.ndarray, batch: np.ndarray, columns: slice = slice(None)) -> np.ndarray:
        """Some columns of the mapped rows (n, d), float32. batch: code of each."""
        centred = np.empty_like(values)
        for start in range(0, len(values), ROWS):
            centred[start : start + ROWS] = values[start : start + ROWS] - self.mean
        factored = any(isinstance(one, Factored) for one in self.of_batch)
        out = centred @ self.whiten[:, columns] if factored else np.empty_like(values[:, columns])
        order = np.argsort(batch, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(batch[order])) + 1):
            if len(rows):
                one = self.of_batch[int(batch[rows[0]])]
                if isinstance(one, Whole):
                    out[rows] = centred[rows] @ one.matrix[:, columns]
                else:
                    rest = (centred[rows] @ one.projection) @ one.factor[:, columns]
                    out[rows] = np.float32(one.scale) * (out[rows] - rest)
        return out
