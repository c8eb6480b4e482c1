"""The fits agree with scipy and statsmodels on dense counts; distributions that were drawn from are recognised."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import optimize, stats

import describe_counts
from plumbline.experiments.count_distribution import COLUMNS, MODELS, choose, describe
from plumbline.scoring.screen import read_screen

N = 1200


def write(folder: Path, x: np.ndarray, depth: np.ndarray, batch: np.ndarray | None = None, controls: int | None = None) -> Path:
    """A prepared data set of these counts (n, g): the first ``controls`` cells are controls (default: all)."""
    n, g = x.shape
    tables = folder / "tables"
    tables.mkdir(parents=True)
    is_control = np.arange(n) < (n if controls is None else controls)
    names = np.array([f"c{i}" for i in range(n)])
    cells = {"cell_id": names, "perturbation": np.where(is_control, "control", "P"), "is_control": is_control,
             "batch": np.full(n, "all") if batch is None else batch, "n_counts": depth}  # fmt: skip
    pd.DataFrame(cells).to_parquet(tables / "cells.parquet")
    genes = [f"G{i}" for i in range(g)]
    pd.DataFrame({"gene_id": genes, "symbol": genes}).to_parquet(tables / "genes.parquet")
    (tables / "dataset.json").write_text(json.dumps({"x_kind": "counts"}))
    matrix = sp.csr_matrix(x.astype(np.float32))
    ad.AnnData(matrix, pd.DataFrame(index=names), pd.DataFrame(index=genes)).write_h5ad(folder / "counts.h5ad")
    return folder


def fitted(folder: Path, **how) -> tuple[pd.DataFrame, dict]:
    return describe(folder / "counts.h5ad", folder / "tables", **how)


def drawn(rng, mean, depth, phi=0.0, pi=0.0):
    """Counts (n, len(mean)) with these means, NB dispersion and zero inflation."""
    mu = depth[:, None] / depth.mean() * mean
    rate = mu * rng.gamma(1 / phi, phi, mu.shape) if phi else mu
    return rng.poisson(rate) * (rng.random(mu.shape) >= pi)


@pytest.fixture(scope="module")
def depth():
    return np.exp(np.random.default_rng(1).normal(8, 0.4, N))


@pytest.fixture(scope="module")
def planted(tmp_path_factory, depth):
    """60 genes each of Poisson, NB and ZINB counts."""
    rng = np.random.default_rng(2)
    mean = np.exp(rng.uniform(np.log(1.5), np.log(12), 60))
    parts = [drawn(rng, mean, depth), drawn(rng, mean, depth, 0.4), drawn(rng, mean, depth, 0.3, 0.35)]
    return write(tmp_path_factory.mktemp("planted"), np.hstack(parts), depth)


def oracle(y: np.ndarray, mu: np.ndarray, model: str) -> tuple[float, np.ndarray]:
    """Largest log-likelihood by a general optimiser on scipy's distributions, and (scale, dispersion, zero inflation)."""

    def loss(theta):
        scale, phi, pi = np.exp(theta[0]), max(np.exp(theta[1]), 1e-5), 1 / (1 + np.exp(-theta[2]))
        if model == "poisson":
            return -stats.poisson.logpmf(y, mu * scale).sum()
        log = stats.nbinom.logpmf(y, 1 / phi, 1 / (1 + phi * mu * scale))
        if model == "zinb":
            log = np.logaddexp(np.log1p(-pi) + log, np.where(y == 0, np.log(pi), -np.inf))
        return -log.sum()

    exact = {"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000}
    starts = [[0.0, np.log(0.3), -1.0], [0.0, np.log(0.05), -3.0]]
    tries = [optimize.minimize(loss, start, method="Nelder-Mead", options=exact) for start in starts]
    best = min(tries, key=lambda found: found.fun)
    return -best.fun, np.array([np.exp(best.x[0]), np.exp(best.x[1]), 1 / (1 + np.exp(-best.x[2]))])


def test_likelihoods_and_parameters_are_scipys(planted, depth):
    table, _ = fitted(planted)
    x = ad.read_h5ad(planted / "counts.h5ad").X.toarray().astype(float)
    for gene in (0, 61, 75, 119, 121, 150, 179):
        y, row = x[:, gene], table.iloc[gene]
        mu = depth * y.sum() / depth.sum()
        for model in MODELS:
            value, (scale, phi, pi) = oracle(y, mu, model)
            ours = row[f"log_likelihood_{model}"]
            assert ours == pytest.approx(value, abs=1e-4) or (model != "poisson" and ours > value)
            if model == "zinb" and gene > 120:
                assert row["zero_inflation"] == pytest.approx(pi, abs=1e-3)
                assert row["dispersion_zinb"] == pytest.approx(phi, rel=2e-3)
                zero = pi + (1 - pi) * stats.nbinom.pmf(0, 1 / phi, 1 / (1 + phi * mu * scale))
                assert row["zeros_zinb"] == pytest.approx(zero.mean(), abs=1e-4)
            if model == "nb" and gene > 60:
                assert row["dispersion_nb"] == pytest.approx(phi, rel=2e-3)
                zero = stats.nbinom.pmf(0, 1 / phi, 1 / (1 + phi * mu * scale))
                assert row["zeros_nb"] == pytest.approx(zero.mean(), abs=1e-4)
        assert row["zeros_poisson"] == pytest.approx(np.exp(-mu).mean(), abs=1e-6)


def test_fits_are_statsmodels(planted, depth):
    sm = pytest.importorskip("statsmodels.api")
    table, _ = fitted(planted)
    x = ad.read_h5ad(planted / "counts.h5ad").X.toarray().astype(float)
    for gene in (70, 100, 130):
        about = {"exog": np.ones((N, 1)), "offset": np.log(depth / depth.mean())}
        row = table.iloc[gene]
        poisson = sm.Poisson(x[:, gene], **about).fit(disp=0)
        nb = sm.NegativeBinomial(x[:, gene], **about).fit(disp=0, method="nm", maxiter=2000)
        assert row["log_likelihood_poisson"] == pytest.approx(poisson.llf, abs=1e-5)
        assert row["log_likelihood_nb"] == pytest.approx(nb.llf, abs=1e-4)
        assert row["dispersion_nb"] == pytest.approx(nb.params[1], rel=2e-3)
        # statsmodels counts the dispersion among its parameters, as we do
        assert row["aic_nb"] == pytest.approx(2 * 2 - 2 * nb.llf, abs=1e-3)
        assert row["bic_nb"] == pytest.approx(2 * np.log(N) - 2 * nb.llf, abs=1e-3)


def test_large_counts_are_exact_too(tmp_path, depth):
    """Counts far beyond those tallied one by one."""
    rng = np.random.default_rng(5)
    x = drawn(rng, np.array([400.0, 20_000.0]), depth, 0.3)
    table, _ = fitted(write(tmp_path, x, depth))
    for gene in range(2):
        mu = depth * x[:, gene].sum() / depth.sum()
        value, (_, phi, _) = oracle(x[:, gene], mu, "nb")
        assert table["log_likelihood_nb"][gene] == pytest.approx(value, abs=1e-3)
        assert table["dispersion_nb"][gene] == pytest.approx(phi, rel=2e-3)


def test_planted_distributions_are_recognised(planted):
    table, summary = fitted(planted)
    for place, model in enumerate(MODELS):
        part = table.iloc[60 * place : 60 * (place + 1)]
        assert (part["best"] == model).mean() > 0.9, model
    assert np.median(table["dispersion_nb"][60:120]) == pytest.approx(0.4, rel=0.1)
    assert np.median(table["zero_inflation"][120:]) == pytest.approx(0.35, abs=0.03)
    assert summary["supported"] == "zinb"
    assert summary["shares"]["poisson"]["value"] == pytest.approx(1 / 3, abs=0.05)
    assert summary["shares"]["nb"]["low"] < summary["shares"]["nb"]["value"] < summary["shares"]["nb"]["high"]


@pytest.mark.parametrize(("model", "phi", "pi"), [("poisson", 0.0, 0.0), ("nb", 0.3, 0.0), ("zinb", 0.2, 0.4)])
def test_one_distribution_for_all_genes_is_supported(tmp_path, depth, model, phi, pi):
    mean = np.exp(np.random.default_rng(6).uniform(-1, 2, 40))
    _, summary = fitted(write(tmp_path, drawn(np.random.default_rng(7), mean, depth, phi, pi), depth))
    assert summary["supported"] == model
    assert summary["clear"]
    assert summary["zeros"][model]["excess"]["value"] == pytest.approx(0, abs=0.005)
    if pi:
        assert summary["zeros"]["poisson"]["excess"]["low"] > 0.1


def test_false_positives_stay_below_the_nominal_level(tmp_path, depth):
    rng, mean = np.random.default_rng(8), np.exp(np.random.default_rng(9).uniform(-1, 2, 400))
    for name, phi, column in (("a", 0.0, "p_nb"), ("b", 0.3, "p_zinb")):
        table, _ = fitted(write(tmp_path / name, drawn(rng, mean, depth, phi), depth))
        level = (table[column] <= 0.05).mean()
        assert level <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)  # nominal, up to the chance of 400 genes
        assert (table[column.replace("p_", "q_")] <= 0.05).mean() < 0.01


