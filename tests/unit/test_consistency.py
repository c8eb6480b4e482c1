"""Mean pairwise cosine, its matched null, and the consistency task."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_screens import view_of
from scipy.stats import kstest
from sklearn.metrics.pairwise import cosine_similarity

from plumbline.metrics import cosine
from plumbline.metrics.cosine import matched_null, mean_cosine
from plumbline.metrics.groups import group_by, group_means
from plumbline.metrics.ranks import draw_p_value, paper_p_value, unexpressed_null
from plumbline.tasks import consistency, magnitude


def _screen(n_perturbations=30, n_cells=12, n_controls=100, n_batches=4, d=8, effect=0.0, seed=0):
    rng = np.random.default_rng(seed)
    names = np.array([f"p{i:03d}" for i in range(n_perturbations)])
    labels = np.concatenate([np.repeat(names, n_cells), np.repeat("ctrl", n_controls)])
    batch = rng.integers(0, n_batches, len(labels)).astype(str)
    x = rng.normal(size=(len(labels), d)) + rng.normal(size=(n_batches, d))[batch.astype(int)]  # batches differ
    shift = np.vstack([effect * rng.normal(size=(n_perturbations, d)), np.zeros(d)])
    x += shift[np.append(np.repeat(np.arange(n_perturbations), n_cells), np.full(n_controls, n_perturbations))]
    return x.astype(np.float32), labels, batch, names


def _brute_force(x):
    return cosine_similarity(x)[np.tril_indices(len(x), -1)].mean()


def _shared(x):
    """What ``matched_null`` leaves out: the squared length of the mean direction."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit.mean(axis=0) @ unit.mean(axis=0)


def test_mean_cosine_is_the_mean_over_pairs():
    x, labels, _, _ = _screen()
    groups = group_by(labels)
    expected = [_brute_force(x[labels == name].astype(float)) for name in groups.names]
    np.testing.assert_allclose(mean_cosine(x, groups), expected, atol=1e-7)


def test_mean_cosine_edge_cases():
    x = np.array([[3, 4], [0, 0], [6, 8], [1, 0], [-2, 0]], dtype=np.float32)
    labels = np.array(["one", "zero", "zero", "opposite", "opposite"])
    found = dict(zip(group_by(labels).names, mean_cosine(x, group_by(labels)), strict=True))
    assert np.isnan(found["one"])
    assert found["zero"] == 0  # a row of zeros has no direction
    assert found["opposite"] == pytest.approx(-1)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_rotation_and_scale_do_not_matter(seed, scale):
    x, labels, _, _ = _screen(5, 6, 5, seed=seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))
    groups = group_by(labels)
    np.testing.assert_allclose(mean_cosine(scale * x @ rotation, groups), mean_cosine(x, groups), atol=1e-5)


def test_group_means():
    x, labels, _, _ = _screen()
    order = np.random.default_rng(1).permutation(len(x))
    groups = group_by(labels[order])
    expected = pd.DataFrame(x.astype(float)).groupby(labels).mean().to_numpy()
    np.testing.assert_allclose(group_means(x[order], groups, block=7), expected, atol=1e-12)


def test_draws_are_cells_of_the_same_batches():
    """Every cell points along the axis of its batch: only as many cells from each batch give this value."""
    batch = np.repeat(["a", "b", "c"], [20, 30, 10])
    labels = np.full(60, "other")
    labels[[0, 1, 2, 20, 21]] = "own"
    x = np.eye(4)[np.repeat([1, 2, 3], [20, 30, 10])]
    observed, null, tested = matched_null(x, np.arange(60).astype(str), labels, batch, np.array(["own"]), 50, 0)
    assert tested[0] == 5
    np.testing.assert_allclose(np.array([observed[0], *null[0]]) + _shared(x), (3**2 + 2**2 - 5) / 20, atol=1e-6)


