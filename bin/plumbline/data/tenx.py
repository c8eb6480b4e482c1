"""10x Genomics layouts: Cell Ranger h5 (v2 and v3) and mtx folders, archives and GEO-style prefixed files."""

import tarfile
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from plumbline.common.errors import UserError

EXPRESSION = "Gene Expression"


def read_h5(path: Path, file: h5py.File) -> tuple[str, np.ndarray, pd.DataFrame]:
    """(name of the matrix group, barcodes, gene table) of a Cell Ranger h5. Its genes x cells CSC is a cells x genes CSR."""
    groups = [name for name in file if isinstance(file[name], h5py.Group) and "indptr" in file[name]]
    if len(groups) != 1:
        raise UserError(f"{path} is neither an h5ad (no obs) nor a 10x h5 with one matrix. It holds: {', '.join(file)}.")
    group = file[groups[0]]
    genes = group.get("features", group)
    names = {"gene_ids": ("id", "genes"), "symbol": ("name", "gene_names"), "feature_type": ("feature_type",)}
    found = {column: next((genes[name] for name in keys if name in genes), None) for column, keys in names.items()}
    var = pd.DataFrame({column: node.asstr()[:] for column, node in found.items() if node is not None})
    return groups[0], group["barcodes"].asstr()[:].astype(str), var.set_index("gene_ids", drop=False)


def read_mtx(path: Path) -> tuple[sp.csr_matrix, np.ndarray, pd.DataFrame]:
    """(cells x genes counts, barcodes, gene table) of a folder, .tar(.gz), .zip, or the .mtx file beside its tables.

    The text format has no order to stream by, so it is held in memory (about 20 bytes per value).
    """
    if path.is_dir():
        return _read_folder(path, path)
    if path.name.endswith((".mtx", ".mtx.gz")):
        return _read_folder(path.parent, path, path)
    with tempfile.TemporaryDirectory(prefix="plumbline_10x_") as folder:
        try:
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(folder)  # zipfile itself keeps members inside the folder
            else:
                with tarfile.open(path) as archive:
                    archive.extractall(folder, filter="data")
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise UserError(f"{path} cannot be unpacked ({error}). Is the archive complete?") from error
        return _read_folder(Path(folder), path)


def _read_folder(folder: Path, source: Path, matrix: Path | None = None) -> tuple[sp.csr_matrix, np.ndarray, pd.DataFrame]:
    from scipy.io import mmread

    matrix = matrix or _only(folder, ("matrix.mtx", "matrix.mtx.gz"), source)
    prefix = matrix.name.split("matrix.mtx")[0]
    tables = {"barcodes": ("barcodes.tsv",), "genes": ("features.tsv", "genes.tsv")}
    names = {key: tuple(f"{prefix}{stem}{end}" for stem in stems for end in ("", ".gz")) for key, stems in tables.items()}
    barcodes = pd.read_csv(_only(matrix.parent, names["barcodes"], source), sep="\t", header=None, dtype=str)[0]
    genes = pd.read_csv(_only(matrix.parent, names["genes"], source), sep="\t", header=None, dtype=str).iloc[:, :3]
    genes.columns = ["gene_ids", "symbol", "feature_type"][: genes.shape[1]]
    try:
        counts = sp.csr_matrix(mmread(matrix).T)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{source}: {matrix.name} cannot be read ({error}). Is it complete?") from error
    if counts.shape != (len(barcodes), len(genes)):
        raise UserError(f"{source}: {matrix.name} is {counts.shape[1]} genes x {counts.shape[0]} cells, its tables hold "
                        f"{len(genes)} x {len(barcodes)}.")  # fmt: skip
    used = (genes["feature_type"] == EXPRESSION).to_numpy() if "feature_type" in genes else np.ones(len(genes), dtype=bool)
    return counts[:, used], barcodes.to_numpy(dtype=str), genes[used].set_index("gene_ids", drop=False)


def _only(folder: Path, endings: tuple[str, ...], source: Path) -> Path:
    found = sorted(file for file in folder.rglob("*") if file.is_file() and file.name.endswith(endings))
    if len(found) != 1:
        what = f"{len(found)} files" if found else "no file"
        raise UserError(f"{source} holds {what} named {' or '.join(endings)}; a 10x folder has exactly one.")
    return found[0]
