"""Open what users have (h5ad old and new, 10x h5, 10x mtx folder or archive) as one thing: labels now, counts as a stream."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from plumbline.common.errors import UserError, did_you_mean
from plumbline.common.files import sha256
from plumbline.counts.row_blocks import BUDGET, layout, row_blocks, shape
from plumbline.data.tenx import EXPRESSION, read_h5, read_mtx


@dataclass(frozen=True)
class Source:
    """An input file. Nothing of the matrix is read before ``blocks`` is called.

    cell_id (n_cells,) strings. var: gene table, index = the file's gene names, all columns as strings ('' = missing).
    columns: names of the cell annotations; ``column(name)`` reads one (strings, NaN where missing).
    genes: positions of the columns of the stored matrix that are used (None = all).
    """

    path: Path
    cell_id: np.ndarray
    var: pd.DataFrame
    columns: list[str]
    read: Callable[[str], pd.Series]
    node: str | sp.spmatrix
    genes: np.ndarray | None = None
    layers: list[str] = field(default_factory=list)
    transposed: bool = False

    def column(self, name: str, role: str) -> pd.Series:
        """One cell annotation as strings. Raises UserError with a hint if there is none of that name."""
        if name not in self.columns:
            raise UserError(f"{self.path.name} has no cell annotation {name!r} ({role}).{did_you_mean(name, self.columns)}")
        return as_text(self.read(name))

    def blocks(self, layer: str | None = None, budget: int = 0) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Yield (first row, CSR block) over all cells. ``layer`` reads another matrix than the chosen one.

        budget: bytes of values held at once; 0 = BUDGET.
        """
        budget = budget or BUDGET
        if not isinstance(self.node, str):
            yield from row_blocks(self.node, self.node.format, self.node.shape, budget)
            return
        with readable(self.path), h5py.File(self.path, "r") as file:
            node = file[layer or self.node]
            kind, size = ("csr", tuple(node["shape"][:][::-1])) if self.transposed else (None, None)
            stream = row_blocks(node, kind or layout(node), size or shape(node), budget)
            for start, block in stream:
                yield start, block if self.genes is None else block[:, self.genes]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what h5py raises on broken files into a UserError."""
    try:
        yield
    except (OSError, KeyError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read ({error}). Is the file complete? Compare its size and checksum.") from error


def open_source(path: Path | str, layer: str = "X", cells: Path | str | None = None) -> Source:
    """Open an input; ``layer`` is X, raw, or the name of a layer; ``cells`` an optional table of cell annotations.

    Raises UserError: missing, empty or truncated file, unknown format, unknown layer, annotations of no cell here.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"the input {path} does not exist. Check the column path of the sheet.")
    if path.is_file() and not path.stat().st_size:
        raise UserError(f"the input {path} is empty (0 bytes). Fetch or copy it again.")
    if path.is_dir() or path.name.endswith((".zip", ".tar", ".tar.gz", ".tgz", ".mtx", ".mtx.gz")):
        source = _from_frames(path, *read_mtx(path))
    elif not h5py.is_hdf5(path):
        raise UserError(f"{path} is no HDF5 file, or it is truncated. Known: .h5ad, 10x .h5, a 10x mtx folder, .tar or .zip.")
    else:
        with readable(path), h5py.File(path, "r") as file:
            source = _open_h5ad(path, file, layer) if "obs" in file else _open_10x(path, file)
    return source if cells is None else _annotate(source, Path(cells))


def as_text(values: pd.Series) -> pd.Series:
    """Labels as stripped strings; missing values, '' and the text 'nan' become NaN; 3.0 reads as '3'."""
    values = pd.Series(values).reset_index(drop=True)
    if values.dtype.kind == "f" and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    missing = values.isna()
    text = values.astype(object).map(str).str.strip()
    return text.mask(missing | text.isin(["", "nan", "NaN", "<NA>"]))


def _open_h5ad(path: Path, file: h5py.File, layer: str) -> Source:
    layers = [f"layers/{name}" for name in file.get("layers", {})] + (["raw/X"] if "raw" in file and "X" in file["raw"] else [])
    known = {"X": "X", "raw": "raw/X"} | {name.removeprefix("layers/"): name for name in layers if name != "raw/X"}
    known = {name: node for name, node in known.items() if node in file}
    if layer not in known:
        raise UserError(f"{path.name} has no layer {layer!r}.{did_you_mean(layer, list(known))}")
    var_node = file["raw/var"] if layer == "raw" and "var" in file["raw"] else file["var"]
    index, columns = frame_columns(file["obs"])
    var_index, var_columns = frame_columns(var_node)
    var = pd.DataFrame({name: as_text(read_column(var_node, name, file)).fillna("").to_numpy() for name in var_columns})
    var.index = as_text(read_column(var_node, var_index, file)).fillna("").to_numpy(dtype=str)
    cell_id = as_text(read_column(file["obs"], index, file)).fillna("").to_numpy(dtype=str)
    size = shape(file[known[layer]])
    if size != (len(cell_id), len(var)):
        raise UserError(f"{path.name}: {layer} is {size[0]} x {size[1]} but obs and var hold {len(cell_id)} x {len(var)}.")
    others = [name for name in ["X", *layers] if name != known[layer] and name in file]

    def read(name: str) -> pd.Series:
        with readable(path), h5py.File(path, "r") as again:
            return read_column(again["obs"], name, again)

    return Source(path, cell_id, var, columns, read, known[layer], layers=others)


