"""Are the values what the sheet says they are? Counts are whole, not negative, and no larger than float32 holds exactly."""

import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import UserError
from plumbline.counts.matrices import are_whole, layer_name, looks_like
from plumbline.data.catalogue import Dataset
from plumbline.data.genes import Genes
from plumbline.data.ingest import CountsFile

LARGEST_COUNT = 2**24  # beyond it, float32 leaves out whole numbers
LARGEST = float(np.finfo(np.float32).max)


def merge_genes(block: sp.csr_matrix, start: int, source: CountsFile, x_kind: str, genes: Genes) -> sp.csr_matrix:
    """The block as float32 with duplicate genes added up, columns sorted and no stored zeros.

    Logarithms of two genes are added as what they are logarithms of: log1p(expm1(a) + expm1(b)). A value that is stored in
    parts is the sum of these, as everywhere (scipy, anndata).
    """
    if not block.has_canonical_format:
        block = block.astype(np.float64)  # a sum of two numbers of 8 bits does not fit into 8 bits
        block.sum_duplicates()
    if genes.n_merged:
        values = block.data.astype(np.float64)
        values = np.expm1(values) if x_kind == "log" else values
        columns = genes.target[block.indices].astype(np.int32)
        block = sp.csr_matrix((values, columns, block.indptr), shape=(block.shape[0], len(genes.table)))
    block.sum_duplicates()
    if genes.n_merged and x_kind == "log":
        block.data = np.log1p(block.data)
    if x_kind == "counts" and len(block.data) and block.data.max() > LARGEST_COUNT:
        raise UserError(
            _where(block.data > LARGEST_COUNT, block, start, source) + f"Counts above {LARGEST_COUNT} are not kept exactly. "
            "Are they counts of a gene in one cell? Otherwise scale them down, and say x_kind log for their logarithms."
        )
    block = block.astype(np.float32)
    if not block.data.all():
        block.eliminate_zeros()
    return block


def check_values(block: sp.csr_matrix, start: int, source: CountsFile, dataset: Dataset) -> None:
    """Finite always; whole numbers and none negative if the sheet says counts. The message names the first bad cell."""
    values = block.data
    if values.dtype.kind not in "fiub":
        raise UserError(f"{source.path.name} holds values of type {values.dtype}, but real numbers are needed.")
    if values.dtype.kind in "iub" and not (values.dtype.kind == "i" and len(values) and values.min() < 0):
        return
    bad = ~np.isfinite(values)
    if bad.any():
        raise UserError(_where(bad, block, start, source) + "Remove or fix these cells: no model can use NaN or infinity.")
    bad = np.abs(values) > LARGEST
    if bad.any():
        raise UserError(
            _where(bad, block, start, source) + "That is more than any number of 32 bits: remove or mend these cells."
        )
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
        text, advice = looks_like(block)
        raise UserError(
            _where(bad, block, start, source) + f"Raw counts are whole numbers; {text} {advice}{_elsewhere(source)}"
        )


def _where(bad: np.ndarray, block: sp.csr_matrix, start: int, source: CountsFile) -> str:
    first = int(np.flatnonzero(bad)[0])
    row = start + int(np.searchsorted(block.indptr, first, side="right")) - 1
    return f"{source.path.name}: cell '{source.cell_id[row]}' holds the value {block.data[first]:.9g}. "


def _elsewhere(source: CountsFile) -> str:
    """Point to the matrices of the file that do hold whole numbers."""
    found = []
    for layer in source.layers:
        if are_whole(source.first_block(layer)):
            found.append(layer_name(layer))
    return f" The file holds whole numbers in: {', '.join(found)}; set layer to it in the sheet." if found else ""