def test_batches_with_different_means_are_no_dispersion(tmp_path, depth):
    """With depth alone a gene that differs between batches looks over-dispersed; within the batches it is Poisson."""
    rng, batch = np.random.default_rng(10), np.arange(N) % 4
    factor = rng.permuted(np.tile([0.4, 0.8, 1.2, 1.6], (50, 1)), axis=1).T
    mu = depth[:, None] / depth.mean() * 3 * factor[batch]
    mu[:, 0] *= batch > 0  # a gene that one batch lacks
    folder = write(tmp_path, rng.poisson(mu), depth, np.char.add("b", batch.astype(str)))
    alone, _ = fitted(folder, offset="depth")
    beside, summary = fitted(folder)
    assert (alone["best"] != "poisson").all()
    assert (beside["best"] == "poisson").mean() > 0.9
    assert summary["offset"].startswith("depth x mean")
    x, row = ad.read_h5ad(folder / "counts.h5ad").X.toarray(), beside.iloc[0]
    rate = np.bincount(batch, x[:, 0]) / np.bincount(batch, depth)
    expected = stats.poisson.logpmf(x[:, 0], depth * rate[batch]).sum()
    assert row["log_likelihood_poisson"] == pytest.approx(expected, abs=1e-6)
    assert row["zeros_poisson"] == pytest.approx(np.exp(-depth * rate[batch]).mean(), abs=1e-6)
    assert row["bic_poisson"] == pytest.approx(4 * np.log(N) - 2 * expected, abs=1e-5)


