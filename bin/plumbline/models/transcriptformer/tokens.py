"""TranscriptFormer's input: [START], then the expressed genes of a cell with their counts, clipped; before them, its assay.

Pearce et al. 2025 (doi:10.1101/2025.04.25.650731). Attention is causal and a cell is cut at the context length, so the order of
genes enters. Upstream takes the columns as they lie in the file; here the default is the order of the vocabulary.
"""

import numpy as np
import scipy.sparse as sp

from plumbline.counts.reading import require_counts
from plumbline.models.runtime.batches import Ragged
from plumbline.models.shared.columns import Columns


class Tokenizer:
    """Sequences of the cells of one file; a cell that expresses no known gene has none (length 0)."""

    def __init__(self, columns: Columns, start: int, context: int, clip: float, assay: np.ndarray | None = None) -> None:
        """context: positions with [START] (``start``). clip: the largest count. assay (n_cells,): numbers, if they enter."""
        self.columns, self.start, self.context, self.clip, self.assay = columns, start, context, clip, assay

    def __call__(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Fields: token, count. An assay stands in front of [START]; both have count 1."""
        require_counts(block)
        genes = self.columns.read(block)
        expressed = np.diff(genes.indptr)
        kept = np.minimum(expressed, self.context - 1)
        inside = np.arange(genes.nnz) - np.repeat(genes.indptr[:-1], expressed) < self.context - 1
        tokens = self.columns.token[genes.indices[inside]]
        counts = np.minimum(genes.data[inside], self.clip).astype(np.float32)
        filled = np.flatnonzero(kept)
        begin = (np.cumsum(kept) - kept)[filled]
        tokens, counts = np.insert(tokens, begin, self.start), np.insert(counts, begin, 1)
        if self.assay is not None:
            begin = begin + np.arange(len(begin))
            tokens, counts = np.insert(tokens, begin, self.assay[rows[filled]]), np.insert(counts, begin, 1)
        length = np.where(kept > 0, kept + 1 + (self.assay is not None), 0)
        return Ragged(length, (tokens.astype(np.int32), counts))
