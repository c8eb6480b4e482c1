"""LISI against scib-metrics, against a plain transcription, and on planted mixtures."""

import numpy as np
import pytest

from plumbline.metrics.lisi import ilisi, ilisi_scib, k_for, lisi, reduce_dimensions


def cells(n=400, d=8, n_batches=5, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, d)).astype(np.float32), random.integers(0, n_batches, n)


def transcription(points, batch, k, perplexity):
    """The definition, cell by cell."""
    out = []
    for row, point in enumerate(points.astype(float)):
        distances = np.sqrt(((points.astype(float) - point) ** 2).sum(axis=1))
        distances[row] = np.inf
        near = np.argsort(distances, kind="stable")[:k]
        low, high = 0.0, 1e6 / distances[near].mean()  # entropy falls as beta grows
        for _ in range(200):
            beta = (low + high) / 2
            weights = np.exp(-beta * (distances[near] - distances[near].min()))
            weights /= weights.sum()
            entropy = -(weights * np.log(np.maximum(weights, 1e-300))).sum()
            low, high = (beta, high) if entropy > np.log(perplexity) else (low, beta)
        out.append(1 / sum(weights[batch[near] == b].sum() ** 2 for b in np.unique(batch)))
    return np.array(out)


@pytest.mark.parametrize(("k", "perplexity"), [(248, 83), (29, 10)])
@pytest.mark.parametrize("size", [1e-18, 0.01, 1, 300, 1e15])
def test_equal_to_the_definition(k, perplexity, size):
    points, batch = cells()
    points *= np.float32(size)
    np.testing.assert_allclose(lisi(points, batch, k, perplexity)[0], transcription(points, batch, k, perplexity), rtol=2e-4)


def test_equal_to_scib_metrics():
    scib = pytest.importorskip("scib_metrics")
    import jax
    from scib_metrics.nearest_neighbors import NeighborsResults
    from sklearn.neighbors import NearestNeighbors

    points, batch = cells(600, 40)
    points[:, 0] += 1.5 * batch
    distances, indices = NearestNeighbors(n_neighbors=90, algorithm="brute").fit(points).kneighbors(points)
    graph = NeighborsResults(indices=indices, distances=distances.astype(np.float32))
    ours = ilisi_scib(points, batch)
    with jax.enable_x64(False):  # another library's test may have switched the doubles on, which scib-metrics cannot take
        np.testing.assert_allclose(ours, scib.lisi_knn(graph, batch), atol=1e-3)
        assert (np.median(ours) - 1) / 4 == pytest.approx(scib.ilisi_knn(graph, batch), abs=1e-4)


def test_separated_batches_have_one_around():
    points, batch = cells(2000)
    points[:, 0] += 1000 * batch
    np.testing.assert_allclose(ilisi(points, batch, 251), 1, atol=1e-9)


def test_mixed_batches_have_all_around():
    points, batch = cells(3000, n_batches=4)
    assert ilisi(points, batch, 251).mean() == pytest.approx(4, rel=0.1)  # few of the 83 carry most of the weight


def test_half_mixed():
    points, batch = cells(3000, n_batches=4)
    points[:, 0] += 1000 * (batch // 2)  # pairs of batches share a place
    assert ilisi(points, batch, 251).mean() == pytest.approx(2, rel=0.05)


def test_duplicates_share_the_weight():
    points, batch = np.zeros((60, 3), np.float32), np.arange(60) % 2
    np.testing.assert_allclose(lisi(points, batch, 29, 10), 2, rtol=0.02)


def test_labellings_are_independent_of_one_another():
    points, batch = cells()
    other = np.random.default_rng(1).integers(0, 3, len(batch))
    both = ilisi(points, np.stack([batch, other]), 99)
    np.testing.assert_allclose(both[0], ilisi(points, batch, 99)[0], rtol=1e-12)
    np.testing.assert_allclose(both[1], ilisi(points, other, 99)[0], rtol=1e-12)


def test_components_kept():
    random = np.random.default_rng(0)
    flat, steep = random.normal(size=(500, 100)), random.normal(size=(500, 100)) * 2.0 ** -np.arange(100)
    variance = np.sort(np.linalg.eigvalsh(np.cov(flat.T)))[::-1]
    needed = int((np.cumsum(variance) / variance.sum() < 0.9).sum()) + 1
    assert reduce_dimensions(flat.astype(np.float32)).shape == (500, needed)
    assert reduce_dimensions(steep.astype(np.float32)).shape == (500, 32)
    np.testing.assert_array_equal(reduce_dimensions(flat[:, :30].astype(np.float32)), flat[:, :30].astype(np.float32))


def test_k_shrinks_on_small_data():
    assert [k_for(n) for n in (10_000, 1004, 1003, 100, 28)] == [251, 251, 249, 25, 7]
