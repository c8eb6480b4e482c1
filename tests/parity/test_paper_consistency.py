"""`paper` consistency against values computed by the paper's own code: cosine 1e-5, p exact (one rank within rounding)."""

import pytest

from plumbline.tasks import consistency

METHODS = ["raw", "centered", "center_scaled", "tvn"]


@pytest.mark.parametrize("method", METHODS)
def test_mean_cosine_p_and_score_agree(paper_view, method):
    view, expected = paper_view(method)
    wanted = expected["consistency"][method]
    score, fdr = consistency.run(view)
    items = score.items
    found = dict(zip(items.unit, zip(items.extra["value"], items.extra["p"], strict=True), strict=True))
    known = {name: pair for name, pair in wanted["query_avgcos_p"].items() if pair[0] is not None}
    assert sorted(found) == sorted(known)
    assert score.n == wanted["n_scored"]
    # where a query is nearer to a null value than the tolerance, its p may be off by one rank
    tolerance = 1e-5
    n_null = len(wanted["null_sorted"])
    for name, (value, p) in known.items():
        assert found[name][0] == pytest.approx(value, abs=tolerance)
        near = min(abs(value - null) for null in wanted["null_sorted"]) <= tolerance
        assert found[name][1] == pytest.approx(p, abs=1.001 / n_null if near else 1e-12)
    assert score.value == pytest.approx(wanted["score"], abs=0.05)
    assert f"{n_null} perturbations" in score.reason
    assert fdr.status == "not_applicable"
