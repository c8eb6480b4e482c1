"""One pass over the counts: check, filter, name the genes, write CSR, add up what the tables need."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import UserError
from plumbline.counts.lognorm import TARGET
from plumbline.counts.writing import CsrWriter
from plumbline.data.catalogue import Dataset
from plumbline.data.cells import CellTable
from plumbline.data.genes import Genes
from plumbline.data.ingest import CountsFile
from plumbline.data.values import check_values, merge_genes


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

    def fitting_min_counts(self) -> int:
        """A round number of counts that 95 % of the labelled cells exceed."""
        least = int(np.quantile(np.concatenate(self.all_totals), 0.05, method="lower")) - 1
        return 0 if least < 10 else least // (step := 10 ** (len(str(least)) - 1)) * step

    def add(self, block: sp.csr_matrix, rows: np.ndarray, totals: np.ndarray, is_counts: bool) -> None:
        """Add kept cells: block (k, n_genes), their row numbers and total counts."""
        lengths = np.diff(block.indptr)
        for parts, values in ((self.rows, rows), (self.totals, totals), (self.detected, lengths)):
            parts.append(values)
        scale = np.repeat(TARGET / totals, lengths) if is_counts else None
        lognorm = np.log1p(block.data * scale) if is_counts else block.data
        for sums, weights in ((self.gene_total, block.data), (self.gene_lognorm, lognorm), (self.gene_cells, None)):
            sums += np.bincount(block.indices, weights=weights, minlength=self.n_genes)


def stream(source: CountsFile, dataset: Dataset, cells: CellTable, genes: Genes, writer: CsrWriter) -> Sums:
    """Check and filter all cells, append the kept ones to ``writer``. Raises UserError as soon as a value is not allowed."""
    is_counts, sums = dataset.x_kind == "counts", Sums(len(genes.table))
    for start, block in source.blocks():
        check_values(block, start, source, dataset)
        block = merge_genes(block, start, source, dataset.x_kind, genes)
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
            f"Lower min_counts in the sheet ({sums.fitting_min_counts()} keeps 95 % of them); 0 is right for bulk samples and "
            "gene-limited panels."
        )
    return sums


def write_counts(path: Path, source: CountsFile, dataset: Dataset, cells: CellTable, genes: Genes) -> Sums:
    """Write counts.h5ad (CSR float32; obs index = cell id; var index = gene id with ensembl_id and symbol)."""
    with CsrWriter(path, len(genes.table)) as writer:
        sums = stream(source, dataset, cells, genes, writer)
        rows = np.concatenate(sums.rows)
        obs = {"perturbation": cells.perturbation[rows], "is_control": cells.is_control[rows], "batch": cells.batch[rows]}
        obs |= {"guide": cells.guide[rows]} if (cells.guide != "").any() else {}
        var = {name: genes.table[name].to_numpy() for name in ("ensembl_id", "symbol")}
        writer.finish(cells.cell_id[rows], obs, genes.table["gene_id"].to_numpy(), var, {"x_kind": dataset.x_kind})
    if math.isclose(sums.gene_cells.sum(), 0):
        raise UserError(f"{source.path.name}: every value is 0.")
    return sums
