"""Structural integrity and reconstruction metrics against values computed by the paper's own code (1e-5)."""

import json

import numpy as np
import pytest

from plumbline.metrics.integrity import Reconstruction


@pytest.fixture(scope="module")
def case(shared):
    folder = shared / "fixtures/metrics"
    return np.load(folder / "inputs.npz"), json.loads((folder / "expected.json").read_text())["structural"]


def _fold(arrays, control, truth=None, prediction=None, uncentred=False, step=17):
    order = np.argsort(arrays["si_batch"], kind="stable")
    truth = arrays["si_true"] if truth is None else truth
    prediction = arrays["si_pred"] if prediction is None else prediction
    result = Reconstruction(arrays["si_batch"][order], arrays[control][order], uncentred)
    for start in range(0, truth.shape[1], step):
        genes = slice(start, start + step)
        result.add(truth[order, genes].T, prediction[order, genes].T)
    return result


def test_integrity_with_controls_in_every_batch(case):
    arrays, expected = case
    value = _fold(arrays, "si_is_control_a").integrity().value
    assert value == pytest.approx(expected["si_all_batches_have_controls"], abs=1e-5)


def test_integrity_of_a_batch_without_controls(case):
    arrays, expected = case
    upstream = _fold(arrays, "si_is_control_b", uncentred=True).integrity()
    assert upstream.value == pytest.approx(expected["si_one_batch_without_control"], abs=1e-5)
    ours = _fold(arrays, "si_is_control_b").integrity()
    assert len(ours.unit) == len(upstream.unit) - 1
    assert ours.value < upstream.value - 0.01  # leaving the batch uncentred flatters


def test_floor_and_ceiling(case):
    arrays, expected = case
    truth, batch = arrays["si_true"], arrays["si_batch"]
    for control, key in (
        ("si_is_control_a", "si_control_mean_predictor_a"),
        ("si_is_control_b", "si_control_mean_predictor_b"),
    ):
        mask = arrays[control]
        flat = np.empty_like(truth)
        for b in np.unique(batch):
            chosen = (batch == b) & mask if ((batch == b) & mask).any() else mask
            flat[batch == b] = truth[chosen].mean(axis=0)
        assert _fold(arrays, control, prediction=flat).integrity().value == 0.5  # ours: exactly, in both cases
        if control.endswith("a"):
            assert expected[key] == pytest.approx(0.5, abs=1e-5)
    assert _fold(arrays, "si_is_control_a", prediction=truth).integrity().value == expected["si_perfect"] == 1.0


@pytest.mark.parametrize(
    ("key", "value"), [("metrics", None), ("metrics_target_gene0_all_zero", 0), ("metrics_target_gene0_all_one", 1)]
)
def test_errors_and_correlations(case, key, value):
    arrays, expected = case
    truth = arrays["si_true"].copy()
    if value is not None:
        truth[:, 0] = value
    result, wanted = _fold(arrays, "si_is_control_a", truth), expected[key]
    genes = np.arange(truth.shape[1]).astype(str)
    assert result.errors().value == pytest.approx(wanted["MSE"], abs=1e-5)
    assert result.errors(absolute=True).value == pytest.approx(wanted["MAE"], abs=1e-5)
    assert result.r2().value == pytest.approx(wanted["R-squared"], abs=1e-5)
    spearman = result.correlation("spearman", genes, constant_as_zero=True)
    assert spearman.value == pytest.approx(wanted["Average Spearman Correlation"], abs=1e-5)
    pearson = result.correlation("pearson", genes)
    if value is None:
        assert pearson.value == pytest.approx(wanted["Average Pearson Correlation"], abs=1e-5)
    else:  # upstream: NaN, or rounding noise; ours: the gene is left out
        assert "0" not in pearson.unit
        assert len(pearson.unit) == truth.shape[1] - 1
        assert np.isfinite(pearson.value)
