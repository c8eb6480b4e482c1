"""One-to-one human orthologs of mouse genes, by Ensembl Compara (source: assets/make_orthologs.py).

A gene goes by its Ensembl id, or by its symbol where it has no id; case and an id's version do not count (no two genes of the
table differ in case alone). A gene of several human orthologs, or of none, has none here.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from plumbline.common.files import checked_table

MOUSE = ("mouse", "mus musculus", "mus_musculus", "mmusculus")
TABLE = Path(__file__).with_name("orthologs_mouse_human.tsv")
# beside guarding the file, this line makes a changed table a changed import: the digests behind -resume follow imports
SHA256 = "58f352d96cbb24fe760c13417c2ac73e0082bb954bd2ced4d052b51f4475bd28"


def human_names(names: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """(human Ensembl ids (n,), human symbols (n,)) of mouse genes, each named by an Ensembl id or a symbol; '' where none."""
    table = _by_mouse_name()
    found = [table.get(_key(str(name)), ("", "")) for name in names]
    ensembl, symbol = zip(*found, strict=True) if found else ((), ())
    return np.array(ensembl, dtype=str), np.array(symbol, dtype=str)


def pairs() -> list[dict[str, str]]:
    """The table's rows: mouse_ensembl, mouse_symbol, human_ensembl, human_symbol ('' where unknown)."""
    return checked_table(TABLE, SHA256)


@cache
def _by_mouse_name() -> dict[str, tuple[str, str]]:
    """{upper-case mouse Ensembl id or symbol: (human Ensembl id, human symbol)}"""
    rows, keys = pairs(), ("mouse_symbol", "mouse_ensembl")
    return {row[key].upper(): (row["human_ensembl"], row["human_symbol"]) for key in keys for row in rows if row[key]}


def _key(name: str) -> str:
    """A symbol may hold a point, an Ensembl id's version may not enter."""
    name = name.upper()
    return name.partition(".")[0] if name.startswith("ENSMUSG") else name
