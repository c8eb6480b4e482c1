"""Files appear whole or not at all, are known by their sha256, and say in one way why they cannot be read."""

import csv
import hashlib
import io
import json
import os
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbline.common.errors import UserError

COMPLETE = "Is the file complete? Compare its size and checksum, or copy it again."
# what h5py, numpy, pandas, pyarrow, json, gzip, tarfile and zipfile raise on content that is not what it should be
_BUILT_IN = (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, RuntimeError, OverflowError, MemoryError)
_TEXT = (SyntaxError, tokenize.TokenError)  # numpy reads the head of its files as Python reads a literal
UNREADABLE = (*_BUILT_IN, *_TEXT, struct.error, zlib.error, zipfile.BadZipFile, tarfile.TarError, csv.Error)


@contextmanager
def reading(path: Path | str, advice: str = COMPLETE) -> Iterator[None]:
    """Turn what the readers of files raise on bad content into a UserError: which file, what is wrong, what to do next.

    Only for code that reads ``path``: a mistake of our own in the block would look like a damaged file.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. Check the path.") from error
    except PermissionError as error:
        raise UserError(f"{path} may not be read: check its permissions (ls -l).") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder, but a file is expected.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8, or name its true format.") from error
    except Exception as error:
        if not (isinstance(error, UNREADABLE) or type(error).__module__ == "pyarrow.lib"):  # which is not imported for this
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}). {advice}") from error


def read_json_object(path: Path | str, advice: str = COMPLETE) -> dict:
    """The JSON object a file holds (a byte-order mark is accepted). Raises UserError if it is unreadable or no object."""
    with reading(path, advice):
        value = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold one JSON object, but holds a {type(value).__name__}. {advice}")
    return value


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays last: numpy and h5py look at it
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path | str, value: object) -> None:
    """Write ``value`` as readable JSON, whole or not at all. NaN is refused: JSON has none."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_parquet(path: Path | str, table) -> None:
    """Write a table of pandas without its index, whole or not at all."""
    with whole_file(path) as temporary:
        table.to_parquet(temporary, index=False)


def sha256(path: Path | str) -> str:
    """Hex sha256 of a file, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checked_table(path: Path, digest: str) -> list[dict[str, str]]:
    """Rows of a tab-separated table that this version ships. Raises UserError if its sha256 is not ``digest``."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"{path} is not the table of this version (sha256 {digest}). Restore it from the repository.")
    return list(csv.DictReader(io.StringIO(content.decode()), delimiter="\t"))
