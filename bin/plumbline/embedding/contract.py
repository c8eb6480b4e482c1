"""The border between models and science: an embedding file, keyed by cell id.

A model writes ``embedding.npz`` (arrays ``cell_id`` and ``embedding``, no pickles) and, beside it, ``embedding.json``
with its provenance. Evaluation reads those two files and never imports a model. Rows are joined by id, never by position.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plumbline.common.errors import UserError
from plumbline.common.files import read_json_object, reading, whole_file, write_json
from plumbline.embedding.numbers import as_float32
from plumbline.embedding.stored import StoredArray, stored_member

BLOCK = 2**26  # bytes that are checked at a time
LARGEST = 1e15  # whose squares, added up over dimensions, float32 can hold: beyond, distances and gradients are infinite
ARRAYS = (
    "An embedding file needs the arrays cell_id and embedding: "
    "np.savez(path, cell_id=adata.obs_names.to_numpy(dtype=str), embedding=values)"
)
WRITTEN = "It is the provenance that lies beside an embedding: embed again, or remove it."


@dataclass(frozen=True)
class Embedding:
    """One embedding. ``values`` is float32 (n_cells, d); ``provenance['status']`` is 'ok' or 'not_applicable'."""

    cell_id: np.ndarray
    values: np.ndarray
    provenance: dict


@dataclass(frozen=True)
class OpenEmbedding:
    """The same, checked, with values that may have stayed in the file."""

    cell_id: np.ndarray
    values: np.ndarray | StoredArray
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
    array = np.ascontiguousarray(as_float32(values, Path(path).name))
    check_embedding(ids, array, Path(path).name, provenance)
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
    embedding = open_embedding(path)
    return Embedding(embedding.cell_id, embedding.values[:], embedding.provenance)


def open_embedding(path: Path | str) -> OpenEmbedding:
    """As ``read_embedding``, but values that lie in the file as float32, uncompressed, are left there (``StoredArray``)."""
    path, sidecar = Path(path), provenance_path(path)
    with (
        reading(path, f"{ARRAYS}."),
        np.load(path, allow_pickle=False) as arrays,
    ):
        if absent := {"cell_id", "embedding"} - {*arrays.files}:
            raise UserError(f"{path}: no array {' and '.join(sorted(absent))}; it holds {', '.join(arrays.files)}. {ARRAYS}.")
        ids = arrays["cell_id"].astype(str, copy=False)
        stored = stored_member(path, "embedding")
        values = stored or as_float32(arrays["embedding"], path.name)
    provenance = {"status": "ok", **(read_json_object(sidecar, WRITTEN) if sidecar.exists() else {})}
    if provenance["status"] == "ok":
        with reading(path):
            check_embedding(ids, values, path.name, provenance)
    return OpenEmbedding(ids, values, provenance)


def align(embedding: Embedding, cell_id: np.ndarray, source: str = "the embedding") -> np.ndarray:
    """The rows of ``embedding`` in the order of ``cell_id`` (n, d), itself where that is its own order.

    Raises UserError on duplicate, missing or extra cells.
    """
    rows = rows_of(embedding.cell_id, cell_id, source)
    return embedding.values if rows is None else embedding.values[rows]


def rows_of(found: np.ndarray, cell_id: np.ndarray, source: str = "the embedding") -> np.ndarray | None:
    """Which row of an embedding of the cells ``found`` each of ``cell_id`` (n,) is; None where they are the same in one order.

    Raises UserError on duplicate, missing or extra cells.
    """
    if np.array_equal(found, cell_id):
        return None
    wanted = np.asarray(cell_id).astype(str, copy=False)
    order = np.argsort(found, kind="stable")
    have = found[order]
    if len(have) > 1 and (have[1:] == have[:-1]).any():
        raise UserError(
            f"{source} has the cell id {str(have[1:][have[1:] == have[:-1]][0])!r} more than once. Keep one row per cell."
        )
    missing = np.setdiff1d(wanted, have, assume_unique=True)
    extra = np.setdiff1d(have, wanted, assume_unique=True)
    if len(missing) or len(extra):
        raise UserError(
            f"{source} and the data set do not hold the same cells: {len(missing)} missing{_example(missing)}, "
            f"{len(extra)} extra{_example(extra)}. Embed exactly the cells of the prepared counts.h5ad (from Python: of "
            "screen.adata), keyed by its cell ids."
        )
    return order[np.searchsorted(have, wanted)]


def plain_ids(ids: np.ndarray) -> np.ndarray:
    """Cell ids as users have them, as PREPARE reads them: strings (n,) without blanks around them."""
    return np.char.strip(np.asarray(ids).astype(str))


def _example(ids: np.ndarray) -> str:
    return f" (such as {str(ids[0])!r})" if len(ids) else ""


def check_embedding(ids: np.ndarray, values: np.ndarray | StoredArray, name: str, provenance: dict) -> None:
    """Raises UserError unless ids (n,) are distinct and values (n, d) usable but for the ``unembedded_cells``. name: the file.

    d is 0 for a predictor of expression alone, which is no embedding.
    """
    unembedded = provenance.get("unembedded_cells", 0)
    if not isinstance(unembedded, int) or unembedded < 0:
        raise UserError(f"{provenance_path(name)}: unembedded_cells is {unembedded!r}, not a number of cells. {WRITTEN}")
    if ids.ndim != 1 or values.ndim != 2 or len(values) != len(ids):
        raise UserError(f"{name}: {ids.size} cell ids but an array of shape {values.shape}; expected (n_cells, d).")
    if not values.shape[1] and not provenance.get("predictor"):
        raise UserError(f"{name}: the embedding has no dimensions (shape {values.shape}). Write at least one.")
    ordered = np.sort(ids)
    if (ordered[1:] == ordered[:-1]).any():
        twice = str(ordered[1:][ordered[1:] == ordered[:-1]][0])
        raise UserError(f"{name}: duplicate cell ids ({twice!r} occurs more than once). Make them unique before embedding.")
    bad = unusable(values)
    if bad.sum() != unembedded:
        first = f" (first: cell {str(ids[bad][0])!r})" if bad.any() else ""
        but = f", but unembedded_cells is {unembedded}" if unembedded else ""
        raise UserError(
            f"{name}: {int(bad.sum())} rows hold NaN or infinite values, or numbers beyond {LARGEST:g}{first}{but}. Give every "
            "cell finite numbers; scale larger ones down."
        )


def unusable(values: np.ndarray | StoredArray) -> np.ndarray:
    """Which rows (n,) hold a value that is not a number, or too large; in blocks."""
    step = max(1, BLOCK // max(4 * values.shape[1], 1))
    if isinstance(values, StoredArray):
        parts = values.blocks(step)
    else:
        parts = (values[start : start + step] for start in range(0, len(values), step))
    return np.concatenate([np.zeros(0, dtype=bool), *(~(np.abs(part) <= LARGEST).all(axis=1) for part in parts)])
