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
from plumbline.scoring.protocol import POSTPROCESSINGS

MIN_CONTROLS = {"none": 0, "center": 1, "center_scale": 5, "tvn": 2}
REGULARISATION = 0.5  # TVN adds this to the diagonal of a batch's control covariance
BLOCK = 65_536  # rows transformed at a time: bounds the temporary memory


def postprocess(embedding: np.ndarray, is_control: np.ndarray, batch: np.ndarray, method: str) -> tuple[np.ndarray, dict]:
    """Align an embedding.

    embedding (n, d) finite; is_control (n,) bool; batch (n,) labels. Returns the aligned float32 (n, d), and a dict with
    ``method``, ``n_controls``, ``n_batches``, ``min_controls``, ``n_batches_fallback`` and ``batches_fallback`` (names).
    Dimensions in which the controls do not vary are centred and keep their scale. Statistics are float64.
    Raises NotApplicable without any control, UserError for an unknown method.
    """
    if method not in POSTPROCESSINGS:
        raise UserError(f"unknown post-processing {method!r}.{did_you_mean(method, list(POSTPROCESSINGS))}")
    values, controls = np.asarray(embedding, dtype=np.float32), np.asarray(is_control, dtype=bool)
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
        return values, info
    if info["n_controls"] < 1:
        raise NotApplicable(f"post-processing {method!r} aligns on controls, and there are none")
    if values.shape[1] == 0:
        return values, info
    groups = _groups(code, len(names))
    if method == "tvn":
        return _tvn(values, controls, groups, few), info
    return _standardise(values, controls, groups, few, scale=method == "center_scale"), info


def _groups(code: np.ndarray, n: int) -> list[np.ndarray]:
    """Row numbers of each batch."""
    return np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code, minlength=n))[:-1])


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))


def _moments(values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population SD (1 where there is no variation beyond float32 rounding) of some rows, in two passes."""
    mean = sum(values[part].sum(axis=0, dtype=np.float64) for part in _blocks(rows)) / len(rows)
    square = sum(((values[part] - mean) ** 2).sum(axis=0) for part in _blocks(rows)) / len(rows)
    deviation = np.sqrt(square)
    return mean, np.where(deviation > 1e-7 * np.abs(mean), deviation, 1.0)


def _standardise(values: np.ndarray, controls: np.ndarray, groups: list, few: np.ndarray, scale: bool) -> np.ndarray:
    everywhere = _moments(values, np.flatnonzero(controls))
    out = np.empty_like(values)
    for rows, fallback in zip(groups, few, strict=True):
        mean, deviation = everywhere if fallback else _moments(values, rows[controls[rows]])
        for part in _blocks(rows):
            out[part] = (values[part] - mean) / (deviation if scale else 1.0)
    return out


def _tvn(values: np.ndarray, controls: np.ndarray, groups: list, few: np.ndarray) -> np.ndarray:
    """Typical variation normalisation: z-score on controls, all principal axes of the controls, z-score on controls again,
    then a batch's cells times (covariance of its controls + 0.5 I)^(-1/2). The four steps are one affine map per batch."""
    rows_all = np.flatnonzero(controls)
    mean, deviation = _moments(values, rows_all)
    covariance = _covariance(values, rows_all, mean, ddof=0) / np.outer(deviation, deviation)
    variance, axes = np.linalg.eigh(covariance)
    variance, axes = variance[::-1], axes[:, ::-1]
    # axes in which the controls do not vary keep their scale: dividing by their rounding noise would blow it up
    varies = variance > 1e-10 * max(variance[0], np.finfo(float).tiny)
    whiten = axes / deviation[:, None] / np.sqrt(np.where(varies, variance, 1.0))
    everywhere = _inverse_root(_covariance(values, rows_all, mean, ddof=1), whiten) if few.any() else None
    out = np.empty_like(values)
    for rows, fallback in zip(groups, few, strict=True):
        own = rows[controls[rows]]
        root = everywhere if fallback else _inverse_root(_covariance(values, own, _moments(values, own)[0], ddof=1), whiten)
        transform = (whiten @ root).astype(np.float32)
        for part in _blocks(rows):
            out[part] = (values[part] - mean).astype(np.float32) @ transform
    return out


def _covariance(values: np.ndarray, rows: np.ndarray, mean: np.ndarray, ddof: int) -> np.ndarray:
    total = np.zeros((values.shape[1], values.shape[1]))
    for part in _blocks(rows):
        centred = values[part] - mean
        total += centred.T @ centred
    return total / max(len(rows) - ddof, 1)


def _inverse_root(covariance: np.ndarray, whiten: np.ndarray) -> np.ndarray:
    """(whitened covariance + 0.5 I)^(-1/2)."""
    variance, axes = np.linalg.eigh(whiten.T @ covariance @ whiten)
    return (axes / np.sqrt(np.maximum(variance, 0.0) + REGULARISATION)) @ axes.T
