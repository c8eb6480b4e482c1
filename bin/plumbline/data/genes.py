"""The genes of an input in one vocabulary: Ensembl ids and symbols, genes that occur more than once joined."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError, did_you_mean
from plumbline.common.missing import NO_NAME, is_missing
from plumbline.counts.gene_columns import ensembl_ids, gene_names, symbols
from plumbline.data.catalogue import Dataset
from plumbline.data.ingest import CountsFile
from plumbline.genes.organism import check_organism, known

SEVERAL = 0.3  # share of names that are known once they are rewritten, from which on it is said how


@dataclass(frozen=True, kw_only=True)
class Genes:
    """The genes of the output: ``table`` has gene_id, ensembl_id, symbol ('' where unknown).

    target (n_genes of the input,): the output gene each input gene is added to. n_known: how many the tables of the organism
    know. left_out: {feature type: how many are not genes}. notes: sentences about the names.
    """

    table: pd.DataFrame
    target: np.ndarray
    n_known: int
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def n_merged(self) -> int:
        """Input genes that were added to another."""
        return len(self.target) - len(self.table)


def harmonise_genes(source: CountsFile, dataset: Dataset) -> Genes:
    """Name the genes. Raises UserError: unknown column, genes of no known kind, duplicates that are to be refused."""
    name, column = source.path.name, dataset.gene_id_column
    if column and column not in ("index", *source.var.columns):
        raise UserError(
            f"{name} has no gene column {column!r} (gene_id_column).{did_you_mean(column, list(source.var.columns))}"
        )
    index = source.var.index.to_numpy(dtype=str)
    ensembl, symbol = gene_names({key: source.var[key].to_numpy(dtype=str) for key in source.var}, index, column)
    is_known = known(ensembl, symbol, dataset.organism)
    _check_identity(ensembl, is_known, index, dataset, name)
    notes = check_organism(ensembl, symbol, dataset.organism, name)
    gene_id = np.where(ensembl != "", ensembl, np.where(symbol != "", symbol, _kept_apart(index)))
    target, ids = pd.factorize(gene_id)
    if len(ids) < len(gene_id):
        _check_repeated(gene_id, dataset, name)
    first = np.flatnonzero(~pd.Index(gene_id).duplicated())
    table = pd.DataFrame({"gene_id": ids.astype(str), "ensembl_id": ensembl[first], "symbol": symbol[first]})
    nameless = int(((ensembl == "") & (symbol == "") & is_missing(index, NO_NAME)).sum())
    if nameless:
        notes = [*notes, f"{nameless} genes have no name; they are kept apart, as unnamed_1 and so on."]
    return Genes(table=table, target=target, n_known=int(is_known[first].sum()), left_out=source.left_out, notes=notes)


def _kept_apart(index: np.ndarray) -> np.ndarray:
    """The file's names; what only stands for a missing name is numbered, as such genes have nothing in common."""
    numbered = np.array([f"unnamed_{number + 1}" for number in range(len(index))])
    return np.where(is_missing(index, NO_NAME), numbered, index)


def _check_repeated(gene_id: np.ndarray, dataset: Dataset, name: str) -> None:
    repeated = gene_id[pd.Index(gene_id).duplicated()]
    about = f"{name}: {len(repeated)} genes occur more than once (such as '{repeated[0]}')."
    if dataset.duplicates == "refuse":
        raise UserError(f"{about} Let the sheet say duplicates sum to add them up.")
    if dataset.x_kind == "signed":
        raise UserError(
            f"{about} Signed scores cannot be added up: keep one of each, or average them, and write the file again."
        )


def _check_identity(ensembl: np.ndarray, is_known: np.ndarray, index: np.ndarray, dataset: Dataset, name: str) -> None:
    if is_known.any():
        return
    if (ensembl != "").any():
        example = ensembl[ensembl != ""][0]
        raise UserError(
            f"{name}: the Ensembl ids (such as '{example}') are not of {dataset.organism}. Check organism in the sheet."
        )
    if dataset.organism != "other":
        raise UserError(
            f"{name}: no gene name is an Ensembl id or a known symbol of {dataset.organism} (they look like "
            f"{', '.join(repr(str(gene)) for gene in index[:3])}).{_hidden(index, dataset.organism)} Set gene_id_column to the "
            "column of var that holds them."
        )


def _hidden(index: np.ndarray, organism: str) -> str:
    """How to get at names that are part of longer ones (GRCh38_TP53, TP53_ENSG00000141510) or in lower case; '' if none are."""
    names = pd.Series(index, dtype=str)
    ways = {
        f"str.replace(r'{pattern}', '', regex=True)": names.str.replace(pattern, "", regex=True)
        for pattern in (r"^.*[_|:;\s]", r"[_|:;\s].*$")
    } | {"str.upper()": names.str.upper()}
    for way, found in ways.items():
        text = found.to_numpy(dtype=str)
        if known(ensembl_ids(text), symbols(text), organism).mean() > SEVERAL:
            return f" As adata.var_names.{way} they are; of several genomes, keep the cells and genes of one first."
    return ""
