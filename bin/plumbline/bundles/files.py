"""The files of a bundle, which a stranger may have made: nothing is followed, unpickled or read before it is checked."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.bundles.manifest import FILE, MANIFEST, TABLES, Bundle
from plumbline.common.errors import UserError
from plumbline.common.files import reading, sha256
from plumbline.embedding.contract import OpenEmbedding, open_embedding
from plumbline.summary.items import ItemTable
from plumbline.summary.output import NEEDED

MOST_DIMENSIONS = 65_536
MOST_VALUES = 10**9  # rows times columns of a table
MOST_STRETCHES = 10**6  # of its items: seeds, protocols, post-processings and metrics
_PLAIN = ("string", "large_string", "bool", "float", "double", "int8", "int16", "int32", "int64", "uint8", "uint16", "null")


def file_problems(bundle: Bundle) -> list[str]:
    """What is wrong with the files as such: missing, changed, unlisted, links, folders. Empty if nothing is."""
    stated, problems = bundle.manifest["files"], []
    for path in sorted(bundle.folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            problems.append(f"{path.name}: a link or folder. A bundle holds plain files; remove it")
        elif path.name != MANIFEST and path.name not in stated:
            known = "is not listed in the manifest" if FILE.fullmatch(path.name) else "is not a file of a bundle"
            problems.append(f"{path.name} {known}. Remove it")
    for name, digest in stated.items():
        path = bundle.folder / name
        if path.is_symlink() or not path.is_file():
            problems.append(f"{name} is missing. Copy the whole folder again")
        elif sha256(path) != digest:
            problems.append(f"{name} was changed after the bundle was made (its sha256 is not that of the manifest)")
    unlisted = [f"{name}.parquet" for name in TABLES if f"{name}.parquet" not in stated]
    if "embedding" not in bundle.manifest["left_out"]:
        unlisted += [part[kind] for part in bundle.manifest["embeddings"] for kind in ("file", "provenance")
                     if part[kind] not in stated]  # fmt: skip
    return problems + [f"the manifest does not list {name}. Make the bundle again: ./plumb submit" for name in unlisted]


def read_table(bundle: Bundle, name: str) -> pd.DataFrame:
    """Its scores or comparisons: plain columns of text and numbers. Raises UserError on anything else."""
    import pyarrow.parquet as parquet

    path = _checked(bundle, name)
    with reading(path):
        table = parquet.read_table(path).to_pandas(ignore_metadata=True)
    if name == "scores":
        table["reason"] = table["reason"].fillna("").astype(str)
    return table


def item_table(bundle: Bundle) -> ItemTable:
    """Its items, which are large and read score by score. Raises UserError where the file is not as it should be."""
    items = ItemTable([_checked(bundle, "items")])
    if sum(1 for _ in items.parts()) > MOST_STRETCHES:
        raise UserError(f"{items.paths[0]}: the rows of a score do not lie next to each other. Make the bundle again: "
                        "./plumb submit.")  # fmt: skip
    return items


def _checked(bundle: Bundle, name: str) -> Path:
    """The file of a table whose columns are those that are needed, of text and numbers."""
    import pyarrow.parquet as parquet

    path = bundle.folder / f"{name}.parquet"
    with reading(path):
        file = parquet.ParquetFile(path)
        odd = [field.name for field in file.schema_arrow if str(field.type) not in _PLAIN]
        n_values = file.metadata.num_rows * file.metadata.num_columns
    lacks = [column for column in NEEDED[name] if column not in file.schema_arrow.names]
    if lacks:
        raise UserError(f"{path} has no column {lacks[0]!r}. Make the bundle again: ./plumb submit.")
    if odd or n_values > MOST_VALUES:
        what = f"the column {odd[0]!r} does not hold text or numbers" if odd else f"{n_values:,} values are too many"
        raise UserError(f"{path}: {what}. Make the bundle again: ./plumb submit.")
    return path


def open_embedding_of(bundle: Bundle, part: dict) -> OpenEmbedding:
    """One embedding of a bundle, left in its file. Raises UserError unless it is (n_cells, d) numbers and ids."""
    path = bundle.folder / part["file"]
    n_cells = bundle.manifest["dataset"]["n_cells"]
    with reading(path, "An embedding file needs the arrays cell_id and embedding."), zipfile.ZipFile(path) as archive:
        shapes = {member.filename: _header(archive, member) for member in archive.infolist()}
    if sorted(shapes) != ["cell_id.npy", "embedding.npy"]:
        raise UserError(f"{path} holds {', '.join(sorted(shapes))[:200]}, not the arrays cell_id and embedding.")
    if shapes["cell_id.npy"] != (n_cells,) or len(shapes["embedding.npy"]) != 2 or shapes["embedding.npy"][0] != n_cells:
        raise UserError(f"{path} has arrays of shape {shapes['cell_id.npy']} and {shapes['embedding.npy']}, but the manifest "
                        f"states {n_cells} cells.")  # fmt: skip
    if shapes["embedding.npy"][1] > MOST_DIMENSIONS:
        raise UserError(f"{path}: {shapes['embedding.npy'][1]:,} dimensions, more than {MOST_DIMENSIONS:,}.")
    return open_embedding(path)


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[int, ...]:
    """The shape of an array in an npz file. Raises ValueError for Python objects, which only unpickling could read."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    n_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which are never loaded")
    if n_bytes > member.file_size:
        raise ValueError(f"{member.filename} states {n_bytes:,} bytes and holds {member.file_size:,}")
    return tuple(shape)
