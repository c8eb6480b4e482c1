"""Gene vectors weighted by expression: by hand, by numpy, and the formats of gene vectors there are."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts, open_counts
from plumbline.embedding.options import Options
from plumbline.models import gene_vectors

GENES = ["TP53", "C1orf112", "MYC", "NOVEL"]
VECTORS = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
X = np.array([[3, 0, 1, 2], [0, 5, 0, 0], [0, 0, 0, 7], [1, 1, 1, 1]], dtype=np.float32)


@pytest.fixture
def counts(tmp_path: Path) -> Counts:
    var = pd.DataFrame({"symbol": GENES, "ensembl_id": [f"ENSG{n:011d}.4" for n in range(4)]}, index=GENES)
    ad.AnnData(sp.csr_matrix(X), obs=pd.DataFrame(index=list("abcd")), var=var).write_h5ad(tmp_path / "counts.h5ad")
    return open_counts(tmp_path / "counts.h5ad")


def told(weights: Path | None, **settings: str) -> Options:
    return Options(
        variant="gene_vectors",
        weights=weights,
        tables=None,
        fit_on="none",
        seed=42,
        device="cpu",
        batch_size=0,
        threads=1,
        settings=settings,
    )


def saved(folder: Path, suffix: str, names: list[str], vectors: np.ndarray = VECTORS) -> Path:
    path = folder / f"vectors{suffix}"
    table = pd.DataFrame(vectors, index=names)
    if suffix == ".npz":
        np.savez(path, gene=np.array(names), vector=vectors)
    elif suffix == ".parquet":
        table.rename(columns=str).to_parquet(path)
    elif suffix == ".txt":
        lines = [" ".join([name, *map(str, row)]) for name, row in zip(names, vectors.tolist(), strict=True)]
        path.write_text("\n".join([f"{len(names)} {vectors.shape[1]}", *lines]))
    else:
        table.to_csv(path, sep="," if suffix == ".csv" else "\t")
    return path


@pytest.mark.parametrize("suffix", gene_vectors.READERS)
@pytest.mark.parametrize("names", [GENES[:3], ["ENSG00000000000", "ENSG00000000001", "ENSG00000000002"]])
def test_every_format_by_symbol_or_ensembl_id(counts: Counts, tmp_path: Path, suffix: str, names: list[str]) -> None:
    result = gene_vectors.embed(counts, told(saved(tmp_path, suffix, names)))
    lognorm = np.log1p(X / X.sum(1, keepdims=True) * 1e4)[:, :3]
    want = lognorm @ VECTORS
    want[[0, 1, 3]] /= np.linalg.norm(want[[0, 1, 3]], axis=1, keepdims=True)
    np.testing.assert_allclose(result.values[[0, 1, 3]], want[[0, 1, 3]], atol=1e-5)
    assert np.isnan(result.values[2]).all()  # only a gene without a vector
    assert (result.unembedded, result.genes_used, result.genes_total) == (1, 3, 4)
    assert result.counts_used == pytest.approx(12 / 22)


def test_raw_weights_by_hand(counts: Counts, tmp_path: Path) -> None:
    """A cell with one gene is that gene's unit vector; raw counts weigh 3 : 1."""
    values = gene_vectors.embed(counts, told(saved(tmp_path, ".npz", GENES[:3]), input="raw")).values
    np.testing.assert_allclose(values[1], VECTORS[1] / np.linalg.norm(VECTORS[1]), atol=1e-6)
    mixed = 3 * VECTORS[0] + VECTORS[2]
    np.testing.assert_allclose(values[0], mixed / np.linalg.norm(mixed), atol=1e-6)


def test_first_of_duplicates_and_case(counts: Counts, tmp_path: Path) -> None:
    path = saved(tmp_path, ".npz", ["tp53", "TP53", "C1ORF112"])
    values = gene_vectors.embed(counts, told(path, input="raw")).values
    np.testing.assert_allclose(values[0], VECTORS[0] / np.linalg.norm(VECTORS[0]), atol=1e-6)
    np.testing.assert_allclose(values[1], VECTORS[2] / np.linalg.norm(VECTORS[2]), atol=1e-6)


def test_unusable_vectors(counts: Counts, tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="none of the 4 genes has a vector"):
        gene_vectors.embed(counts, told(saved(tmp_path, ".npz", ["A", "B", "C"])))
    with pytest.raises(UserError, match="give a file of gene vectors"):
        gene_vectors.embed(counts, told(None))
    bad = tmp_path / "bad"
    bad.mkdir()
    with pytest.raises(UserError, match="it holds nothing"):
        gene_vectors.embed(counts, told(bad))
    saved(bad, ".npz", GENES[:3], np.full((3, 2), np.nan))
    with pytest.raises(UserError, match="one finite vector a gene"):
        gene_vectors.embed(counts, told(bad))
    (bad / "vectors.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="holds no gene vectors"):
        gene_vectors.embed(counts, told(bad))
    (bad / "vectors.csv").write_text("gene,a\nTP53,x\n")
    with pytest.raises(UserError, match="no single file"):
        gene_vectors.embed(counts, told(bad))
    with pytest.raises(UserError, match="holds no gene vectors"):
        gene_vectors.embed(counts, told(bad, vectors_file="vectors.csv"))
