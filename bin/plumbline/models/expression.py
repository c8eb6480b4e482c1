"""The embedding that is no model: the expression of the most variable genes itself.

A dense matrix of all genes would need 8 GB per 100,000 cells and 20,000 genes, and every task would multiply with it;
so raw counts, too, are given for the ``n_hvg`` most variable genes (of log-normalised values), and the provenance says so.
"""

from plumbline.common.errors import NotApplicable
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.shared.fitting import INPUTS, at_least, choice, counts_share, dense_rows, fitting_part, transform, x_kind
from plumbline.models.shared.variable_genes import select_genes

N_HVG = 2000


def embed(counts: Counts, options: Options) -> Result:
    """Values (n_cells, <= n_hvg) of the most variable genes, in the order of the file's columns. Settings: input, n_hvg."""
    kind, values, n_hvg = x_kind(options), choice(options, "input", INPUTS), at_least(options, "n_hvg", N_HVG, 1)
    part = fitting_part(counts, options)
    genes = select_genes(part.counts, part.rows, kind, n_hvg)
    if not len(genes):
        raise NotApplicable("no gene varies over the cells, so there is no most variable gene to show.")
    dense = dense_rows(counts, transform(kind, values, genes), len(genes))
    about = {
        "input": values,
        "n_hvg": len(genes),
        "n_fit_cells": len(part.rows),
        "depends_on_gene_order": "its dimensions are genes, in the order of the file",
        "gene_selection": "normalised dispersion (seurat)" if kind == "counts" else "variance",
        "bound": f"the {len(genes)} most variable of {counts.shape[1]} genes: a dense matrix of all would not fit in memory",
    }
    return Result(
        values=dense,
        genes_used=len(genes),
        genes_total=counts.shape[1],
        counts_used=counts_share(counts, genes),
        unembedded=0,
        extra=about,
    )
