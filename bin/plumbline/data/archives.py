"""Archives and compressed text of users, unpacked no further than they declare: a small file may hold a huge one."""

import gzip
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from plumbline.common.errors import UserError
from plumbline.common.files import reading
from plumbline.data.formats import of_mac

ENTRY = 64  # bytes that one line of a matrix market file may take: two positions, a value of 17 digits, blanks
HEADING = 1 << 20  # bytes of comments above them
TABLE = 1 << 30  # bytes of a table of genes or barcodes


def unpack(archive: Path, folder: Path, endings: tuple[str, ...]) -> None:
    """Copy the files of a tar or zip archive whose names end so into ``folder``; all else in it stays where it is.

    Raises UserError: damaged, no room for what the archive declares, a table of absurd size.
    """
    with reading(archive, "Is the archive complete?"), open_archive(archive) as (members, read):
        wanted = {name: size for name, size in members.items() if name.endswith(endings) and not of_mac(name)}
        check_room(archive, sum(wanted.values()), folder)
        for number, (name, size) in enumerate(wanted.items()):
            if ".tsv" in name and size > TABLE:
                raise UserError(f"{archive}: {name} is a table of {size} bytes, which no list of genes or cells has.")
            # a folder of its own for each: names may repeat, and none of them may lead out of the folder
            place = folder / Path(name).parent.as_posix().strip("/").replace("..", "_") / Path(name).name
            target = place if place.resolve().is_relative_to(folder.resolve()) else folder / str(number) / Path(name).name
            target.parent.mkdir(parents=True, exist_ok=True)
            with read(name) as source, open(target, "wb") as stream:
                copy_at_most(source, stream, size, f"{archive}: {name}")


def check_room(archive: Path, size: int, folder: Path) -> None:
    """Raises UserError if ``folder`` has no room for the ``size`` bytes that an archive declares."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(f"{archive} holds {size} bytes, but {folder} has room for {free}. Free some space.")


@contextmanager
def open_archive(archive: Path) -> Iterator[tuple[dict[str, int], Callable[[str], BinaryIO]]]:
    """({name: declared size} of its plain files, function that opens one)."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield {item.filename: item.file_size for item in opened.infolist() if not item.is_dir()}, opened.open
    else:
        with tarfile.open(archive) as opened:
            yield {item.name: item.size for item in opened.getmembers() if item.isfile()}, opened.extractfile


def copy_at_most(source: BinaryIO, target: BinaryIO, most: int, name: str) -> None:
    """Copy ``source``. Raises UserError if it is longer than ``most`` bytes, which is what it declared to be."""
    left = most
    while block := source.read(min(1 << 20, left + 1)):
        left -= len(block)
        if left < 0:
            raise UserError(f"{name} is longer than the {most} bytes it declares: it is not read. Fetch it again.")
        target.write(block)


@contextmanager
def plain_matrix(path: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    """(matrix market file without compression, its rows and columns), no longer than the number of values it states allows."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as stream, TemporaryDirectory(prefix="plumbline_mtx_") as folder:
        heading, size, entries = _heading(stream, path)
        most = ENTRY * (entries + 1)
        if path.suffix != ".gz" and path.stat().st_size > most + len(heading):
            raise UserError(f"{path.name} is longer than its {entries} values need: it is damaged. Fetch it again.")
        if path.suffix != ".gz":
            _require_text(path)
            yield path, size
            return
        plain = Path(folder) / "matrix.mtx"
        with open(plain, "wb") as target:
            target.write(heading)
            copy_at_most(stream, target, most, path.name)
        _require_text(plain)
        yield plain, size


def _require_text(path: Path) -> None:
    """Raises UserError at a zero byte, as damaged files have: on it scipy's reader crashes (1.17)."""
    with open(path, "rb") as stream:
        while block := stream.read(1 << 24):
            if b"\0" in block:
                raise UserError(f"{path.name} is no text: it holds zero bytes, so it is damaged. Fetch it again.")


def _heading(stream: BinaryIO, path: Path) -> tuple[bytes, tuple[int, int], int]:
    """(everything up to and with the line of sizes, rows and columns, the number of values it states)"""
    heading = b""
    while len(heading) < HEADING and (line := stream.readline(HEADING)):
        heading += line
        if line.strip() and not line.startswith(b"%"):
            if not 2 <= len(line.split()) <= 3 or not all(number.isdigit() for number in line.split()):
                break
            rows, columns, *entries = map(int, line.split())
            return heading, (rows, columns), entries[0] if entries else rows * columns
    raise UserError(f"{path.name} is no matrix market file: it states no sizes (rows, columns, values).")
