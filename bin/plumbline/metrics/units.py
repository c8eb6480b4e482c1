"""Rows scaled to length 1."""

import numpy as np

ROUNDING = 1e-10  # of what is subtracted: a difference of means that is shorter is rounding in float64


def row_lengths(x: np.ndarray) -> np.ndarray:
    """Length of each row of x (n, d), (n,) float64."""
    return np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))


def unit_rows(x: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """A copy of x (n, d) with rows of length 1. A row of zeros stays zero: its cosine with anything is 0."""
    unit = np.array(x, dtype=dtype)
    length = row_lengths(unit).astype(dtype, copy=False)
    unit /= np.where(length > 0, length, 1)[:, None]
    return unit


def apart(unit: np.ndarray, common: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (n, d) less ``common`` (d,), float32, and the product of that with ``common`` (n,), float64.

    Where all rows point nearly one way, cosines differ in digits that float32 does not hold. That of two rows is
    common . common + both products + what is left of one times that of the other, in which nothing is lost.
    """
    rest = without_rounding(unit - common, common)
    return rest.astype(np.float32), rest @ common


def without_rounding(difference: np.ndarray, subtracted: np.ndarray) -> np.ndarray:
    """``difference`` (n, d), in place, with rows of zeros where it is the rounding of what was ``subtracted``, (n, d) or (d,).

    The direction of such a row says nothing, yet a cosine would count it like any other.
    """
    square = np.einsum("ij,ij->i", difference, difference)
    difference[square <= ROUNDING**2 * np.einsum("...j,...j->...", subtracted, subtracted)] = 0
    return difference
