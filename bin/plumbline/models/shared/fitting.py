"""What every fitted model shares: the cells it is fitted on, and the values it reads."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from plumbline.common.errors import NotApplicable, UserError, did_you_mean
from plumbline.counts.lognorm import log_normalise
from plumbline.counts.reading import Counts
from plumbline.data.facts import read_facts
from plumbline.data.splits import read_split
from plumbline.embedding.options import Options
from plumbline.models.shared.fit_on import read_fit_on

INPUTS = ("lognorm", "raw")


def x_kind(options: Options) -> str:
    """'counts', 'log' or 'signed', from PREPARE's facts; 'counts' outside the pipeline."""
    return kind_of(options.tables)


def kind_of(tables: Path | None) -> str:
    """The kind of values of a prepared data set: 'counts', 'log' or 'signed'."""
    return read_facts(tables).get("x_kind", "counts")


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


@dataclass(frozen=True)
class Fitting:
    """The cells a model is fitted on: ``rows`` (increasing) of ``counts``. tables: of that data set (None: outside PREPARE)."""

    counts: Counts
    rows: np.ndarray
    tables: Path | None

    @property
    def batch(self) -> np.ndarray:
        """Batch of each cell of ``rows``; all are of one batch where there are no tables."""
        return _batches(self.counts, self.tables)[self.rows]


def fitting_part(counts: Counts, options: Options) -> Fitting:
    """The cells that ``options.fit_on`` names (fit_on.py), of ``counts`` or of ``options.source``; joined by cell id.

    Raises UserError without tables, for cells that the tables do not know, or an empty train part;
    NotApplicable if the other data set holds values of another kind.
    """
    wanted = read_fit_on(options.fit_on, options.source is not None)
    counts, tables = (options.source.counts, options.source.tables) if options.source else (counts, options.tables)
    if options.source and kind_of(tables) != x_kind(options):
        raise NotApplicable(f"the data set to fit on holds {kind_of(tables)} values, this one {x_kind(options)} values.")
    rows = np.arange(len(counts.cell_id))
    if wanted.part == "train":
        if tables is None:
            raise UserError("--fit-on train needs --tables, the folder PREPARE wrote. Or use --fit-on all.")
        rows = np.flatnonzero(_train_mask(counts, tables, options.seed))
    if not len(rows):
        raise UserError(f"The train part of split {options.seed} is empty. Use --fit-on all, or another seed.")
    if wanted.share < 1:
        batch = _batches(counts, tables)[rows]
        rows = rows[share_of_batches(batch, wanted.share, (options.seed, wanted.draw))]
    return Fitting(counts, rows, tables)


def share_of_batches(batch: np.ndarray, share: float, seed: int | tuple[int, ...]) -> np.ndarray:
    """Cells (increasing positions) that make up ``share`` of all: whole batches in a random order, the last one in part.

    batch: (n,) labels. The number of cells is round(share * n), at least one. Shares of one seed are nested.
    """
    if share >= 1:
        return np.arange(len(batch))
    rng = np.random.default_rng(seed)
    names, codes = np.unique(batch, return_inverse=True)
    rank = rng.permutation(len(names))[codes]
    order = np.lexsort((rng.random(len(batch)), rank))
    return np.sort(order[: max(1, round(share * len(batch)))])


def _batches(counts: Counts, tables: Path | None) -> np.ndarray:
    if tables is None:
        return np.full(len(counts.cell_id), "all")
    return read_cells(tables, counts.cell_id)["batch"].to_numpy(dtype=str)


def _train_mask(counts: Counts, tables: Path, seed: int) -> np.ndarray:
    return read_cells(tables, counts.cell_id, train=read_split(tables, seed).train)["train"].to_numpy()


def read_cells(tables: Path, cell_id: np.ndarray, **columns: np.ndarray) -> pd.DataFrame:
    """The rows of cells.parquet for the cells ``cell_id``, in that order, with ``columns`` (in the order of the file) beside.

    Raises UserError for cells that it does not know.
    """
    cells = pd.read_parquet(tables / "cells.parquet").assign(**columns)
    place = pd.Index(cells["cell_id"].astype(str)).get_indexer(cell_id)
    unknown = cell_id[place < 0]
    if len(unknown):
        raise UserError(f"cells.parquet does not know {len(unknown)} cells of the counts, such as {str(unknown[0])!r}.")
    return cells.iloc[place]


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
