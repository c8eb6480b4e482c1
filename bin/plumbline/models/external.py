"""A user's own embedding: read from a file, joined to the cells of the counts by id.

Formats: h5ad (``--set key=X_name`` names an obsm; cell ids are the obs index, or ``--set id_column``), npz (arrays
``cell_id`` and ``embedding``), parquet (a column ``cell_id`` or the index; all other columns are the dimensions), npy
(with the ids, one a line, in a .txt or .csv of the same name beside it).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from plumbline.common.errors import UserError, did_you_mean
from plumbline.common.files import reading, sha256
from plumbline.counts.hdf5 import open_hdf5
from plumbline.counts.reading import Counts
from plumbline.embedding.contract import Embedding, align, plain_ids, read_embedding
from plumbline.embedding.dimensions import table_values
from plumbline.embedding.numbers import as_float32
from plumbline.embedding.options import Options, Result

FORMATS = ("h5ad", "npz", "parquet", "npy")
DROPPED = "dropped_cells.txt"  # PREPARE's list of the cells it filtered out, an id a line


def embed(counts: Counts, options: Options) -> Result:
    """The rows of the file in the order of the counts. Missing and extra cells are errors.

    Extra cells that PREPARE filtered out of the data set are left out and counted; so are all others with ``extra=drop``.
    """
    path = options.weights
    if path is None or not path.is_file():
        raise UserError(f"--embedding {path}: no such file.")
    embedding = read(path, str(options.get("key", "")), str(options.get("id_column", "")))
    embedding, n_dropped = _without_extra(embedding, counts, options)
    values = align(embedding, counts.cell_id, path.name)
    _check(values, counts.cell_id, path.name)
    about = {
        "genes_used": None,  # unknown to us, which is not zero
        "counts_used": None,
        "source": path.name,
        "source_sha256": sha256(path),
        "key": str(options.get("key", "")),
        "extra_cells_left_out": n_dropped,
        "original_provenance": embedding.provenance,
    }
    return Result(values=values, genes_used=0, genes_total=counts.shape[1], counts_used=0.0, unembedded=0, extra=about)


def read(path: Path, key: str = "", id_column: str = "") -> Embedding:
    """Read an embedding file of any known format. Raises UserError on an unknown one, a wrong key or column, bad values."""
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in FORMATS:
        raise UserError(f"{path.name}: unknown format {suffix!r}; expected one of {', '.join(FORMATS)}.")
    if key and suffix != "h5ad":
        raise UserError(f"{path.name}: a key names an obsm of an h5ad file; a {suffix} file has none. Leave key empty.")
    if id_column and suffix not in ("h5ad", "parquet"):
        raise UserError(f"{path.name}: id_column names a column of an h5ad or parquet file; a {suffix} file has none.")
    readers = {"h5ad": lambda: _h5ad(path, key, id_column), "npz": lambda: _npz(path), "npy": lambda: _npy(path)}
    return readers.get(suffix, lambda: _parquet(path, id_column))()


def _h5ad(path: Path, key: str, id_column: str) -> Embedding:
    from anndata.io import read_elem

    with open_hdf5(path) as file:
        obs, keys = read_elem(file["obs"]), list(file.get("obsm", {}))
        if not key and len(keys) == 1:
            key = keys[0]
        if key not in keys:
            raise UserError(f"{path.name}: obsm has no {key!r} (setting key).{did_you_mean(key, keys)}")
        values = read_elem(file["obsm"][key])
    columns: list[str] = []
    if hasattr(values, "dtypes"):  # a table
        columns = [str(column) for column in values]
        values = table_values(values, f"{path.name}: obsm {key}")
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    ids = _column(obs, id_column, path.name) if id_column else obs.index
    return _embedding(np.asarray(ids), values, f"{path.name}: obsm {key}", columns=columns)


def _npz(path: Path) -> Embedding:
    embedding = read_embedding(path)
    return _embedding(embedding.cell_id, embedding.values, path.name, embedding.provenance)


def _parquet(path: Path, id_column: str) -> Embedding:
    import pandas as pd

    with reading(path):
        table = pd.read_parquet(path)
    name = id_column or ("cell_id" if "cell_id" in table else "")
    if name:
        ids, table = _column(table, name, path.name).to_numpy(), table.drop(columns=name)
    elif isinstance(table.index, pd.RangeIndex | pd.MultiIndex):
        raise UserError(
            f"{path.name} holds no cell ids: it needs a column cell_id, an index of ids, or the setting id_column. "
            f"It holds the columns {', '.join(map(str, table.columns[:5]))}."
        )
    else:
        ids = table.index.to_numpy()
    return _embedding(ids, table_values(table, path.name), path.name, columns=[str(column) for column in table])


def _npy(path: Path) -> Embedding:
    beside = [path.with_suffix(suffix) for suffix in (".txt", ".csv") if path.with_suffix(suffix).is_file()]
    if not beside:
        raise UserError(
            f"{path.name}: an npy file needs its cell ids, one a line, in {path.stem}.txt or {path.stem}.csv beside it."
        )
    with reading(beside[0]):
        lines = beside[0].read_text(encoding="utf-8-sig").splitlines()
    ids = [line.split(",")[0].strip().strip('"') for line in lines if line.strip()]
    with reading(path):
        values = np.load(path, allow_pickle=False)
    if len(ids) == len(values) + 1 and ids[0].lower() in ("cell_id", "id", "barcode", "index"):
        ids = ids[1:]
    return _embedding(np.array(ids), values, path.name)


def _column(table, name: str, source: str):
    if name not in table:
        raise UserError(f"{source} has no column {name!r} (id_column).{did_you_mean(name, [str(c) for c in table])}")
    return table[name]


def _embedding(
    ids: np.ndarray, values: np.ndarray, source: str, provenance: dict | None = None, columns: Sequence[str] = ()
) -> Embedding:
    if values.ndim != 2 or not values.shape[-1] or values.dtype.kind not in "fiub" or len(values) != len(ids):
        raise UserError(
            f"{source}: {len(ids)} cell ids, and values of shape {values.shape} and type {values.dtype}; "
            "expected numbers (n_cells, d)."
        )
    return Embedding(plain_ids(ids), as_float32(values, source, columns), provenance or {})


def _without_extra(embedding: Embedding, counts: Counts, options: Options) -> tuple[Embedding, int]:
    known = counts.cell_id
    if str(options.get("extra", "error")) not in ("error", "drop"):
        raise UserError(f"--set extra={options.get('extra', 'error')}: expected error or drop.")
    if options.get("extra", "error") == "drop":
        keep = np.isin(embedding.cell_id, known)
    else:
        path = options.tables / DROPPED if options.tables else None
        dropped = np.array(path.read_text().split("\n")) if path and path.is_file() else np.zeros(0, dtype=str)
        keep = np.isin(embedding.cell_id, known) | ~np.isin(embedding.cell_id, dropped)
    return Embedding(embedding.cell_id[keep], embedding.values[keep], embedding.provenance), int((~keep).sum())


def _check(values: np.ndarray, cell_id: np.ndarray, source: str) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise UserError(
            f"{source}: {len(bad)} rows hold NaN or infinite values (first: cell {cell_id[bad[0]]!r}). "
            "Embed those cells, or take them out of the data set."
        )
