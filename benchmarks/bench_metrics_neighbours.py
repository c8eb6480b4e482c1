#!/usr/bin/env python3
"""iLISI, kNN and the linear probe compared with the best library and a plain transcription of the definition.

``cases(quick)`` is what bench_metrics.py times. One thread for everyone.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy reads it

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))

N_BATCHES, N_CLASSES, D = 20, 100, 50


def cases(quick: bool = False) -> list[dict]:
    """One dict per case: name, n_cells, ours, peer, peer_name, transcription (callables or None; the transcription runs on
    ``transcription_share`` of the cells), all on the same synthetic cells."""
    n = 2_000 if quick else 20_000
    random = np.random.default_rng(0)
    batch, code = random.integers(0, N_BATCHES, n), random.integers(0, N_CLASSES, n)
    points = (random.normal(size=(n, D)) + random.normal(size=(N_CLASSES, D))[code] * 0.5).astype(np.float32)
    return [_lisi_case(points, batch), _knn_case(points), _vote_case(points, code), _probe_case(points[:5_000], code[:5_000])]


def _case(
    name: str, n: int, ours: Callable, peer: Callable, peer_name: str, transcription: Callable | None, share: float
) -> dict:
    return {
        "name": name,
        "n_cells": n,
        "ours": ours,
        "peer": peer,
        "peer_name": peer_name,
        "transcription": transcription,
        "transcription_share": share,
    }


def _lisi_case(points: np.ndarray, batch: np.ndarray) -> dict:
    from plumbline.metrics.lisi import lisi

    share = min(1.0, 200 / len(points))
    some = np.arange(int(share * len(points)))
    return _case(
        "iLISI, neighbours included",
        len(points),
        lambda: lisi(points, batch, 89, 30).mean(),
        lambda: _scib_lisi(points, batch),
        "scib-metrics lisi_knn on its default (approximate) neighbours",
        lambda: [_lisi_by_definition(points, batch, row, 89, 30) for row in some],
        share,
    )


def _scib_lisi(points: np.ndarray, batch: np.ndarray) -> float:
    from scib_metrics import lisi_knn
    from scib_metrics.nearest_neighbors import pynndescent

    return lisi_knn(pynndescent(points, n_neighbors=90, random_state=0, n_jobs=1), batch).mean()


def _lisi_by_definition(points: np.ndarray, batch: np.ndarray, row: int, k: int, perplexity: int) -> float:
    distances = np.sqrt(((points - points[row]) ** 2).sum(axis=1))
    distances[row] = np.inf
    near = np.argsort(distances)[:k]
    beta, low, high = 1.0, -np.inf, np.inf
    for _ in range(50):
        weights = np.exp(-beta * distances[near])
        total = max(weights.sum(), 1e-300)
        excess = np.log(total) + beta * (distances[near] * weights).sum() / total - np.log(perplexity)
        if abs(excess) < 1e-5:
            break
        low, high = (beta, high) if excess > 0 else (low, beta)
        beta = beta * 2 if high == np.inf else beta / 2 if low == -np.inf else (low + high) / 2
    return 1 / sum((weights[batch[near] == one].sum() / total) ** 2 for one in np.unique(batch))


def _knn_case(points: np.ndarray) -> dict:
    from plumbline.metrics.neighbours import nearest

    return _case(
        "exact 248 nearest neighbours",
        len(points),
        lambda: nearest(points, 248),
        lambda: _sklearn_neighbours(points, "brute"),
        "scikit-learn brute force",
        lambda: _sklearn_neighbours(points[: len(points) // 4], "kd_tree"),  # what the paper's code calls
        1 / 16,
    )


def _sklearn_neighbours(points: np.ndarray, algorithm: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=249, algorithm=algorithm).fit(points).kneighbors(points)


def _vote_case(points: np.ndarray, code: np.ndarray) -> dict:
    from plumbline.metrics.probe import knn_ranks

    half = len(points) // 2
    train, test = slice(0, half), slice(half, None)

    def peer() -> np.ndarray:
        from sklearn.decomposition import PCA
        from sklearn.neighbors import KNeighborsClassifier

        reduce = PCA(32, svd_solver="full").fit(points[train])
        model = KNeighborsClassifier(251, weights=lambda distances: 1 / (distances + 1e-5), algorithm="brute")
        return model.fit(reduce.transform(points[train]), code[train]).predict_proba(reduce.transform(points[test]))

    ours = partial(knn_ranks, points[train], code[train], points[test], code[test], 251, 1, "cpu")
    return _case("kNN vote, k = 251", len(points), ours, peer, "scikit-learn KNeighborsClassifier", None, 1.0)


def _probe_case(points: np.ndarray, code: np.ndarray) -> dict:
    from plumbline.metrics.probe import Schedule, fit_linear

    schedule = Schedule(128, 20)
    return _case(
        "linear probe, 20 epochs of minibatches of 128",
        len(points),
        lambda: fit_linear(points, code, N_CLASSES, schedule, 0),
        lambda: _torch_probe(points, code, schedule.batch, schedule.epochs),
        "torch.nn.Linear, torch.optim.AdamW, DataLoader",
        None,
        1.0,
    )


def _torch_probe(points: np.ndarray, code: np.ndarray, batch: int, epochs: int) -> None:
    import torch

    torch.set_num_threads(1)
    data = torch.utils.data.TensorDataset(torch.from_numpy(points), torch.from_numpy(code))
    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True)
    layer = torch.nn.Linear(points.shape[1], N_CLASSES)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=1e-6)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * len(loader))
    for _ in range(epochs):
        for x, y in loader:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(layer(x), y).backward()
            optimiser.step()
            rate.step()
