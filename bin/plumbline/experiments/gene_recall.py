"""Recall of known relationships by vectors of genes, without a screen: the embeddings that checkpoints hold of their genes.

The task ``recall`` of docs/protocol.md, with a gene's vector in place of the mean embedding of the cells in which it is
perturbed. Known pairs are ranked among the pairs of genes that some source knows. A table is compared with the loadings of a
PCA of the data set, on the genes of both.
"""

from dataclasses import dataclass

import numpy as np

from plumbline.common.random import normal
from plumbline.genes.relationships import known_symbols
from plumbline.scoring.scores import Score
from plumbline.scoring.stats import bh, interval, paired_difference
from plumbline.tasks.recall import recall_of

PROCESSINGS = ("raw", "pca")
COMPONENTS = 256
MIN_GENES = 50
LOADINGS, RANDOM = "pca_loadings", "random"
COLUMNS = [*("dataset", "table", "processing", "metric", "value", "ci_low", "ci_high", "n_genes", "n_pairs", "n_dimensions"),
           *("baseline_value", "difference", "diff_low", "diff_high", "p", "q", "status", "reason")]  # fmt: skip
_RANDOM_DIMENSIONS = 256


@dataclass(frozen=True, kw_only=True)
class GeneVectors:
    """name: of the table. genes (p,): distinct symbols in upper case. vectors (p, d)."""

    name: str
    genes: np.ndarray
    vectors: np.ndarray

    def on(self, genes: np.ndarray) -> "GeneVectors":
        """The vectors of ``genes``, sorted, all of which are here."""
        place = {gene: row for row, gene in enumerate(self.genes.tolist())}
        rows = [place[gene] for gene in sorted(genes)]
        return GeneVectors(name=self.name, genes=self.genes[rows], vectors=self.vectors[rows])


def processed(vectors: np.ndarray, processing: str) -> np.ndarray:
    """The vectors (p, d) as they are, or their scores on the first COMPONENTS principal components, not scaled.

    The components take away what all genes have in common: cosines are then those of deviations from the mean gene.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if processing == "raw":
        return vectors
    from scipy.linalg import eigh

    centred, d = vectors - vectors.mean(axis=0), vectors.shape[1]
    _, axes = eigh(centred.T @ centred, subset_by_index=[max(0, d - COMPONENTS), d - 1])
    return centred @ axes


def gene_recall(dataset: str, tables: list[GeneVectors], loadings: GeneVectors | None, n_boot: int, seed: int) -> list[dict]:
    """One row per table, processing and metric.

    Parameters
    ----------
    dataset
        Name of the data set whose loadings these are, for the rows; '' without.
    tables
        Tables of gene vectors; a random one of the same genes is added as the floor.
    loadings
        The baseline: a table is then scored on the genes of both, and compared. None: on all its genes, with nothing.
    n_boot, seed
        Of the intervals, which resample genes.

    Returns
    -------
    list of dict
        COLUMNS. q: Benjamini-Hochberg over the tables and processings, of ``recall_mean``.

    References
    ----------
    Celik et al. 2024, PLOS Comput Biol 20:e1012463; Kenyon-Dean et al. 2026, arXiv:2605.31562.
    """
    rows: list[dict] = []
    for table in tables + ([loadings] if loadings else []):
        rows += _rows_of(table, loadings if table is not loadings else None, n_boot, seed)
    if tables or loadings:
        genes = (loadings or tables[0]).genes
        rows += _rows_of(GeneVectors(name=RANDOM, genes=genes, vectors=normal(genes, _RANDOM_DIMENSIONS, f"genes {seed}")),
                         loadings, n_boot, seed)  # fmt: skip
    tested = [row for row in rows if row["metric"] == "recall_mean" and row["table"] not in (LOADINGS, RANDOM)]
    for row, q in zip(tested, bh(np.array([row.get("p", np.nan) for row in tested], dtype=float)), strict=True):
        row["q"] = float(q)
    return [{"dataset": dataset, **row} for row in rows]


def _rows_of(table: GeneVectors, baseline: GeneVectors | None, n_boot: int, seed: int) -> list[dict]:
    genes = set(table.genes.tolist()) & known_symbols() & set((baseline or table).genes.tolist())
    about = {"table": table.name, "n_dimensions": table.vectors.shape[1], "n_genes": len(genes)}
    if len(genes) < MIN_GENES:
        reason = f"{len(genes)} genes are in the table, measured, and known to a source; {MIN_GENES} are needed"
        return [about | {"processing": name, "metric": "recall_mean", "status": "not_applicable", "reason": reason}
                for name in PROCESSINGS]  # fmt: skip
    rows = []
    for processing in PROCESSINGS:
        own = _scores(table.on(genes), processing)
        other = _scores(baseline.on(genes), processing) if baseline else {}
        rows += [about | {"processing": processing} | _row(score, other.get(name), n_boot, seed) for name, score in own.items()]
    return rows


def _scores(table: GeneVectors, processing: str) -> dict[str, Score]:
    return {score.metric: score for score in recall_of(table.genes, processed(table.vectors, processing))}


def _row(score: Score, baseline: Score | None, n_boot: int, seed: int) -> dict:
    row = {"metric": score.metric, "value": score.value, "n_pairs": score.n, "status": score.status, "reason": score.reason}
    if score.items is None:
        return row
    low, high = np.clip(interval(score.items, n_boot, seed), 0, 1)
    row |= {"ci_low": low, "ci_high": high}
    if baseline is None or baseline.items is None:
        return row
    gap = paired_difference(score.items, baseline.items, n_boot, seed)
    ends = {"difference": gap.value, "diff_low": gap.low, "diff_high": gap.high, "p": gap.p}
    return row | {"baseline_value": baseline.value} | ends
