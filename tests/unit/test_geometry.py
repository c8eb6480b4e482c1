"""Spectrum, effective rank, mean cosine, systematic share, and the task that describes an embedding."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_screens import SEED, subject_of, view_of
from scipy.stats import entropy
from sklearn.metrics.pairwise import cosine_similarity

from plumbline.data.splits import Split
from plumbline.metrics.geometry import effective_rank, mean_cosine, participation_ratio, spectrum
from plumbline.scoring.evaluation import evaluate
from plumbline.summary.comparisons import compare
from plumbline.summary.items import ItemTable
from plumbline.tasks import geometry


def screen_of(effect=1.0, common=0.0, seed=0, d=20, n=30, cells=20):
    rng = np.random.default_rng(seed)
    names = np.concatenate([np.repeat([f"P{i:02d}" for i in range(n)], cells), np.repeat("ctrl", 80)])
    batch = np.arange(len(names)) % 4
    x = rng.normal(size=(len(names), d)) + rng.normal(size=(4, d))[batch]
    x[: n * cells] += np.repeat(effect * rng.normal(size=(n, d)), cells, axis=0) + common
    return view_of(x, names, batch, n_cells=len(names))


def scores(view) -> dict:
    return {score.metric: score for score in geometry.run(view)}


@pytest.mark.parametrize("shape", [(50, 7), (7, 50)])
def test_spectrum_is_that_of_the_covariance(shape):
    x = np.random.default_rng(0).normal(size=shape) + 5
    expected = np.linalg.eigvalsh(np.cov(x, rowvar=False, ddof=0))[::-1][: min(shape)]
    np.testing.assert_allclose(spectrum(x), expected, atol=1e-10)


def test_effective_rank_is_the_entropy_of_the_singular_values():
    x = np.random.default_rng(1).normal(size=(60, 8)) * np.arange(1, 9)
    singular = np.linalg.svd(x - x.mean(0), compute_uv=False)
    assert effective_rank(spectrum(x)) == pytest.approx(np.exp(entropy(singular / singular.sum())))


def test_planted_numbers_of_dimensions():
    for used in (1, 3, 8):
        variances = np.r_[np.full(used, 2.0), np.zeros(8 - used)]
        assert effective_rank(variances) == pytest.approx(used)
        assert participation_ratio(variances) == pytest.approx(used)
    assert participation_ratio(np.array([9.0, 1.0])) == pytest.approx(100 / 82)


def test_mean_cosine_is_that_of_all_pairs():
    x = np.random.default_rng(2).normal(size=(40, 5)) + 1
    assert mean_cosine(x) == pytest.approx(cosine_similarity(x)[np.triu_indices(40, 1)].mean(), abs=1e-6)


@pytest.mark.parametrize("common", [0.0, 0.5, 2.0])
def test_systematic_share_of_planted_effects_is_free_of_noise(common):
    """Lengths of mean effects over all cells are mostly noise here: the plain ratio would be far too small."""
    found = [scores(screen_of(effect=0.5, common=common, seed=seed))["systematic_share"].value for seed in range(8)]
    mean = common**2 + 0.25 / 30  # of 30 random effects the mean is not quite zero
    expected = mean / (common**2 + 0.25)
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found, ddof=1) / np.sqrt(8) + 0.02)


def test_effects_without_any_have_no_share():
    """Not even where all effects share the noise of few controls: by their own spread alone, 3 of 12 had one."""
    for seed in range(12):
        view = screen_of(effect=0, seed=seed)
        few = view.take(np.flatnonzero(~view.screen.is_control | (np.arange(len(view.rows)) % 5 == 0)))
        found = scores(few)["systematic_share"]
        assert (found.status, found.reason) == ("not_applicable", "the effects are not larger than their noise")


def test_the_task_gives_what_its_parts_give():
    view = screen_of(common=1.0)
    found = scores(view)
    assert found["effective_rank"].value == pytest.approx(effective_rank(spectrum(view.embedding)))
    assert found["participation_ratio"].value == pytest.approx(participation_ratio(spectrum(view.embedding)))
    assert found["mean_cosine"].value == pytest.approx(mean_cosine(view.embedding))
    assert found["systematic_share"].items.kind == "perturbation"


def test_many_cells_are_sampled_by_their_ids(monkeypatch):
    monkeypatch.setattr(geometry, "MAX_CELLS", 100)
    view = screen_of()
    shuffled = view.take(np.random.default_rng(3).permutation(len(view.rows)))
    for a, b in zip(geometry.run(view), geometry.run(shuffled), strict=True):
        assert b.value == pytest.approx(a.value, rel=1e-4)
    assert geometry.run(view)[0].n == 100
    assert geometry.run(view)[0].reason == "100 of 680 cells"
    monkeypatch.setattr(geometry, "WIDE", 10)
    assert geometry.run(view)[0].n == 680


def test_a_description_chooses_nothing_and_is_made_once():
    view = screen_of(common=1.0)
    test = view.screen.batch == "3"
    half = Split(SEED, "batch", ~test, test, test, test & (np.arange(len(test)) % 2 == 0))
    splits = [half, replace(half, seed=SEED + 1)]
    rows = evaluate(subject_of(view), geometry.TASK, splits, ["paper", "corrected"])
    assert {row.seed for row in rows} == {SEED}
    named = {(row.protocol, row.postprocess, row.score.metric): row.score for row in rows}
    chosen = named["corrected", "selected", "effective_rank"]
    assert chosen.value == named["corrected", "none", "effective_rank"].value
    assert chosen.n == len(view.rows)
    assert chosen.reason == ""
    assert named["corrected", "tvn", "effective_rank"].value != chosen.value


def test_a_description_gets_no_verdict_scale_or_rank():
    keys = {
        "dataset": "d",
        "fit_on": "none",
        "postprocess": "selected",
        "protocol": "corrected",
        "task": "geometry",
        "seed": 42,
    }
    about = keys | {"metric": "effective_rank", "status": "ok", "reason": "", "n": 600, "ci_low": np.nan, "ci_high": np.nan}
    values = {"pca": 20.0, "scvi": 40.0, "random": 200.0, "label_oracle": 5.0}
    scores = pd.DataFrame([{**about, "model": name, "variant": name, "value": value} for name, value in values.items()])
    roles = {"pca": "baseline", "scvi": "trained", "random": "floor", "label_oracle": "ceiling"}
    found = compare(scores, ItemTable([]), roles, {"d": {"n_cells": 600}}, "pca", 50, 0).set_index("variant")
    assert found["value"].to_dict() == values
    assert not found["main"].any()
    assert set(found["verdict"]) == {"baseline", "not tested"}
    assert found[["calibrated", "progress", "floor", "ceiling", "rank_low", "rank_high"]].isna().all(axis=None)
    assert set(found["why_not_calibrated"]) == {"a description: neither more nor less is better"}


def test_absent_with_a_reason():
    view = screen_of()
    assert {s.reason for s in geometry.run(replace(view, protocol="paper"))} == {"not part of the paper's protocol"}
    empty = replace(view, embedding=np.zeros((len(view.rows), 0), np.float32))
    assert {s.reason for s in geometry.run(empty)} == {"the model gives no embedding"}
    flat = replace(view, embedding=np.ones_like(view.embedding))
    assert {s.reason for s in geometry.run(flat)} == {"all cells have the same embedding"}
    few = view.take(np.flatnonzero(view.screen.is_control | (view.screen.perturbation < "P05")))
    assert "fewer than 8 perturbations" in scores(few)["systematic_share"].reason
    assert geometry.not_applicable({"n_cells": 1}) == "the data set has one cell"
    assert geometry.not_applicable({"n_cells": 2}) == ""
