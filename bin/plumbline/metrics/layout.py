"""Two dimensions to look at: UMAP (McInnes et al. 2018) of a few thousand cells, as scanpy calls it.

The two functions of umap-learn that scanpy's ``tl.umap`` is made of are called here, with the exact neighbours of this package:
scanpy is not in this environment, and the class ``UMAP`` compiles a search for neighbours that takes longer than all the rest.
"""

import warnings
from functools import cache

import numpy as np

from plumbline.common.compiled import keep
from plumbline.metrics.neighbours import nearest, principal_components

NEIGHBOURS, MIN_DIST, SPREAD, NEGATIVES = 15, 0.5, 1.0, 5  # as scanpy
EPOCHS = 300
SIDE = 10.0  # half the width of the start, as umap-learn


def umap_layout(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """Positions (n, 2), float32, of points (n, d), finite; the same for the same points, seed and machine.

    Starts from the first two principal components, where points stay that are fewer than three, or all the same.
    """
    start = _start(points)
    if len(points) < 3 or not np.ptp(start):
        return start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of umap-learn, on seeds and threads
        from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

        _keep_compiled()
        indices, distances = _with_themselves(points)
        random = np.random.RandomState(seed)
        graph, *_ = fuzzy_simplicial_set(
            points, indices.shape[1], random, "euclidean", knn_indices=indices, knn_dists=distances
        )
        a, b = find_ab_params(SPREAD, MIN_DIST)
        options: dict = {
            "n_components": 2,
            "initial_alpha": 1.0,
            "a": a,
            "b": b,
            "gamma": 1.0,
            "negative_sample_rate": NEGATIVES,
        }
        options |= {"n_epochs": EPOCHS, "init": start, "random_state": random, "metric": "euclidean", "metric_kwds": {}}
        options |= {"densmap": False, "densmap_kwds": {}, "output_dens": False}
        placed, _ = simplicial_set_embedding(points, graph, **options)
    return np.asarray(placed, dtype=np.float32)


@cache
def _keep_compiled() -> None:
    """umap-learn compiles these anew in each process, for longer than a map takes. (Its pinned version has all of them.)"""
    from umap import layouts, umap_

    keep([umap_.smooth_knn_dist, umap_.compute_membership_strengths, layouts.clip])
    keep([layouts._nb_optimize_layout_euclidean_single_epoch])


def _with_themselves(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices and distances of each point and its neighbours, itself first, as umap-learn expects them."""
    distances, indices = nearest(points, min(NEIGHBOURS, len(points)) - 1)
    own = np.arange(len(points))[:, None]
    return np.hstack([own, indices]).astype(np.int32), np.hstack([np.zeros_like(own), distances]).astype(np.float32)


def _start(points: np.ndarray) -> np.ndarray:
    mean, axes, _ = principal_components(np.asarray(points, dtype=np.float64))
    start = np.zeros((len(points), 2))
    two = (points - mean) @ axes[:, :2]
    start[:, : two.shape[1]] = two
    return (SIDE * start / max(np.abs(start).max(), 1e-12)).astype(np.float32)
