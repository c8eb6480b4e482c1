"""Floors, ceilings and predictors: rows of the score table like any model (protocol, "Floors and ceilings").

Random numbers are a function of the cell id and the seed, so order and sharding of the cells do not matter.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError
from plumbline.common.random import hashes, normal
from plumbline.counts.reading import Counts
from plumbline.data.facts import read_facts
from plumbline.embedding.options import Options, Result
from plumbline.models.pca import pca
from plumbline.models.shared.fitting import at_least, choice, read_cells

KINDS = ("random", "scrambled_pca", "label_oracle", "no_effect", "mean_effect", "split_half")
WIDTH = 256
NOISE = 0.5  # norm of a cell's noise, where the code of a perturbation has norm 1


def embed(counts: Counts, options: Options) -> Result:
    """The control that ``--set kind`` names, for all cells. Predictors have no embedding: an array of shape (n_cells, 0)."""
    kind = choice(options, "kind", KINDS)
    if kind == "scrambled_pca":
        return scrambled_pca(counts, options)
    makers: dict[str, Callable[[Counts, Options], np.ndarray]] = {"random": random_embedding, "label_oracle": label_oracle}
    if kind in makers:
        return Result(
            values=makers[kind](counts, options),
            genes_used=0,
            genes_total=counts.shape[1],
            counts_used=0.0,
            unembedded=0,
            extra={"kind": kind},
        )
    return Result(
        values=np.zeros((len(counts.cell_id), 0), np.float32),
        genes_used=0,
        genes_total=counts.shape[1],
        counts_used=0.0,
        unembedded=0,
        extra={"kind": kind, "predictor": kind},
    )


def random_embedding(counts: Counts, options: Options) -> np.ndarray:
    """Standard normal, (n_cells, n_components), 256 by default."""
    return normal(counts.cell_id, at_least(options, "n_components", WIDTH, 1), f"random {options.seed}")


def scrambled_pca(counts: Counts, options: Options) -> Result:
    """The scores of PCA, each cell getting those of another one (a permutation in the order of the seeded hash of the ids)."""
    result = pca.embed(counts, options)
    by_id = np.argsort(counts.cell_id, kind="stable")
    by_hash = np.argsort(hashes(counts.cell_id, f"scramble {options.seed}"), kind="stable")
    values = np.empty_like(result.values)
    values[by_id] = result.values[by_hash]
    return Result(
        values=values,
        genes_used=result.genes_used,
        genes_total=result.genes_total,
        counts_used=0.0,
        unembedded=0,
        extra={"kind": "scrambled_pca", **result.extra},
    )


def label_oracle(counts: Counts, options: Options) -> np.ndarray:
    """The best embedding that labels and known relationships allow, without expression or batch: (n_cells, n_components).

    n_components: even, 512 unless set. Each cell is the code of its perturbation (``perturbation_codes``; zero for controls)
    + noise of norm 0.5.
    """
    from plumbline.genes.relationships import SOURCES, known_pairs

    if options.tables is None:
        raise UserError("the label oracle needs --tables, the folder PREPARE wrote (cells.parquet has the labels).")
    cells = read_cells(options.tables, counts.cell_id)
    control = cells["is_control"].to_numpy(dtype=bool)
    labels = _genes(cells["perturbation"].to_numpy(dtype=str), options.tables)
    names = np.unique(labels[~control])
    width = at_least(options, "n_components", 2 * WIDTH, 2) // 2
    codes = perturbation_codes(names, [known_pairs(source) for source in SOURCES], options.seed, width)
    values = NOISE / np.sqrt(codes.shape[1]) * normal(counts.cell_id, codes.shape[1], f"oracle {options.seed}")
    values[~control] += codes[np.searchsorted(names, labels[~control])]
    return values


def _genes(labels: np.ndarray, tables: Path) -> np.ndarray:
    """The genes that the labels stand for, as task recall reads them; the labels themselves if no table of genes is there."""
    from plumbline.genes.relationships import perturbed_genes

    genes = tables / "genes.parquet"
    if not genes.exists():
        return labels
    names, code = np.unique(labels, return_inverse=True)
    return perturbed_genes(names, pd.read_parquet(genes), read_facts(tables).get("organism", ""))[code]


def perturbation_codes(names: np.ndarray, sources: list[np.ndarray], seed: int, width: int = WIDTH) -> np.ndarray:
    """Unit codes (n_perturbations, 2 width) whose cosine is high for known pairs and near zero for all others.

    names: sorted, unique. sources: arrays of pairs (n, 2) of names. The first half is the best approximation of rank ``width``
    of the relationship graph: A + delta I, with A the adjacency of all sources and delta its most negative eigenvalue, is a
    Gram matrix in which exactly the known pairs have a positive cosine, all the same. The second half is random and tells
    perturbations apart that have the same partners, or none.
    """
    identity = normal(names, width, f"code {seed}").astype(np.float64)
    relations = _rotated(_relation_codes(_adjacency(names, sources), width), normal(names, width, f"basis {seed}"))
    related = np.linalg.norm(relations, axis=1, keepdims=True)
    relations = np.divide(relations, related, out=np.zeros_like(relations), where=related > 1e-9)
    codes = np.hstack([np.sqrt(3) * relations, identity / np.linalg.norm(identity, axis=1, keepdims=True)])
    return (codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float32)


def _rotated(codes: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The codes (n, width) in the rotation closest to ``basis`` (n, width): a function of their inner products alone.

    Relationship graphs have eigenvalues of high multiplicity. Which eigenvectors LAPACK returns for these depends on the
    processor, and so would the cells' embeddings.
    """
    left, _, right = np.linalg.svd(codes.T @ basis)
    return codes @ (left @ right)


def _adjacency(names: np.ndarray, sources: list[np.ndarray]):
    import scipy.sparse as sp

    pairs = np.concatenate([np.asarray(source).astype(str).reshape(-1, 2) for source in sources] or [np.zeros((0, 2), str)])
    pairs = pairs[np.isin(pairs, names).all(axis=1) & (pairs[:, 0] != pairs[:, 1])]
    at = np.searchsorted(names, pairs)
    matrix = sp.csr_matrix((np.ones(len(at)), (at[:, 0], at[:, 1])), shape=(len(names), len(names)))
    return ((matrix + matrix.T) > 0).astype(np.float64)


def _relation_codes(adjacency, width: int) -> np.ndarray:
    """(n, width): rows whose inner products approximate A + delta I; zero rows for perturbations without a partner."""
    from scipy.sparse.linalg import eigsh

    n = adjacency.shape[0]
    codes = np.zeros((n, width))
    linked = np.flatnonzero(np.diff(adjacency.indptr))
    if not len(linked):
        return codes
    graph = adjacency[linked][:, linked]
    if len(linked) <= 4 * width:
        values, vectors = np.linalg.eigh(graph.toarray())
        lowest = values[0]
    else:
        start = np.ones(len(linked))
        lowest = eigsh(graph, k=1, which="SA", v0=start, return_eigenvectors=False)[0]
        values, vectors = eigsh(graph, k=width, which="LA", v0=start)
    values, vectors = values[-width:], vectors[:, -width:]
    codes[linked, : len(values)] = vectors * np.sqrt(np.maximum(values - lowest, 0))
    return codes
