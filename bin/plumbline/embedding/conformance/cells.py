"""Small files of counts for the conformance kit: generated from real gene names, or the first cells of a user's file."""

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from plumbline.counts.reading import open_counts
from plumbline.counts.writing import CsrWriter

GENES = Path(__file__).with_name("genes.csv")
N_CELLS = 16


@dataclass(frozen=True)
class Sample:
    """Raw counts of a few cells: ids (n,), x CSR (n, g), ensembl_id and symbol (g,)."""

    ids: np.ndarray
    x: sp.csr_matrix
    ensembl_id: np.ndarray
    symbol: np.ndarray

    def take(self, rows: np.ndarray) -> "Sample":
        """Some of the cells, in the given order."""
        return replace(self, ids=self.ids[rows], x=self.x[rows])

    def take_genes(self, columns: np.ndarray) -> "Sample":
        """Some of the genes, in the given order."""
        return replace(self, x=self.x[:, columns].tocsr(), ensembl_id=self.ensembl_id[columns], symbol=self.symbol[columns])

    def with_counts(self, x: sp.csr_matrix) -> "Sample":
        """The same cells and genes with other counts."""
        return replace(self, x=sp.csr_matrix(x, dtype=np.float32))

    def with_unknown_genes(self, n: int, seed: int = 1) -> "Sample":
        """``n`` more genes, of names no model knows, with counts."""
        more = sp.random(len(self.ids), n, density=0.3, format="csr", rng=np.random.default_rng(seed))
        more.data = np.ceil(10 * more.data)
        names = np.array([f"UNKNOWN{number}" for number in range(n)])
        x = sp.hstack([self.x, more], format="csr", dtype=np.float32)
        return replace(self, x=x, ensembl_id=np.append(self.ensembl_id, names), symbol=np.append(self.symbol, names))

    def with_silent_genes(self, n: int) -> "Sample":
        """``n`` more genes that no cell expresses: they cost nothing unless a matrix is made dense."""
        names = np.array([f"SILENT{number}" for number in range(n)])
        x = sp.hstack([self.x, sp.csr_matrix((len(self.ids), n))], format="csr", dtype=np.float32)
        return replace(self, x=x, ensembl_id=np.append(self.ensembl_id, names), symbol=np.append(self.symbol, names))

    def only_unknown_genes(self) -> "Sample":
        """The same counts under names that no model knows."""
        names = np.array([f"UNKNOWN{number}" for number in range(self.x.shape[1])])
        return replace(self, ensembl_id=names, symbol=names)

    def repeated(self, times: int) -> "Sample":
        """Every cell ``times`` times, under ids of its own."""
        ids = np.array([f"{name}_{copy}" for copy in range(times) for name in self.ids])
        return replace(self, ids=ids, x=sp.vstack([self.x] * times, format="csr"))

    def write(self, folder: Path) -> None:
        """counts.h5ad and tables/, as PREPARE writes them."""
        folder.mkdir(parents=True)
        with CsrWriter(folder / "counts.h5ad", self.x.shape[1]) as writer:
            writer.append(self.x)
            columns = {"ensembl_id": self.ensembl_id, "symbol": self.symbol}
            writer.finish(self.ids, {}, np.arange(self.x.shape[1]).astype(str), columns)
        write_tables(self, folder / "tables")


def write_tables(cells: Sample, folder: Path) -> None:
    """PREPARE's tables for these cells: two batches, three perturbations and controls, every cell in the train split."""
    import pandas as pd

    folder.mkdir()
    n = len(cells.ids)
    group = np.char.rpartition(cells.ids.astype(str), "l")[:, 2] if n else np.zeros(0, str)  # 'cell7_0' -> '7_0'
    number = np.array([int(name.partition("_")[0]) if name.partition("_")[0].isdigit() else 0 for name in group], dtype=int)
    label = np.array(["control", "A", "B", "C"])[number // 2 % 4]
    table = {"cell_id": cells.ids, "perturbation": label, "is_control": label == "control"}
    table |= {"batch": np.array(["x", "y"])[number // 8 % 2], "n_counts": np.asarray(cells.x.sum(axis=1)).ravel()}
    pd.DataFrame(table).to_parquet(folder / "cells.parquet")
    parts = {"train": True, "test1": False, "test2": False, "validation": False}
    pd.DataFrame({f"{name}_42": np.full(n, value) for name, value in parts.items()}).to_parquet(folder / "splits.parquet")
    genes = {"gene_id": cells.symbol, "ensembl_id": cells.ensembl_id, "symbol": cells.symbol}
    pd.DataFrame(genes).to_parquet(folder / "genes.parquet")
    facts = {"name": "conformance", "organism": "human", "x_kind": "counts", "split_by": "batch", "seeds": [42], "n_cells": n}
    (folder / "dataset.json").write_text(json.dumps(facts | {"has_batches": True, "has_controls": True}))


def generated(seed: int = 0) -> Sample:
    """N_CELLS cells of negative-binomial counts over real human genes; the second cell has the counts of the first."""
    with open(GENES, newline="") as stream:
        rows = list(csv.DictReader(stream))
    rng = np.random.default_rng(seed)
    mean = rng.lognormal(0.0, 1.2, len(rows)) * rng.lognormal(0.0, 0.4, (N_CELLS, 1))
    x = rng.negative_binomial(1.5, 1.5 / (1.5 + mean))
    x[1] = x[0]
    ids = np.array([f"cell{number}" for number in range(N_CELLS)])
    names = (np.array([row[column] for row in rows]) for column in ("ensembl_id", "symbol"))
    return Sample(ids, sp.csr_matrix(x, dtype=np.float32), *names)


def first_cells(path: Path) -> Sample:
    """The first N_CELLS cells of a user's h5ad, renamed; the second gets the counts of the first."""
    counts = open_counts(path)
    rows = np.arange(min(N_CELLS, len(counts.cell_id)))
    block = next(counts.blocks(rows))[1]
    block = sp.vstack([block[:1], block[:1], block[2:]], format="csr")
    return Sample(np.array([f"cell{number}" for number in range(block.shape[0])]), block, counts.ensembl_id, counts.symbol)
