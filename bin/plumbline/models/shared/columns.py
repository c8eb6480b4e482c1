"""Which columns of a file a model reads: genes of its vocabulary, each once, in an order that is not the file's."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

ORDERS, DUPLICATES = ("vocabulary", "file"), ("sum", "first")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The genes of a file that a model knows. gather (columns of the file, genes): adds up or picks. token (genes,)."""

    gather: sp.csr_matrix
    token: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Whether a column of the file is used (columns,)."""
        return np.diff(self.gather.indptr) > 0

    def read(self, block: sp.csr_matrix) -> sp.csr_matrix:
        """The counts (n, genes) of a block of the file, without stored zeros, columns increasing."""
        genes = (block @ self.gather).tocsr()
        genes.sort_indices()
        genes.eliminate_zeros()
        return genes


def match(names: np.ndarray, vocabulary: dict[str, int], order: str = "vocabulary", duplicates: str = "sum") -> Columns:
    """The columns (genes of a file, by ``names``) that a vocabulary (name -> token) knows.

    order: of the genes, by 'vocabulary' (token) or 'file'. duplicates: of columns of one gene, 'sum' adds the counts, 'first'
    takes the first column.
    """
    token = np.array([vocabulary.get(str(name), -1) for name in names], dtype=np.int64)
    columns = np.flatnonzero(token >= 0)
    tokens, first, place = np.unique(token[columns], return_index=True, return_inverse=True)
    if order == "file":
        rank = np.argsort(first)
        tokens, first, place = tokens[rank], first[rank], np.argsort(rank)[place]
    if duplicates == "first":
        columns, place = columns[first], np.arange(len(first))
    shape = (len(names), len(tokens))
    gather = sp.csr_matrix((np.ones(len(columns), np.float32), (columns, place)), shape=shape)
    return Columns(gather=gather, token=tokens)
