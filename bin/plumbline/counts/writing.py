"""Write an h5ad row by row: CSR values appended block after block, tables in the plain encodings every anndata reads."""

from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
import scipy.sparse as sp

from plumbline.counts.hdf5 import DIGEST, digest

CHUNK = 1 << 18  # values per HDF5 chunk: about 300 cells of 800 genes


class CsrWriter:
    """Append CSR blocks to ``X`` of a new h5ad: float32, lzf, int32 columns; row pointers int64 beyond 2^31 values.

    Every chunk carries a checksum (Fletcher 32), which HDF5 checks on reading; tables and row pointers have a sha256.

    Use as a context manager; call ``finish`` once with the tables, as the number of rows is known only at the end.
    """

    def __init__(self, path: Path | str, n_genes: int) -> None:
        self.n_genes = n_genes
        self._file = h5py.File(path, "w")
        self._file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        group = self._file.create_group("X")
        self._data, self._indices = (
            group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(CHUNK,), compression="lzf", fletcher32=True)
            for name, dtype in (("data", np.float32), ("indices", np.int32))
        )
        self._lengths: list[np.ndarray] = []

    def __enter__(self) -> "CsrWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    @property
    def n_rows(self) -> int:
        """Rows appended so far."""
        return sum(map(len, self._lengths))

    def append(self, block: sp.csr_matrix) -> None:
        """Append the rows of one block (k, n_genes)."""
        start = self._data.shape[0]
        for target, values in ((self._data, block.data), (self._indices, block.indices)):
            target.resize((start + len(values),))
            target[start:] = values
        self._lengths.append(np.diff(block.indptr).astype(np.int64))

    def finish(self, obs_index: np.ndarray, obs: dict, var_index: np.ndarray, var: dict, uns: dict | None = None) -> None:
        """Write row pointers, obs and var (index and {column: array}) and uns (plain strings); close the file."""
        group = self._file["X"]
        indptr = np.cumsum(np.concatenate([np.zeros(1, np.int64), *self._lengths]))
        # scipy wants row pointers and column numbers of one type, and anndata passes on what it finds
        group["indptr"] = indptr.astype(np.int32) if indptr[-1] < 2**31 else indptr
        group["indptr"].attrs[DIGEST] = digest(group["indptr"][:])
        shape = np.array([self.n_rows, self.n_genes], dtype=np.int64)
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
        write_frame(self._file, "obs", obs_index, obs)
        write_frame(self._file, "var", var_index, var)
        for name in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
            self._file.create_group(name).attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        for name, value in (uns or {}).items():
            self._file["uns"][name] = value
            self._file["uns"][name].attrs.update({"encoding-type": "string", "encoding-version": "0.2.0"})
        self._file.close()


def write_frame(file: h5py.File, name: str, index: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """Write a table as anndata's dataframe 0.2.0 with plain arrays: strings, booleans or numbers; never categoricals."""
    group = file.create_group(name)
    order = np.array(list(columns), dtype=h5py.string_dtype()) if columns else np.zeros(0)
    about = {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index", "column-order": order}
    group.attrs.update(about)
    for column, values in {"_index": index, **columns}.items():
        array = np.asarray(values)
        text = array.dtype.kind in "OUS"
        group.create_dataset(column, data=array.astype(object), dtype=h5py.string_dtype()) if text else group.create_dataset(
            column, data=array
        )
        about = {"encoding-type": "string-array" if text else "array", "encoding-version": "0.2.0", DIGEST: digest(array)}
        group[column].attrs.update(about)
