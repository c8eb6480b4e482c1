"""Alignment of an embedding on its controls: none, center, center_scale, tvn (EFAAR, Celik et al. 2024; arXiv 2410.13956).

A batch with too few controls for a statistic of its own takes that of all controls, and is counted. Too few are no control
for a mean; fewer than 5 for standard deviations to divide by (with 2, the smallest of 256 is some 300 times too small, with 5
some 5 times); fewer than 2 for TVN's covariance, which the added 0.5 I keeps within bounds.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from plumbline.common.errors import NotApplicable, UserError, did_you_mean
from plumbline.scoring.alignment import Factored, Standardise, Whiten, Whole
from plumbline.scoring.protocol import POSTPROCESSINGS
from plumbline.scoring.vectors import Vectors

MIN_CONTROLS = {"none": 0, "center": 1, "center_scale": 5, "tvn": 2}
REGULARISATION = 0.5  # TVN adds this to the diagonal of a batch's control covariance
BLOCK = 2**23  # values taken in float64 at a time: bounds the temporary memory


def postprocess(
    embedding: Vectors | np.ndarray, is_control: np.ndarray, batch: np.ndarray, method: str
) -> tuple[Vectors, dict]:
    """Align an embedding.

    embedding (n, d) finite; is_control (n,) bool; batch (n,) labels. Returns the aligned vectors, and a dict with
    ``method``, ``n_controls``, ``n_batches``, ``min_controls``, ``n_batches_fallback`` and ``batches_fallback`` (names).
    Only controls are read here; where there are many cells, the rest are aligned when they are asked for.
    Dimensions in which the controls do not vary are centred and keep their scale. Statistics are float64.
    Raises NotApplicable without any control, UserError for an unknown method.
    """
    if method not in POSTPROCESSINGS:
        raise UserError(f"unknown post-processing {method!r}.{did_you_mean(method, list(POSTPROCESSINGS))}")
    vectors, controls = Vectors.of(embedding), np.asarray(is_control, dtype=bool)
    code, names = pd.factorize(np.asarray(batch, dtype=object))
    few = np.bincount(code[controls], minlength=len(names)) < MIN_CONTROLS[method]
    info: dict[str, Any] = {
        "method": method,
        "n_controls": int(controls.sum()),
        "n_batches": len(names),
        "min_controls": MIN_CONTROLS[method],
        "n_batches_fallback": int(few.sum()),
        "batches_fallback": [str(name) for name in names[few]],
    }
    if method == "none":
        return vectors, info
    if info["n_controls"] < 1:
        raise NotApplicable(f"post-processing {method!r} aligns on controls, and there are none")
    if vectors.shape[1] == 0:
        return vectors, info
    rows, own = np.flatnonzero(controls), _controls_of(controls, code, few)
    fitted = _tvn(vectors, rows, own) if method == "tvn" else _standardise(vectors, rows, own, method == "center_scale")
    return vectors.mapped(fitted, code.astype(np.int32)), info


def _controls_of(controls: np.ndarray, code: np.ndarray, few: np.ndarray) -> list[np.ndarray | None]:
    """Row numbers of each batch's controls, None where they are too few."""
    rows = np.flatnonzero(controls)
    by_batch = rows[np.argsort(code[rows], kind="stable")]
    parts = np.split(by_batch, np.cumsum(np.bincount(code[rows], minlength=len(few)))[:-1])
    return [None if fallback else part for part, fallback in zip(parts, few, strict=True)]


def _blocks(vectors: Vectors, rows: np.ndarray) -> Iterator[np.ndarray]:
    step = max(1, BLOCK // vectors.shape[1])
    return (vectors[rows[start : start + step]] for start in range(0, len(rows), step))


def _moments(vectors: Vectors, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population SD (1 where there is no variation beyond float32 rounding) of some rows, in two passes."""
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in _blocks(vectors, rows)) / len(rows)
    square = sum(((part - mean) ** 2).sum(axis=0) for part in _blocks(vectors, rows)) / len(rows)
    deviation = np.sqrt(square)
    return mean, np.where(deviation > 1e-7 * np.abs(mean), deviation, 1.0)


def _standardise(vectors: Vectors, rows: np.ndarray, own: list[np.ndarray | None], scale: bool) -> Standardise:
    everywhere = _moments(vectors, rows)
    found = [everywhere if part is None else _moments(vectors, part) for part in own]
    mean, deviation = (np.array(part) for part in zip(*found, strict=True))
    return Standardise(mean, deviation if scale else None)


def _tvn(vectors: Vectors, rows: np.ndarray, own: list[np.ndarray | None]) -> Whiten:
    """Typical variation normalisation: z-score on controls, all principal axes of the controls, z-score on controls again,
    then a batch's cells times (covariance of its controls + 0.5 I)^(-1/2). The four steps are one affine map per batch."""
    mean, deviation = _moments(vectors, rows)
    total = _covariance(vectors, rows, mean, ddof=0)
    variance, axes = np.linalg.eigh(total / np.outer(deviation, deviation))
    variance, axes = variance[::-1], axes[:, ::-1]
    # axes in which the controls do not vary keep their scale: dividing by their rounding noise would blow it up
    varies = variance > 1e-10 * max(variance[0], np.finfo(float).tiny)
    whiten = axes / deviation[:, None] / np.sqrt(np.where(varies, variance, 1.0))
    lacking = any(part is None for part in own)
    everywhere = [_whole(total * len(rows) / max(len(rows) - 1, 1), whiten)] if lacking else []
    of_batch = [everywhere[0] if part is None else _of_batch(vectors, part, whiten) for part in own]
    return Whiten(mean, whiten.astype(np.float32), of_batch)


def _covariance(vectors: Vectors, rows: np.ndarray, mean: np.ndarray, ddof: int) -> np.ndarray:
    total = np.zeros((vectors.shape[1], vectors.shape[1]))
    for part in _blocks(vectors, rows):
        centred = part - mean
        total += centred.T @ centred
    return total / max(len(rows) - ddof, 1)


def _of_batch(vectors: Vectors, rows: np.ndarray, whiten: np.ndarray) -> Whole | Factored:
    """whiten (whitened covariance of some controls + 0.5 I)^(-1/2)."""
    if 2 * len(rows) > vectors.shape[1]:
        return _whole(_covariance(vectors, rows, _moments(vectors, rows)[0], ddof=1), whiten)
    values = vectors[rows].astype(np.float64)
    return _factored((values - values.mean(axis=0)) @ whiten, whiten)


def _whole(covariance: np.ndarray, whiten: np.ndarray) -> Whole:
    variance, axes = np.linalg.eigh(whiten.T @ covariance @ whiten)
    root = (axes / np.sqrt(np.maximum(variance, 0.0) + REGULARISATION)) @ axes.T
    return Whole((whiten @ root).astype(np.float32))


def _factored(controls: np.ndarray, whiten: np.ndarray) -> Factored:
    """From the whitened controls themselves (n, d), n well below d: the eigenvectors of an n x n matrix are enough."""
    square, left = np.linalg.eigh(controls @ controls.T)
    kept = square > 1e-12 * max(square[-1], np.finfo(float).tiny)
    axes = (left[:, kept] / np.sqrt(square[kept])).T @ controls
    variance = square[kept] / max(len(controls) - 1, 1)
    factor = np.sqrt(1 - np.sqrt(REGULARISATION / (variance + REGULARISATION)))[:, None] * axes
    return Factored(REGULARISATION**-0.5, factor.astype(np.float32), (whiten @ factor.T).astype(np.float32))
