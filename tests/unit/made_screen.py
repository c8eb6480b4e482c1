"""A small screen on disk for the tests of the fitted models: counts.h5ad and the tables PREPARE would write."""

import json
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from plumbline.counts.reading import Counts, open_counts
from plumbline.embedding.options import Options

HEAD = {"head": "contrastive", "head_epochs": 8, "head_dim": 5, "n_components": 8}


def made_counts(n_cells: int = 300, n_genes: int = 120, seed: int = 0, n_factors: int = 6) -> sp.csr_matrix:
    """Poisson counts around a few factors of gene expression, sparse, with different library sizes; no empty cell."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.8, 1.0, n_genes) * rng.gamma(6, 1 / 6, (n_cells, 1))
    factors = rng.normal(size=(n_cells, n_factors)) @ (
        rng.normal(size=(n_factors, n_genes)) * np.linspace(0.7, 0.2, n_factors)[:, None]
    )
    counts = rng.poisson(rate * np.exp(factors)).astype(np.float32)
    counts[:, 0] += 1
    return sp.csr_matrix(counts)


def write_given_splits(tables: Path, train: dict[int, np.ndarray]) -> None:
    """splits.parquet with these train cells, (n_cells,) bool by seed; all others are test1."""
    parts = {
        seed: {"train": mask, "test1": ~mask, "test2": mask & False, "validation": mask & False} for seed, mask in train.items()
    }
    columns = {f"{part}_{seed}": mask for seed, masks in parts.items() for part, mask in masks.items()}
    pd.DataFrame(columns).to_parquet(tables / "splits.parquet")


def write_screen(
    folder: Path, matrix: sp.csr_matrix, x_kind: str = "counts", order: np.ndarray | None = None, var: list[str] | None = None
) -> Counts:
    """Write counts.h5ad and tables/ below ``folder``; ``order`` permutes the cells, ``var`` names genes.

    Batches b0..b4, of which b0 to b2 are train."""
    n, order = matrix.shape[0], np.arange(matrix.shape[0]) if order is None else order
    cells = pd.DataFrame({"cell_id": [f"cell{i}" for i in range(n)], "batch": [f"b{i % 5}" for i in range(n)]})
    cells["perturbation"] = np.where(np.arange(n) % 4 == 0, "control", np.char.add("P", (np.arange(n) // 5 % 8).astype(str)))
    cells["is_control"] = cells["perturbation"] == "control"
    cells = cells.iloc[order].reset_index(drop=True)
    tables = folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    cells.to_parquet(tables / "cells.parquet")
    write_given_splits(tables, {42: cells["batch"].isin(["b0", "b1", "b2"]).to_numpy(), 43: np.zeros(n, dtype=bool)})
    (tables / "dataset.json").write_text(json.dumps({"x_kind": x_kind, "split_by": "batch"}))
    genes = pd.DataFrame(index=var or [f"G{j}" for j in range(matrix.shape[1])])
    data = ad.AnnData(matrix[order], obs=pd.DataFrame(index=cells["cell_id"].to_numpy()), var=genes)
    data.write_h5ad(folder / "counts.h5ad")
    return open_counts(folder / "counts.h5ad")


def options(
    tables: Path | None = None, fit_on: str = "all", seed: int = 42, weights: Path | None = None, **settings
) -> Options:
    """Options with the given settings."""
    text = {name: str(value) for name, value in settings.items()}
    return Options(
        variant="variant",
        weights=weights,
        tables=tables,
        fit_on=fit_on,
        seed=seed,
        device="cpu",
        batch_size=0,
        threads=1,
        settings=text,
    )


def with_head(folder: Path, fit_on: str = "train", **settings) -> Options:
    """Options of a PCA with a small head, for the screen in ``folder``."""
    return options(folder / "tables", fit_on, **{**HEAD, **settings})


def relabel(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Rewrite cells.parquet by ``change(cells)``."""
    path = folder / "tables" / "cells.parquet"
    change(pd.read_parquet(path)).to_parquet(path)


def write_genes(path: Path, x: np.ndarray, ensembl, symbol) -> Counts:
    """Counts ``x`` (n, g) of genes that go by these Ensembl ids and symbols ('' where there is none)."""
    var = pd.DataFrame({"ensembl_id": list(ensembl), "symbol": list(symbol)}, index=[f"g{n}" for n in range(x.shape[1])])
    ad.AnnData(sp.csr_matrix(x), obs=pd.DataFrame(index=[f"c{n}" for n in range(len(x))]), var=var).write_h5ad(path)
    return open_counts(path)
