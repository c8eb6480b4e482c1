"""The checkpoints plumbline knows: the columns of assets/models.csv that say which files to fetch and how to recognise them.

weights_source: base URL. weights_revision: commit or release, '' if the source has none. weights_files: paths in the weights
folder, ';' between them; a file that lies elsewhere below the source is written path=remote. weights_sha256 and weights_bytes:
as many entries, empty where not known. A source that only a browser can open (MANUAL_HOSTS) gives instructions instead.
weights_licence: one that excludes commercial use says "non-commercial" or NC, and must be accepted before a file is fetched.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from plumbline.common.errors import UserError, did_you_mean
from plumbline.embedding.variants import TABLE, read_rows

MANUAL_HOSTS = ("drive.google.com", "hopebio2020.sharepoint.com", "www.dropbox.com")
NON_COMMERCIAL = re.compile(r"non-?commercial|\bNC\b", re.IGNORECASE)


@dataclass(frozen=True)
class KnownFile:
    """One file of a checkpoint: where it lies in the weights folder and on the net; '' or 0 where hash or size are unknown."""

    path: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Checkpoint:
    """The files of one variant. folder: where in a weights folder they lie (several variants of a model share one)."""

    variant: str
    folder: str
    source: str
    files: tuple[KnownFile, ...]
    licence: str = ""

    @property
    def restricted(self) -> bool:
        """Whether the licence of the weights excludes commercial use."""
        return NON_COMMERCIAL.search(self.licence) is not None

    @property
    def manual(self) -> bool:
        """Whether only a person with a browser can fetch it."""
        return urlparse(self.source).hostname in MANUAL_HOSTS


def known_checkpoints(table: Path = TABLE) -> dict[str, Checkpoint]:
    """Variant id -> checkpoint, for the rows of models.csv that name weights."""
    return {row["id"]: _checkpoint(row) for row in read_rows(table) if row.get("weights_files")}


def known_checkpoint(variant: str, table: Path = TABLE) -> Checkpoint:
    """The checkpoint of ``variant``. Raises UserError, with close names, if models.csv has none."""
    known = known_checkpoints(table)
    if variant not in known:
        raise UserError(f"assets/models.csv names no weights for {variant!r}.{did_you_mean(variant, sorted(known))}")
    return known[variant]


def fetch_hint(variant: str) -> str:
    """What to do about a missing or damaged file of ``variant``: the last sentence of every such message."""
    checkpoint = known_checkpoints().get(variant)
    if checkpoint is None:
        return "Give the folder of the authors' checkpoint with --weights."
    files = ", ".join(Path(file.path).name for file in checkpoint.files)
    accept = " --accept-licence" if checkpoint.restricted else ""
    return f"Fetch {files} from {checkpoint.source} with: ./plumb fetch {variant}{accept}"


def _checkpoint(row: dict[str, str]) -> Checkpoint:
    base = "/".join(part for part in (row["weights_source"], row.get("weights_revision", "")) if part)
    pairs = [entry.partition("=") for entry in row["weights_files"].split(";")]
    hashes, sizes = (_column(row, name, len(pairs)) for name in ("weights_sha256", "weights_bytes"))
    files = tuple(
        KnownFile(path, f"{row['weights_source']}/{remote}" if remote else f"{base}/{path}", sha, int(size or 0))
        for (path, _, remote), sha, size in zip(pairs, hashes, sizes, strict=True)
    )
    return Checkpoint(
        variant=row["id"],
        folder=row["model"],
        source=row["weights_source"],
        files=files,
        licence=row.get("weights_licence", ""),
    )


def _column(row: dict[str, str], name: str, n: int) -> list[str]:
    values = row[name].split(";") if row.get(name) else [""] * n
    if len(values) != n:
        raise UserError(f"assets/models.csv, {row['id']}: {name} has {len(values)} entries for {n} weights_files.")
    return values
