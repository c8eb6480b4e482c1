"""Which columns of a gene table hold Ensembl ids and symbols: one vocabulary for PREPARE and for `plumb embed`."""

import re

import numpy as np
import pandas as pd

from plumbline.common.missing import NO_NAME, is_missing

ENSEMBL_COLUMNS = ("ensembl_id", "gene_ids", "gene_id", "ensembl_gene_id", "ensembl", "feature_id")
SYMBOL_COLUMNS = ("symbol", "gene_symbol", "gene_symbols", "gene_name", "gene_names", "feature_name", "gene_short_name")
ENSEMBL = {"human": r"ENSG\d{11}", "mouse": r"ENSMUSG\d{11}", "other": r"ENS[A-Z]*G\d{11}"}


def gene_names(columns: dict[str, np.ndarray], index: np.ndarray, chosen: str = "") -> tuple[np.ndarray, np.ndarray]:
    """(Ensembl ids without version, symbols) of the genes (n,); '' where unknown.

    columns: the columns of the gene table as strings. chosen: the column that is read first, 'index' being the index, '' the
    one with most names of that kind. What it leaves open is filled from the next, but for names that are given already.
    """
    first = [index if chosen == "index" else columns[chosen]] if chosen else []
    ids = [columns[name] for name in ENSEMBL_COLUMNS if name in columns and name != chosen]
    named = [columns[name] for name in SYMBOL_COLUMNS if name in columns and name != chosen]
    ensembl = [found for found in map(ensembl_ids, first) if (found != "").any()]
    ensembl += _most_first([ensembl_ids(names) for names in (*ids, *named, index)])
    symbol = [symbols(names) for names in first] + _most_first([symbols(names) for names in named])
    return _fill(ensembl), _fill([*symbol, symbols(index), *map(symbols, ids)])


def ensembl_ids(names: np.ndarray) -> np.ndarray:
    """Ensembl gene ids in upper case and without version, '' for every other name."""
    found = pd.Series(names, dtype=str).str.extract(rf"^\s*({ENSEMBL['other']})(?:\.\d+)?\s*$", flags=re.IGNORECASE)[0]
    return found.fillna("").str.upper().to_numpy(dtype=str)


def symbols(names: np.ndarray) -> np.ndarray:
    """The names that may be symbols; '' for Ensembl ids, numbers and what only stands for a missing name."""
    text = pd.Series(names, dtype=str).str.strip()
    nothing = text.str.fullmatch(r"\d+(\.\d+)?").to_numpy(dtype=bool) | is_missing(text.to_numpy(dtype=str), NO_NAME)
    return np.where(nothing | (ensembl_ids(names) != ""), "", text.to_numpy(dtype=str))


def _most_first(sources: list[np.ndarray]) -> list[np.ndarray]:
    return sorted(sources, key=lambda names: -int((names != "").sum()))  # stable: of equals the first


def _fill(sources: list[np.ndarray]) -> np.ndarray:
    names = sources[0].astype(object)
    for more in sources[1:]:
        used = set(names.tolist())
        for n in np.flatnonzero((names == "") & (more != "")):
            if more[n] not in used:
                used.add(more[n])
                names[n] = more[n]
    return names.astype(str)
