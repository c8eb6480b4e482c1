"""The manifest of a bundle: what it must hold, and how it is checked before anything else is read."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline.common.errors import UserError
from plumbline.common.files import read_json_object
from plumbline.data.catalogue import NAME

VERSION = "1.0.0"  # major: a meaning changed; minor: something was added
MANIFEST = "manifest.json"
TABLES = ("scores", "comparisons", "items")
FILE = re.compile(r"(scores|comparisons|items)\.parquet|embedding(\.\d{1,10})?\.(npz|json)")  # what may lie in a bundle
MOST_BYTES = 10_000_000  # of a manifest
ADVICE = "A bundle is a folder that ./plumb submit or Result.save wrote; its manifest is not edited by hand."
# what a manifest holds: a type, or a dictionary of the same
_SHAPE: dict[str, Any] = {
    "bundle_version": str,
    "plumbline": str,
    "schema_version": str,
    "model": {"variant": str, "model": str, "title": str, "role": str, "fit_on": str, "revision": str},
    "dataset": {"name": str, "n_cells": int, "cells": str, "genes": str, "splits": dict},
    "tasks": dict,
    "settings": {
        "baseline": str,
        "seeds": list,
        "protocols": list,
        "n_draws": int,
        "n_boot": int,
        "decoder_budget": float,
        "exact": bool,
    },
    "embeddings": list,
    "hardware": dict,
    "cost": dict,
    "submission": dict,
    "left_out": dict,
    "files": dict,
}
_TASK = {"version": str, "rules": str, "code": str, "main_metric": str}
_EMBEDDING = {"file": str, "provenance": str, "sha256": str, "seeds": list, "checkpoint_sha256": str}


@dataclass(frozen=True)
class Bundle:
    """A folder with a checked manifest."""

    folder: Path
    manifest: dict

    @property
    def variant(self) -> str:
        """The model's name in every table."""
        return self.manifest["model"]["variant"]

    @property
    def revision(self) -> str:
        """Of the model."""
        return self.manifest["model"]["revision"]

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return self.manifest["dataset"]["name"]

    def __str__(self) -> str:
        return f"{self.variant} {self.revision} on {self.dataset}"


def read_bundle(folder: Path) -> Bundle:
    """A folder whose manifest has everything, of the right types. Raises UserError otherwise; reads no other file."""
    path = folder / MANIFEST
    if folder.is_symlink() or path.is_symlink() or not path.is_file():
        raise UserError(f"{folder} is not a bundle: it has no {MANIFEST} of its own. {ADVICE}")
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, more than a manifest can need. {ADVICE}")
    manifest = read_json_object(path, ADVICE)
    version = str(manifest.get("bundle_version"))
    if version.partition(".")[0] != VERSION.partition(".")[0]:
        raise UserError(f"{path}: bundle version {version!r}, but this plumbline reads {VERSION}. Use the plumbline that the "
                        f"manifest names ({manifest.get('plumbline')!r}).")  # fmt: skip
    problems = [*_wrong(manifest, _SHAPE, ""), *_wrong_parts(manifest)]
    if problems:
        raise UserError(f"{path}: {'; '.join(problems[:5])}. {ADVICE}")
    return Bundle(folder, manifest)


def find_bundles(folder: Path) -> list[Path]:
    """The bundles at and below a folder, in order of their paths."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. {ADVICE}")
    return sorted(path.parent for path in folder.rglob(MANIFEST))


def _wrong(value: Any, shape: Any, where: str) -> list[str]:
    """What is not of the wanted shape, in words."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where} is not an object"]
        missing = [f"{where}{name} is missing" for name in shape if name not in value]
        found = [name for name in shape if name in value]
        return missing + [text for name in found for text in _wrong(value[name], shape[name], f"{where}{name}.")]
    fits = isinstance(value, (int, float) if shape is float else shape) and isinstance(value, bool) == (shape is bool)
    return [] if fits else [f"{where.rstrip('.')} is {str(value)[:40]!r}, not a {shape.__name__}"]


def _wrong_parts(manifest: dict) -> list[str]:
    """Tasks, embeddings, and names that become file names. Empty where the shape itself is wrong."""
    if _wrong(manifest, _SHAPE, ""):
        return []
    problems = [text for name, task in manifest["tasks"].items() for text in _wrong(task, _TASK, f"tasks.{name}.")]
    problems += [text for part in manifest["embeddings"] for text in _wrong(part, _EMBEDDING, "embeddings.")]
    names = {f"model.{name}": manifest["model"][name] for name in ("variant", "model", "revision")}
    names |= {"dataset.name": manifest["dataset"]["name"]}
    problems += [f"{place} is {name[:40]!r}, not a plain name" for place, name in names.items() if not NAME.fullmatch(name)]
    if problems:
        return problems
    listed = [*manifest["files"], *(part[name] for part in manifest["embeddings"] for name in ("file", "provenance"))]
    problems += [f"{name[:40]!r} is not a file of a bundle" for name in listed if not FILE.fullmatch(name)]
    seeds = [*manifest["settings"]["seeds"], *(seed for part in manifest["embeddings"] for seed in part["seeds"])]
    return problems + [f"the seed {seed!r} is not a whole number" for seed in seeds if type(seed) is not int]
