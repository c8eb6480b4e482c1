"""Recall by gene vectors: planted tables, the task's own definition, loadings of a PCA, the two scripts."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from made_screen import write_genes

from plumbline.data.simulate import choose_complexes
from plumbline.experiments.gene_recall import GeneVectors, gene_recall, processed
from plumbline.genes.relationships import known_pairs
from plumbline.metrics.recall import in_band, known_among, pairwise_cosines
from plumbline.models.pca.loadings import pca_loadings

BIN = Path(__file__).resolve().parents[2] / "bin"


@pytest.fixture(scope="module")
def genes() -> np.ndarray:
    return np.concatenate(list(choose_complexes(240, np.random.default_rng(0)).values()))


def planted(genes: np.ndarray, strength: float, common: float = 0.0, seed: int = 1) -> GeneVectors:
    """Members of a CORUM complex share a direction of this strength; all genes share another, of length ``common``."""
    rng = np.random.default_rng(seed)
    sets = list(choose_complexes(240, np.random.default_rng(0)).values())
    which = np.repeat(np.arange(len(sets)), list(map(len, sets)))
    vectors = strength * rng.normal(size=(len(sets), 40))[which] + rng.normal(size=(len(genes), 40))
    return GeneVectors(name="planted", genes=genes, vectors=vectors + common * rng.normal(size=40))


def table_of(*tables: GeneVectors, loadings: GeneVectors | None = None) -> pd.DataFrame:
    return pd.DataFrame(gene_recall("kang", list(tables), loadings, 200, 0)).set_index(["table", "processing", "metric"])


def test_a_planted_table_recalls_and_a_random_one_is_at_chance(genes):
    found = table_of(planted(genes, 2.0))["value"]
    assert found["planted", "raw", "recall_corum"] > 0.8
    assert found["random", "raw", "recall_mean"] == pytest.approx(0.1, abs=0.05)


def test_the_value_is_that_of_the_definition(genes):
    """Share of the known pairs among the 5 % lowest and the 5 % highest cosines of all pairs."""
    table = planted(genes, 0.7).on(genes)
    similarities = pairwise_cosines(table.vectors)
    i, j = known_among(table.genes, known_pairs("CORUM"))
    low, high = in_band(similarities.values, 0.05)
    cosine = similarities.values[similarities.index(i, j)]
    expected = ((cosine < low) | (cosine > high)).mean()
    assert table_of(planted(genes, 0.7))["value"]["planted", "raw", "recall_corum"] == pytest.approx(expected)


def test_components_take_away_what_all_genes_have_in_common(genes):
    """A large vector common to all genes disturbs the raw cosines; after PCA it is gone."""
    found = table_of(planted(genes, 1.0, common=8.0))["value"]
    clean = table_of(planted(genes, 1.0))["value"]
    assert found["planted", "raw", "recall_corum"] < clean["planted", "raw", "recall_corum"]
    assert found["planted", "pca", "recall_corum"] == pytest.approx(clean["planted", "pca", "recall_corum"], abs=1e-9)


def test_few_components_are_those_of_most_variance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 300)) * np.linspace(3, 0.1, 300)
    scores = processed(x, "pca")
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    expected = (u * s)[:, :256]
    np.testing.assert_allclose(scores @ scores.T, expected @ expected.T, atol=1e-8)


def test_a_table_is_compared_with_the_loadings_on_the_genes_of_both(genes):
    strong, weak = planted(genes, 2.0).on(genes[:200]), planted(genes, 0.3, seed=2)
    loadings = GeneVectors(name="pca_loadings", genes=weak.genes, vectors=weak.vectors)
    found = table_of(strong, loadings=loadings)
    row = found.loc[("planted", "raw", "recall_mean")]
    assert row["n_genes"] == 200
    assert row["diff_low"] > 0
    assert row["q"] <= 0.05
    assert row["difference"] == pytest.approx(row["value"] - row["baseline_value"])
    alone = found.loc[("pca_loadings", "raw", "recall_mean")]
    assert alone["n_genes"] == 240
    assert np.isnan(alone["q"])


def test_too_few_genes_are_a_reason(genes):
    found = table_of(planted(genes, 1.0), loadings=GeneVectors(name="pca_loadings", genes=genes[:20], vectors=np.ones((20, 3))))
    row = found.loc[("planted", "raw", "recall_mean")]
    assert row["status"] == "not_applicable"
    assert row["reason"].startswith("20 genes")


def test_loadings_are_the_covariance_of_genes(tmp_path):
    """With all components, products of loadings are the covariances of log-normalised expression, by symbol."""
    counts = np.random.default_rng(0).poisson(3, (80, 12)).astype(np.float32)
    symbols = [f"G{n:02d}" for n in range(11)] + [""]
    write_genes(tmp_path / "counts.h5ad", counts, [""] * 11 + ["ENSG00000141510"], symbols)
    genes, loadings = pca_loadings(tmp_path / "counts.h5ad", None)
    assert genes.tolist() == [*symbols[:11], "TP53"]
    expression = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(loadings @ loadings.T, np.cov(expression, rowvar=False), atol=1e-4)


def test_the_scripts(genes, tmp_path):
    """A table of vectors with Ensembl ids among its names -> gene table -> recall beside a data set's loadings."""
    table = planted(genes, 2.0)
    file = tmp_path / "mine.csv"
    pd.DataFrame(table.vectors, index=pd.Index(table.genes, name="gene")).to_csv(file)
    command = [sys.executable, BIN / "read_gene_table.py", "--model", "gene_vectors", "--variant", "gene_vectors"]
    subprocess.run([*command, "--weights", file, "--output", tmp_path / "mine.npz"], check=True)
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(2, (60, len(genes)))).toarray().astype(np.float32)
    write_genes(tmp_path / "counts.h5ad", counts, [""] * len(genes), genes)
    command = [sys.executable, BIN / "recall_genes.py", "--gene-tables", tmp_path / "mine.npz", "--counts"]
    command += [tmp_path / "counts.h5ad", "--dataset", "tiny", "--n-boot", "50", "--output", tmp_path / "tiny"]
    subprocess.run(command, check=True)
    found = pd.read_parquet(tmp_path / "tiny.gene_recall.parquet")
    assert set(found["table"]) == {"mine", "pca_loadings", "random"}
    best = found[(found["table"] == "mine") & (found["metric"] == "recall_mean")]
    assert (best["diff_low"] > 0).all()
    assert set(found["dataset"]) == {"tiny"}
