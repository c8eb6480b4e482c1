"""Correlation of predicted with true expression, gene by gene."""

import numpy as np

from plumbline.metrics.rank_correlation import correlate


def pearson_rows(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Pearson correlation of each gene, (g,) in -1..1. truth, prediction: (g, n), genes in rows.

    NaN where the true values are all equal: there is nothing to correlate with. 0 where only the predictions are equal.
    """
    t = truth - truth.mean(axis=1, keepdims=True, dtype=np.float64)
    p = prediction - prediction.mean(axis=1, keepdims=True, dtype=np.float64)
    flat = prediction.max(axis=1) == prediction.min(axis=1)  # rounding of the mean must not make a signal
    product = np.einsum("ij,ij->i", t, p)
    norm = np.sqrt(np.einsum("ij,ij->i", t, t) * np.einsum("ij,ij->i", p, p))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(flat | (norm == 0), 0.0, product / norm)
    return np.where(constant_rows(truth), np.nan, np.clip(value, -1, 1))


def spearman_rows(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Spearman correlation of each gene (average ranks), (g,) in -1..1, with the conventions of ``pearson_rows``."""
    orders = np.argsort(truth, axis=1), np.argsort(prediction, axis=1)
    value = np.empty(len(truth))
    correlate(truth, prediction, *orders, value)
    return np.where(constant_rows(truth), np.nan, value)


def constant_rows(truth: np.ndarray) -> np.ndarray:
    """Genes (rows) with one value in all cells, (g,) boolean."""
    return truth.max(axis=1) == truth.min(axis=1)
