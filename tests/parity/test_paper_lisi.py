"""iLISI of arXiv 2410.13956's own code."""

import numpy as np
import pandas as pd
import pytest
from paper_cells import read_paper_cells

from plumbline.metrics.lisi import K, ilisi, k_for, lisi, reduce_dimensions
from plumbline.scoring.postprocess import postprocess


@pytest.fixture(scope="module")
def paper(shared):
    return read_paper_cells(shared)


@pytest.fixture
def labels(paper):
    return np.stack([pd.factorize(column)[0] for column in (paper.batch, paper.inputs["shuffled_batch"])])


def test_on_principal_components(paper, labels):
    expected = paper.expected["ilisi"]
    found = ilisi(paper.inputs["embedding"], labels, k_for(len(paper.batch)))
    assert k_for(len(paper.batch)) == K == expected["k"]
    assert reduce_dimensions(paper.inputs["embedding"]).shape[1] == expected["n_components"]
    np.testing.assert_allclose(found[0], paper.arrays["ilisi_per_cell_fullpca"], atol=5e-3)
    assert found[0].mean() == pytest.approx(expected["raw_mean_fullpca"], abs=1e-4)
    for seed in ("42", "43", "44"):  # with a randomised PCA
        assert found[0].mean() == pytest.approx(expected["raw_mean_upstream_class_pca"][seed], abs=0.02)
    assert found[1].mean() == pytest.approx(expected["shuffled_mean_upstream_class_pca"], abs=0.02)


def test_on_the_embedding_as_it_is(paper, labels):
    expected = paper.expected["ilisi"]
    found = lisi(paper.inputs["embedding"], labels, expected["n_neighbors_used"], expected["perplexity"]).mean(axis=1)
    assert found[0] == pytest.approx(expected["raw_mean_no_pca"], abs=1e-4)
    assert found[1] == pytest.approx(expected["shuffled_mean_no_pca"], abs=1e-4)
    centered, _ = postprocess(paper.inputs["embedding"], paper.is_control, paper.batch, "center")
    centered_mean = lisi(centered, labels[:1], expected["n_neighbors_used"], expected["perplexity"]).mean()
    assert centered_mean == pytest.approx(expected["raw_mean_no_pca_centered"], abs=1e-4)
