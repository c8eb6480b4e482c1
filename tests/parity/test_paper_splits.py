"""The splits of arXiv 2410.13956's own code."""

import numpy as np
import pytest
from paper_cells import read_paper_cells

from plumbline.data.splits import make_split


@pytest.fixture(scope="module")
def paper(shared):
    return read_paper_cells(shared)


@pytest.mark.parametrize("seed", [42, 43])
@pytest.mark.parametrize("part", ["train", "test1", "test2"])
def test_same_cells(paper, seed, part):
    split = make_split(paper.perturbation, paper.is_control, paper.batch, seed, "batch")
    chosen = getattr(split, part)
    order = np.concatenate([np.flatnonzero(chosen & ~paper.is_control), np.flatnonzero(chosen & paper.is_control)])
    np.testing.assert_array_equal(paper.cell_id[order], paper.arrays[f"split{seed}_{part}_cell_ids"])
