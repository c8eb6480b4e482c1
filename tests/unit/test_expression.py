"""Expression as an embedding, and the choice of highly variable genes, against scanpy."""

import numpy as np
import pytest
import scipy.sparse as sp
from made_screen import made_counts, options, write_screen

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.lognorm import log_normalise
from plumbline.models import expression
from plumbline.models.shared import variable_genes


def scanpy_choice(matrix, n_hvg):
    import anndata as ad
    import scanpy as sc

    data = ad.AnnData(log_normalise(matrix))
    data.uns["log1p"] = {"base": None}
    table = sc.pp.highly_variable_genes(data, flavor="seurat", n_top_genes=n_hvg, inplace=False)
    return np.flatnonzero(table["highly_variable"].to_numpy()), table["dispersions_norm"].to_numpy()


@pytest.mark.parametrize(("n_cells", "n_genes", "n_hvg"), [(300, 400, 50), (150, 1000, 200)])
def test_genes_are_those_of_scanpy(tmp_path, n_cells, n_genes, n_hvg):
    matrix = made_counts(n_cells, n_genes, seed=n_genes)
    counts = write_screen(tmp_path, matrix)
    theirs, dispersion = scanpy_choice(matrix, n_hvg)
    np.testing.assert_array_equal(variable_genes.select_genes(counts, np.arange(n_cells), "counts", n_hvg), theirs)
    mean, variance = variable_genes.moments(counts, np.arange(n_cells), "counts")
    expressed = variance > 0
    ours = variable_genes.normalised_dispersion(mean, variance)
    np.testing.assert_allclose(ours[expressed], dispersion[expressed], rtol=1e-4, atol=1e-4)


def test_moments_do_not_depend_on_the_blocks(tmp_path, monkeypatch):
    from plumbline.counts.reading import Counts

    counts, rows = write_screen(tmp_path, made_counts()), np.arange(5, 300, 2)
    whole = variable_genes.moments(counts, rows, "log")
    original = Counts.blocks
    monkeypatch.setattr(Counts, "blocks", lambda self, rows=None: original(self, rows, 7))
    parts = variable_genes.moments(counts, rows, "log")
    dense = made_counts().toarray().astype(float)[rows]
    for mean, variance in (whole, parts):
        np.testing.assert_allclose(mean, dense.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(variance, dense.var(axis=0, ddof=1), rtol=1e-9)


def test_a_planted_variable_gene_is_chosen_and_a_constant_one_never(tmp_path):
    matrix = np.full((100, 20), 5.0, dtype=np.float32)
    matrix[:50, 3], matrix[:, 7] = 30, 0
    counts = write_screen(tmp_path, sp.csr_matrix(matrix), x_kind="log")
    assert variable_genes.select_genes(counts, np.arange(100), "log", 5).tolist() == [3]
    result = expression.embed(counts, options(tmp_path / "tables", input="raw", n_hvg=1))
    np.testing.assert_array_equal(result.values[:, 0], matrix[:, 3])


def test_only_the_fitting_cells_choose_the_genes(tmp_path):
    matrix = np.random.default_rng(0).poisson(100.0, (200, 30)).astype(np.float32)
    matrix[:, 9] = 100
    matrix[4::10, 9], matrix[9::10, 9] = 0, 200  # varies in a held-out batch only
    counts = write_screen(tmp_path, sp.csr_matrix(matrix))
    chosen = {}
    for fit_on in ("all", "train"):
        rows = np.arange(200) if fit_on == "all" else np.flatnonzero(np.arange(200) % 5 < 3)
        chosen[fit_on] = variable_genes.select_genes(counts, rows, "counts", 3).tolist()
    result = expression.embed(counts, options(tmp_path / "tables", "train", n_hvg=3, input="raw"))
    np.testing.assert_array_equal(result.values, matrix[:, chosen["train"]])
    assert chosen["train"] != chosen["all"]
    assert 9 in chosen["all"]


@pytest.mark.parametrize("values", ["lognorm", "raw"])
def test_the_embedding_is_the_matrix_itself(tmp_path, values):
    matrix = made_counts()
    result = expression.embed(write_screen(tmp_path, matrix), options(input=values, n_hvg=500))
    expected = (log_normalise(matrix) if values == "lognorm" else matrix).toarray()
    varying = expected.std(axis=0) > 0
    np.testing.assert_array_equal(result.values, expected[:, varying])
    assert result.values.dtype == np.float32
    assert result.extra["n_hvg"] == varying.sum()


def test_share_of_counts_is_that_of_the_kept_genes(tmp_path):
    matrix = made_counts()
    counts = write_screen(tmp_path, matrix)
    genes = variable_genes.select_genes(counts, np.arange(300), "counts", 30)
    result = expression.embed(counts, options(n_hvg=30))
    assert result.counts_used == pytest.approx(matrix[:, genes].sum() / matrix.sum())


def test_what_cannot_be_done_is_said(tmp_path):
    constant = write_screen(tmp_path, sp.csr_matrix(np.ones((5, 4), dtype=np.float32)))
    with pytest.raises(NotApplicable, match="no gene varies"):
        expression.embed(constant, options())
    with pytest.raises(UserError, match="n_hvg=0: must be at least 1"):
        expression.embed(constant, options(n_hvg=0))
