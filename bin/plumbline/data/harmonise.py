"""Cells and genes in one vocabulary: labels, control flags, batches; Ensembl ids and symbols, duplicates joined."""

import importlib.util
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError, did_you_mean
from plumbline.data.catalogue import Dataset
from plumbline.data.ingest import Source

ENSEMBL = {"human": r"ENSG\d{11}", "mouse": r"ENSMUSG\d{11}", "other": r"ENS[A-Z]*G\d{11}"}
ENSEMBL_COLUMNS = ("ensembl_id", "gene_ids", "gene_id", "ensembl_gene_id", "ensembl", "feature_id")
SYMBOL_COLUMNS = ("symbol", "gene_symbol", "gene_symbols", "gene_name", "gene_names", "feature_name", "gene_short_name")
NO_BATCH = "all"


@dataclass(frozen=True)
class Cells:
    """Labels of all rows of the input, arrays of length n. ``usable`` is False where a label is missing."""

    cell_id: np.ndarray
    perturbation: np.ndarray
    is_control: np.ndarray
    batch: np.ndarray
    usable: np.ndarray
    missing: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Genes:
    """The genes of the output: ``table`` has gene_id, ensembl_id, symbol ('' where unknown).

    target (n_genes of the input,): the output gene each input gene is added to. known_symbols: how many of the symbols are
    in the relationship databases.
    """

    table: pd.DataFrame
    target: np.ndarray
    known_symbols: int

    @property
    def n_merged(self) -> int:
        """Input genes that were added to another."""
        return len(self.target) - len(self.table)


def harmonise_cells(source: Source, dataset: Dataset) -> Cells:
    """Read the labels. Raises UserError: unknown column, duplicate cell ids, control label of no cell, nothing perturbed."""
    repeated = pd.Index(source.cell_id).duplicated()
    if repeated.any():
        raise UserError(
            f"{source.path.name} has {int(repeated.sum())} duplicate cell ids (such as '{source.cell_id[repeated][0]}'). "
            "Make them unique, for example with adata.obs_names_make_unique() or a prefix per batch."
        )
    labels = {"perturbation": source.column(dataset.perturbation_column, "perturbation_column of the sheet")}
    if dataset.batch_column:
        labels["batch"] = source.column(dataset.batch_column, "batch_column of the sheet")
    missing = {name: int(values.isna().sum()) for name, values in labels.items()}
    usable = np.logical_and.reduce([values.notna().to_numpy() for values in labels.values()])
    text = {name: values.fillna("").to_numpy(dtype=str) for name, values in labels.items()}
    batch = text.get("batch", np.full(len(source.cell_id), NO_BATCH))
    is_control = _controls(text["perturbation"], dataset, source.path)
    if not (usable & ~is_control).any():
        raise UserError(f"{source.path.name}: no cell with a perturbation in column {dataset.perturbation_column!r} is left.")
    return Cells(source.cell_id, text["perturbation"], is_control & usable, batch, usable, missing)


def _controls(perturbation: np.ndarray, dataset: Dataset, path: Path) -> np.ndarray:
    known = [str(label) for label in pd.Series(perturbation[perturbation != ""]).value_counts().index]
    for label in dataset.control_labels:
        if label not in known:
            raise UserError(
                f"{path.name}: the control label {label!r} matches no cell in column {dataset.perturbation_column!r}."
                f"{did_you_mean(label, known)} A data set without controls says control_label none."
            )
    return np.isin(perturbation, dataset.control_labels)


