"""The checkpoints plumbline knows: the columns of assets/models.csv that say which files to fetch and how to recognise them."""

import csv
from dataclasses import dataclass
from pathlib import Path

from plumbline.errors import UserError, did_you_mean

MODELS = Path(__file__).resolve().parents[2] / "assets" / "models.csv"


@dataclass(frozen=True)
class KnownFile:
    """One file of a checkpoint: where it lies below the base URL and in the weights folder; '' or 0 where not known."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Checkpoint:
    """The files of one variant. source: base URL; revision: what they are pinned to; row: all of models.csv's row."""

    variant: str
    source: str
    revision: str
    files: tuple[KnownFile, ...]
    row: dict[str, str]


def known_checkpoints(table: Path = MODELS) -> dict[str, Checkpoint]:
    """Variant id -> checkpoint, for the rows of models.csv that name weights. Empty where the table does not travel along."""
    if not table.exists():
        return {}
    with open(table, newline="") as stream:
        return {row["id"]: _checkpoint(row) for row in csv.DictReader(stream) if row.get("weights_files")}


def known_checkpoint(variant: str, table: Path = MODELS) -> Checkpoint:
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
    return f"Fetch {files} from {checkpoint.source} with: ./plumb fetch {variant}"


def _checkpoint(row: dict[str, str]) -> Checkpoint:
    paths = row["weights_files"].split(";")
    hashes = _column(row, "weights_sha256", len(paths))
    sizes = _column(row, "weights_bytes", len(paths))
    files = (KnownFile(path, sha, int(size or 0)) for path, sha, size in zip(paths, hashes, sizes, strict=True))
    return Checkpoint(row["id"], row["weights_source"], row.get("weights_revision", ""), tuple(files), row)


def _column(row: dict[str, str], name: str, n: int) -> list[str]:
    values = row[name].split(";") if row.get(name) else [""] * n
    if len(values) != n:
        raise UserError(f"assets/models.csv, {row['id']}: {name} has {len(values)} entries for {n} weights_files.")
    return values
