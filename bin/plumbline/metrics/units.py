"""Rows scaled to length 1."""

import numpy as np


def row_lengths(x: np.ndarray) -> np.ndarray:
    """Length of each row of x (n, d), (n,) float32, summed in float64."""
    return np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64)).astype(np.float32)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """A float32 copy of x (n, d) with rows of length 1. A row of zeros stays zero: its cosine with anything is 0."""
    unit = np.array(x, dtype=np.float32)
    length = row_lengths(unit)
    unit /= np.where(length > 0, length, 1)[:, None]
    return unit
