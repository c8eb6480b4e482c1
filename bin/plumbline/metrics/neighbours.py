"""Exact nearest neighbours and exact principal components, in blocks of rows: what the neighbourhood metrics stand on."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numba
import numpy as np

from plumbline.common.compiled import compiled
from plumbline.common.devices import is_gpu
from plumbline.metrics.rows import READ, between, blocks, column_means, fits, held
from plumbline.scoring.vectors import RowSource

CHUNK = 16_384  # query rows searched at a time
SPARE = 8  # neighbours searched beyond k: rounding in the search's expanded squares cannot then push a true one out


def neighbour_chunks(
    points: RowSource,
    k: int,
    queries: RowSource | None = None,
    threads: int = 1,
    device: str = "cpu",
    asking: np.ndarray | None = None,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """The k nearest ``points`` (n, d) of each query (m, d), exact, Euclidean, in chunks of query rows.

    Yields (rows of the chunk, distances float32 (rows, k) ascending, indices int64 (rows, k)). Without ``queries`` the points
    ask for one another (only those of ``asking``, row numbers (m,), if given) and a point is never its own neighbour (it is
    left out by index, so duplicates stay neighbours). Points and queries are sources of rows; what does not fit in memory is
    searched in blocks. Distances are recomputed one by one after the search. Equal distances are in order of index; which of
    more than SPARE points at the same k-th distance are kept is up to the search, and the same in every run. device 'cuda'
    searches there.
    """
    own, asked = queries is None, points if queries is None else queries
    asking = np.arange(asked.shape[0]) if asking is None else asking
    k = min(k, points.shape[0] - own)
    limit_threads(threads)
    search = Search(points, threads, device)
    for start in range(0, len(asking), CHUNK):
        which = asking[start : start + CHUNK]
        chunk = np.ascontiguousarray(asked[which], dtype=np.float32)
        indices = search.candidates(chunk, min(k + own + SPARE, points.shape[0]))
        distances = search.sort(chunk, indices, which if own else np.full(len(which), -1))
        # contiguous always: a kernel is compiled once for each memory layout it meets
        rows = slice(start, start + len(chunk))
        yield rows, np.ascontiguousarray(distances[:, :k], dtype=np.float32), np.ascontiguousarray(indices[:, :k])


def nearest(
    points: RowSource, k: int, queries: RowSource | None = None, threads: int = 1, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """All chunks of ``neighbour_chunks`` at once: distances (m, k) and indices (m, k)."""
    _, distances, indices = zip(*neighbour_chunks(points, k, queries, threads, device), strict=True)
    return np.concatenate(distances), np.concatenate(indices)


class Search:
    """Exact search among points (n, d), in blocks of them where they do not fit in memory."""

    def __init__(self, points: RowSource, threads: int, device: str) -> None:
        self.points = np.ascontiguousarray(points, dtype=np.float32) if isinstance(points, np.ndarray) else held(points)
        self.centre = column_means(self.points).astype(np.float32)  # smaller norms, less cancellation in the search
        on_device = is_gpu(device)
        self.index = partial(_torch_index, device=device) if on_device else partial(_faiss_index, threads=threads)
        self.whole = self.index(self.points - self.centre) if fits(self.points) else None

    def candidates(self, chunk: np.ndarray, k: int) -> np.ndarray:
        """Indices (m, k) of the points nearest to a chunk of queries (m, d), in no particular order."""
        chunk = chunk - self.centre
        if self.whole:
            return self.whole(chunk, k)[1]
        distances, indices = np.empty((len(chunk), 0), dtype=np.float32), np.empty((len(chunk), 0), dtype=np.int64)
        for rows, block in blocks(self.points):
            found = self.index(block - self.centre)(chunk, min(k, len(block)))
            distances, indices = np.hstack((distances, found[0])), np.hstack((indices, found[1] + rows.start))
            if distances.shape[1] > k:
                best = np.argpartition(distances, k - 1, axis=1)[:, :k]
                distances, indices = np.take_along_axis(distances, best, 1), np.take_along_axis(indices, best, 1)
        return np.ascontiguousarray(indices)

    def sort(self, chunk: np.ndarray, indices: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Exact distances (m, k), ascending, sorting ``indices`` with them. own (m,): which of the points the query is, or -1;
        that one goes last, at an infinite distance."""
        distances = np.empty(indices.shape)
        if isinstance(self.points, np.ndarray):
            _sort_by_exact_distance(chunk, self.points, indices, own, distances)
            return distances
        step = max(1, READ // (indices.shape[1] * chunk.shape[1]))
        for start in range(0, len(chunk), step):
            part = slice(start, start + step)
            needed = np.union1d(indices[part], own[part][own[part] >= 0])
            place = np.searchsorted(needed, indices[part])
            of_query = np.where(own[part] < 0, -1, np.searchsorted(needed, own[part]))
            _sort_by_exact_distance(chunk[part], self.points[needed], place, of_query, distances[part])
            indices[part] = needed[place]
        return distances


def odd_at_most(limit: float) -> int:
    """The largest odd number that is at most ``limit`` (at least 1): k shrinks to it on small data."""
    whole = max(1, int(limit))
    return whole if whole % 2 else whole - 1


def principal_components(values: RowSource) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact PCA of the rows of a source (n, d): mean (d,), axes (d, r) by falling variance, variances (r,); r = min(n, d).

    By eigenvectors of the covariance, or of the Gram matrix where there are fewer rows than columns.
    """
    n, d = values.shape
    mean = column_means(values)
    if n >= d:
        variance, axes = np.linalg.eigh(_covariance(values, mean))
        return mean, axes[:, ::-1], np.maximum(variance[::-1], 0.0)
    centred = between(values, 0, n) - mean
    square, left = np.linalg.eigh(centred @ centred.T)
    square, left = np.maximum(square[::-1], 0.0), left[:, ::-1]
    kept = square > 1e-12 * max(square[0], np.finfo(float).tiny)
    axes = np.zeros((d, n))
    axes[:, kept] = centred.T @ left[:, kept] / np.sqrt(square[kept])
    return mean, axes, square / n


def _covariance(values: RowSource, mean: np.ndarray) -> np.ndarray:
    total = np.zeros((len(mean), len(mean)))
    for _, block in blocks(values, CHUNK):
        centred = block - mean
        total += centred.T @ centred
    return total / values.shape[0]


def _faiss_index(points: np.ndarray, threads: int) -> Callable:
    import faiss

    faiss.omp_set_num_threads(threads)
    # matrix products always: by itself faiss compares fewer than 128,000 / d queries one by one, up to 8 times slower
    faiss.cvar.distance_compute_blas_threshold = 1
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(points)
    return index.search


def _torch_index(points: np.ndarray, device: str) -> Callable:
    import torch

    there = torch.from_numpy(points).to(device)
    squares = (there * there).sum(dim=1)

    def search(chunk: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        rows = max(1, 2**28 // len(points))  # one gigabyte of distances at a time
        parts = torch.from_numpy(chunk).to(device).split(rows)
        found = [torch.topk(squares - 2 * part @ there.T, k, largest=False) for part in parts]
        return tuple(torch.cat([getattr(part, name) for part in found]).cpu().numpy() for name in ("values", "indices"))

    return search


def limit_threads(threads: int) -> None:
    """Let compiled kernels use this many threads."""
    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))


@compiled(parallel=True)
def _sort_by_exact_distance(queries, points, indices, own, out):
    """Fill ``out`` with exact distances and sort each row's distances and indices, in place, by (distance, index). The point
    own[row] goes last, at an infinite distance."""
    for row in numba.prange(len(indices)):
        for j in range(indices.shape[1]):
            index, total = indices[row, j], 0.0
            for axis in range(points.shape[1]):
                step = np.float64(queries[row, axis]) - np.float64(points[index, axis])
                total += step * step
            distance = np.inf if index == own[row] else math.sqrt(total)
            place = j  # by insertion: the search has them all but sorted
            while place > 0 and (
                out[row, place - 1] > distance or (out[row, place - 1] == distance and indices[row, place - 1] > index)
            ):
                out[row, place], indices[row, place] = out[row, place - 1], indices[row, place - 1]
                place -= 1
            out[row, place], indices[row, place] = distance, index
