"""Exact neighbours against brute force, exact components against scikit-learn."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from plumbline.metrics import neighbours, rows
from plumbline.metrics.neighbours import nearest, neighbour_chunks, odd_at_most, principal_components
from plumbline.metrics.rows import Rows


def brute(points, k, queries=None):
    """By (distance, index), a point not its own neighbour."""
    own = queries is None
    distances = cdist(points if own else queries, points)
    if own:
        np.fill_diagonal(distances, np.inf)
    order = np.lexsort((np.broadcast_to(np.arange(len(points)), distances.shape), distances), axis=1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


@pytest.fixture
def points():
    return np.random.default_rng(0).normal(size=(500, 17)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 10, 251])
@pytest.mark.parametrize("of_others", [False, True])
def test_equal_to_brute_force(points, k, of_others):
    queries = np.random.default_rng(1).normal(size=(90, 17)).astype(np.float32) if of_others else None
    distances, indices = nearest(points, k, queries)
    expected = brute(points.astype(float), k, queries)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-6)


def test_far_from_the_origin_distances_stay_exact(points):
    distances, indices = nearest(points + np.float32(1024), 20)
    expected = brute((points + np.float32(1024)).astype(float), 20)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-6)


def test_equal_distances_come_in_order_of_index():
    points = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)  # every point three times
    distances, indices = nearest(points, 3)
    np.testing.assert_array_equal(indices[0], [1, 2, 3])
    np.testing.assert_array_equal(indices[1], [0, 2, 3])
    np.testing.assert_allclose(distances[0], [0, 0, np.sqrt(2)], rtol=1e-6)


def test_a_point_is_never_its_own_neighbour_among_many_duplicates():
    _, indices = nearest(np.zeros((200, 3), np.float32), 5)
    assert not (indices == np.arange(200)[:, None]).any()


def test_k_is_capped_by_the_points():
    assert nearest(np.eye(4, dtype=np.float32), 10)[1].shape == (4, 3)
    assert nearest(np.eye(4, dtype=np.float32), 10, np.eye(4, dtype=np.float32))[1].shape == (4, 4)


def test_chunks_and_threads_do_not_matter(points, monkeypatch):
    whole = nearest(points, 12)
    monkeypatch.setattr(neighbours, "CHUNK", 37)
    parts = nearest(points, 12, threads=2)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.gpu
def test_cuda_finds_the_same(points):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    np.testing.assert_array_equal(nearest(points, 30, device="cuda")[1], nearest(points, 30)[1])


@pytest.mark.parametrize("shape", [(300, 20), (40, 90)])
def test_principal_components_against_scikit_learn(shape):
    values = np.random.default_rng(2).normal(size=shape) @ np.random.default_rng(3).normal(size=(shape[1], shape[1]))
    mean, axes, variance = principal_components(values.astype(np.float32))
    reference = PCA(svd_solver="full").fit(values.astype(np.float32).astype(float))
    rank = min(shape) - (shape[0] <= shape[1])
    np.testing.assert_allclose(variance[:rank] * shape[0] / (shape[0] - 1), reference.explained_variance_[:rank], rtol=1e-6)
    np.testing.assert_allclose(np.abs((axes.T[:rank] * reference.components_[:rank]).sum(axis=1)), 1, atol=1e-6)
    np.testing.assert_allclose(mean, reference.mean_, atol=1e-5)


def test_odd_numbers():
    assert [odd_at_most(limit) for limit in (0, 1, 2, 7.9, 250, 251.5)] == [1, 1, 1, 7, 249, 251]


def test_points_that_do_not_fit_in_memory_are_searched_in_blocks(points, monkeypatch):
    """Of an array and of rows mapped from a file; the same neighbours, with duplicates and points that ask for themselves."""
    points = np.concatenate([points, points[:40]])
    others = np.random.default_rng(1).normal(size=(90, 17)).astype(np.float32)
    expected = [nearest(points, 30), nearest(points, 30, others)]
    monkeypatch.setattr(rows, "HELD", 17 * 400)
    for module in (rows, neighbours):
        monkeypatch.setattr(module, "READ", 17 * 100)  # blocks of 100 points
    for source in (points, Rows(points)):
        for found, whole in zip([nearest(source, 30), nearest(source, 30, others)], expected, strict=True):
            np.testing.assert_allclose(found[0], whole[0], rtol=1e-6)
            np.testing.assert_array_equal(found[1], whole[1])


def test_some_points_ask(points):
    whole, some = nearest(points, 9), np.array([400, 3, 77])
    ((which, distances, indices),) = neighbour_chunks(points, 9, asking=some)
    assert which == slice(0, 3)
    np.testing.assert_array_equal(indices, whole[1][some])
    np.testing.assert_array_equal(distances, whole[0][some])


def test_rows_are_read_shifted_scaled_and_projected(monkeypatch):
    values, some = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32), np.array([4, 9, 2])
    shift, axes = np.arange(6, dtype=np.float32), np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)
    np.testing.assert_array_equal(Rows(values, some, shift=shift, scale=shift + 1)[:], (values[some] - shift) / (shift + 1))
    projected = Rows(Rows(values, some), shift=shift, axes=axes)
    assert projected.shape == (3, 2)
    np.testing.assert_allclose(projected[np.array([1])], (values[[9]] - shift) @ axes, rtol=1e-6)
    monkeypatch.setattr(rows, "HELD", 6 * 28)
    monkeypatch.setattr(rows, "READ", 6 * 7)  # blocks of 7 rows of the source, however few numbers are left of each
    assert [len(block) for _, block in rows.blocks(projected)] == [3]
    assert max(len(block) for _, block in rows.blocks(Rows(values, axes=axes[:, :1]))) == 7
    np.testing.assert_array_equal(rows.held(Rows(values, axes=axes[:, :1])), values @ axes[:, :1])
    monkeypatch.undo()
    mean, deviation = rows.moments(Rows(values))
    monkeypatch.setattr(rows, "HELD", 6 * 28)
    monkeypatch.setattr(rows, "READ", 6 * 7)  # blocks of 7
    np.testing.assert_allclose(rows.moments(Rows(values)), (mean, deviation), rtol=1e-12)
    np.testing.assert_allclose((mean, deviation), (values.mean(0, dtype=float), values.std(0, dtype=float)), rtol=1e-12)
    np.testing.assert_allclose(principal_components(Rows(values))[2], principal_components(values)[2], rtol=1e-9)