def test_order_and_threads_do_not_matter(planted, tmp_path, depth):
    table, _ = fitted(planted)
    order = np.random.default_rng(11).permutation(N)
    x = ad.read_h5ad(planted / "counts.h5ad").X.toarray()
    again, _ = fitted(write(tmp_path, x[order], depth[order]), threads=2)
    for column in ("log_likelihood_zinb", "dispersion_nb", "zeros_zinb", "p_nb", "variance"):
        np.testing.assert_allclose(again[column], table[column], rtol=1e-5, atol=1e-9)
    assert (again["best"] == table["best"]).all()


def test_moments_are_those_of_the_counts(planted):
    table, _ = fitted(planted)
    x = ad.read_h5ad(planted / "counts.h5ad").X.toarray().astype(float)
    np.testing.assert_allclose(table["mean"], x.mean(axis=0))
    np.testing.assert_allclose(table["variance"], x.var(axis=0, ddof=1))
    np.testing.assert_allclose(table["zeros_observed"], (x == 0).mean(axis=0))


def test_a_gene_with_few_counts_is_not_tested(tmp_path, depth):
    x = np.zeros((N, 3))
    x[:19, 0], x[:30, 1] = 5, 1
    table, summary = fitted(write(tmp_path, x, depth))
    assert table["tested"].tolist() == [False, True, False]
    assert table["best"].tolist()[::2] == ["", ""]
    assert table["q_nb"].isna().tolist() == [True, False, True]
    assert (summary["n_genes"], summary["n_tested"]) == (3, 1)
    json.dumps(summary, allow_nan=False)


