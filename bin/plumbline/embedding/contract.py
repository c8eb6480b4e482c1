"""The border between models and science: an embedding file, keyed by cell id.

A model writes ``embedding.npz`` (arrays ``cell_id`` and ``embedding``, no pickles) and, beside it, ``embedding.json``
with its provenance. Evaluation reads those two files and never imports a model. Rows are joined by id, never by position.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plumbline.common.errors import UserError
from plumbline.common.files import whole_file, write_json


@dataclass(frozen=True)
class Embedding:
    """One embedding. ``values`` is float32 (n_cells, d); ``provenance['status']`` is 'ok' or 'not_applicable'."""

    cell_id: np.ndarray
    values: np.ndarray
    provenance: dict


def provenance_path(path: Path | str) -> Path:
    """The JSON that travels beside an embedding."""
    return Path(path).with_suffix(".json")


def write_embedding(path: Path | str, cell_id: np.ndarray, values: np.ndarray, provenance: dict) -> None:
    """Write and check an embedding.

    cell_id: (n,) unique strings. values: (n, d) finite; stored as float32 (a row may be all-NaN only where
    ``provenance['unembedded_cells']`` counts it). The JSON gets ``status: ok`` unless the caller set another.
    """
    ids = np.asarray(cell_id).astype(str)
    array = np.ascontiguousarray(values, dtype=np.float32)
    _check(ids, array, int(provenance.get("unembedded_cells", 0)), Path(path).name)
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, cell_id=ids, embedding=array)
    write_json(provenance_path(path), {"status": "ok", "n_cells": len(ids), "n_dimensions": array.shape[1], **provenance})


def write_not_applicable(path: Path | str, reason: str, provenance: dict) -> None:
    """Record that the model cannot take this data set: an empty embedding whose JSON says why."""
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, cell_id=np.zeros(0, dtype="U1"), embedding=np.zeros((0, 0), dtype=np.float32))
    write_json(provenance_path(path), {**provenance, "status": "not_applicable", "reason": reason})


def read_embedding(path: Path | str) -> Embedding:
    """Read an embedding and its provenance (``{'status': 'ok'}`` if no JSON lies beside it)."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ids, values = arrays["cell_id"].astype(str), arrays["embedding"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not an embedding file: arrays `cell_id` and `embedding` are required ({error}).") from error
    sidecar = provenance_path(path)
    provenance = json.loads(sidecar.read_text()) if sidecar.exists() else {}
    return Embedding(ids, values.astype(np.float32, copy=False), {"status": "ok", **provenance})


def align(embedding: Embedding, cell_id: np.ndarray, source: str = "the embedding") -> np.ndarray:
    """The rows of ``embedding`` in the order of ``cell_id`` (n, d). Raises UserError on duplicate, missing or extra cells."""
    wanted = np.asarray(cell_id).astype(str)
    order = np.argsort(embedding.cell_id, kind="stable")
    have = embedding.cell_id[order]
    if len(have) > 1 and (have[1:] == have[:-1]).any():
        raise UserError(f"{source} has the cell id {str(have[1:][have[1:] == have[:-1]][0])!r} more than once.")
    missing = np.setdiff1d(wanted, have, assume_unique=True)
    extra = np.setdiff1d(have, wanted, assume_unique=True)
    if len(missing) or len(extra):
        raise UserError(
            f"{source} and the data set do not hold the same cells: {len(missing)} missing{_example(missing)}, "
            f"{len(extra)} extra{_example(extra)}. Embed exactly the cells of the prepared counts.h5ad, keyed by its cell ids."
        )
    return embedding.values[order[np.searchsorted(have, wanted)]]


def _example(ids: np.ndarray) -> str:
    return f" (such as {str(ids[0])!r})" if len(ids) else ""


def _check(ids: np.ndarray, values: np.ndarray, unembedded: int, name: str) -> None:
    if values.ndim != 2 or len(values) != len(ids):
        raise UserError(f"{name}: {len(ids)} cell ids but an array of shape {values.shape}; expected (n_cells, d).")
    if len(np.unique(ids)) != len(ids):
        raise UserError(f"{name}: duplicate cell ids. Make them unique before embedding.")
    bad = ~np.isfinite(values).all(axis=1)
    if bad.sum() != unembedded:
        raise UserError(f"{name}: {int(bad.sum())} rows hold NaN or infinite values (first: cell {str(ids[bad][0])!r}).")
