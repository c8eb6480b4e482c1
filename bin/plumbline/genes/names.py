"""Map gene symbols to Ensembl ids and back, where a data set gives only one of them.

Human genes by the table of the HGNC (source: assets/make_gene_names.py), mouse genes as far as they have a one-to-one human
ortholog (orthologs.py). A symbol is looked up among today's symbols, then among former ones; case does not count.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plumbline.common.files import checked_table
from plumbline.genes import orthologs

if TYPE_CHECKING:
    from plumbline.counts.reading import Counts

HUMAN = ("human", "homo sapiens", "homo_sapiens", "hsapiens")
TABLE = Path(__file__).with_name("gene_names_human.tsv")
# beside guarding the file, this line makes a changed table a changed import: the digests behind -resume follow imports
SHA256 = "88dac1d2552bd0b45eb642ea39748f56d9f2a9753fb35b4088cd29377bb2a75c"


def fill_ensembl(ensembl_id: np.ndarray, symbol: np.ndarray, organism: str) -> np.ndarray:
    """Ensembl ids (n,), those that are '' looked up by ``symbol`` (n,). What is given stays.

    '' stays where no id is known, where the data set has that id already, and where a former symbol leads to the gene of
    another's symbol of today (both are measured: two genes then).
    """
    if (ensembl_id != "").all():
        return ensembl_id  # before the table is read
    current, former = _ids(organism)
    keys = np.where(ensembl_id == "", np.char.upper(symbol.astype(str)), "")
    filled = _fill(ensembl_id, [current.get(key, "") for key in keys])
    return _fill(filled, [former.get(key, "") for key in keys])


def fill_symbol(ensembl_id: np.ndarray, symbol: np.ndarray, organism: str) -> np.ndarray:
    """Symbols (n,) of today, for those that are ''; a symbol the data set has already is not given twice."""
    if (symbol != "").all():
        return symbol
    return _fill(symbol, symbols(ensembl_id, organism).tolist())


def symbols(ensembl_id: Iterable[str], organism: str) -> np.ndarray:
    """Today's symbols (n,) of Ensembl ids, whose version does not count; '' where unknown."""
    ids = [str(gene).upper().partition(".")[0] for gene in ensembl_id]
    names = _symbols(organism) if any(gene.startswith("ENS") for gene in ids) else {}  # labels are seldom ids
    return np.array([names.get(gene, "") for gene in ids], dtype=str)


def shared_genes(a: "Counts", b: "Counts", organism: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Column numbers of the genes that both hold, one array for each, in the order of ``a``.

    A gene is shared by its Ensembl id or, where one of the two has none for it, by its symbol; else, of an ``organism`` whose
    names are known, by the id that is found for it.
    """
    pairs = _named_alike(a, b)
    ids = [np.char.partition(fill_ensembl(one.ensembl_id, one.symbol, organism), ".")[:, 0] for one in (a, b)]
    left = {name: column for column, name in enumerate(ids[1]) if name and column not in pairs}
    taken = {*pairs.values()}
    for column, name in enumerate(ids[0]):
        if name in left and column not in taken:
            pairs[left.pop(name)] = column
    found = np.array(sorted(pairs.items(), key=lambda pair: pair[1]), dtype=np.int64).reshape(-1, 2)
    return found[:, 1], found[:, 0]


def _named_alike(a: "Counts", b: "Counts") -> dict[int, int]:
    """{column of b: column of a} of the genes that bear one name in both as they are."""
    by_id = {name: column for column, name in enumerate(b.ensembl_id) if name}
    by_symbol = {name: column for column, name in enumerate(b.symbol) if name}
    pairs: dict[int, int] = {}
    for column, (gene, symbol) in enumerate(zip(a.ensembl_id, a.symbol, strict=True)):
        found = by_id.get(gene)
        if found is None:
            found = by_symbol.get(symbol)
            found = None if found is not None and gene and b.ensembl_id[found] else found
        if found is not None:
            pairs.setdefault(found, column)
    return pairs


def table_of(organism: str) -> tuple[str, str]:
    """(file name, sha256) of the table for ``organism``; ('', '') if there is none."""
    if organism.lower() in orthologs.MOUSE:
        return orthologs.TABLE.name, orthologs.SHA256
    return (TABLE.name, SHA256) if organism.lower() in HUMAN else ("", "")


def symbol_tables(organism: str) -> tuple[list[str], list[str]]:
    """(today's symbols as they are spelt, former symbols in upper case) of every gene known of an organism."""
    rows = _rows(organism)
    return [symbol for _, symbol, _ in rows if symbol], [name for _, _, names in rows for name in names.split("|") if name]


def _fill(given: np.ndarray, found: list[str]) -> np.ndarray:
    """``found`` where ``given`` is '', unless that name is given already; of several finds of one name the first counts."""
    used, filled = set(given.tolist()), given.astype(object)
    for n in np.flatnonzero(given == ""):
        if found[n] and found[n] not in used:
            used.add(found[n])
            filled[n] = found[n]
    return filled.astype(str)


@cache
def _ids(organism: str) -> tuple[dict[str, str], dict[str, str]]:
    """({today's symbol: Ensembl id}, {former symbol: Ensembl id}), symbols in upper case."""
    rows = _rows(organism)
    current = {symbol.upper(): gene for gene, symbol, _ in rows if symbol}
    return current, {name: gene for gene, _, names in rows for name in names.split("|") if name}


@cache
def _symbols(organism: str) -> dict[str, str]:
    return {gene: symbol for gene, symbol, _ in _rows(organism)}


def _rows(organism: str) -> list[tuple[str, str, str]]:
    """(Ensembl id, symbol, former symbols in upper case with '|' between them) of every gene known."""
    if organism.lower() in HUMAN:
        return [(row["ensembl"], row["symbol"], row["former_symbols"]) for row in checked_table(TABLE, SHA256)]
    if organism.lower() in orthologs.MOUSE:
        return [(row["mouse_ensembl"], row["mouse_symbol"], "") for row in orthologs.pairs()]
    return []
