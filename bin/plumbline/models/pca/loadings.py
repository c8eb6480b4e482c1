"""The loadings of a PCA: what it makes of genes, as a table of gene vectors."""

from pathlib import Path

import numpy as np

from plumbline.counts.reading import open_counts
from plumbline.data.facts import read_facts
from plumbline.genes.names import fill_symbol
from plumbline.genes.orthologs import MOUSE, human_names
from plumbline.models.pca.pca import CACHE_GB, StreamedCells, fit_pca
from plumbline.models.shared.fitting import transform

COMPONENTS = 256


def pca_loadings(counts_path: Path, tables: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """(human symbols (p,) in upper case, loadings (p, k) float32) of a PCA of all cells' log-normalised expression.

    Loadings are components times standard deviations, so that the product of two genes' loadings is their covariance as far as
    256 components hold it. Mouse genes go by their one-to-one human orthologs. Of a gene measured twice the first counts; genes
    without variance have no direction and are left out.
    """
    counts, facts = open_counts(counts_path), read_facts(tables)
    apply = transform(facts.get("x_kind", "counts"), "lognorm")
    cells = StreamedCells(counts, np.arange(counts.shape[0]), apply, CACHE_GB)
    fit = fit_pca(cells.blocks, counts.shape[1], COMPONENTS)
    loadings = (fit.components.T * np.sqrt(np.maximum(fit.variance, 0))).astype(np.float32)
    symbol = np.char.upper(_human_symbols(counts.ensembl_id, counts.symbol, facts.get("organism") or "human").astype(str))
    known = np.flatnonzero((symbol != "") & (loadings != 0).any(axis=1))
    _, first = np.unique(symbol[known], return_index=True)
    return symbol[known[first]], loadings[known[first]]


def _human_symbols(ensembl_id: np.ndarray, symbol: np.ndarray, organism: str) -> np.ndarray:
    if organism.lower() not in MOUSE:
        return fill_symbol(ensembl_id, symbol, organism)
    by_id, by_symbol = (human_names(names)[1] for names in (ensembl_id, symbol))
    return np.where(by_id == "", by_symbol, by_id)
