"""Rows scaled to length 1."""

import numpy as np

ROUNDING = 1e-10  # of what is subtracted: a difference of means that is shorter is rounding in float64


def row_lengths(x: np.ndarray) -> np.ndarray:
    """Length of each row of x (n, d), (n,) float32, summed in float64."""
    return np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64)).astype(np.float32)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """A float32 copy of x (n, d) with rows of length 1. A row of zeros stays zero: its cosine with anything is 0."""
    unit = np.array(x, dtype=np.float32)
    length = row_lengths(unit)
    unit /= np.where(length > 0, length, 1)[:, None]
    return unit


def without_rounding(difference: np.ndarray, subtracted: np.ndarray) -> np.ndarray:
    """``difference`` (n, d), in place, with rows of zeros where it is the rounding of what was ``subtracted`` (n, d).

    The direction of such a row says nothing, yet a cosine would count it like any other.
    """
    square = np.einsum("ij,ij->i", difference, difference)
    difference[square <= ROUNDING**2 * np.einsum("ij,ij->i", subtracted, subtracted)] = 0
    return difference
