"""The linear probe of arXiv 2410.13956's own code."""

import numpy as np
import pandas as pd
import pytest
from paper_cells import read_paper_cells

from plumbline.metrics.probe import Layer, Schedule, fit_linear, paper_schedule


@pytest.fixture(scope="module")
def paper(shared):
    return read_paper_cells(shared)


@pytest.fixture
def cells(paper):
    """Train values and codes, test values and codes, and the number of classes."""
    classes = pd.Index(paper.arrays["linear_classes"])
    parts = []
    for rows in (paper.arrays["train_rows"], paper.arrays["test1_rows"]):
        rows = rows[~paper.is_control[rows]]
        parts += [paper.inputs["embedding"][rows], classes.get_indexer(paper.perturbation[rows])]
    return *parts, len(classes)


def test_full_batch_from_the_same_start(paper, cells):
    values, code, test, test_code, n_classes = cells
    start = Layer(paper.arrays["linear_fullbatch_init_W"], paper.arrays["linear_fullbatch_init_b"])
    layer = fit_linear(values, code, n_classes, paper_schedule(len(values)), 0, start)
    np.testing.assert_allclose(layer.weight, paper.arrays["linear_fullbatch_final_W"], atol=1e-3)
    np.testing.assert_allclose(layer.bias, paper.arrays["linear_fullbatch_final_b"], atol=1e-3)
    ranks, expected = layer.ranks(test, test_code), paper.expected["linear"]["configs"]["raw"]["full_batch"]["42"]
    two_cells = 200 / len(test)
    assert 100 * np.mean(ranks < 1) == pytest.approx(expected["top1"], abs=two_cells)
    assert 100 * np.mean(ranks < 5) == pytest.approx(expected["top5"], abs=two_cells)


def test_minibatches_of_128(paper, cells):
    values, code, test, test_code, n_classes = cells
    published = paper.expected["linear"]["configs"]["raw"]["batch_128_shuffled_no_drop"].values()
    ranks = [fit_linear(values, code, n_classes, Schedule(128), seed).ranks(test, test_code) for seed in (42, 43, 44)]
    for metric, top in (("top1", 1), ("top5", 5)):
        ours = 100 * np.mean([np.mean(rank < top) for rank in ranks])
        assert ours == pytest.approx(np.mean([run[metric] for run in published]), abs=2)
