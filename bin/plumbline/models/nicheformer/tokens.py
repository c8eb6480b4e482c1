"""Nicheformer's input: species, assay and modality, then the genes of a cell by falling count over their mean in a corpus.

Schaar et al. 2024 (doi:10.1101/2024.04.15.589472). Three rankings are in use: by rounded means, as in the notebooks that
prepared the corpora (default); by means as they are, as in the notebook that embeds, where genes without a mean follow those of
EVERY cell, expressed or not; and by counts alone, as in the copy for transformers. Ties go by the list: no file's order.
"""

import numpy as np
import scipy.sparse as sp

from plumbline.counts.reading import require_counts
from plumbline.models.runtime.batches import Ragged
from plumbline.models.shared.columns import Columns

RANKINGS = ("rounded", "raw", "counts")
PAD, FIRST_GENE = 1, 30
MODALITY = {"dissociated": 3, "spatial": 4}
SPECIES = {"human": 5, "mouse": 6}
ASSAY = {
    "merfish": 7,
    "cosmx": 8,
    "xenium": 9,
    "visium": 9,
    "10x 5' v2": 10,
    "10x 3' v3": 11,
    "10x 3' v2": 12,
    "10x 5' v1": 13,
    "10x 3' v1": 14,
    "10x 3'": 15,
    "10x 5'": 16,
    "cite-seq": 17,
    "smart-seq v4": 18,
}


def divisors(means: np.ndarray | None, ranking: str, n_genes: int) -> np.ndarray:
    """What a count is divided by (n_genes,); NaN only in ranking 'raw'."""
    if ranking == "counts":
        return np.ones(n_genes)
    if ranking == "rounded":
        means = np.floor(np.nan_to_num(means) + 0.5)
    return np.where(means == 0, 1.0, means)


class Tokenizer:
    """Tokens of the cells of one file; a cell that expresses no gene of the list has none (length 0)."""

    def __init__(self, columns: Columns, divisor: np.ndarray, meta: list[int], context: int, fill: bool) -> None:
        """columns: token is the place in the list of genes. fill: pads every cell to the context."""
        self.columns, self.meta, self.context, self.fill = columns, meta, context, fill
        self.divisor = divisor[columns.token]
        self.without_mean = FIRST_GENE + np.flatnonzero(np.isnan(divisor))

    def __call__(self, block: sp.csr_matrix) -> Ragged:
        """Field: token."""
        require_counts(block)
        genes = self.columns.read(block)
        cells = [self._cell(genes.indices[a:b], genes.data[a:b]) for a, b in zip(genes.indptr, genes.indptr[1:], strict=False)]
        length = np.array([len(tokens) for tokens in cells], dtype=np.int64)
        return Ragged(length, (np.concatenate([np.zeros(0), *cells]).astype(np.int32),))

    def _cell(self, genes: np.ndarray, counts: np.ndarray) -> np.ndarray:
        if not len(genes):
            return np.zeros(0)
        # float32, as upstream: the closest scores differ in the last bits
        scaled = counts / counts.sum(dtype=np.float32) * np.float32(10000)
        score = scaled / self.divisor[genes]
        known = np.flatnonzero(~np.isnan(score))
        order = known[np.argsort(-score[known], kind="stable")]
        ranked = FIRST_GENE + self.columns.token[genes[order]]
        tokens = np.concatenate([self.meta, ranked, self.without_mean])[: self.context]
        return np.append(tokens, np.full(self.context - len(tokens), PAD)) if self.fill else tokens
