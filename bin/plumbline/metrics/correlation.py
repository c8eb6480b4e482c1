"""Correlation of predicted with true expression, gene by gene."""

from collections.abc import Callable
from functools import cache

import numpy as np


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
    _rank_kernel()(truth, prediction, *orders, value)
    return np.where(constant_rows(truth), np.nan, value)


def constant_rows(truth: np.ndarray) -> np.ndarray:
    """Genes (rows) with one value in all cells, (g,) boolean."""
    return truth.max(axis=1) == truth.min(axis=1)


@cache
def _rank_kernel() -> Callable:
    """Pearson correlation of average ranks, given the sort orders; compiled by numba on first use."""
    import numba

    @numba.njit(nogil=True)
    def average_ranks(x, order, ranks):
        start, n = 0, len(x)
        while start < n:
            stop = start + 1
            while stop < n and x[order[stop]] == x[order[start]]:
                stop += 1
            for place in range(start, stop):
                ranks[order[place]] = (start + stop - n) / 2.0  # centred: the mean rank is 0
            start = stop

    @numba.njit(nogil=True)
    def correlate(truth, prediction, truth_order, prediction_order, out):
        n = truth.shape[1]
        a, b = np.empty(n), np.empty(n)
        for gene in range(len(truth)):
            average_ranks(truth[gene], truth_order[gene], a)
            average_ranks(prediction[gene], prediction_order[gene], b)
            aa, bb, ab = 0.0, 0.0, 0.0
            for i in range(n):
                aa += a[i] * a[i]
                bb += b[i] * b[i]
                ab += a[i] * b[i]
            out[gene] = ab / np.sqrt(aa * bb) if aa > 0 and bb > 0 else 0.0

    return correlate
