"""Exact nearest neighbours and exact principal components: what the neighbourhood metrics stand on."""

import math
from collections.abc import Callable, Iterator

import numba
import numpy as np

from plumbline.common.compiled import compiled

CHUNK = 16_384  # query rows searched at a time
SPARE = 8  # neighbours searched beyond k: rounding in the search's expanded squares cannot then push a true one out


def neighbour_chunks(
    points: np.ndarray, k: int, queries: np.ndarray | None = None, threads: int = 1, device: str = "cpu"
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """The k nearest ``points`` (n, d) of each query (m, d), exact, Euclidean, in chunks of query rows.

    Yields (rows of the chunk, distances float32 (rows, k) ascending, indices int64 (rows, k)). Without ``queries`` the points
    ask for one another and a point is never its own neighbour (it is left out by index, so duplicates stay neighbours).
    Distances are recomputed one by one after the search. Equal distances are in order of index; which of more than SPARE
    points at the same k-th distance are kept is up to the search, and the same in every run. device 'cuda' searches there.
    """
    own = queries is None
    points = np.ascontiguousarray(points, dtype=np.float32)
    queries = points if own else np.ascontiguousarray(queries, dtype=np.float32)
    centre = points.mean(axis=0, dtype=np.float64).astype(np.float32)  # smaller norms, less cancellation in the search
    k = min(k, len(points) - own)
    limit_threads(threads)
    search = _cuda_search(points - centre, device) if device.startswith("cuda") else _faiss_search(points - centre, threads)
    for start in range(0, len(queries), CHUNK):
        chunk = queries[start : start + CHUNK]
        indices = search(chunk - centre, min(k + own + SPARE, len(points)))
        distances = np.empty(indices.shape)
        _sort_by_exact_distance(chunk, points, indices, start if own else -1, distances)
        # contiguous always: a kernel is compiled once for each memory layout it meets
        rows = slice(start, start + len(chunk))
        yield rows, np.ascontiguousarray(distances[:, :k], dtype=np.float32), np.ascontiguousarray(indices[:, :k])


def nearest(
    points: np.ndarray, k: int, queries: np.ndarray | None = None, threads: int = 1, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """All chunks of ``neighbour_chunks`` at once: distances (m, k) and indices (m, k)."""
    _, distances, indices = zip(*neighbour_chunks(points, k, queries, threads, device), strict=True)
    return np.concatenate(distances), np.concatenate(indices)


def odd_at_most(limit: float) -> int:
    """The largest odd number that is at most ``limit`` (at least 1): k shrinks to it on small data."""
    whole = max(1, int(limit))
    return whole if whole % 2 else whole - 1


def principal_components(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact PCA of (n, d) values: mean (d,), axes (d, r) by falling variance, and variances (r,); r = min(n, d).

    By eigenvectors of the covariance, or of the Gram matrix where there are fewer rows than columns.
    """
    n, d = values.shape
    mean = values.mean(axis=0, dtype=np.float64)
    if n >= d:
        variance, axes = np.linalg.eigh(_covariance(values, mean))
        return mean, axes[:, ::-1], np.maximum(variance[::-1], 0.0)
    centred = values - mean
    square, left = np.linalg.eigh(centred @ centred.T)
    square, left = np.maximum(square[::-1], 0.0), left[:, ::-1]
    kept = square > 1e-12 * max(square[0], np.finfo(float).tiny)
    axes = np.zeros((d, n))
    axes[:, kept] = centred.T @ left[:, kept] / np.sqrt(square[kept])
    return mean, axes, square / n


def _covariance(values: np.ndarray, mean: np.ndarray) -> np.ndarray:
    total = np.zeros((len(mean), len(mean)))
    for start in range(0, len(values), CHUNK):
        centred = values[start : start + CHUNK] - mean
        total += centred.T @ centred
    return total / len(values)


def _faiss_search(points: np.ndarray, threads: int) -> Callable:
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(points)
    return lambda chunk, k: index.search(chunk, k)[1]


def _cuda_search(points: np.ndarray, device: str) -> Callable:
    import torch

    there = torch.from_numpy(points).to(device)
    squares = (there * there).sum(dim=1)

    def search(chunk: np.ndarray, k: int) -> np.ndarray:
        rows = max(1, 2**28 // len(points))  # one gigabyte of distances at a time
        parts = torch.from_numpy(chunk).to(device).split(rows)
        return torch.cat([torch.topk(squares - 2 * part @ there.T, k, largest=False).indices for part in parts]).cpu().numpy()

    return search


def limit_threads(threads: int) -> None:
    """Let compiled kernels use this many threads."""
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))


@compiled(parallel=True)
def _sort_by_exact_distance(queries, points, indices, first, out):
    """Fill ``out`` with exact distances and sort each row's distances and indices, in place, by (distance, index). Where first
    >= 0, query row is point first + row: it goes last, at an infinite distance."""
    for row in numba.prange(len(indices)):
        for j in range(indices.shape[1]):
            index, total = indices[row, j], 0.0
            for axis in range(points.shape[1]):
                step = np.float64(queries[row, axis]) - np.float64(points[index, axis])
                total += step * step
            distance = np.inf if first >= 0 and index == first + row else math.sqrt(total)
            place = j  # by insertion: the search has them all but sorted
            while place > 0 and (
                out[row, place - 1] > distance or (out[row, place - 1] == distance and indices[row, place - 1] > index)
            ):
                out[row, place], indices[row, place] = out[row, place - 1], indices[row, place - 1]
                place -= 1
            out[row, place], indices[row, place] = distance, index
