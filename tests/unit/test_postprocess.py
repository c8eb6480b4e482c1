"""Post-processing: planted batch effects vanish, libraries agree, what is missing is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from plumbline.common.errors import NotApplicable, UserError
from plumbline.scoring import postprocess as module
from plumbline.scoring.postprocess import MIN_CONTROLS, postprocess
from plumbline.scoring.protocol import POSTPROCESSINGS

ALIGNING = POSTPROCESSINGS[1:]


def cells(n: int = 600, d: int = 12, n_batches: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlated cells with a shift and a scale of their own in each batch."""
    random = np.random.default_rng(seed)
    number = random.integers(0, n_batches, n)
    values = random.normal(size=(n, d)) @ random.normal(size=(d, d)) * random.uniform(0.5, 2, (n_batches, d))[number]
    values += random.normal(size=(n_batches, d))[number] * 5
    return values.astype(np.float32), random.random(n) < 0.4, np.array([f"batch{i}" for i in range(n_batches)])[number]


def test_center_and_scale_against_scikit_learn():
    values, control, batch = cells()
    for method, scale in (("center", False), ("center_scale", True)):
        out, _ = postprocess(values, control, batch, method)
        for name in np.unique(batch):
            own = batch == name
            scaler = StandardScaler(with_std=scale).fit(values[own & control].astype(float))
            np.testing.assert_allclose(out[own], scaler.transform(values[own].astype(float)), atol=2e-6)


def test_tvn_against_scikit_learn_and_scipy():
    values, control, batch = cells()
    z = values.astype(float)
    for step in (StandardScaler(), PCA(svd_solver="full"), StandardScaler()):
        z = step.fit(z[control]).transform(z)
    expected = np.empty_like(z)
    for name in np.unique(batch):
        covariance = np.cov(z[control & (batch == name)].T) + 0.5 * np.eye(z.shape[1])
        expected[batch == name] = z[batch == name] @ np.linalg.inv(sqrtm(covariance).real)
    out, info = postprocess(values, control, batch, "tvn")
    sign = np.sign((out * expected).sum(axis=0))
    np.testing.assert_allclose(out * sign, expected, atol=2e-4)
    assert info["n_batches_fallback"] == 0


@pytest.mark.parametrize("method", ALIGNING)
def test_a_batch_that_differs_by_a_shift_is_laid_on_the_others(method):
    random = np.random.default_rng(1)
    base, control = random.normal(size=(200, 8)), np.arange(200) < 80
    values = np.concatenate([base, base + 30]).astype(np.float32)
    out, _ = postprocess(values, np.tile(control, 2), np.repeat(["a", "b"], 200), method)
    if (
        method == "tvn"
    ):  # the shift is what the global z-score sees, so only the shapes agree: each batch has the same whitening
        out = np.concatenate([half - half[control].mean(axis=0) for half in np.split(out, 2)])
    np.testing.assert_allclose(out[:200], out[200:], atol=1e-4)


@pytest.mark.parametrize("method", ALIGNING)
def test_batches_with_too_few_controls_fall_back_and_are_named(method):
    values, control, batch = cells()
    for name, kept in (("batch1", MIN_CONTROLS[method] - 1), ("batch2", MIN_CONTROLS[method])):
        control[np.flatnonzero(control & (batch == name))[kept:]] = False
    out, info = postprocess(values, control, batch, method)
    assert info["batches_fallback"] == ["batch1"]
    assert info["n_batches_fallback"] == 1
    assert np.isfinite(out).all()
    everyone, _ = postprocess(values, control, np.full(len(batch), "one"), method)  # one batch: global controls are its own
    np.testing.assert_allclose(out[batch == "batch1"], everyone[batch == "batch1"], atol=1e-4)


@pytest.mark.parametrize("method", ALIGNING)
def test_dimensions_in_which_controls_do_not_vary(method):
    values, control, batch = cells()
    values[:, 3] = 0.1  # not exact in float32: its deviation is rounding noise
    values[control, 5] = 7.0
    out, _ = postprocess(values, control, batch, method)
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 1e3


@pytest.mark.parametrize("method", POSTPROCESSINGS)
def test_fewer_controls_than_dimensions(method):
    values, control, batch = cells(n=40, d=64, n_batches=2)
    out, _ = postprocess(values, control, batch, method)
    assert out.shape == values.shape
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 1e3


def test_none_gives_the_values_back_with_or_without_controls():
    values, _, batch = cells()
    out, info = postprocess(values.astype(float), np.zeros(len(batch), bool), batch, "none")
    np.testing.assert_array_equal(out, values)
    assert (out.dtype, info["n_controls"], info["n_batches_fallback"]) == (np.float32, 0, 0)


@pytest.mark.parametrize("method", POSTPROCESSINGS)
def test_no_dimensions_pass_through(method):
    out, _ = postprocess(np.zeros((5, 0), np.float32), np.ones(5, bool), np.full(5, "a"), method)
    assert out.shape == (5, 0)


@pytest.mark.parametrize("method", ALIGNING)
def test_without_any_control_it_does_not_apply(method):
    values, _, batch = cells()
    with pytest.raises(NotApplicable, match="there are none"):
        postprocess(values, np.zeros(len(batch), bool), batch, method)


def test_an_unknown_method_gets_a_hint():
    with pytest.raises(UserError, match="center_scale"):
        postprocess(np.zeros((1, 1)), np.ones(1, bool), np.array(["a"]), "centre_scale")


@pytest.mark.parametrize("method", ALIGNING)
def test_blocks_do_not_matter(method, monkeypatch):
    values, control, batch = cells()
    whole, _ = postprocess(values, control, batch, method)
    monkeypatch.setattr(module, "BLOCK", 7)
    np.testing.assert_allclose(postprocess(values, control, batch, method)[0], whole, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 50), st.sampled_from(ALIGNING))
def test_the_order_of_cells_does_not_matter(seed, method):
    values, control, batch = cells(n=120, d=5, n_batches=3, seed=seed)
    order = np.random.default_rng(seed).permutation(120)
    out, _ = postprocess(values, control, batch, method)
    moved, _ = postprocess(values[order], control[order], batch[order], method)
    sign = np.sign((moved * out[order]).sum(axis=0))
    np.testing.assert_allclose(moved * sign, out[order], atol=1e-3)
