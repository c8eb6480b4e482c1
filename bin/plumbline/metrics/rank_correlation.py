"""Spearman correlation in compiled loops."""

import numpy as np

from plumbline.common.compiled import compiled


@compiled(nogil=True)
def average_ranks(x, order, ranks):
    """Average ranks of x, centred on 0, given its sort order."""
    start, n = 0, len(x)
    while start < n:
        stop = start + 1
        while stop < n and x[order[stop]] == x[order[start]]:
            stop += 1
        for place in range(start, stop):
            ranks[order[place]] = (start + stop - n) / 2.0  # centred: the mean rank is 0
        start = stop


@compiled(nogil=True)
def correlate(truth, prediction, truth_order, prediction_order, out):
    """out[g]: Pearson correlation of the average ranks of gene g, given the sort orders; 0 for constant ones."""
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
