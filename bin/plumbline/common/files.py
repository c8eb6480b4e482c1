"""Files appear whole or not at all, and are known by their sha256."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbline.common.errors import UserError


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
