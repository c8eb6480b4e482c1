"""scConcept's input: <cls>, then the expressed genes of a cell by falling count, ties by rising token.

Bahrami et al. 2025 (doi:10.1101/2025.10.14.682419). Counts below ten are nearly all ties, among which the order of Ensembl ids
decides, by design; neither the library size nor the order of the file's columns enters.
"""

import numpy as np
import scipy.sparse as sp

from plumbline.counts.reading import require_counts
from plumbline.models.runtime.batches import Ragged
from plumbline.models.scconcept.files import CLS, Config, Genes

UPSTREAM_SEED = 42


def tokens_of(ensembl_id: np.ndarray, symbol: np.ndarray, genes: Genes, strip_versions: bool) -> np.ndarray:
    """The token of each gene (n_genes,), -1 where unknown. A symbol counts where there is no Ensembl id."""
    found = []
    for name, other in zip(ensembl_id.astype(str), symbol.astype(str), strict=True):
        gene = name.partition(".")[0] if strip_versions else name
        found.append(genes.token.get(gene or genes.id_of.get(other.casefold(), ""), -1))
    return np.array(found, dtype=np.int64)


class Tokenizer:
    """Tokens and counts of the cells of one file.

    sampling: top-nonzero, the genes of the largest counts; top, the same with genes that are not expressed behind them;
    random-nonzero, a random choice of the expressed genes, by upstream's one stream of numbers, cell after cell.
    log: counts as log1p. cls_value: what stands for the count of <cls>. Both matter where counts are read, not only ranked.
    """

    def __init__(
        self, token: np.ndarray, max_tokens: int, sampling: str, log: bool = Config.log, cls_value: float = Config.cls_value
    ) -> None:
        self.known = token >= 0
        self.columns = np.flatnonzero(self.known)
        self.token, self.max_tokens, self.sampling = token[self.columns], max_tokens, sampling
        self.log, self.cls_value = log, cls_value
        self.stream = np.random.default_rng(UPSTREAM_SEED)

    def __call__(self, block: sp.csr_matrix) -> Ragged:
        """Fields: token, count. Length 0 where no known gene is expressed."""
        require_counts(block)
        genes = block.tocsc()[:, self.columns].tocsr()
        genes.sum_duplicates()
        genes.eliminate_zeros()
        genes = genes.log1p() if self.log else genes
        parts = [self._cell(genes, row) for row in range(genes.shape[0])]
        length = np.array([len(tokens) for tokens, _ in parts], dtype=np.int64)
        tokens, counts = (np.concatenate(field) for field in zip(*parts, strict=True))
        return Ragged(length, (tokens.astype(np.int32), counts.astype(np.float32)))

    def _cell(self, genes: sp.csr_matrix, row: int) -> tuple[np.ndarray, np.ndarray]:
        span = slice(genes.indptr[row], genes.indptr[row + 1])
        tokens, counts = self.token[genes.indices[span]], genes.data[span]
        if self.sampling == "top":
            tokens, counts = self.token, genes[row].toarray()[0]
        elif self.sampling == "random-nonzero":
            chosen = self.stream.permutation(len(tokens))[: self.max_tokens]
            tokens, counts = tokens[chosen], counts[chosen]
        if not len(tokens):
            return tokens, counts
        order = np.lexsort((tokens, -counts))[: self.max_tokens]
        return np.append(CLS, tokens[order]), np.append(np.float32(self.cls_value), counts[order])
