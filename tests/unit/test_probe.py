"""The linear probe and the kNN vote against torch's and scikit-learn's own, and on planted classes."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from plumbline.metrics import probe
from plumbline.metrics.probe import Layer, Schedule, corrected_schedule, fit_linear, knn_k, knn_ranks, rank_of


def classes(n=600, d=20, n_classes=12, signal=1.0, seed=0):
    random = np.random.default_rng(seed)
    code = np.concatenate([np.arange(n_classes), random.integers(0, n_classes, n - n_classes)])
    means = np.random.default_rng(99).normal(size=(n_classes, d)) * signal
    return (means[code] + random.normal(size=(n, d))).astype(np.float32), code


def by_modules(values, code, n_classes, start, epochs):
    """One full-batch fit spelled with torch's modules and schedulers."""
    import torch

    layer = torch.nn.Linear(values.shape[1], n_classes)
    layer.load_state_dict({"weight": torch.tensor(start.weight), "bias": torch.tensor(start.bias)})
    optimiser = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=1e-6)
    warm = epochs * 10 // 250
    first = torch.optim.lr_scheduler.LinearLR(optimiser, 0.03, 1.0, total_iters=warm - 1)
    then = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs - warm)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [first, then], [warm])
    for _ in range(epochs):
        optimiser.zero_grad()
        torch.nn.CrossEntropyLoss()(layer(torch.from_numpy(values)), torch.from_numpy(code)).backward()
        optimiser.step()
        schedule.step()
    return layer


def test_full_batch_equals_torch_modules_and_schedulers():
    values, code = classes()
    random = np.random.default_rng(5)
    start = Layer(random.normal(size=(12, 20)).astype(np.float32) * 0.1, np.zeros(12, np.float32))
    ours = fit_linear(values, code, 12, Schedule(len(values)), 0, start)
    layer = by_modules(values, code, 12, start, 250)
    np.testing.assert_allclose(ours.weight, layer.weight.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(ours.bias, layer.bias.detach().numpy(), atol=1e-5)


def test_minibatches_come_near_logistic_regression():
    (values, code), (test, test_code) = classes(1500, signal=0.5), classes(1500, signal=0.5, seed=1)
    best = LogisticRegression(C=np.inf, max_iter=2000).fit(values, code).score(test, test_code)
    ours = (fit_linear(values, code, 12, corrected_schedule(1500), 0).ranks(test, test_code) < 1).mean()
    assert 0.3 < best < 0.95
    assert ours == pytest.approx(best, abs=0.02)


def test_perfect_and_random_labels():
    values, code = classes(signal=30)
    assert (fit_linear(values, code, 12, corrected_schedule(600), 0).ranks(values, code) == 0).all()
    (values, code), (test, test_code) = classes(signal=0), classes(n=4000, signal=0, seed=1)
    chance = (fit_linear(values, code, 12, corrected_schedule(600), 0).ranks(test, test_code) < 1).mean()
    assert chance == pytest.approx(1 / 12, abs=0.02)


def test_same_seed_same_probe():
    values, code = classes()
    a, b, c = (fit_linear(values, code, 12, Schedule(64, 20), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.weight, b.weight)
    assert np.abs(a.weight - c.weight).max() > 1e-3


def test_schedules():
    assert corrected_schedule(2400) == Schedule(128, 107)
    assert corrected_schedule(20) == Schedule(16, 250)
    assert corrected_schedule(1_000_000) == Schedule(1024, 10)
    for n in (300, 5000, 60_000, 200_000):
        schedule = corrected_schedule(n)
        assert schedule.epochs * np.ceil(n / schedule.batch) >= 2000
    assert probe.paper_schedule(1000) == Schedule(1000, 250, True)
    assert probe.paper_schedule(200_000) == Schedule(64_768, 250, True)


def test_incomplete_minibatches_are_kept_or_dropped():
    random = np.random.default_rng(0)
    sizes = [[len(rows) for rows in probe.minibatches(10, Schedule(4, drop_last=drop), random)] for drop in (False, True)]
    assert sizes == [[4, 4, 2], [4, 4]]


def test_ranks_with_ties():
    scores = np.array([[1.0, 3.0, 3.0, 0.0]] * 4)
    np.testing.assert_array_equal(rank_of(scores, np.arange(4)), [2, 0, 1, 3])


def test_a_score_that_is_not_a_number_is_no_hit():
    """A training that diverged had every class first, an accuracy of 1."""
    np.testing.assert_array_equal(rank_of(np.full((3, 3), np.nan), np.arange(3)), [2, 2, 2])
    np.testing.assert_array_equal(rank_of(np.array([[1.0, np.nan, 0.0]] * 3), np.arange(3)), [1, 2, 2])


def test_ranks_in_blocks(monkeypatch):
    values, code = classes()
    layer = fit_linear(values, code, 12, Schedule(600, 5), 0)
    whole = layer.ranks(values, code), knn_ranks(values, code, values, code, 31, 1, "cpu")
    monkeypatch.setattr(probe, "VOTE_CELLS", 100)
    np.testing.assert_array_equal(layer.ranks(values, code), whole[0])
    np.testing.assert_array_equal(knn_ranks(values, code, values, code, 31, 1, "cpu"), whole[1])


@pytest.mark.parametrize("d", [20, 60])
@pytest.mark.parametrize("k", [1, 15, 251])
def test_knn_equals_scikit_learn(d, k):
    (values, code), (test, test_code) = classes(d=d, signal=0.4), classes(d=d, signal=0.4, seed=1)
    ranks = knn_ranks(values, code, test, test_code, k, 1, "cpu")
    reduce = PCA(min(32, d), svd_solver="full").fit(values.astype(float))
    model = KNeighborsClassifier(k, weights=lambda distances: 1 / (distances + 1e-5), algorithm="brute")
    votes = model.fit(reduce.transform(values.astype(float)), code).predict_proba(reduce.transform(test.astype(float)))
    own = votes[np.arange(len(test)), test_code]
    expected = np.where(own > 0, (votes > own[:, None] + 1e-12).sum(axis=1), 12)
    assert (ranks == expected).mean() > 0.997  # float32 distances may swap two all but equal votes


def test_a_class_without_votes_is_never_among_the_top():
    train, code = np.array([[0.0], [0.1], [9.0]], np.float32), np.array([0, 0, 1])
    assert knn_ranks(train, code, np.array([[9.0]], np.float32), np.array([0]), 1, 1, "cpu")[0] == 2


def test_k_of_small_data():
    assert [knn_k(n, "paper") for n in (100_000, 1453, 1004, 100, 3)] == [251, 251, 251, 25, 1]
    assert [knn_k(n, "corrected") for n in (100_000, 64_768, 2400, 100)] == [251, 251, 47, 9]
