"""Draws that end once p is settled: the same perturbations are significant, and every p up to 0.05 is that of all draws."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_screens import view_of
from scipy.spatial.distance import cdist
from scipy.stats import kstest

from plumbline.metrics import ranks, relabelling
from plumbline.metrics.cosine import matched_null
from plumbline.metrics.energy import energy_distances, matched_test, permutation_test
from plumbline.metrics.groups import group_by
from plumbline.metrics.ranks import draw_p_value, rounds, undecided
from plumbline.scoring.stats import bh
from plumbline.tasks import consistency, magnitude


@settings(deadline=None, max_examples=100)
@given(n_draws=st.integers(1, 3000), level=st.floats(0, 1), seed=st.integers(0, 1000), curtailed=st.booleans())
def test_the_draws_left_out_decide_nothing(n_draws, level, seed, curtailed):
    """A perturbation whose draws reach its value at any rate, 0..1."""
    null = (np.random.default_rng(seed).random((1, n_draws)) < level).astype(float)
    value, made = np.ones(1), np.full((1, n_draws), np.nan)
    sizes = rounds(n_draws, curtailed)
    assert [draw for part in sizes for draw in range(part.start, part.stop)] == list(range(n_draws))
    for part in sizes:
        if part.start and not undecided(value, made, n_draws)[0]:
            break
        made[0, part] = null[0, part]
    whole, early = draw_p_value(value, null)[0], draw_p_value(value, made)[0]
    assert early == whole if whole <= ranks.ALPHA else early > ranks.ALPHA


def _screen(n=40, n_cells=12, n_controls=150, d=40, seed=0):
    """Half of the perturbations have an effect, of strengths from none to plain."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat([f"p{i:03d}" for i in range(n)], n_cells), np.repeat("ctrl", n_controls)])
    batch = rng.integers(0, 4, len(labels)).astype(str)
    x = rng.normal(size=(len(labels), d)) + 0.5 * rng.normal(size=(4, d))[batch.astype(int)]
    strength = np.append(np.repeat(np.clip(np.linspace(-0.6, 0.6, n), 0, None), n_cells), np.zeros(n_controls))
    x += strength[:, None] * rng.normal(size=(n, d))[np.append(np.repeat(np.arange(n), n_cells), np.zeros(n_controls, int))]
    return x.astype(np.float32), labels, batch


@pytest.mark.parametrize("task", [consistency, magnitude])
def test_scores_are_those_of_all_draws(task, monkeypatch):
    x, labels, batch = _screen()
    view = replace(view_of(x, labels, batch), n_draws=1000)
    monkeypatch.setattr(ranks, "CURTAILED_CELLS", 100)
    exact, early = task.run(replace(view, exact=True)), task.run(view)
    for whole, part in zip(exact, early, strict=True):
        # an effect size is a mean of distances, which large data takes in float32; shares are counts, and the same
        effect = part.metric == "magnitude_effect"
        assert part.value == pytest.approx(whole.value, abs=1e-8 if effect else 1e-12)
        assert 0 < part.value < 100
        np.testing.assert_allclose(part.items.numerator, whole.items.numerator, rtol=2e-5 if effect else 0)
        assert ("distances in float32" in part.reason) == (task is magnitude)
        assert "float32" not in whole.reason
        if effect:
            continue
        p, q = (dict(part=part.items.extra[key], whole=whole.items.extra[key]) for key in ("p", "q"))
        for kind in (p, q):
            settled = kind["whole"] <= 0.05
            np.testing.assert_array_equal(kind["part"][settled], kind["whole"][settled])
            assert (kind["part"][~settled] > 0.05).all()
        assert "draws ended early for" in part.reason
        assert "draws ended early" not in whole.reason


def test_small_data_take_all_draws():
    x, labels, batch = _screen()
    score, _ = consistency.run(view_of(x, labels, batch))
    assert score.reason == ""


