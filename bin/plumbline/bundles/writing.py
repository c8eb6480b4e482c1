"""Writes a bundle: tables, embeddings without what identifies a machine, and last the manifest with their sha256."""

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plumbline.bundles.manifest import FILE, MANIFEST, VERSION
from plumbline.common.errors import UserError
from plumbline.common.files import read_json_object, sha256, whole_file, write_json
from plumbline.scoring.protocol import CHOSEN
from plumbline.summary.item_writing import write_items
from plumbline.summary.items import ItemTable
from plumbline.summary.schema import load_schema

PRIVATE = ("hostname",)
_MACHINE = ("device", "gpu", "threads", "python", "torch")
_COST = ("seconds", "cells_per_second", "peak_memory_bytes", "peak_gpu_memory_bytes")
SMALL = {
    "embedding": "left out with --small: an embedding of published data is large, and derived from data with terms of its own",
    "items": "those of the chosen post-processing alone",
}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What becomes a bundle: one model on one data set.

    model, dataset, tasks, settings, submission: those parts of the manifest. embeddings: files with a JSON beside each, and
    the split seeds that each is scored on. plumbline: the version that scored.
    """

    plumbline: str
    model: dict
    dataset: dict
    tasks: dict
    settings: dict
    submission: dict
    embeddings: list[tuple[Path, list[int]]]
    scores: pd.DataFrame
    comparisons: pd.DataFrame
    items: ItemTable


def write_bundle(folder: Path, contents: Contents, small: bool = False) -> Path:
    """Write a bundle; one that lies there is replaced. small: without the embedding, and with the chosen items alone."""
    _clear(folder)
    for name, table in {"scores": contents.scores, "comparisons": contents.comparisons}.items():
        with whole_file(folder / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False, compression="zstd")
    items = contents.items.of(postprocess=frozenset(CHOSEN.values())) if small else contents.items
    write_items(items, folder / "items.parquet")
    manifest = manifest_of(contents)
    for part, (path, _) in zip(manifest["embeddings"], contents.embeddings, strict=True):
        write_json(folder / part["provenance"], _provenance(path))
        if not small:
            shutil.copyfile(path, folder / part["file"])
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if FILE.fullmatch(path.name)}
    write_json(folder / MANIFEST, manifest | {"left_out": SMALL if small else {}, "files": files})
    return folder


def manifest_of(contents: Contents) -> dict:
    """The manifest, but for what lies in the folder (``left_out``, ``files``)."""
    provenances = [_provenance(path) for path, _ in contents.embeddings]
    written = {"system": platform.system(), "machine": platform.machine(), "processors": os.cpu_count()}
    written |= {"python": platform.python_version(), "numpy": np.__version__}
    return {
        "bundle_version": VERSION,
        "plumbline": contents.plumbline,
        "schema_version": load_schema()["version"],
        "model": contents.model,
        "dataset": contents.dataset,
        "tasks": contents.tasks,
        "settings": contents.settings,
        "submission": contents.submission,
        "embeddings": _parts(contents, provenances),
        "hardware": {
            "embedded_on": {name: provenances[0][name] for name in _MACHINE if provenances and name in provenances[0]},
            "written_on": written,
        },
        "cost": _cost(provenances),
    }


def _parts(contents: Contents, provenances: list[dict]) -> list[dict]:
    """File name, sha256, seeds and checkpoint of every embedding."""
    parts = []
    for (path, seeds), provenance in zip(contents.embeddings, provenances, strict=True):
        stem = "embedding" if len(contents.embeddings) == 1 else f"embedding.{seeds[0]}"
        about = {"file": f"{stem}.npz", "provenance": f"{stem}.json", "seeds": seeds, "sha256": sha256(path)}
        parts.append(about | {"checkpoint_sha256": str(provenance.get("checkpoint_sha256", ""))})
    return parts


def _provenance(embedding: Path) -> dict:
    return _public(read_json_object(embedding.with_suffix(".json")))


def _cost(provenances: list[dict]) -> dict:
    """Means over the embeddings of several seeds."""
    known = {name: [part[name] for part in provenances if isinstance(part.get(name), (int, float))] for name in _COST}
    return {name: float(np.mean(values)) for name, values in known.items() if values}


def _public(value: Any) -> Any:
    """A provenance without the name of the machine and without the folders of its user."""
    if isinstance(value, dict):
        return {name: _public(part) for name, part in value.items() if name not in PRIVATE}
    if isinstance(value, list):
        return [_public(part) for part in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _clear(folder: Path) -> None:
    """Make room. Raises UserError if the folder holds something that is not part of a bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    there = sorted(folder.iterdir())
    strange = [path.name for path in there if path.name != MANIFEST and not FILE.fullmatch(path.name)]
    if strange:
        raise UserError(f"{folder} holds {strange[0]!r}, which is not part of a bundle. Name an empty folder.")
    for path in sorted(there, key=lambda path: path.name != MANIFEST):  # without its manifest a half-removed bundle is none
        path.unlink()
