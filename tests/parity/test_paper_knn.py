"""kNN accuracies of arXiv 2410.13956's own code, on an exact PCA."""

import numpy as np
import pandas as pd
import pytest
from paper_cells import read_paper_cells

from plumbline.metrics.probe import knn_k, knn_ranks
from plumbline.scoring.postprocess import postprocess


@pytest.fixture(scope="module")
def paper(shared):
    return read_paper_cells(shared)


@pytest.mark.parametrize("method", ["none", "center_scale"])
@pytest.mark.parametrize("controls", ["controls_kept", "controls_removed"])
def test_same_accuracies(paper, method, controls):
    expected = paper.expected["knn"]["raw" if method == "none" else "center_scaled"][controls]
    values, _ = postprocess(paper.inputs["embedding"], paper.is_control, paper.batch, method)
    train, test = paper.arrays["train_rows"], paper.arrays["test1_rows"]
    if controls == "controls_removed":
        train, test = (rows[~paper.is_control[rows]] for rows in (train, test))
    code = pd.factorize(paper.perturbation)[0]
    ranks = knn_ranks(values[train], code[train], values[test], code[test], knn_k(len(train), "paper"), 1, "cpu")
    assert (len(train), len(test)) == (expected["n_train"], expected["n_test"])
    one_cell = 100 / len(test) + 1e-6
    assert 100 * np.mean(ranks < 1) == pytest.approx(expected["full_pca"]["top1"], abs=one_cell)
    assert 100 * np.mean(ranks < 5) == pytest.approx(expected["full_pca"]["top5"], abs=one_cell)
