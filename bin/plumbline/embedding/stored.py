"""An array that stays in its file: rows are read when they are asked for, and no page of it counts as this process's memory.

Why not ``numpy.memmap``: mapped pages stay resident, and one row brings its neighbours along (fault-around, 64 KB), so that a
thousand scattered rows of 1 KB would take 64 MB.
"""

import os
import struct
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

GAP = 16_384  # bytes between two wanted rows that are read along rather than skipped: a read costs as much
SPAN = 2**23  # bytes read at once where rows between the wanted ones come along


class StoredArray:
    """A float32 array (n, d) in C order at an offset of a file. ``array[rows]`` reads an index array, a mask or a slice."""

    dtype, ndim = np.dtype(np.float32), 2

    def __init__(self, path: Path | str, offset: int, shape: tuple[int, int], checksums: tuple[int, int] | None = None) -> None:
        """checksums: the CRC-32 of what comes before the array, and of both, as the file's directory has it."""
        self.shape, self._offset, self._checksums = shape, offset, checksums
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self, n_rows: int) -> Iterator[np.ndarray]:
        """The whole array in blocks of rows. Raises OSError after the last one if the file's checksum says it is damaged."""
        found, expected = self._checksums or (0, None)
        for start in range(0, len(self), n_rows):
            block = self[start : start + n_rows]
            found = zlib.crc32(block.data, found) if block.size else found
            yield block
        if expected is not None and found != expected:
            raise OSError("its checksum does not fit: the file is damaged")

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(len(self))
            return self._read(start, max(stop - start, 0))
        rows = np.asarray(rows) if not isinstance(rows, slice) else np.arange(len(self))[rows]
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of an array of {len(self)}")
        return self._gather(rows)

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        for low, high in self._runs(wanted):
            first, last = int(wanted[low]), int(wanted[high - 1])
            out[order[low:high]] = self._read(first, last - first + 1)[wanted[low:high] - first]
        return out

    def _runs(self, wanted: np.ndarray) -> list[tuple[int, int]]:
        """Cuts of sorted rows into those read at once: close to one another, and within a span."""
        width = max(4 * self.shape[1], 1)
        new = np.flatnonzero(np.diff(wanted) > max(GAP // width, 1)) + 1
        runs, reach = [], max(SPAN // width, 1)
        for low, high in zip(np.r_[0, new].tolist(), np.r_[new, len(wanted)].tolist(), strict=True):
            while low < high:
                end = low + int(np.searchsorted(wanted[low:high], wanted[low] + reach))
                runs.append((low, end))
                low = end
        return runs

    def _read(self, start: int, n: int) -> np.ndarray:
        out = np.empty((n, self.shape[1]), dtype=np.float32)
        view, place = out.reshape(-1).view(np.uint8).data, self._offset + 4 * start * self.shape[1]
        done = 0
        while done < out.nbytes:
            got = os.preadv(self._file, [view[done:]], place + done)
            if not got:
                raise OSError(f"the embedding's file ends {out.nbytes - done} bytes too early")
            done += got
        return out


def stored_member(path: Path, name: str) -> StoredArray | None:
    """One array of an uncompressed .npz, where it lies; None if it is compressed, not float32, or not in C order."""
    with zipfile.ZipFile(path) as file:
        member = file.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        with file.open(member) as stream:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, kind = read(stream)
            start = stream.tell()
        with file.open(member) as stream:
            head = zlib.crc32(stream.read(start))
    if kind != np.dtype("<f4") or fortran or len(shape) != 2:
        return None
    with open(path, "rb") as raw:  # the name and the extra field may be longer here than in the file's directory
        raw.seek(member.header_offset + 26)
        start += member.header_offset + 30 + sum(struct.unpack("<HH", raw.read(4)))
    return StoredArray(path, start, shape, (head, member.CRC))
