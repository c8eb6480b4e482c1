"""Which cells a model is fitted on: the words of ``fit_on``, shares by whole batches, another data set by shared genes."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from made_screen import made_counts, options, write_screen
from sklearn.decomposition import PCA

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import open_counts
from plumbline.counts.stacked import stack
from plumbline.genes.names import shared_genes
from plumbline.models.command import _on_shared_genes
from plumbline.models.pca import pca
from plumbline.models.shared.fit_on import FitOn, read_fit_on
from plumbline.models.shared.fitting import fitting_part, share_of_batches


@pytest.mark.parametrize(
    ("text", "elsewhere", "found"),
    [
        ("train", False, FitOn("", "train")),
        ("none", False, FitOn("", "none")),
        ("train@0.05#2", False, FitOn("", "train", 0.05, 2)),
        ("all@0.5", False, FitOn("", "all", 0.5, 1)),
        ("kang", True, FitOn("kang", "all")),
        ("kang:train", True, FitOn("kang", "train")),
        ("kang:train@0.5#3", True, FitOn("kang", "train", 0.5, 3)),
        ("my:set:train", True, FitOn("my:set", "train")),
    ],
)
def test_the_words_of_fit_on(text, elsewhere, found):
    assert read_fit_on(text, elsewhere) == found


@pytest.mark.parametrize(
    "text", ["trian", "kang", "kang:train", "train@", "train@x", "train@0", "train@2", "train@0.1#0", "train@0.1#b"]
)
def test_what_fit_on_cannot_mean_is_explained(text):
    with pytest.raises(UserError, match="expected"):
        read_fit_on(text, elsewhere=False)


def test_share_of_batches_takes_whole_batches_and_the_exact_number():
    batch = np.repeat([f"b{i}" for i in range(20)], 50)
    for share in (0.0005, 0.05, 0.33, 0.5, 1.0):
        rows = share_of_batches(batch, share, 42)
        assert len(rows) == max(1, round(share * 1000))
        assert (np.diff(rows) > 0).all()
        sizes = np.unique(batch[rows], return_counts=True)[1]
        assert (sizes < 50).sum() <= 1
    assert not np.array_equal(share_of_batches(batch, 0.1, 42), share_of_batches(batch, 0.1, 43))
    assert np.isin(share_of_batches(batch, 0.05, 42), share_of_batches(batch, 0.5, 42)).all()


def test_a_share_is_of_the_train_cells_and_its_draws_differ(tmp_path):
    counts = write_screen(tmp_path, made_counts(240, 12))
    whole, part = (fitting_part(counts, options(tmp_path / "tables", fit)) for fit in ("train", "train@0.25"))
    again, other = (fitting_part(counts, options(tmp_path / "tables", fit)) for fit in ("train@0.25#1", "train@0.25#2"))
    assert len(part.rows) == round(0.25 * len(whole.rows))
    assert set(part.rows) < set(whole.rows)
    assert np.array_equal(part.rows, again.rows)
    assert not np.array_equal(part.rows, other.rows)


def test_genes_are_shared_by_ensembl_id_and_by_symbol_where_one_has_no_id(tmp_path):
    a = write_named(tmp_path / "a", ["E1", "E2", "", "E4", ""], ["A", "B", "C", "D", "F"])
    b = write_named(tmp_path / "b", ["E4", "E9", "", "E2", "E8"], ["x", "A", "B", "B", "C"])
    # A is another gene in b (E9); B is shared by its id; C has an id in b alone
    assert [column.tolist() for column in shared_genes(a, b)] == [[1, 2, 3], [3, 4, 0]]


def test_genes_are_shared_by_ids_that_are_looked_up_after_names_that_are_given(tmp_path):
    """ids in one data set, symbols in the other; FAAP20 was C1orf86; TBCE has an id of a patch in b, which its symbol joins."""
    a = write_named(tmp_path / "a", ["", "", "", "", ""], ["TP53", "C1orf86", "TBCE", "TAL1", "nobody"])
    ids = ["ENSG00000162585", "ENSG00000285053", "ENSG00000141510.7", "", "ENSG00000115415"]
    b = write_named(tmp_path / "b", ids, ["", "TBCE", "", "TAL1", "STAT1"])
    assert [column.tolist() for column in shared_genes(a, b, "human")] == [[0, 1, 2, 3], [2, 0, 1, 3]]
    assert [column.tolist() for column in shared_genes(b, a, "human")] == [[0, 1, 2, 3], [1, 2, 0, 3]]
    assert [column.tolist() for column in shared_genes(a, b)] == [[2, 3], [1, 3]]


def test_restricted_counts_are_the_columns_of_the_file(tmp_path):
    matrix = made_counts(60, 30)
    counts = write_screen(tmp_path, matrix).take_genes(np.array([7, 3, 21])).take_genes(np.array([2, 0]))
    assert counts.shape == (60, 2)
    read = sp.vstack([block for _, block in counts.blocks(np.array([5, 1, 9]))])
    assert np.array_equal(read.toarray(), matrix.toarray()[[5, 1, 9]][:, [21, 7]])


def test_stacked_counts_are_the_cells_in_order(tmp_path):
    counts = write_screen(tmp_path, made_counts(300, 80))
    other = write_screen(tmp_path / "other", made_counts(40, 80, seed=5))
    rows = np.array([5, 2, 290])
    both = stack((counts, rows), (other, np.arange(40)))
    dense = np.vstack([made_counts(300, 80)[rows].toarray(), made_counts(40, 80, seed=5).toarray()])
    assert list(both.cell_id) == [*counts.cell_id[rows], *other.cell_id]
    for wanted in (None, np.array([41, 0, 17, 2, 3])):
        found = list(both.blocks(wanted, size=3))
        np.testing.assert_array_equal(np.concatenate([at for at, _ in found]), np.arange(43) if wanted is None else wanted)
        np.testing.assert_array_equal(
            np.vstack([block.toarray() for _, block in found]), dense if wanted is None else dense[wanted]
        )
    few = both.take_genes(np.array([7, 1]))
    np.testing.assert_array_equal(np.vstack([block.toarray() for _, block in few.blocks()]), dense[:, [7, 1]])
    with pytest.raises(UserError, match="no layer 'x'"):
        both.layer("x")


def test_pca_fitted_elsewhere_is_sklearns_transform(tmp_path):
    here, there = made_counts(80, 70, seed=1), made_counts(90, 70, seed=2)
    order = np.random.default_rng(0).permutation(70)
    write_screen(tmp_path / "here", here)
    write_screen(tmp_path / "there", there[:, order], var=[f"G{i}" for i in order])
    told = options(tmp_path / "here/tables", "other", n_components=5)
    counts, told = _on_shared_genes(open_counts(tmp_path / "here/counts.h5ad"), told, tmp_path / "there")
    found = pca.embed(counts, told)
    oracle = PCA(5, svd_solver="full").fit(_lognorm(there)).transform(_lognorm(here))
    assert found.values.shape == (80, 5)
    assert np.abs(np.abs(found.values) - np.abs(oracle)).max() < 1e-3
    assert found.extra["n_fit_cells"] == 90


def test_too_few_shared_genes_or_another_kind_are_not_applicable(tmp_path):
    write_screen(tmp_path / "a", made_counts(30, 60))
    write_screen(tmp_path / "b", made_counts(30, 60), var=[f"other{i}" for i in range(60)])
    write_screen(tmp_path / "c", made_counts(30, 60), x_kind="signed")
    counts = open_counts(tmp_path / "a/counts.h5ad")
    with pytest.raises(NotApplicable, match="0 genes are shared"):
        _on_shared_genes(counts, options(tmp_path / "a/tables", "b"), tmp_path / "b")
    counts, told = _on_shared_genes(counts, options(tmp_path / "a/tables", "c"), tmp_path / "c")
    with pytest.raises(NotApplicable, match="holds signed values, this one counts"):
        fitting_part(counts, told)


def _lognorm(matrix: sp.csr_matrix) -> np.ndarray:
    dense = matrix.toarray().astype(float)
    return np.log1p(1e4 * dense / dense.sum(axis=1, keepdims=True))


def write_named(folder, ids, symbols):
    import anndata as ad

    folder.mkdir()
    var = pd.DataFrame({"ensembl_id": ids, "symbol": symbols}, index=[f"g{i}" for i in range(len(ids))])
    ad.AnnData(made_counts(10, len(ids)), var=var).write_h5ad(folder / "counts.h5ad")
    (folder / "about.json").write_text(json.dumps({}))
    return open_counts(folder / "counts.h5ad")
