"""One pass over the counts: check, filter, name the genes, write CSR, add up what the tables need."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import UserError
from plumbline.counts.writing import CsrWriter
from plumbline.data.catalogue import Dataset
from plumbline.data.harmonise import Cells, Genes
from plumbline.data.ingest import Source

TARGET = 10_000.0  # counts per cell of the log-normalised scale


@dataclass
class Sums:
    """What the pass found. Per kept cell: row (in the input), total, n_genes; per output gene: total, lognorm, cells."""

    n_genes: int
    rows: list[np.ndarray] = field(default_factory=list)
    totals: list[np.ndarray] = field(default_factory=list)
    detected: list[np.ndarray] = field(default_factory=list)
    all_totals: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gene_total, self.gene_lognorm, self.gene_cells = (np.zeros(self.n_genes) for _ in range(3))

    def add(self, block: sp.csr_matrix, rows: np.ndarray, totals: np.ndarray, is_counts: bool) -> None:
        """Add kept cells: block (k, n_genes), their row numbers and total counts."""
        lengths = np.diff(block.indptr)
        for parts, values in ((self.rows, rows), (self.totals, totals), (self.detected, lengths)):
            parts.append(values)
        scale = np.repeat(TARGET / totals, lengths) if is_counts else None
        lognorm = np.log1p(block.data * scale) if is_counts else block.data
        for sums, weights in ((self.gene_total, block.data), (self.gene_lognorm, lognorm), (self.gene_cells, None)):
            sums += np.bincount(block.indices, weights=weights, minlength=self.n_genes)


def stream(source: Source, dataset: Dataset, cells: Cells, genes: Genes, writer: CsrWriter) -> Sums:
    """Check and filter all cells, append the kept ones to ``writer``. Raises UserError as soon as a value is not allowed."""
    is_counts, sums = dataset.x_kind == "counts", Sums(len(genes.table))
    for start, block in source.blocks():
        check_values(block, start, source, dataset)
        block = merge_genes(block.astype(np.float32, copy=False), genes)
        totals = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
        rows = np.arange(start, start + block.shape[0])
        kept = cells.usable[rows] & ((totals > dataset.min_counts) if is_counts else True)
        sums.all_totals.append(totals[cells.usable[rows]])
        if kept.any():
            block = block if kept.all() else block[np.flatnonzero(kept)]
            writer.append(block)
            sums.add(block, rows[kept], totals[kept], is_counts)
    if not sums.rows:
        median = float(np.median(np.concatenate(sums.all_totals)))
        raise UserError(
            f"{source.path.name}: no cell has more than min_counts = {dataset.min_counts:g} counts (median {median:g}). "
            "Lower min_counts in the sheet; 0 is right for bulk samples and gene-limited panels."
        )
    return sums


def merge_genes(block: sp.csr_matrix, genes: Genes) -> sp.csr_matrix:
    """The block with duplicate genes added up, columns sorted and no stored zeros."""
    if genes.n_merged:
        columns = genes.target[block.indices].astype(np.int32)
        block = sp.csr_matrix((block.data, columns, block.indptr), shape=(block.shape[0], len(genes.table)))
    block.sum_duplicates()
    if not block.data.all():
        block.eliminate_zeros()
    return block


def check_values(block: sp.csr_matrix, start: int, source: Source, dataset: Dataset) -> None:
    """Finite always; whole numbers and none negative if the sheet says counts. The message names the first bad cell."""
    values = block.data
    if values.dtype.kind in "iub" and not (values.dtype.kind == "i" and len(values) and values.min() < 0):
        return
    bad = ~np.isfinite(values)
    if bad.any():
        raise UserError(_where(bad, block, start, source) + "Remove or fix these cells: no model can use NaN or infinity.")
    if dataset.x_kind != "counts":
        return
    bad = values < 0
    if bad.any():
        raise UserError(
            _where(bad, block, start, source)
            + "Counts are never negative. If the values are signed scores, say x_kind signed; "
            f"if they are logarithms, x_kind log.{_elsewhere(source)}"
        )
    bad = np.rint(values) != values
    if bad.any():
        raise UserError(
            _where(bad, block, start, source) + f"Raw counts are whole numbers; {_looks_like(block)} "
            f"If that is intended, say x_kind log.{_elsewhere(source)}"
        )


def _where(bad: np.ndarray, block: sp.csr_matrix, start: int, source: Source) -> str:
    first = int(np.flatnonzero(bad)[0])
    row = start + int(np.searchsorted(block.indptr, first, side="right")) - 1
    return f"{source.path.name}: cell '{source.cell_id[row]}' holds the value {block.data[first]:g}. "


def _looks_like(block: sp.csr_matrix) -> str:
    sums = np.asarray(block.expm1().sum(axis=1)).ravel() if block.data.max() < 30 else np.zeros(0)
    sums = sums[sums > 0]
    if len(sums) and np.ptp(sums) < 0.01 * np.median(sums):
        return f"these are log-normalised (log1p of counts to {np.median(sums):.0f} per cell)."
    return "these look normalised or log-transformed."


def _elsewhere(source: Source) -> str:
    """Point to the matrices of the file that do hold whole numbers."""
    found = []
    for layer in source.layers:
        _, block = next(source.blocks(layer, budget=1 << 20))
        if len(block.data) and (block.data >= 0).all() and (np.rint(block.data) == block.data).all():
            found.append("raw" if layer == "raw/X" else layer.removeprefix("layers/"))
    return f" The file holds whole numbers in: {', '.join(found)}; set layer to it in the sheet." if found else ""


def write_counts(path: Path, source: Source, dataset: Dataset, cells: Cells, genes: Genes) -> Sums:
    """Write counts.h5ad (CSR float32; obs index = cell id; var index = gene id with ensembl_id and symbol)."""
    with CsrWriter(path, len(genes.table)) as writer:
        sums = stream(source, dataset, cells, genes, writer)
        rows = np.concatenate(sums.rows)
        obs = {"perturbation": cells.perturbation[rows], "is_control": cells.is_control[rows], "batch": cells.batch[rows]}
        var = {name: genes.table[name].to_numpy() for name in ("ensembl_id", "symbol")}
        writer.finish(cells.cell_id[rows], obs, genes.table["gene_id"].to_numpy(), var, {"x_kind": dataset.x_kind})
    if math.isclose(sums.gene_cells.sum(), 0):
        raise UserError(f"{source.path.name}: every value is 0.")
    return sums
