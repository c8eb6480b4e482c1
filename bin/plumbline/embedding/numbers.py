"""The numbers of an embedding as float32, in which it is kept: what that would cost is said, and not taken in silence."""

from collections.abc import Sequence

import numpy as np

from plumbline.common.errors import UserError

BLOCK = 2**26  # bytes of float64 that are looked at together
LOST = 0.01  # largest share of a dimension's standard deviation that rounding may take
NOISE = (
    1e-12  # of its largest value: what varies less is the rounding of float64 itself, such as of a unit that is never active
)


def as_float32(values: np.ndarray, name: str, columns: Sequence[str] = ()) -> np.ndarray:
    """Values (n, d) as float32, themselves if they are. name: of their file, for messages; columns: names of the dimensions.

    Raises UserError for what is no real number, and where float32 cannot hold how cells differ in a dimension: it has 7 digits,
    which a large number that all cells share (1e8) uses up, and nothing below 1e-45.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        of_torch = " Is it bfloat16? Save values.astype(np.float32)." if values.dtype.kind == "V" else ""
        raise UserError(f"{name}: the embedding holds values of type {values.dtype}, but real numbers are needed.{of_torch}")
    with np.errstate(over="ignore"):  # infinity is refused where all values are checked
        rounded = values.astype(np.float32, copy=False)
    if values.ndim == 2 and values.size and not np.can_cast(values.dtype, np.float32):
        _check_kept(values, rounded, name, columns)
    return rounded


def _check_kept(values: np.ndarray, rounded: np.ndarray, name: str, columns: Sequence[str]) -> None:
    lost = np.concatenate([_lost(values[:, part], rounded[:, part]) for part in _parts(values)])
    if not lost.any():
        return
    first = int(np.argmax(lost))
    column = values[:, first][np.isfinite(values[:, first])]
    which = f"the column {columns[first]}" if len(columns) else f"dimension {first} (counted from 0)"
    raise UserError(
        f"{name}: how cells differ is lost in float32, in which embeddings are kept, in {int(lost.sum())} of {len(lost)} "
        f"dimensions: {which} has the mean {column.mean():.4g} and a standard deviation of {column.std():.2g}. Subtract each "
        "dimension's mean (values - values.mean(axis=0)), and scale tiny values up, before you give the embedding."
    )


def _parts(values: np.ndarray) -> list[slice]:
    step = max(1, BLOCK // (8 * len(values)))
    return [slice(start, start + step) for start in range(0, values.shape[1], step)]


def _lost(values: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """Which dimensions (d,) lose more than LOST of their spread over the cells that have finite values."""
    values = values.astype(np.float64)
    finite = np.isfinite(values).all(axis=1) & np.isfinite(rounded).all(axis=1)
    values, rounded = values[finite], rounded[finite]
    if not len(values):
        return np.zeros(values.shape[1], dtype=bool)
    spread = values.std(axis=0)
    return ((rounded - values).std(axis=0) > LOST * spread) & (spread > NOISE * np.abs(values).max(axis=0))
