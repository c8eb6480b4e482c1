"""Rows of an h5ad, streamed: any rows in any order are those that anndata reads."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from plumbline.counts import reading as module
from plumbline.counts.reading import open_counts

N, G = 400, 37


@pytest.fixture(params=["csr", "dense", "compressed"])
def stored(request, tmp_path):
    matrix = sp.random(N, G, density=0.3, random_state=0, format="csr", dtype=np.float32)
    matrix.data = np.ceil(matrix.data * 9)
    matrix[5] = 0  # an empty cell
    matrix.eliminate_zeros()
    names = {"obs": pd.DataFrame(index=[f"c{i}" for i in range(N)]), "var": pd.DataFrame(index=[f"G{i}" for i in range(G)])}
    data = ad.AnnData(matrix.toarray() if request.param == "dense" else matrix, **names)
    data.write_h5ad(tmp_path / "x.h5ad", compression="lzf" if request.param == "compressed" else None)
    return tmp_path / "x.h5ad", matrix.toarray()


ROWS = {
    "all": np.arange(N),
    "a few far apart": np.array([3, 200, 399]),
    "every third, backwards": np.arange(0, N, 3)[::-1],
    "shuffled": np.random.default_rng(1).permutation(N),
    "one": np.array([5]),
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS.keys())
@pytest.mark.parametrize("span", [16, 1_000_000])
def test_any_rows_in_any_order(stored, rows, span, monkeypatch):
    path, truth = stored
    monkeypatch.setattr(module, "SPAN", span)
    read = [(at, block.toarray()) for at, block in open_counts(path).blocks(rows, size=64)]
    np.testing.assert_array_equal(np.concatenate([at for at, _ in read]), rows)
    np.testing.assert_array_equal(np.concatenate([block for _, block in read]), truth[rows])


def test_rows_close_to_each_other_are_read_at_once(monkeypatch):
    starts, stops = np.array([0, 20, 5000, 5010]), np.array([10, 30, 5010, 5020])
    np.testing.assert_array_equal(module._apart(starts, stops, (1000,)), [False, True, False])
    monkeypatch.setattr(module, "SPAN", 15)  # however close, no more than this at once
    np.testing.assert_array_equal(module._apart(starts, stops, (1000,)), [True, True, True])
