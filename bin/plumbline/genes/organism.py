"""Of which organism gene names are, by the tables of gene names (human) and of orthologs (mouse)."""

from functools import cache

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError
from plumbline.counts.gene_columns import ENSEMBL
from plumbline.genes import names as gene_names
from plumbline.genes import orthologs

MIXED = 0.05  # share of genes of another organism from which on it is said


@cache
def human_symbols() -> frozenset[str]:
    """Human symbols as they are spelt today, and former ones in upper case."""
    current, former = gene_names.symbol_tables("human")
    return frozenset(current) | frozenset(former)


@cache
def mouse_symbols() -> frozenset[str]:
    """Symbols of mouse genes with a one-to-one human ortholog, without those that are spelt as human ones."""
    return frozenset(row["mouse_symbol"] for row in orthologs.pairs() if row["mouse_symbol"]) - human_symbols()


def known(ensembl: np.ndarray, symbol: np.ndarray, organism: str) -> np.ndarray:
    """Which genes (n,) the tables of an organism know, by Ensembl id or by symbol; of mouse genes case does not count."""
    own = pd.Series(ensembl, dtype=str).str.fullmatch(ENSEMBL[organism]).to_numpy(dtype=bool)
    names = pd.Series(symbol, dtype=str)
    if organism == "mouse":
        upper = names.str.upper()
        return own | upper.isin(human_symbols()).to_numpy() | upper.isin({name.upper() for name in mouse_symbols()}).to_numpy()
    return own | (names.isin(human_symbols()).to_numpy() if organism == "human" else False)


def spelt_as(ensembl: np.ndarray, symbol: np.ndarray, organism: str) -> np.ndarray:
    """Which genes (n,) carry an Ensembl id of, or are spelt as genes of, this organism ('human' or 'mouse')."""
    ids = pd.Series(ensembl, dtype=str).str.fullmatch(ENSEMBL[organism]).to_numpy(dtype=bool)
    table = human_symbols() if organism == "human" else mouse_symbols()
    return ids | ((ensembl == "") & pd.Series(symbol, dtype=str).isin(table).to_numpy())


def check_organism(ensembl: np.ndarray, symbol: np.ndarray, organism: str, name: str) -> list[str]:
    """Sentences about genes that seem to be of another organism. Raises UserError if most of them are."""
    other = {"human": "mouse", "mouse": "human"}.get(organism)
    if other is None:
        return []
    here, there = (spelt_as(ensembl, symbol, one) for one in (organism, other))
    if not there.any():
        return []
    names = np.where(symbol == "", ensembl, symbol)
    about = f"{there.sum()} of {len(names)} genes are spelt as {other} genes (such as '{names[there][0]}'), {here.sum()} as "
    about += organism
    upper = organism == "mouse" and not np.char.startswith(ensembl[there].astype(str), "ENSG").any()
    if there.sum() > here.sum() and not upper:
        raise UserError(f"{name}: {about} genes. Set organism to {other} in the sheet.")
    if there.sum() > max(here.sum(), MIXED * len(names)):
        return [f"{about}: if the cells are {other}, set organism to {other} in the sheet."]
    if there.sum() > MIXED * len(names):
        return [f"{about}: cells of two organisms? Keep the genes of one."]
    return []
