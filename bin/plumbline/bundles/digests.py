"""What identifies a data set and the code of a score: digests that are the same on every machine."""

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError
from plumbline.data.facts import read_facts
from plumbline.data.splits import PARTS, read_split
from plumbline.summary.output import AGAIN, read_columns

BIN = Path(__file__).resolve().parents[2]
FACTS = (
    *("name", "title", "organism", "x_kind", "perturbation_type", "unexpressed_threshold", "unexpressed_scale", "min_counts"),
    *("n_cells", "n_genes", "n_batches", "n_perturbations", "n_controls", "split_by", "input_sha256", "public_since"),
)
_TABLES = {"cells": ["cell_id", "perturbation", "is_control", "batch"], "genes": ["gene_id", "ensembl_id", "symbol"]}

# the patterns of codeDigest in subworkflows/local/utils_code
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(plumbline[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]+)|import[ \t]+(plumbline[\w.]+))", re.MULTILINE
)
_TABLE = re.compile(r'with_name\("([^"]+)"\)')


def data_identity(tables: Path, seeds: Iterable[int]) -> dict:
    """The facts of a prepared data set, and digests of its cells, genes and splits, whatever their order in the files.

    tables: the folder that PREPARE wrote. ``cells`` covers ids, perturbations, controls and batches; ``splits`` has a digest
    per seed.
    """
    if not (tables / "dataset.json").is_file():
        raise UserError(f"{tables}/dataset.json does not exist. {AGAIN}")
    facts = read_facts(tables)
    cells, genes = (read_columns(tables / f"{name}.parquet", used, columns=used) for name, used in _TABLES.items())
    order = np.argsort(cells["cell_id"].to_numpy(dtype=str), kind="stable")
    splits = {str(seed): _split_digest(tables, seed, order) for seed in seeds}
    identity = {name: facts.get(name) for name in FACTS}
    return identity | {"cells": _rows_digest(cells), "genes": _rows_digest(genes), "splits": splits}


def _rows_digest(table: pd.DataFrame) -> str:
    rows = np.sort(table.fillna("").astype(str).agg("\t".join, axis=1).to_numpy(dtype=str))
    return hashlib.sha256("\n".join(rows.tolist()).encode()).hexdigest()


def _split_digest(tables: Path, seed: int, order: np.ndarray) -> str:
    split = read_split(tables, seed)
    masks = np.concatenate([getattr(split, part)[order] for part in PARTS])
    return hashlib.sha256(f"{split.by} {len(order)} ".encode() + np.packbits(masks).tobytes()).hexdigest()


@cache
def task_code(task: str, root: Path = BIN) -> str:
    """The digest of the code that scores a task, as in the column ``code`` of a run; '' where the scripts are not installed."""
    roots = [root / "evaluate_embedding.py", root / f"plumbline/tasks/{task}.py"]
    if not all(path.is_file() for path in roots):
        return ""
    code = sorted(_closure(roots, root), key=str)
    tables = {path.with_name(name) for path in code for name in _TABLE.findall(path.read_text(encoding="utf-8"))}
    files = [*code, *sorted((path for path in tables if path.exists()), key=str)]
    text = "\n".join(path.read_bytes().decode() for path in files)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:12]


def _closure(roots: list[Path], root: Path) -> set[Path]:
    """Every file of the package that these files import, as Nextflow's digest sees them."""
    seen, pending = set(roots), list(roots)
    while pending:
        found = _imported(pending.pop(), root) - seen
        seen |= found
        pending += found
    return seen


def _imported(source: Path, root: Path) -> set[Path]:
    paths = set()
    for base, names, plain in _IMPORT.findall(source.read_text(encoding="utf-8")):
        start = base or plain
        for name in [start, *(f"{start}.{word}" for word in re.findall(r"\w+", names))]:
            parts = name.split(".")
            paths |= {root.joinpath(*parts[: n + 1]) for n in range(len(parts))}  # importing a.b.c runs a, a.b and a.b.c
    candidates = {path.with_name(f"{path.name}.py") for path in paths} | {path / "__init__.py" for path in paths}
    return {path for path in candidates if path.exists()}
