"""HDF5 files opened in one checked way: nothing in them leads out of the file, and the parts of a matrix agree."""

import contextlib
import hashlib
import math
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from plumbline.common.errors import UserError
from plumbline.common.files import reading

FILTERS = {32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32026: "blosc2"}
NUMBERS = "fiub"
DIGEST = "sha256"  # attribute of what HDF5 itself has no checksum for: small arrays, and texts
LIMIT = 45  # seconds: a sound file takes a fraction of one
_checked: dict[str, tuple[int, int]] = {}  # {path: (time of change, size)} of the files that were walked already


@contextmanager
def open_hdf5(path: Path | str) -> Iterator[h5py.File]:
    """Open a file for reading. Raises UserError: unreadable, links to other files, a filter that is not installed."""
    with reading(path):
        about = Path(path).stat()
        known = _checked.get(str(path)) == (about.st_mtime_ns, about.st_size)
        if not known:
            _try(path)
        with h5py.File(path, "r") as file:
            if not known:
                _check_nodes(file, path)
                _checked[str(path)] = (about.st_mtime_ns, about.st_size)
            yield file


def _try(path: Path | str) -> None:
    """Walk the file in a process of its own: on damaged ones the HDF5 library may loop without end, or crash."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: the child only reads this file
        child = os.fork()
    if not child:
        try:
            _walk(path)
        finally:
            os._exit(0)
    end = _wait(child)
    if end:
        how = f"could not be read within {LIMIT} seconds" if end == signal.SIGKILL else "crashes the HDF5 library"
        raise UserError(f"{path} {how}: it is damaged. Fetch or copy it again.")


def _wait(child: int) -> int:
    """The signal that ended a process, 0 if none; after LIMIT seconds it is killed."""
    deadline, pause = time.monotonic() + LIMIT, 0.001
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            done = os.waitpid(child, 0)
            break
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return os.WTERMSIG(done[1]) if os.WIFSIGNALED(done[1]) else 0


def _walk(path: Path | str) -> None:
    """Touch what the library reads by following addresses: names, headers, attributes, where the chunks and texts lie.

    Errors come up again later.
    """
    with contextlib.suppress(Exception), h5py.File(path, "r") as file:
        _check_nodes(file, path)
        for node in _nodes(file):
            dict(node.attrs)
            if isinstance(node, h5py.Dataset) and node.chunks:
                node.id.get_num_chunks()
            if isinstance(node, h5py.Dataset) and node.dtype.hasobject:  # in a heap, whose damage can be a circle, too
                _touch(node)


def _touch(node: h5py.Dataset) -> None:
    if not node.ndim:
        node[()]
    for start in range(0, len(node) if node.ndim else 0, 2**16):
        node[start : start + 2**16]


def _check_nodes(file: h5py.File, path: Path | str) -> None:
    """What external links and storage name are other files of this machine: they are refused."""
    for node in _nodes(file):
        if isinstance(node, h5py.Dataset):
            _check_dataset(node, f"{path}: {node.name}", path)


def _nodes(file: h5py.File) -> Iterator[h5py.Group | h5py.Dataset]:
    """Everything in a file, once, without following a link. Raises UserError at an external link."""
    groups, seen = [file["/"]], set()
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                where = f"{file.filename}: {group.name.rstrip('/')}/{name}"
                raise UserError(f"{where} is an external link to {link.filename}. {_copy_of(file.filename)}")
            if not isinstance(link, h5py.HardLink):
                continue  # a soft link stays in the file: what it points to is met on its own
            node = group[name]
            address = h5py.h5o.get_info(node.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(node, h5py.Group):
                groups.append(node)
            yield node


def _check_dataset(node: h5py.Dataset, where: str, path: Path | str) -> None:
    if node.is_virtual or node.external:
        kind = "a virtual data set" if node.is_virtual else "stored externally"
        raise UserError(f"{where} is {kind}: its values lie in other files. {_copy_of(path)}")
    settings = node.id.get_create_plist()
    for number in range(settings.get_nfilters()):
        code = settings.get_filter(number)[0]
        if not (h5py.h5z.filter_avail(code) or _plugin_reads(code)):
            name = FILTERS.get(code, f"HDF5 filter {code}")
            raise UserError(
                f"{where} is compressed with {name}, which this installation cannot read. Install hdf5plugin "
                "(pip install hdf5plugin), or write the file again with adata.write_h5ad(path, compression='gzip')."
            )


def _plugin_reads(code: int) -> bool:
    try:
        import hdf5plugin  # noqa: F401 - registers its filters
    except ImportError:
        return False
    return bool(h5py.h5z.filter_avail(code))


def _copy_of(path: Path | str) -> str:
    return f"Such files are not read; copy it whole: h5repack {Path(path).name} copy.h5ad, or read and write it with anndata."


def layout(node: h5py.Group | h5py.Dataset) -> str:
    """'csr', 'csc' or 'dense' of a stored matrix, in new and old (h5sparse) anndata encodings. Raises KeyError on others."""
    if isinstance(node, h5py.Dataset):
        return "dense"
    kind = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", ""))
    kind = (kind.decode() if isinstance(kind, bytes) else str(kind)).removesuffix("_matrix")
    if kind not in ("csr", "csc"):
        raise KeyError(f"a matrix stored as {kind or 'an unknown kind of group'}")
    return kind


def shape(node: h5py.Group | h5py.Dataset) -> tuple[int, int]:
    """(rows, columns) of a stored matrix. Raises UserError if it has not two dimensions."""
    size = node.shape if isinstance(node, h5py.Dataset) else node.attrs.get("shape", node.attrs.get("h5sparse_shape", ()))
    size = np.asarray(size)
    if size.shape != (2,) or size.dtype.kind not in "iu" or (size < 0).any():
        raise UserError(f"{node.file.filename}: {node.name} is not a matrix of rows and columns (shape {size.tolist()}).")
    return int(size[0]), int(size[1])


def check_matrix(node: h5py.Group | h5py.Dataset, kind: str, size: tuple[int, int]) -> None:
    """Raises UserError if a stored matrix is not of ``size`` (rows, columns), not of real numbers, or contradicts itself."""
    where = f"{node.file.filename}: {node.name.strip('/')}"
    if kind == "dense":
        if not isinstance(node, h5py.Dataset) or node.shape != size:
            raise UserError(f"{where} is not a table of {size[0]} x {size[1]} values. {_again()}")
        _require_numbers(node, where, NUMBERS)
        return
    parts = {name: node.get(name) for name in ("data", "indices", "indptr")}
    for name, part in parts.items():
        if not isinstance(part, h5py.Dataset) or part.ndim != 1:
            raise UserError(f"{where} has no list {name!r}, which a sparse matrix needs. {_again()}")
        _require_numbers(part, f"{where}/{name}", NUMBERS if name == "data" else "iu")
    _check_pointers(parts, size[1] if kind == "csc" else size[0], where)


def _check_pointers(parts: dict[str, h5py.Dataset], n: int, where: str) -> None:
    lengths = {name: len(part) for name, part in parts.items()}
    if lengths["indptr"] != n + 1:
        raise UserError(f"{where}/indptr has {lengths['indptr']} entries, but {n + 1} are needed. {_again()}")
    if lengths["data"] != lengths["indices"]:
        raise UserError(f"{where} has {lengths['data']} values at {lengths['indices']} positions. {_again()}")
    indptr = undamaged(parts["indptr"], parts["indptr"][:]).astype(np.int64)
    if indptr[0] != 0 or indptr[-1] != lengths["data"] or (np.diff(indptr) < 0).any():
        raise UserError(f"{where}/indptr does not divide the {lengths['data']} values into rows: it is damaged. {_again()}")


def digest(values: np.ndarray) -> str:
    """sha256 of an array of numbers or of texts (n,), as it is stored."""
    if values.dtype.kind in "OUS":
        texts = (text if isinstance(text, bytes) else str(text).encode() for text in values)
        return hashlib.sha256(b"\0".join(texts)).hexdigest()
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def undamaged(node: h5py.Dataset, values: np.ndarray) -> np.ndarray:
    """``values`` of a dataset if they are those that were written. Raises UserError; not where the writer left no digest."""
    if node.attrs.get(DIGEST, "") not in ("", digest(values)):
        raise UserError(f"{node.file.filename}: {node.name.strip('/')} is damaged: its sha256 does not fit. {_again()}")
    return values


def _require_numbers(node: h5py.Dataset, where: str, kinds: str) -> None:
    if node.dtype.kind not in kinds:
        what = "whole numbers" if kinds == "iu" else "real numbers"
        raise UserError(f"{where} holds values of type {node.dtype}, but {what} are needed. Convert it and write it again.")


def check_positions(indices: np.ndarray, n: int, where: str) -> np.ndarray:
    """``indices`` if all lie in 0 .. n-1. Raises UserError: one position out of range would make a matrix of any size."""
    if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < n):
        bad = int(indices.min()) if indices.min() < 0 else int(indices.max())
        raise UserError(f"{where}: the position {bad} lies outside of the matrix (0 to {n - 1}): it is damaged. {_again()}")
    return indices


def check_room(node: h5py.Dataset, most: int) -> h5py.Dataset:
    """``node`` if it has at most ``most`` entries. Raises UserError: it is a list of another length than the table's."""
    if math.prod(node.shape) != most:
        raise UserError(f"{node.file.filename}: {node.name} has {math.prod(node.shape)} entries instead of {most}. {_again()}")
    return node


def _again() -> str:
    return "Write the file again, or fetch it again."
