#!/usr/bin/env python3
"""Consistency, energy distance, permutation test, recall and reconstruction compared with the best library and a plain
transcription of the definition.

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

D, N_CELLS, N_BATCHES, N_DRAWS = 256, 30, 8, 1000


def cases(quick: bool = False) -> list[dict]:
    """One dict per case: name, n_cells, ours, peer, peer_name, transcription (callables or None; the transcription runs on
    ``transcription_share`` of the work), all on the same synthetic cells."""
    random = np.random.default_rng(0)
    n = 40 if quick else 200
    labels = np.concatenate([np.repeat([f"p{i:04d}" for i in range(n)], N_CELLS), np.repeat("ctrl", 1000)])
    cells = {
        "x": random.normal(size=(len(labels), D)).astype(np.float32) + 0.2,
        "cell_id": np.array([f"c{i:06d}" for i in range(len(labels))]),
        "perturbation": labels,
        "batch": random.integers(0, N_BATCHES, len(labels)).astype(str),
    }
    return [
        _cosine_case(cells),
        _null_case(cells),
        _energy_case(cells),
        _permutation_case(cells),
        _recall_case(200 if quick else 1000),
        _correlation_case(500 if quick else 4000),
        _integrity_case(500 if quick else 4000),
    ]


def _case(
    name: str, n: int, ours: Callable, peer: Callable | None, peer_name: str, plain: Callable | None, share: float
) -> dict:
    keys = ("name", "n_cells", "ours", "peer", "peer_name", "transcription", "transcription_share")
    return dict(zip(keys, (name, n, ours, peer, peer_name, plain, share), strict=True))


def _sets(cells: dict) -> tuple[np.ndarray, list[np.ndarray]]:
    """The controls and the cells of each perturbation."""
    from plumbline.metrics.groups import group_by

    groups = group_by(cells["perturbation"])
    parts = {name: cells["x"][groups.rows(i)] for i, name in enumerate(groups.names)}
    return parts.pop("ctrl"), list(parts.values())


def _cosine_case(cells: dict) -> dict:
    from plumbline.metrics.cosine import mean_cosine
    from plumbline.metrics.groups import group_by

    _, sets = _sets(cells)

    def peer() -> list:
        from efaar_benchmarking.benchmarking import pert_signal_consistency_metric

        return [pert_signal_consistency_metric(part) for part in sets]

    def plain() -> list[float]:
        return [np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for i, a in enumerate(part) for b in part[:i]])
                for part in sets[:5]]  # fmt: skip

    rows = np.flatnonzero(cells["perturbation"] != "ctrl")
    x, groups = cells["x"][rows], group_by(cells["perturbation"][rows])
    ours = partial(mean_cosine, x, groups)
    return _case("mean pairwise cosine", len(rows), ours, peer, "efaar_benchmarking", plain, 5 / len(sets))


def _null_case(cells: dict) -> dict:
    from plumbline.metrics.cosine import matched_null

    names = np.unique(cells["perturbation"])[1:]

    def by(metric: Callable, part: np.ndarray, n_draws: int) -> Callable:
        random = np.random.default_rng(0)

        def run() -> list:
            return [metric(cells["x"][_draw(cells, name, random)]) for name in part for _ in range(n_draws)]

        return run

    def sklearn_cosine(x: np.ndarray) -> float:
        from sklearn.metrics.pairwise import cosine_similarity

        return cosine_similarity(x)[np.tril_indices(len(x), k=-1)].mean()

    ours = partial(matched_null, **cells, names=names, n_draws=N_DRAWS, seed=0)
    plain = by(sklearn_cosine, names[:1], 50)
    share = 50 / (len(names) * N_DRAWS)
    return _case(f"consistency null, {N_DRAWS} matched draws", len(cells["x"]), ours, None, "none", plain, share)


def _draw(cells: dict, name: str, random: np.random.Generator) -> np.ndarray:
    own = cells["perturbation"] == name
    rows = [random.choice(np.flatnonzero((cells["batch"] == b) & ~own), n, replace=False)
            for b, n in zip(*np.unique(cells["batch"][own], return_counts=True), strict=True)]  # fmt: skip
    return np.concatenate(rows)


def _energy_case(cells: dict) -> dict:
    from plumbline.metrics.energy import energy_distances
    from plumbline.metrics.groups import group_by

    controls, sets = _sets(cells)
    rows = np.flatnonzero(cells["perturbation"] != "ctrl")
    x, groups = cells["x"][rows], group_by(cells["perturbation"][rows])

    def peer() -> list:
        from efaar_benchmarking.benchmarking import pert_signal_magnitude_metric

        return [pert_signal_magnitude_metric(part, controls) for part in sets]

    def plain() -> list[float]:
        from scipy.spatial.distance import cdist

        return [2 * cdist(part, controls).mean() - cdist(part, part).mean() - cdist(controls, controls).mean()
                for part in sets[:3]]  # fmt: skip

    ours = partial(energy_distances, x, groups, controls)
    return _case("energy distance", len(x), ours, peer, "efaar_benchmarking (geomloss)", plain, 3 / len(sets))


def _permutation_case(cells: dict) -> dict:
    from plumbline.metrics.energy import matched_test

    names = np.unique(cells["perturbation"])[1:6]
    keep = np.isin(cells["perturbation"], names)
    keep[np.flatnonzero(cells["perturbation"] == "ctrl")[:300]] = True
    some = {name: array[keep] for name, array in cells.items()} | {"is_control": cells["perturbation"][keep] == "ctrl"}

    def peer() -> object:
        import anndata as ad
        import pandas as pd
        import pertpy

        table = ad.AnnData(obs=pd.DataFrame({"p": some["perturbation"]}, index=some["cell_id"]), obsm={"x": some["x"]})
        test = pertpy.tl.DistanceTest(
            "edistance", n_perms=N_DRAWS, obsm_key="x", cell_wise_metric="euclidean", correction="fdr_bh"
        )
        return test(table, groupby="p", contrast="ctrl", show_progressbar=False)

    def plain() -> list[float]:
        from scipy.spatial.distance import cdist

        random, pooled = np.random.default_rng(0), some["x"][np.isin(some["perturbation"], [names[0], "ctrl"])]
        distances, null = cdist(pooled, pooled), []
        for _ in range(50):
            order = random.permutation(len(pooled))
            a, b = order[:N_CELLS], order[N_CELLS:]
            null.append(2 * distances[np.ix_(a, b)].mean() - distances[np.ix_(a, a)].mean() - distances[np.ix_(b, b)].mean())
        return null

    ours = partial(matched_test, **some, names=names, n_draws=N_DRAWS, seed=0)
    name = f"permutation test, {len(names)} x {N_DRAWS} relabellings"
    return _case(name, int(keep.sum()), ours, peer, "pertpy DistanceTest", plain, 50 / (N_DRAWS * len(names)))


def _recall_case(n_genes: int) -> dict:
    from plumbline.genes.relationships import SOURCES, annotations_folder, known_pairs
    from plumbline.metrics.recall import in_band, known_among, pairwise_cosines, recalled

    names = np.unique(known_pairs("CORUM"))[:n_genes]
    means = np.random.default_rng(1).normal(size=(len(names), D)).astype(np.float32)

    def ours() -> list[float]:
        similarities = pairwise_cosines(means)
        band = in_band(similarities.values, 0.05)
        places = [similarities.index(*known_among(names, known_pairs(source))) for source in SOURCES]
        return [recalled(similarities.values[p], band).mean() for p in places]

    read = {}

    def peer() -> object:
        import pandas as pd
        from efaar_benchmarking import benchmarking
        from sklearn.utils import Bunch

        if not read:  # plumbline reads the tables once per process: so may the peer
            clean, folder = benchmarking.get_benchmark_relationships, str(annotations_folder())
            read.update({source: clean(folder, source) for source in SOURCES})
            benchmarking.get_benchmark_relationships = lambda _, source: read[source]
        data = Bunch(features=pd.DataFrame(means), metadata=pd.DataFrame({"gene": names}))
        return benchmarking.known_relationship_benchmark(data, "gene")

    def plain() -> float:
        unit = means / np.linalg.norm(means, axis=1, keepdims=True)
        table = {(names[i], names[j]): unit[i] @ unit[j] for i in range(len(names)) for j in range(i)}
        null = np.sort(list(table.values()))
        known = {tuple(sorted(pair, reverse=True)) for pair in known_pairs("CORUM")} & set(table)
        ranks = [np.searchsorted(null, table[pair]) / len(null) for pair in known]
        return np.mean([rank <= 0.05 or rank >= 0.95 for rank in ranks])

    return _case("recall, five sources", len(names), ours, peer, "efaar_benchmarking", plain, 0.2)


def _expression(n: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    truth = np.maximum(random.normal(size=(500, n)), 0).astype(np.float32)
    return truth, (truth + random.normal(size=truth.shape)).astype(np.float32)


def _correlation_case(n: int) -> dict:
    from scipy.stats import pearsonr, spearmanr

    from plumbline.metrics.correlation import pearson_rows, spearman_rows

    truth, prediction = _expression(n)

    def by_gene(function: Callable, n_genes: int) -> Callable:
        return lambda: [function(t, p) for t, p in zip(truth[:n_genes], prediction[:n_genes], strict=True)]

    def ours() -> tuple[np.ndarray, np.ndarray]:
        return pearson_rows(truth, prediction), spearman_rows(truth, prediction)

    def peer() -> tuple[list, list]:
        return by_gene(pearsonr, len(truth))(), by_gene(spearmanr, len(truth))()

    return _case("Pearson and Spearman of 500 genes", n, ours, peer, "scipy pearsonr, spearmanr", None, 1.0)


def _integrity_case(n: int) -> dict:
    from plumbline.metrics.integrity import Reconstruction

    truth, prediction = _expression(n)
    batch, control = np.sort(np.random.default_rng(3).integers(0, N_BATCHES, n)), np.arange(n) % 4 == 0

    def ours() -> float:
        sums = Reconstruction(batch, control)
        sums.add(truth, prediction)
        return sums.integrity().value

    def plain() -> float:
        """Integrity and the correlations that come with it."""
        from scipy.stats import pearsonr, spearmanr

        parts = []
        for b in np.unique(batch):
            rows, c = batch == b, (batch == b) & control
            t = truth[:, rows] - truth[:, c].mean(axis=1, keepdims=True)
            p = prediction[:, rows] - prediction[:, c].mean(axis=1, keepdims=True)
            parts.append((np.linalg.norm(p - t) / rows.sum(), np.linalg.norm(t) / rows.sum()))
        for t, p in zip(truth, prediction, strict=True):
            pearsonr(t, p), spearmanr(t, p)
        distance, size = np.mean(parts, axis=0)
        return 1 - distance / (2 * size)

    return _case("structural integrity with correlations", n, ours, None, "none", plain, 1.0)