def test_own_cells_that_are_not_tested_are_not_drawn():
    labels = np.array(["own"] * 20 + ["other"] * 6)
    x = np.eye(7)[np.r_[np.zeros(20, int), 1:7]]
    _, null, tested = matched_null(x, np.arange(26).astype(str), labels, np.full(26, "a"), np.array(["own"]), 500, 0)
    assert tested[0] == 3  # half of 6 others; 3 of these 9 cells are drawn, all three own in 1 of 84 cases
    assert (null[0] + _shared(x) > 0.99).mean() < 0.05


@pytest.mark.parametrize("offset", [0, 30, 1000])
def test_cells_that_all_point_nearly_one_way_are_tested_in_all_digits(offset):
    """Cosines of 0.9999995 at an offset of 1,000: float32 has 7 digits. Oracle: all pairs in float64, with draws of its own."""
    rng = np.random.default_rng(0)
    x, labels, batch, names = _screen(n_perturbations=8, n_cells=60, n_controls=200, n_batches=2, effect=0.5)
    x = (x - x.mean(axis=0) + offset).astype(np.float32)
    observed, null, _ = matched_null(x, np.arange(len(x)).astype(str), labels, batch, names, 199, 0)
    rows, expected = x.astype(np.float64), []
    for name in names:
        order = [rng.permutation(np.flatnonzero(batch == b)) for b in "01" for _ in range(199)]
        own = [int(((batch == b) & (labels == name)).sum()) for b in "01" for _ in range(199)]
        drawn = [np.concatenate([order[k][: own[k]], order[199 + k][: own[199 + k]]]) for k in range(199)]
        value = _brute_force(rows[labels == name])
        expected.append((1 + sum(_brute_force(rows[cells]) >= value for cells in drawn)) / 200)
    np.testing.assert_allclose(draw_p_value(observed, null), expected, atol=0.12)
    assert np.mean(expected) < 0.4


@pytest.mark.parametrize("others", [1, 2, 3, 10])
def test_noise_is_significant_as_often_as_alpha_says_however_few_the_others_are(others):
    """A cell in each of 5 batches that hold few other cells: drawn from the others alone, one set or few are all there is."""
    rng, n = np.random.default_rng(0), 300
    batch = np.repeat([f"b{i}" for i in range(5 * n)], 1 + others)
    labels = np.full((5 * n, 1 + others), "other", dtype=object)
    labels[:, 0] = np.repeat([f"p{i}" for i in range(n)], 5)
    labels, x = labels.ravel().astype(str), rng.normal(size=(len(batch), 16))
    names = np.unique(labels[labels != "other"])
    observed, null, _ = matched_null(x, np.arange(len(x)).astype(str), labels, batch, names, 199, 0)
    rate = (draw_p_value(observed, null) <= 0.05).mean()
    assert rate <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)  # a rate of 0.09 with 3 others, 0.45 with one


def test_what_cannot_be_relabelled_is_not_scored_and_is_counted():
    """Two batches of two cells can be relabelled in 4 ways: the smallest p is 1/4."""
    x, labels, batch, _ = _screen(effect=3.0)
    labels = np.append(labels, ["few", "else", "few", "else"])
    batch = np.append(batch, ["x", "x", "y", "y"])
    x = np.vstack([x, np.ones((4, x.shape[1]))])
    score, _ = consistency.run(view_of(x, labels, batch))
    assert "few" not in score.items.unit
    assert "fewer than 20 relabellings, not scored" in score.reason


def test_draws_are_without_replacement_and_differ():
    n = 12
    x, labels = np.eye(n), np.array(["own"] * 4 + ["other"] * 8)
    _, null, _ = matched_null(x, np.arange(n).astype(str), labels, np.full(n, "a"), np.array(["own"]), 200, 0)
    np.testing.assert_allclose(null + _shared(x), 0, atol=1e-7)  # a cell drawn twice would give a positive cosine
    angles = np.random.default_rng(0).normal(size=(n, 2))
    _, null, _ = matched_null(angles, np.arange(n).astype(str), labels, np.full(n, "a"), np.array(["own"]), 200, 0)
    assert len(np.unique(null.round(6))) > 50  # 70 sets of four can be drawn