def harmonise_genes(source: Source, dataset: Dataset) -> Genes:
    """Name the genes. Raises UserError: unknown column, genes of no known kind, duplicates that are to be refused."""
    ensembl, symbol = gene_names(source.var, dataset.gene_id_column, source.path.name)
    index = source.var.index.to_numpy(dtype=str)
    known = known_genes(symbol, dataset.organism)
    _check_identity(ensembl, known, index, dataset, source.path.name)
    gene_id = np.where(ensembl != "", ensembl, np.where(symbol != "", symbol, index))
    target, ids = pd.factorize(gene_id)
    if dataset.duplicates == "refuse" and len(ids) < len(gene_id):
        double = gene_id[pd.Index(gene_id).duplicated()]
        raise UserError(
            f"{source.path.name}: {len(double)} genes occur more than once (such as '{double[0]}'). "
            "Let the sheet say duplicates sum to add them up."
        )
    first = np.flatnonzero(~pd.Index(gene_id).duplicated())
    table = pd.DataFrame({"gene_id": ids.astype(str), "ensembl_id": ensembl[first], "symbol": symbol[first]})
    return Genes(table, target, int(known[first].sum()))


def gene_names(var: pd.DataFrame, column: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(Ensembl ids without version, symbols) of the genes; '' where unknown. ``column`` names the id column, '' = guess."""
    index = var.index.to_numpy(dtype=str)
    if column and column not in ("index", *var.columns):
        raise UserError(f"{name} has no gene column {column!r} (gene_id_column).{did_you_mean(column, list(var.columns))}")
    chosen = index if column == "index" else var[column].to_numpy(dtype=str) if column else index
    guesses = [var[key].to_numpy(dtype=str) for key in ENSEMBL_COLUMNS if key in var and key != column]
    ensembl = next((ids for ids in map(_ensembl, [chosen, *guesses, index]) if (ids != "").any()), _ensembl(index))
    named = [var[key].to_numpy(dtype=str) for key in SYMBOL_COLUMNS if key in var]
    candidates = [chosen, *named, index] if column else [*named, index]
    symbol = next((names for names in map(_not_ensembl, candidates) if (names != "").any()), _not_ensembl(index))
    return ensembl, symbol


def _ensembl(names: np.ndarray) -> np.ndarray:
    found = pd.Series(names, dtype=str).str.extract(rf"^({ENSEMBL['other']})(?:\.\d+)?$", flags=re.IGNORECASE)[0]
    return found.fillna("").str.upper().to_numpy(dtype=str)


def _not_ensembl(names: np.ndarray) -> np.ndarray:
    return np.where(_ensembl(names) == "", names, "")


@cache
def known_symbols() -> frozenset[str]:
    """Upper-case symbols of all genes in the relationship databases (PyPI package efaar_benchmarking)."""
    tables = sorted(annotations().glob("*.txt"))
    return frozenset().union(*(pd.read_csv(file, dtype=str).stack().str.upper() for file in tables))


def annotations() -> Path:
    """The folder of efaar_benchmarking's annotations, found without importing the package."""
    spec = importlib.util.find_spec("efaar_benchmarking")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the package efaar_benchmarking (relationship databases) is missing: pip install efaar_benchmarking==1.0"
        )
    return Path(spec.submodule_search_locations[0]) / "benchmark_annotations"


def known_genes(symbol: np.ndarray, organism: str) -> np.ndarray:
    """Which symbols the databases know (mouse symbols are compared with their upper-case human form)."""
    names = pd.Series(symbol, dtype=str)
    return (names.str.upper() if organism == "mouse" else names).isin(known_symbols()).to_numpy()


def _check_identity(ensembl: np.ndarray, known: np.ndarray, index: np.ndarray, dataset: Dataset, name: str) -> None:
    own = pd.Series(ensembl, dtype=str).str.fullmatch(ENSEMBL[dataset.organism]).to_numpy(dtype=bool)
    if own.any() or known.any():
        return
    if (ensembl != "").any():
        example = ensembl[ensembl != ""][0]
        raise UserError(
            f"{name}: the Ensembl ids (such as '{example}') are not of {dataset.organism}. Check organism in the sheet."
        )
    if dataset.organism != "other":
        raise UserError(
            f"{name}: no gene name is an Ensembl id or a known symbol of {dataset.organism} (they look like "
            f"{', '.join(repr(str(gene)) for gene in index[:3])}). Set gene_id_column to the column of var that holds them."
        )
