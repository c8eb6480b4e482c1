"""Cells made of marker genes: two of each of eight types, which share no marker, so that only a model's training can pair them.

markers.csv: 20 well-known human marker genes of each type, every second one for the first of its two cells; Ensembl ids as in
plumbline/genes/gene_names_human.tsv. The genes of genes.csv that come first are the background, the same in all cells.
"""

import csv
from itertools import permutations
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from plumbline.embedding.conformance.cells import GENES, Sample

MARKERS = Path(__file__).with_name("markers.csv")
N_BACKGROUND = 150
HALVES = 2


def marker_cells() -> Sample:
    """16 cells, cell 2k and cell 2k + 1 of type k: its markers of one half at counts 6 to 15 over a background of 1 to 3."""
    markers = _read(MARKERS)
    names = {row["ensembl_id"] for row in markers}
    background = [row for row in _read(GENES) if row["ensembl_id"] not in names][:N_BACKGROUND]
    types = list(dict.fromkeys(row["cell_type"] for row in markers))
    x = np.zeros((HALVES * len(types), len(background) + len(markers)), dtype=np.float32)
    x[:, : len(background)] = 1 + np.arange(len(background)) % 3
    for column, row in enumerate(markers, len(background)):
        x[HALVES * types.index(row["cell_type"]) + int(row["half"]), column] = 6 + column % 10
    ids = np.array([f"cell{number}" for number in range(len(x))])
    genes = (np.array([row[name] for row in (*background, *markers)]) for name in ("ensembl_id", "symbol"))
    return Sample(ids, sp.csr_matrix(x), *genes)


def pairing(values: np.ndarray) -> tuple[int, float]:
    """(types whose two cells are closest to each other, p) of the embeddings (16, d) of ``marker_cells`` in their order.

    Closeness is the correlation of embeddings without their mean. p, in [1/40320, 1]: share of the 8! ways to pair the first
    cells with the second ones in which the sum of the pairs' correlations is as large as with the true pairs; exact.
    """
    z = values - values.mean(axis=0)
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-30)
    similarity = z[::HALVES].astype(np.float64) @ z[1::HALVES].T.astype(np.float64)
    n = len(similarity)
    pairs = np.array(list(permutations(range(n))))
    sums = similarity[np.arange(n), pairs].sum(axis=1)
    p = float((sums >= np.trace(similarity) - 1e-12).mean())
    return int((similarity.argmax(axis=1) == np.arange(n)).sum()), p


def _read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))