def test_null_has_the_moments_of_plain_resampling():
    x, labels, batch, _ = _screen(seed=3)
    _, null, _ = matched_null(x, np.arange(len(x)).astype(str), labels, batch, np.array(["p004"]), 1500, 1)
    rng, plain = np.random.default_rng(9), []
    own = labels == "p004"
    for _ in range(1500):
        rows = np.concatenate([rng.choice(np.flatnonzero(batch == b), (own & (batch == b)).sum(), replace=False)
                               for b in np.unique(batch[own])])  # fmt: skip
        plain.append(_brute_force(x[rows]))
    assert null.mean() + _shared(x) == pytest.approx(np.mean(plain), abs=4 * np.std(plain) / np.sqrt(1500) * np.sqrt(2))
    assert null.std() == pytest.approx(np.std(plain), rel=0.1)


def test_neither_order_nor_company_nor_threads_matter():
    x, labels, batch, names = _screen()
    ids = np.array([f"c{i:04d}" for i in range(len(x))])
    order = np.random.default_rng(5).permutation(len(x))
    whole = matched_null(x, ids, labels, batch, names, 100, 7)
    shuffled = matched_null(x[order], ids[order], labels[order], batch[order], names, 100, 7, threads=3)
    few = matched_null(x, ids, labels, batch, names[[4, 2]], 100, 7)
    other_seed = matched_null(x, ids, labels, batch, names, 100, 8)
    for a, b, c in zip(whole, shuffled, few, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
        np.testing.assert_allclose(a[[4, 2]], c, atol=1e-6)
    assert np.abs(whole[1] - other_seed[1]).max() > 0.01


def test_few_others_and_many_own_cells(monkeypatch):
    labels = np.array(["own"] * 20 + ["other"] * 6 + ["own"] * 3 + ["single"])
    batch = np.array(["a"] * 26 + ["b"] * 3 + ["a"])
    x = np.random.default_rng(0).normal(size=(30, 5))
    arguments = x, np.arange(30).astype(str), labels, batch, np.array(["own", "single"]), 20, 0
    observed, null, tested = matched_null(*arguments)
    assert tested.tolist() == [3, 1]  # half of the 7 others of batch a; nobody to compare with in b; one cell is no pair
    assert np.isfinite(observed[0])
    assert np.isfinite(null[0]).all()
    assert np.isnan(observed[1])
    monkeypatch.setattr(cosine, "MAX_CELLS", 2)
    assert matched_null(*arguments)[2][0] == 2


def test_p_values():
    null = np.array([0.1, 0.2, 0.3, 0.4])
    assert paper_p_value(np.array([0.05, 0.2, 0.5]), null, "left").tolist() == [1, 0.75, 0]
    assert paper_p_value(np.array([0.05, 0.2, 0.5]), null, "right").tolist() == [1, 0.5, 0]
    drawn = np.tile(null, (3, 1))
    assert draw_p_value(np.array([0.05, 0.2, 0.5]), drawn).tolist() == [1, 4 / 5, 1 / 5]


def test_no_effect_gives_uniform_p_values_in_spite_of_batches():
    x, labels, batch, _ = _screen(200, 10, 300, d=16)
    score, fdr = consistency.run(view_of(x, labels, batch))
    assert kstest(score.items.extra["p"], "uniform").pvalue > 0.01
    assert score.value < 11  # 5 % expected
    assert fdr.value < 2


def test_strong_effect_is_found_everywhere():
    x, labels, batch, _ = _screen(effect=3.0)
    score, fdr = consistency.run(view_of(x, labels, batch))
    assert score.value == fdr.value == 100
    assert score.n == 30
    np.testing.assert_array_equal(score.items.extra["n_cells"], 12)
    assert score.items.extra["p"].max() <= 0.05


def test_what_cannot_be_scored_is_counted():
    x, labels, batch, _ = _screen(effect=3.0)
    labels[:11] = "p999"  # leaves one cell of p000
    labels[11] = "p000"
    score, _ = consistency.run(view_of(x, labels, batch))
    assert "p000" not in score.items.unit
    assert score.n == 30
    assert "1 perturbation with" in score.reason


GENES = pd.DataFrame(
    {"gene_id": list("abcdef"), "symbol": ["A", "B", "C", "D", "", "B"], "ensembl_id": ["", "", "", "", "ENSG5", ""],
     "mean_count": [0.1, 0.15, np.nan, 2.0, 0.01, 0.02]}
)  # fmt: skip


def test_unexpressed_genes_are_the_papers_null():
    screen = view_of(np.zeros((2, 1)), np.array(["A", "ctrl"]), np.array(["a", "a"]), genes=GENES).screen
    screen.facts.update(unexpressed_scale="mean_count", unexpressed_threshold=0.15)
    names = np.array(["A", "B", "C", "D", "ENSG5", "drug"])
    mask, reason = unexpressed_null(names, screen)
    assert mask.tolist() == [True, False, False, False, True, False]  # B: its larger value is the threshold itself
    assert reason == ""
    assert "none of the perturbations is a measured gene" in unexpressed_null(np.array(["drug"]), screen)[1]
    assert "all 1 perturbed genes are expressed" in unexpressed_null(np.array(["D"]), screen)[1]
    screen.facts["unexpressed_threshold"] = None
    assert "no threshold" in unexpressed_null(names, screen)[1]


def test_paper_ranks_among_unexpressed_genes():
    x, labels, batch, names = _screen(40, effect=0.0, d=16, seed=2)
    x[np.isin(labels, names[20:])] += 5  # expressed genes have a strong common direction
    genes = pd.DataFrame({"gene_id": names, "symbol": names, "ensembl_id": "", "mean_count": np.repeat([0.01, 1.0], 20)})
    facts = {"unexpressed_scale": "mean_count", "unexpressed_threshold": 0.15}
    score, fdr = consistency.run(view_of(x, labels, batch, protocol="paper", genes=genes, **facts))
    assert score.value == 100
    assert sorted(score.items.unit) == sorted(names[20:])
    assert "null: 20 perturbations" in score.reason
    assert fdr.status == "not_applicable"


@pytest.mark.parametrize("task", [consistency, magnitude])
def test_two_unexpressed_perturbations_are_no_null(task):
    """Noise passes two of its own kind in one of three cases."""
    x, labels, batch, names = _screen(30, d=16)
    genes = pd.DataFrame({"gene_id": names, "symbol": names, "ensembl_id": "", "mean_count": 1.0})
    genes.loc[:1, "mean_count"] = 0.01
    facts = {"unexpressed_scale": "mean_count", "unexpressed_threshold": 0.15}
    score, *_ = task.run(view_of(x, labels, batch, protocol="paper", genes=genes, **facts))
    assert score.status == "not_applicable"
    assert "2 perturbations of unexpressed genes with" in score.reason
    genes.loc[:18, "mean_count"] = 0.01
    assert task.run(view_of(x, labels, batch, protocol="paper", genes=genes, **facts))[0].status == "ok"


def test_absent_with_a_reason():
    x, labels, batch, _ = _screen(5)
    view = view_of(x, labels, batch)
    for changed in (replace(view, protocol="paper"),):
        scores = consistency.run(changed)
        assert {s.metric for s in scores} == {m.name for m in consistency.TASK.metrics}
        assert all(s.status == "not_applicable" and s.reason for s in scores)
    assert consistency.not_applicable({"n_perturbations": 0})
    assert consistency.not_applicable({"n_perturbations": 1}) == ""
    alone = view_of(x[:10], np.full(10, "p"), batch[:10])  # nothing to draw from
    assert [s.status for s in consistency.run(alone)] == ["not_applicable"] * 2
