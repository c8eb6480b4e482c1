"""PCA against scikit-learn and scanpy, planted answers, invariance, and the eigensolver below it."""

import numpy as np
import pytest
import scipy.sparse as sp
from made_screen import made_counts, options, write_screen

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.lognorm import log_normalise
from plumbline.models.pca import gram, krylov, pca


@pytest.fixture
def small_basis(monkeypatch):
    """Make the Lanczos path, restarts included, run on matrices of test size."""
    monkeypatch.setattr(krylov, "MIN_BASIS", 0)
    monkeypatch.setattr(krylov, "BLOCK", 8)


@pytest.fixture(params=["gram", "krylov"])
def solver(request, monkeypatch):
    """Each of the two ways to multiply by the covariance, whichever would be cheaper."""
    monkeypatch.setattr(pca, "gram_is_cheaper", lambda *_: request.param == "gram")
    return request.param


def sklearn_pca(matrix, fit_rows, k):
    from sklearn.decomposition import PCA

    dense = np.asarray(matrix.todense(), dtype=np.float64)
    fitted = PCA(n_components=k, svd_solver="full").fit(dense[fit_rows])
    return fitted, fitted.transform(dense)


def same_up_to_signs(ours, theirs, tolerance):
    signs = np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(ours * signs, theirs, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("values", ["lognorm", "raw"])
def test_scores_are_those_of_a_full_svd(tmp_path, values):
    counts = write_screen(tmp_path, made_counts())
    result = pca.embed(counts, options(n_components=20, input=values))
    matrix = log_normalise(made_counts()) if values == "lognorm" else made_counts()
    _, theirs = sklearn_pca(matrix, slice(None), 20)
    same_up_to_signs(result.values, theirs, 1e-5)
    assert result.extra["n_components"] == 20
    assert (result.genes_used, result.counts_used) == (120, 1.0)


def test_the_iterative_path_finds_the_same_subspace_spectrum_and_scores(small_basis, solver):
    matrix = log_normalise(made_counts(700, 400, seed=1))
    fit = pca.fit_pca(lambda: (matrix[i : i + 97] for i in range(0, 700, 97)), 400, 30)
    fitted, theirs = sklearn_pca(matrix, slice(None), 30)
    assert (fit.passes > 10, fit.solver) == (True, solver)  # block Lanczos, not the direct solution
    np.testing.assert_allclose(fit.variance, fitted.explained_variance_, rtol=1e-6)
    cosines = np.linalg.svd(fit.components @ fitted.components_.T, compute_uv=False)
    assert cosines.min() > 1 - 1e-6
    same_up_to_signs(fit.scores(matrix), theirs, 1e-4)
    np.testing.assert_allclose(fit.total_variance, matrix.toarray().astype(float).var(axis=0, ddof=1).sum(), rtol=1e-6)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("rare", [0.0, 0.3, 2.0])
def test_the_gram_matrix_is_that_of_the_centred_cells(monkeypatch, rare, precision):
    monkeypatch.setattr(gram, "RARE", rare)  # every gene dense, some sparse, all sparse
    monkeypatch.setattr(gram, "CELLS", 40)
    monkeypatch.setattr(gram, "ROWS", 100)
    matrix = made_counts(330, 90, seed=1)
    dense = matrix.toarray().astype(float)
    mean, share = dense.mean(axis=0), (dense > 0).mean(axis=0)
    assert 0 < (share < 0.3).sum() < 90
    found = gram.centred_gram((matrix[i : i + 75] for i in range(0, 330, 75)), mean, share, precision)
    wanted = (dense - mean).T @ (dense - mean)
    scale = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    limit = 2e-6 if precision == np.float32 else 1e-12
    assert np.abs((found.apply(np.eye(90)) - wanted) / scale).max() < limit
    np.testing.assert_array_equal(found.matrix, found.matrix.T)


def test_sums_that_float32_cannot_hold_are_repeated_in_float64(small_basis, solver):
    rng = np.random.default_rng(8)
    dense = rng.poisson(1.0, (400, 150)).astype(np.float32)
    dense[:, :3] = rng.poisson(1e5, (400, 1)) + rng.poisson(3.0, (400, 3))  # 100,000 times the variance of the others
    matrix = sp.csr_matrix(dense)
    fit = pca.fit_pca(lambda: iter([matrix]), 150, 5)
    wanted = np.linalg.svd(dense.astype(float) - dense.mean(axis=0, dtype=float), compute_uv=False)[:5] ** 2 / 399
    assert fit.solver == {"gram": "gram64", "krylov": "krylov"}[solver]
    assert fit.residual <= krylov.TOLERANCE
    np.testing.assert_allclose(fit.variance, wanted, rtol=1e-6)


def test_the_bound_on_what_rounding_changed_holds_and_is_not_loose():
    rng = np.random.default_rng(9)
    factor = rng.normal(size=(80, 60))
    exact = factor.T @ factor
    wrong = rng.normal(0, 1e-3, (60, 60))
    vectors = np.linalg.qr(rng.normal(size=(60, 10)))[0]
    bound = gram.gram_error(lambda block: exact @ block, gram.Gram(exact + wrong, np.arange(60)), vectors)
    assert 1 < bound / np.linalg.norm(wrong @ vectors, axis=0).max() < 2 * np.sqrt(10)


def test_the_cheaper_way_is_chosen():
    cheaper = gram.gram_is_cheaper
    assert cheaper(100_000, 100_000_000, 8_000, 2_560)  # the default: 256 components
    assert not cheaper(20_000, 20_000_000, 8_000, 100)  # few components: few passes
    assert not cheaper(500, 1_000_000, 16_000, 2_560)  # few cells: their products are cheaper than those of the matrix
    assert not cheaper(10**6, 3 * 10**9, 36_000, 2_560)  # the matrix would take 15 GB


def test_agrees_with_scanpy_from_counts_to_scores(tmp_path):
    import anndata as ad
    import scanpy as sc

    data = ad.AnnData(made_counts(seed=2))
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    sc.pp.pca(data, n_comps=6, svd_solver="arpack")
    result = pca.embed(write_screen(tmp_path, made_counts(seed=2)), options(n_components=6))
    same_up_to_signs(result.values, data.obsm["X_pca"], 1e-4)


def test_train_fit_uses_the_train_cells_of_the_seed_only(tmp_path):
    counts = write_screen(tmp_path, made_counts())
    result = pca.embed(counts, options(tmp_path / "tables", "train", n_components=10))
    train = np.arange(300) % 5 < 3
    _, theirs = sklearn_pca(log_normalise(made_counts()), train, 10)
    same_up_to_signs(result.values, theirs, 1e-5)
    assert result.extra["n_fit_cells"] == train.sum()


@pytest.mark.parametrize("iterative", [False, True])
def test_order_of_cells_block_size_and_cache_do_not_matter(tmp_path, monkeypatch, request, iterative):
    if iterative:
        request.getfixturevalue("small_basis")
    matrix, order = made_counts(400, 300, seed=3), np.random.default_rng(0).permutation(400)
    first = pca.embed(write_screen(tmp_path / "a", matrix), options(n_components=25))
    shuffled = write_screen(tmp_path / "b", matrix, order=order)
    monkeypatch.setattr("plumbline.counts.reading.Counts.blocks", _blocks_of(37))
    second = pca.embed(shuffled, options(n_components=25, cache_gb=0.00003))
    scale = np.abs(first.values).max()
    assert np.abs(first.values[order] - second.values).max() < 1e-4 * scale


def _blocks_of(size):
    from plumbline.counts.reading import Counts

    original = Counts.blocks
    return lambda self, rows=None: original(self, rows, size)


def test_cells_beyond_the_memory_budget_are_read_again(tmp_path):
    counts = write_screen(tmp_path, made_counts())
    for budget, kept in ((1.0, 300), (0.0, 0)):
        cells = pca.StreamedCells(counts, np.arange(300), lambda block: block, budget)
        passes = [sp.vstack(list(cells.blocks())).toarray() for _ in range(3)]
        assert cells._n_kept == kept
        for matrix in passes:
            np.testing.assert_array_equal(matrix, made_counts().toarray())


def test_a_planted_direction_is_the_first_component(tmp_path):
    rng = np.random.default_rng(4)
    matrix = rng.poisson(2.0, (200, 30)).astype(np.float32)
    matrix[:100, 5] += 40
    result = pca.embed(write_screen(tmp_path, sp.csr_matrix(matrix)), options(input="raw", n_components=3))
    assert result.values[:100, 0].min() > result.values[100:, 0].max()  # positive: the largest loading is


def test_number_of_components_is_clipped_to_the_data(tmp_path):
    matrix = made_counts(12, 40)
    result = pca.embed(write_screen(tmp_path, matrix), options())
    assert result.values.shape == (12, 11)
    assert result.extra["explained_variance_ratio"] == pytest.approx(1)


def test_signed_values_are_taken_as_they_are(tmp_path):
    values = sp.csr_matrix(np.random.default_rng(5).normal(size=(60, 20)).astype(np.float32))
    counts = write_screen(tmp_path, values, x_kind="signed")
    result = pca.embed(counts, options(tmp_path / "tables", n_components=5))
    same_up_to_signs(result.values, sklearn_pca(values, slice(None), 5)[1], 1e-5)


def test_fewer_genes_where_asked(tmp_path):
    counts = write_screen(tmp_path, made_counts())
    result = pca.embed(counts, options(n_hvg=40, n_components=50))
    assert (result.genes_used, result.values.shape[1]) == (40, 40)
    assert 0 < result.counts_used < 1


def test_cells_that_do_not_differ_are_not_applicable(tmp_path):
    for n in (1, 5):
        same = sp.csr_matrix(np.tile(np.arange(8, dtype=np.float32), (n, 1)))
        with pytest.raises(NotApplicable, match="at least two cells that differ"):
            pca.embed(write_screen(tmp_path, same), options())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "lognrom"}, "Did you mean 'lognorm'"),
        ({"n_components": "0"}, "at least 1"),
        ({"n_components": "many"}, "expected int"),
        ({"n_hvg": "-1"}, "at least 0"),
        ({"fit_on": "test"}, "expected train, all"),
        ({"fit_on": "train"}, "needs --tables"),
    ],
)
def test_bad_settings_are_explained(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        pca.embed(write_screen(tmp_path, made_counts(40, 10)), options(**changes))


def test_an_empty_split_and_unknown_cells_are_explained(tmp_path):
    counts = write_screen(tmp_path / "a", made_counts(40, 10))
    tables = tmp_path / "a" / "tables"
    with pytest.raises(UserError, match="split 43 is empty"):
        pca.embed(counts, options(tables, "train", seed=43))
    more = write_screen(tmp_path / "b", made_counts(45, 10))
    with pytest.raises(UserError, match=r"does not know 5 cells of the counts, such as 'cell40'"):
        pca.embed(more, options(tables, "train"))


@pytest.mark.parametrize("tolerance", [1e-8, krylov.TOLERANCE])
def test_eigenpairs_of_a_known_matrix_with_restarts(small_basis, monkeypatch, tolerance):
    monkeypatch.setattr(krylov, "TOLERANCE", tolerance)
    rng = np.random.default_rng(6)
    basis = np.linalg.qr(rng.normal(size=(500, 500)))[0]
    values = np.linspace(1, 2, 500)[::-1]  # a flat spectrum, the hard case
    matrix = (basis * values) @ basis.T
    found = krylov.top_eigenpairs(lambda block: matrix @ block, 500, 20)
    # the error of an eigenvalue and of 1 - cosine is the residual squared over the gap to the next one (here 0.002)
    error = (tolerance * values[19]) ** 2 / 0.002 + 1e-10
    np.testing.assert_allclose(found.values, values[:20], rtol=error)
    np.testing.assert_allclose(np.abs((found.vectors * basis[:, :20]).sum(axis=0)), 1, atol=error / 0.002)
    assert found.products * 8 > 4 * (20 + 8)  # more vectors than the basis holds: it restarted
    assert found.residual <= tolerance


def test_eigenpairs_of_a_matrix_of_low_rank(small_basis):
    factor = np.random.default_rng(7).normal(size=(300, 11))
    found = krylov.top_eigenpairs(lambda block: factor @ (factor.T @ block), 300, 20)
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(factor.T @ factor)[::-1], rtol=1e-9)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(11), atol=1e-10)


def test_log_normalisation_is_scanpys_and_leaves_empty_cells_empty():
    import anndata as ad
    import scanpy as sc

    matrix = made_counts(50, 30)
    matrix = sp.vstack([matrix, sp.csr_matrix((1, 30), dtype=np.float32)], format="csr")
    data = ad.AnnData(matrix.copy())
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    np.testing.assert_allclose(log_normalise(matrix).toarray(), data.X.toarray(), rtol=2e-6)
    assert log_normalise(matrix)[50].nnz == 0
    np.testing.assert_array_equal(log_normalise(matrix, "log").toarray(), matrix.toarray())
