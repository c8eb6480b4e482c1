"""Centring, centre-scaling and TVN of arXiv 2410.13956's own code."""

import numpy as np
import pytest
from paper_cells import read_paper_cells

from plumbline.scoring.postprocess import postprocess


@pytest.fixture(scope="module")
def paper(shared):
    return read_paper_cells(shared)


@pytest.mark.parametrize(
    ("method", "name", "tolerance"),
    [("center", "centered", 1e-5), ("center_scale", "center_scaled", 1e-5), ("tvn", "tvn", 2e-3)],
)
def test_same_values(paper, method, name, tolerance):
    vectors, info = postprocess(paper.inputs["embedding"], paper.is_control, paper.batch, method)
    out = np.asarray(vectors)
    rows, expected = out[paper.arrays["pp_rows"]], paper.arrays[f"pp_{name}"]
    # the sign of a principal axis is arbitrary
    sign = np.sign((rows * expected).sum(axis=0)) if method == "tvn" else np.ones(out.shape[1])
    np.testing.assert_allclose(rows * sign, expected, atol=tolerance, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), paper.arrays[f"pp_{name}_rownorm_all"], rtol=1e-5)
    np.testing.assert_allclose(out.mean(axis=0, dtype=float) * sign, paper.arrays[f"pp_{name}_colmean_all"], atol=tolerance)
    assert np.linalg.norm(out.astype(float)) == pytest.approx(paper.expected["postprocess"][name]["frobenius"], rel=1e-5)
    assert info["n_batches_fallback"] == 0
