"""10x Genomics layouts: Cell Ranger h5 (v2 and v3) and mtx folders, archives and GEO-style prefixed files."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from plumbline.common.errors import UserError
from plumbline.common.files import reading
from plumbline.counts.hdf5 import check_matrix, check_room
from plumbline.data.archives import plain_matrix, unpack
from plumbline.data.formats import of_mac, refuse_hdf5

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MATRIX = ("matrix.mtx", "matrix.mtx.gz")
TABLES = {"barcodes": ("barcodes.tsv", "barcodes.tsv.gz")}
TABLES["genes"] = ("features.tsv", "features.tsv.gz", "genes.tsv", "genes.tsv.gz")
TEXT = "Is it the tab-separated table that Cell Ranger writes?"


def read_h5(path: Path, file: h5py.File) -> tuple[str, np.ndarray, pd.DataFrame]:
    """(name of the matrix group, barcodes, gene table) of a Cell Ranger h5. Its genes x cells CSC is a cells x genes CSR."""
    refuse_hdf5(path, file)
    groups = [name for name in file if isinstance(file[name], h5py.Group) and "indptr" in file[name]]
    if len(groups) > 1:
        raise UserError(f"{path} holds {len(groups)} genomes ({', '.join(groups)}). {_one_genome()}")
    if not groups:
        raise UserError(f"{path} is neither an h5ad (no obs) nor a 10x h5 with one matrix. It holds: {', '.join(file)}.")
    group = file[groups[0]]
    barcodes = group["barcodes"].asstr()[:].astype(str)
    var = _features(group.get("features", group), path)
    if tuple(group["shape"][:]) != (len(var), len(barcodes)):
        found = " x ".join(map(str, group["shape"][:]))
        raise UserError(f"{path}: its matrix is {found} but its tables hold {len(var)} genes x {len(barcodes)} cells.")
    check_matrix(group, "csr", (len(barcodes), len(var)))
    return groups[0], barcodes, var


def _features(node: h5py.Group, path: Path) -> pd.DataFrame:
    names = {"gene_ids": ("id", "genes"), "symbol": ("name", "gene_names"), "feature_type": ("feature_type",),
             "genome": ("genome",)}  # fmt: skip
    found = {column: next((node[name] for name in keys if name in node), None) for column, keys in names.items()}
    if found["gene_ids"] is None:
        raise UserError(f"{path} has no gene ids (features/id, or genes). Write it again with Cell Ranger or as h5ad.")
    n = len(found["gene_ids"])
    var = pd.DataFrame({name: check_room(part, n).asstr()[:] for name, part in found.items() if part is not None}, dtype=str)
    genomes = [genome for genome in var.get("genome", pd.Series(dtype=str)).unique() if genome]
    if len(genomes) > 1:
        raise UserError(f"{path} holds genes of {len(genomes)} genomes ({', '.join(genomes)}). {_one_genome()}")
    return var.drop(columns="genome", errors="ignore").set_index("gene_ids", drop=False)


def _one_genome() -> str:
    return (
        "Keep the cells and genes of one: adata = scanpy.read_10x_h5(path, genome=...), then adata.write_h5ad('counts.h5ad'), "
        "and give that as path."
    )


def is_text_matrix(path: Path) -> bool:
    """Whether ``path`` is a folder, an archive or the .mtx file of a 10x text matrix."""
    return path.is_dir() or path.name.endswith((*ARCHIVES, ".mtx", ".mtx.gz"))


def read_mtx(path: Path) -> tuple[sp.csr_matrix, np.ndarray, pd.DataFrame]:
    """(cells x genes counts, barcodes, gene table) of a folder, .tar(.gz), .zip, or the .mtx file beside its tables.

    The text format has no order to stream by, so it is held in memory (about 20 bytes per value).
    """
    if path.is_dir():
        return _read_folder(path, path)
    if path.name.endswith((".mtx", ".mtx.gz")):
        return _read_folder(path.parent, path, path)
    with tempfile.TemporaryDirectory(prefix="plumbline_10x_") as folder:
        unpack(path, Path(folder), (*MATRIX, *TABLES["barcodes"], *TABLES["genes"]))
        return _read_folder(Path(folder), path)


def _read_folder(folder: Path, source: Path, matrix: Path | None = None) -> tuple[sp.csr_matrix, np.ndarray, pd.DataFrame]:
    from scipy.io import mmread

    alone = matrix is not None
    matrix = matrix or _only(folder, MATRIX, source)
    prefix = matrix.name.split("matrix.mtx")[0]
    tables = {key: tuple(f"{prefix}{name}" for name in names) for key, names in TABLES.items()}
    barcodes = _read_table(_only(matrix.parent, tables["barcodes"], source, alone))[0]
    genes = _read_table(_only(matrix.parent, tables["genes"], source, alone)).iloc[:, :3]
    genes.columns = ["gene_ids", "symbol", "feature_type"][: genes.shape[1]]
    where = f"{source}: {matrix.name}"
    with reading(where, "Is it complete?"), plain_matrix(matrix) as (plain, size):
        _check_sizes(size, barcodes, genes, where)
        counts = sp.csr_matrix(mmread(plain).T)
    if counts.dtype.kind not in "fiub":
        raise UserError(f"{where} holds values of type {counts.dtype}, but counts are whole numbers.")
    return counts, barcodes.to_numpy(dtype=str), genes.set_index("gene_ids", drop=False)


def _read_table(path: Path) -> pd.DataFrame:
    with reading(path, TEXT):  # names such as NA are text here, and a quote is part of a name
        return pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)


def _check_sizes(size: tuple[int, int], barcodes: pd.Series, genes: pd.DataFrame, where: str) -> None:
    n_genes, n_cells = size
    if size == (len(genes), len(barcodes)):
        return
    text = f"{where} is {n_genes} genes x {n_cells} cells, its tables hold {len(genes)} x {len(barcodes)}."
    if (len(barcodes), len(genes)) == size:
        text += " It holds cells in rows: write its transpose (R: writeMM(t(m), file))."
    elif {len(barcodes) - n_cells, len(genes) - n_genes} <= {0, 1}:
        text += f" Remove the heading (first lines: {genes.iloc[0, 0]!r} and {barcodes[0]!r})."
    raise UserError(text)


def _only(folder: Path, endings: tuple[str, ...], source: Path, alone: bool = False) -> Path:
    files = (file for file in folder.rglob("*") if file.is_file() and not of_mac(str(file.relative_to(folder))))
    found = sorted(file for file in files if file.name.endswith(endings))
    if len(found) != 1:
        what = f"{len(found)} files" if found else "no file"
        names = sorted({ending.removesuffix(".gz") for ending in endings})
        text = f"{source} holds {what} named {' or '.join(names)}; a 10x folder has exactly one."
        if alone:
            text = f"beside {source} lies {what} named {' or '.join(names)}. Give the folder of all three, or its .zip."
        raise UserError(text)
    return found[0]
