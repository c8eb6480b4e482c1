"""SCimilarity's input: counts of the model's genes, per 10,000 of these, log1p (Heimberg et al. 2025).

A gene stands at its place in gene_order.tsv by its name. Upstream's alignment sorts the names, so that a model whose list is
not sorted gets the wrong columns there, silently; the published list is sorted.
"""

from pathlib import Path

import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import UserError
from plumbline.counts.reading import require_counts
from plumbline.embedding.weights import fetch_hint, open_file
from plumbline.models.runtime.batches import Ragged

EMPTY = ("zeros", "nan")


def read_genes(file: Path, variant: str) -> list[str]:
    """Symbols in the order of the network's inputs. Raises UserError if a name is missing or occurs twice."""
    with open_file(file, variant) as stream:
        try:
            names = [line.strip() for line in stream.read().decode("utf-8").splitlines()]
        except UnicodeDecodeError as error:
            raise UserError(f"{file} is not a list of gene symbols ({error}). {fetch_hint(variant)}") from error
    if "" in names or len(set(names)) != len(names):
        raise UserError(f"{file}: each line must hold one gene symbol, and no symbol twice. {fetch_hint(variant)}")
    return names


class Tokenizer:
    """Inputs of the cells of one file that are not 0. empty: ``zeros`` embeds a cell without a known gene, ``nan`` does not."""

    def __init__(self, symbol: np.ndarray, genes: list[str], empty: str = "zeros") -> None:
        """symbol (n_genes,): matched exactly, as upstream; columns of one symbol are added, where upstream stops."""
        place = {name: number for number, name in enumerate(genes)}
        gene = np.array([place.get(str(name), -1) for name in symbol], dtype=np.int64)
        self.known, self.shortest = gene >= 0, int(empty == "zeros")
        columns = np.flatnonzero(self.known)
        self.to_list = sp.csr_matrix((np.ones(len(columns)), (columns, gene[columns])), shape=(len(gene), len(genes)))
        self.max_length = max(1, len(np.unique(gene[columns])))

    def __call__(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Fields: place of the gene, value. A cell without a known gene is one 0, as upstream, or of length 0."""
        require_counts(block)
        listed = (block.astype(np.float64) @ self.to_list).tocsr()
        listed.eliminate_zeros()
        listed.sort_indices()
        length = np.diff(listed.indptr)
        total = np.repeat(np.asarray(listed.sum(axis=1)).ravel(), length)
        values = np.log1p(listed.data / total * 1e4)
        empty = listed.indptr[:-1][length < self.shortest]
        fields = (np.insert(listed.indices, empty, 0).astype(np.int32), np.insert(values, empty, 0.0).astype(np.float32))
        return Ragged(np.maximum(length, self.shortest), fields)
