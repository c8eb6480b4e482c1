"""Log-normalised expression: counts to 10,000 per cell, then log1p (protocol, "Words")."""

import numpy as np
import scipy.sparse as sp

TARGET = 10_000.0


def log_normalise(block: sp.csr_matrix, x_kind: str = "counts") -> sp.csr_matrix:
    """``log1p(10,000 * x / sum of the cell)`` of a CSR block (n, genes), float32; a cell without counts stays zero.

    x_kind 'log' and 'signed' hold no counts: their values are returned as they are.
    """
    if x_kind != "counts":
        return block.astype(np.float32, copy=False)
    totals = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
    scale = np.divide(TARGET, totals, out=np.zeros_like(totals), where=totals > 0)
    data = np.log1p(block.data * np.repeat(scale, np.diff(block.indptr))).astype(np.float32)
    return sp.csr_matrix((data, block.indices, block.indptr), shape=block.shape)
