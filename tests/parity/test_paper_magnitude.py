"""`paper` magnitude against values computed by the paper's own code (geomloss, float32): distance 1e-3 + 1e-4 relative."""

import numpy as np
import pytest

from plumbline.tasks import magnitude

METHODS = ["raw", "centered", "center_scaled", "tvn"]


def _check(score, wanted, key, null, tolerance):
    items = score.items
    found = dict(zip(items.unit, zip(items.extra["value"], items.extra["p"], strict=True), strict=True))
    known = {k: pair for k, pair in wanted[key].items() if pair[0] is not None and k != "non-targeting"}
    assert sorted(found) == sorted(known)
    for name, (value, p) in known.items():
        limit = tolerance + 1e-4 * abs(value)
        assert found[name][0] == pytest.approx(value, abs=limit)
        near = null is None or min(abs(value - other) for other in null) <= limit
        n_null = 22 if null is None else len(null)
        assert found[name][1] == pytest.approx(p, abs=1.001 / n_null if near else 1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_distance_and_p_agree_for_the_fixed_controls(paper_view, shared, method, monkeypatch):
    view, expected = paper_view(method)
    fixed = np.load(shared / "fixtures/metrics/inputs.npz")["control_rows_fixed"]
    monkeypatch.setattr(magnitude, "_paper_controls", lambda _: fixed)
    wanted = expected["magnitude"][method]
    score, fdr, _ = magnitude.run(view)
    _check(score, wanted, "query_edist_p", wanted["null_sorted"], 1e-3)
    assert score.n == wanted["n_scored_as_upstream"] - 1  # upstream scores the controls against themselves
    gap = wanted["min_gap_query_to_null"]
    slack = 100 / score.n if gap <= 1e-3 else 0
    assert score.value == pytest.approx(wanted["score_without_nontargeting"], abs=0.05 + slack)
    assert fdr.status == "not_applicable"


@pytest.mark.parametrize("method", METHODS)
def test_distance_agrees_for_all_controls(paper_view, method):
    view, expected = paper_view(method)
    score, *_ = magnitude.run(view)  # fewer than 1,000 controls: all are used
    _check(score, expected["magnitude"][method], "query_edist_p_all_controls", None, 1e-3)
