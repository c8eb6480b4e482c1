"""What every fitted model shares: the cells it is fitted on, and the values it reads."""

import json
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from plumbline.counts import Counts
from plumbline.embedding_cli import Options
from plumbline.errors import UserError, did_you_mean
from plumbline.lognorm import log_normalise

INPUTS = ("lognorm", "raw")


def x_kind(options: Options) -> str:
    """'counts', 'log' or 'signed', from PREPARE's facts; 'counts' outside the pipeline."""
    path = options.tables / "dataset.json" if options.tables else None
    return json.loads(path.read_text())["x_kind"] if path and path.exists() else "counts"


def choice(options: Options, name: str, known: tuple[str, ...]) -> str:
    """The setting ``name``, one of ``known`` (the first is the default). Raises UserError on another value."""
    value = str(options.get(name, known[0]))
    if value not in known:
        raise UserError(f"--set {name}={value}: unknown value.{did_you_mean(value, list(known))}")
    return value


def at_least(options: Options, name: str, default: int, lowest: int) -> int:
    """An integer setting that may not lie below ``lowest``. Raises UserError."""
    value = int(options.get(name, default))
    if value < lowest:
        raise UserError(f"--set {name}={value}: must be at least {lowest}.")
    return value


def fitting_rows(counts: Counts, options: Options) -> np.ndarray:
    """Row numbers of ``counts``, increasing, that a model may be fitted on.

    fit_on 'train': the train cells of the split with seed ``options.seed`` (joined by cell id); 'all' and 'none': every
    cell. Raises UserError without tables, for a seed without a split, for cells without a split, or an empty train part.
    """
    if options.fit_on in ("all", "none"):
        return np.arange(len(counts.cell_id))
    if options.fit_on != "train":
        raise UserError(f"--fit-on {options.fit_on}: expected train or all.")
    if options.tables is None:
        raise UserError("--fit-on train needs --tables, the folder PREPARE wrote (splits.parquet). Or use --fit-on all.")
    rows = np.flatnonzero(_train_mask(counts, options))
    if not len(rows):
        raise UserError(f"The train part of split {options.seed} is empty. Use --fit-on all, or another seed.")
    return rows


def _train_mask(counts: Counts, options: Options) -> np.ndarray:
    import pandas as pd

    cell_id = pd.read_parquet(options.tables / "cells.parquet", columns=["cell_id"])["cell_id"].astype(str)
    splits = pd.read_parquet(options.tables / "splits.parquet")
    name = f"train_{options.seed}"
    if name not in splits:
        seeds = [column.removeprefix("train_") for column in splits if str(column).startswith("train_")]
        raise UserError(f"splits.parquet has no split with seed {options.seed}; it has {', '.join(seeds) or 'none'}.")
    train = pd.Series(splits[name].to_numpy(dtype=bool), index=cell_id).reindex(counts.cell_id)
    if train.isna().any():
        unknown = train.index[train.isna()]
        raise UserError(f"splits.parquet does not know {len(unknown)} cells of the counts, such as {unknown[0]!r}.")
    return train.to_numpy(dtype=bool)


def transform(kind: str, values: str, genes: np.ndarray | None = None) -> Callable[[sp.csr_matrix], sp.csr_matrix]:
    """A function from a CSR block of X to the values a model reads.

    kind: the x_kind; values: 'lognorm' or 'raw'; genes: column numbers kept (normalisation comes first, over all genes).
    """

    def apply(block: sp.csr_matrix) -> sp.csr_matrix:
        block = log_normalise(block, kind) if values == "lognorm" else block
        return block if genes is None else block[:, genes]

    return apply


def dense_rows(counts: Counts, apply: Callable[[sp.csr_matrix], sp.csr_matrix], n_genes: int) -> np.ndarray:
    """All cells as a dense float32 matrix (n_cells, n_genes), filled block by block."""
    values = np.empty((len(counts.cell_id), n_genes), dtype=np.float32)
    for rows, block in counts.blocks():
        values[rows] = apply(block).toarray()
    return values


def counts_share(counts: Counts, genes: np.ndarray | None) -> float:
    """The share of all counts (absolute values) that the columns ``genes`` carry, 0..1; 1 for None."""
    if genes is None:
        return 1.0
    per_gene = sum((np.abs(block).sum(axis=0, dtype=np.float64) for _, block in counts.blocks()), start=0.0)
    per_gene = np.asarray(per_gene).ravel()
    return float(per_gene[genes].sum() / per_gene.sum()) if per_gene.sum() else 0.0
