"""Files that are no counts plumbline reads, and what their owner can do: one message for each kind that people have."""

from pathlib import Path

import h5py

from plumbline.common.errors import UserError

KNOWN = "Known: .h5ad, 10x .h5, a 10x mtx folder, .tar or .zip."
AS_H5AD = "adata.write_h5ad('counts.h5ad')"
OTHERS = {
    ".rds": "is an R object. In R: convert it with zellkonverter::writeH5AD or sceasy::convertFormat(..., to = 'anndata').",
    ".h5seurat": "is a Seurat file. In R: SeuratDisk::Convert('file.h5seurat', dest = 'h5ad').",
    ".rdata": "is an R object. In R: convert it with zellkonverter::writeH5AD or sceasy::convertFormat(..., to = 'anndata').",
    ".loom": f"is a loom file. In Python: adata = anndata.io.read_loom(path); {AS_H5AD}.",
    ".csv": f"is a text table. In Python: adata = anndata.io.read_csv(path) (cells in rows, else .T); {AS_H5AD}.",
    ".tsv": f"is a text table. In Python: adata = anndata.io.read_text(path) (cells in rows, else .T); {AS_H5AD}.",
    ".txt": f"is a text table. In Python: adata = anndata.io.read_text(path) (cells in rows, else .T); {AS_H5AD}.",
    ".xlsx": "is a spreadsheet. Export it as text, and write it as h5ad with anndata.",
    ".zarr": f"is a zarr store. In Python: adata = anndata.io.read_zarr(path); {AS_H5AD}.",
}
MAC = ("__MACOSX", "._", ".DS_Store")  # what macOS adds to archives and folders


def refuse_unknown(path: Path) -> None:
    """Raises UserError if ``path`` is missing, empty, or of a kind that is not read, with the way to convert it."""
    if not path.exists():
        raise UserError(f"the input {path} does not exist. Check the column path of the sheet.")
    if path.is_file() and not path.stat().st_size:
        raise UserError(f"the input {path} is empty (0 bytes). Fetch or copy it again.")
    name = path.name.lower().removesuffix(".gz").removesuffix(".zip")
    if path.is_dir() and any((path / mark).exists() for mark in (".zgroup", ".zattrs", "zarr.json")):
        name = ".zarr"
    for ending, advice in OTHERS.items():
        if name.endswith(ending) and not (path.is_file() and h5py.is_hdf5(path) and ending in (".txt", ".csv", ".tsv")):
            raise UserError(f"{path} {advice} {KNOWN}")
    if path.is_dir():
        _refuse_folder(path)


def of_mac(name: str) -> bool:
    """Whether a file (with its folders) is one of those that macOS adds."""
    return any(part.startswith(MAC) for part in Path(name).parts)


def refuse_hdf5(path: Path, file: h5py.File) -> None:
    """Raises UserError for HDF5 files that are neither h5ad nor 10x h5."""
    if "mod" in file:
        names = list(file["mod"])
        raise UserError(
            f"{path} is a MuData file (h5mu) of {', '.join(names)}. Write the gene expression on its own: "
            f"mudata.read(path).mod[{names[0] if names else 'rna'!r}].write_h5ad('counts.h5ad'), and give that."
        )
    if "matrix" in file and isinstance(file["matrix"], h5py.Dataset) and "row_attrs" in file:
        raise UserError(f"{path} {OTHERS['.loom']} {KNOWN}")


def _refuse_folder(path: Path) -> None:
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not of_mac(str(file.relative_to(path)))]
    matrices = [file for file in files if file.name.endswith(("matrix.mtx", "matrix.mtx.gz"))]
    found = [file.name for file in files if file.suffix in (".h5ad", ".h5", ".h5mu")]
    if found and not matrices:
        raise UserError(
            f"{path} is a folder of {len(found)} files ({', '.join(found[:3])}{' ...' if len(found) > 3 else ''}). Give one of "
            "them as path, one row of the sheet each, or join them with anndata.concat and give the result."
        )