def test_p_of_noise_that_ended_early_is_uniform_up_to_the_level_and_close_above_it():
    rng = np.random.default_rng(1)
    null, value = rng.normal(size=(4000, 1000)), rng.normal(size=4000)
    made = np.full_like(null, np.nan)
    for part in rounds(1000, curtailed=True):
        left = undecided(value, made, 1000)
        made[left, part] = null[left, part]
    p, whole = draw_p_value(value, made), draw_p_value(value, null)
    assert np.isfinite(made).mean() < 0.3  # of the draws; 50 (1 + ln 20) of 1,000 would do
    assert (p <= 0.05).mean() == (whole <= 0.05).mean()
    assert kstest(p, "uniform").statistic < 0.05
    assert np.abs(p - whole).max() < 0.2  # 128 draws of p = 0.5: a standard error of 0.044
    assert (bh(p) <= 0.05).sum() == (bh(whole) <= 0.05).sum()


def test_the_same_draws_in_any_portions_and_any_part_of_the_dimensions(monkeypatch):
    """What a perturbation is compared with depends neither on the memory at hand nor on how many draws are made at once."""
    x, labels, batch = _screen(d=100)
    names, cell = np.unique(labels[labels != "ctrl"]), np.arange(len(x)).astype(str)
    whole = matched_null(x, cell, labels, batch, names, 300, 5)
    monkeypatch.setattr(relabelling, "HELD_BYTES", 4 * 33 * len(x))  # 32 dimensions at a time
    monkeypatch.setattr(relabelling, "GROUP_BYTES", 2**14)
    monkeypatch.setattr(ranks, "MOST_DRAWS", 70)
    parts = matched_null(x, cell, labels, batch, names, 300, 5, threads=2)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_an_early_end_of_the_permutation_test_continues_the_same_draws():
    x = np.random.default_rng(4).normal(size=(30, 4))
    wanted, starts = np.array([4, 5]), np.array([0, 14, 30])
    observed, null = permutation_test(cdist(x, x), wanted, starts, 1000, 7)
    early, part = permutation_test(cdist(x, x), wanted, starts, 1000, 7, curtailed=True)
    made = np.isfinite(part)
    assert 100 < made.sum() < 1000
    assert early == pytest.approx(observed, rel=1e-6)
    np.testing.assert_allclose(part[made], null[made], atol=1e-6)
    shifted = x + 5 * (np.arange(30) < 4)[:, None] + 5 * ((np.arange(30) >= 14) & (np.arange(30) < 19))[:, None]
    _, part = permutation_test(cdist(shifted, shifted), wanted, starts, 1000, 7, curtailed=True)
    assert np.isfinite(part).all()


@pytest.mark.parametrize("far", [0.0, 300.0])
def test_distances_in_float32_are_those_in_float64(far, monkeypatch):
    """Cells far from the rest and near one another lose their digits in float32: they are taken in float64."""
    x, labels, batch = _screen(d=100)
    x[labels == "p001"] += far
    x[labels == "p002"] = x[labels == "p002"][0] + 0.001 * x[labels == "p002"]
    names, cell = np.unique(labels[labels != "ctrl"]), np.arange(len(x)).astype(str)
    arguments = x, cell, labels, labels == "ctrl", batch, names, 200, 5
    whole, fast = matched_test(*arguments), matched_test(*arguments, precision=np.float32)
    np.testing.assert_allclose(fast.observed, whole.observed, rtol=1e-4)
    np.testing.assert_array_equal(draw_p_value(fast.observed, fast.null), draw_p_value(whole.observed, whole.null))
    controls, groups = x[labels == "ctrl"], group_by(labels)
    exact, rounded = energy_distances(x, groups, controls), energy_distances(x, groups, controls, np.float32)
    np.testing.assert_allclose(rounded, exact, rtol=1e-4, atol=1e-4)


def test_one_part_of_the_dimensions_is_in_memory_at_a_time(monkeypatch):
    """Two were, the old one until the new one was made: 4.5 GB for two million cells in place of 2.5."""
    x, labels, batch = _screen(d=100)
    make, made = relabelling._slabs, []

    def tracked(*arguments):
        assert all(slabs() is None for slabs in made)
        slabs = make(*arguments)
        made.append(weakref.ref(slabs[0]))
        return slabs

    monkeypatch.setattr(relabelling, "_slabs", tracked)
    monkeypatch.setattr(relabelling, "HELD_BYTES", 4 * 33 * len(x))
    matched_null(x, np.arange(len(x)).astype(str), labels, batch, np.array(["p001", "p002"]), 5, 5)
    assert len(made) == 4
