"""Euclidean distances between cells, and their means, on the CPU or on a GPU."""

import numpy as np

from plumbline.common.devices import is_gpu
from plumbline.metrics.arrays import arrays

NEAR = 0.01  # in float32: squares nearer than this share of their norms are taken in float64
_BLOCK = 1024


def mean_distance(x: np.ndarray, y: np.ndarray, precision: type = np.float64, device: str = "cpu") -> float:
    """Mean Euclidean distance over all pairs of rows of x (n, d) and y (m, d); in blocks of rows, added up in float64."""
    total = 0.0
    for start in range(0, len(x), _BLOCK):
        total += _distances(x[start : start + _BLOCK], y, precision, device).sum(dtype=np.float64)
    return total / (len(x) * len(y))


def mean_distance_within(x: np.ndarray, precision: type = np.float64, device: str = "cpu") -> float:
    """Mean Euclidean distance over all ordered pairs of rows of x (n, d), a row with itself included (0)."""
    if len(x) <= _BLOCK:
        return float(distances_within(x, precision, device).mean(dtype=np.float64))
    starts = range(0, len(x), _BLOCK)
    total = sum(distances_within(x[s : s + _BLOCK], precision, device).sum(dtype=np.float64) for s in starts)
    for s in starts[1:]:
        total += 2 * mean_distance(x[s : s + _BLOCK], x[:s], precision, device) * len(x[s : s + _BLOCK]) * s
    return total / len(x) ** 2


def distances_within(x: np.ndarray, precision: type = np.float64, device: str = "cpu") -> np.ndarray:
    """Euclidean distances of all rows of x (n, d) from one another, (n, n), in ``precision``."""
    d = _distances(x, x, precision, device)
    np.fill_diagonal(d, 0)  # exactly, not up to rounding
    return d


def _distances(x: np.ndarray, y: np.ndarray, precision: type, device: str = "cpu") -> np.ndarray:
    """Euclidean distances (n, m). In float32 only where that is safe.

    |x|^2 + |y|^2 - 2 x.y loses digits where two rows are much nearer to one another than to the origin.
    """
    if is_gpu(device):
        return _distances_there(x, y, precision, device)
    a, b = np.asarray(x, dtype=precision), np.asarray(y, dtype=precision)
    d, norm = a @ b.T, np.einsum("ij,ij->i", a, a)
    d *= -2
    d += norm[:, None]
    d += np.einsum("ij,ij->i", b, b)
    if precision is np.float32:
        if x is y:
            np.fill_diagonal(d, np.inf)
        if (d.min(axis=1) < 2 * NEAR * norm).any():
            return _distances(x, y, np.float64)
    return np.sqrt(np.maximum(d, 0, out=d), out=d)


def _distances_there(x: np.ndarray, y: np.ndarray, precision: type, device: str) -> np.ndarray:
    """The same on a GPU, from differences, of which float32 loses nothing."""
    torch, there, back = arrays(device)
    a, b = (there(np.asarray(one, dtype=precision)) for one in (x, y))
    return back(torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist"))