def frame_columns(node: h5py.Group | h5py.Dataset) -> tuple[str, list[str]]:
    """(name of the index, names of the columns) of a stored table, in new or old (compound array) encoding."""
    if isinstance(node, h5py.Dataset):
        names = list(node.dtype.names or ())
        index = "index" if "index" in names else "_index" if "_index" in names else names[0]
    else:
        index = node.attrs.get("_index", "_index" if "_index" in node else "index")
        names = [str(name) for name in node.attrs.get("column-order", [])] or [name for name in node if name != "__categories"]
    return str(index), [name for name in names if name != index]


def read_column(node: h5py.Group | h5py.Dataset, name: str, file: h5py.File) -> pd.Series:
    """One column of a stored table: plain, nullable or categorical, in any encoding anndata ever wrote."""
    if isinstance(node, h5py.Dataset):
        values, categories = node[name], file.get(f"uns/{name}_categories")
        return _decode(_codes(values, categories[:]) if categories is not None else values)
    column = node[name]
    if isinstance(column, h5py.Dataset):
        categories = column.attrs.get("categories")
        return _decode(_codes(column[:], file[categories][:]) if categories is not None else column[:])
    from anndata.io import read_elem

    return pd.Series(read_elem(column))


def _codes(codes: np.ndarray, categories: np.ndarray) -> np.ndarray:
    labels = np.append(np.asarray(categories, dtype=object), np.array([np.nan], dtype=object))
    return labels[codes]  # a missing value has code -1: the last


def _decode(values: np.ndarray) -> pd.Series:
    if values.dtype.kind in "OS":
        values = np.array([value.decode() if isinstance(value, bytes) else value for value in values], dtype=object)
    return pd.Series(values)


def _open_10x(path: Path, file: h5py.File) -> Source:
    node, barcodes, var = read_h5(path, file)
    source = _from_frames(path, node, barcodes, var)
    used = np.flatnonzero(source.var["feature_type"] == EXPRESSION) if "feature_type" in source.var else None
    if used is None or len(used) == len(source.var):
        return Source(path, source.cell_id, source.var, source.columns, source.read, node, transposed=True)
    return Source(path, source.cell_id, source.var.iloc[used], source.columns, source.read, node, used, transposed=True)


def _from_frames(path: Path, node: str | sp.spmatrix, barcodes: np.ndarray, var: pd.DataFrame) -> Source:
    suffix = pd.Series(barcodes).str.extract(r"-(\d+)$")[0]  # Cell Ranger's gem group
    return Source(path, barcodes, var, ["gem_group"], {"gem_group": suffix}.__getitem__, node)


def _annotate(source: Source, path: Path) -> Source:
    """Add the columns of a table whose first column is the cell id; cells it does not name have missing values."""
    if not path.exists():
        raise UserError(f"the table of cell annotations {path} does not exist. Check the column cell_table of the sheet.")
    separator = "\t" if ".tsv" in path.name or ".txt" in path.name else ","
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, sep=separator, dtype=str)
    table = table.set_index(table.columns[0])
    table.index = table.index.astype(str)
    if table.index.duplicated().any():
        raise UserError(f"{path.name} names the cell {table.index[table.index.duplicated()][0]!r} more than once.")
    if not np.isin(source.cell_id, table.index.to_numpy(dtype=str)).any():
        raise UserError(
            f"{path.name} names no cell of {source.path.name}: its first column must hold cell ids such as "
            f"'{source.cell_id[0]}', but begins with '{table.index[0]}'."
        )
    table = table.reindex(source.cell_id)

    def read(name: str) -> pd.Series:
        return table[name] if name in table else source.read(name)

    columns = list(dict.fromkeys([*map(str, table.columns), *source.columns]))
    parts = {name: getattr(source, name) for name in ("node", "genes", "layers", "transposed")}
    return Source(source.path, source.cell_id, source.var, columns, read, **parts)


def input_sha256(path: Path | str) -> str:
    """sha256 of a file; of a folder, the sha256 of its files' names and digests."""
    path = Path(path)
    if path.is_file():
        return sha256(path)
    lines = [f"{sha256(file)}  {file.relative_to(path)}" for file in sorted(path.rglob("*")) if file.is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