def test_cells_and_offset_that_are_chosen(tmp_path, depth):
    batch = np.where(np.arange(N) < 600, "a", "b")
    folder = write(tmp_path, np.ones((N, 1)), depth, batch, controls=250)
    screen = read_screen(folder / "tables")
    found = choose(screen, depth)
    assert (len(found.rows), found.cells, found.offset) == (250, "controls", "depth")  # all controls are in one batch
    assert choose(screen, depth, "all").offset == "depth x mean of the gene in the batch"
    assert choose(screen, depth, "all", "depth").offset == "depth"
    empty = np.where(np.arange(N) < 60, 0, depth)
    found = choose(screen, empty)
    assert (len(found.rows), found.cells) == (N - 60, "all cells (fewer than 200 controls)")
    many = np.arange(N).astype(str)
    folder = write(tmp_path / "many", np.ones((N, 1)), depth, many)
    assert choose(read_screen(folder / "tables"), depth).offset == "depth (fewer than 20 cells per batch)"


@pytest.mark.parametrize(("change", "reason"), [("log", "log values"), (0.5, "not counts"), (-1, "not counts"), (0, "no gene")])
def test_where_the_question_does_not_apply(tmp_path, depth, monkeypatch, change, reason):
    x = np.ones((N, 2))
    x[3, 1] = change if change in (0.5, -1) else 1
    folder = write(tmp_path, x * (change != 0), depth)
    if change == "log":
        (folder / "tables" / "dataset.json").write_text(json.dumps({"x_kind": "log"}))
    command = [
        "describe_counts.py",
        "--counts",
        folder / "counts.h5ad",
        "--tables",
        folder / "tables",
        "--output",
        folder / "X",
    ]
    monkeypatch.setattr("sys.argv", [str(part) for part in command])
    describe_counts.main()
    summary = json.loads((folder / "X.count_distribution.json").read_text())
    assert summary["status"] == "not_applicable"
    assert reason in summary["reason"]
    table = pd.read_parquet(folder / "X.count_distribution.parquet")
    assert list(table.columns) == COLUMNS
    assert table.empty


def test_script_writes_what_describe_finds(planted, monkeypatch, tmp_path):
    command = [
        "describe_counts.py",
        "--counts",
        planted / "counts.h5ad",
        "--tables",
        planted / "tables",
        "--output",
        tmp_path / "X",
    ]
    monkeypatch.setattr("sys.argv", [str(part) for part in command])
    describe_counts.main()
    table, summary = fitted(planted)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "X.count_distribution.parquet"), table)
    assert json.loads((tmp_path / "X.count_distribution.json").read_text()) == summary


def test_grid_is_fine_enough(planted, monkeypatch):
    """Four times as many points change no log-likelihood by more than 0.001, where a test looks for 1.35."""
    from plumbline.experiments import count_statistics

    coarse, _ = fitted(planted)
    monkeypatch.setattr(count_statistics, "GRID", 4 * count_statistics.GRID)
    fine, _ = fitted(planted)
    for model in MODELS:
        np.testing.assert_allclose(coarse[f"log_likelihood_{model}"], fine[f"log_likelihood_{model}"], atol=1e-3, rtol=0)
