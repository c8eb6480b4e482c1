"""Tahoe-x1's input: <cls> and the expressed genes of a cell, each with the number of its expression's quantile bin.

Source: Gandhi et al. 2025 (doi:10.1101/2025.10.23.683759). Equal counts share the lowest of their bins, so that nothing is
drawn but the genes of a cell that exceeds the context. Edges are computed as torch 2.7 does in torch.quantile (2.15 differs in
the last bit, which moves genes by a bin): float32 ranks, linear interpolation by torch.lerp.
"""

import numpy as np
import scipy.sparse as sp
import torch

from plumbline.counts.reading import require_counts
from plumbline.models.runtime.batches import Ragged
from plumbline.models.shared.chance import Chance
from plumbline.models.tahoe_x1.files import Encoding

GENE_ORDERS = ("token", "file")


def bin_values(values: np.ndarray, grid: torch.Tensor) -> np.ndarray:
    """The bins (k,), 1 to len(grid), of a cell's values (k,), k > 0. grid: torch.linspace(0, 1, number of edges)."""
    ordered = torch.from_numpy(np.sort(values))
    rank = grid * (len(values) - 1)
    low = rank.floor()
    edges = torch.lerp(ordered[low.long()], ordered[rank.ceil().long()], rank - low)
    return (np.searchsorted(edges.numpy(), values, side="left") + 1).astype(np.float32)


class Tokenizer:
    """Tokens and values of the cells of one file.

    gene_order: ``token`` sorts a cell's genes by their token (no gene comes first, all are binned); ``file`` leaves them in the
    order of the file's columns, as upstream: where keep_first_n_tokens is 2 (the 3B model, trained with a token of the drug
    there), the first expressed one keeps its raw count and is never left out.
    """

    def __init__(self, ensembl: np.ndarray, encoding: Encoding, max_length: int, gene_order: str, chance: Chance) -> None:
        """ensembl (n_genes,): matched exactly; an id that comes twice gives two tokens, as upstream."""
        ids = encoding.vocabulary
        token = np.array([-1 if name.startswith("<") else ids.get(name, -1) for name in map(str, ensembl)], dtype=np.int64)
        self.known = token >= 0
        self.columns = np.flatnonzero(self.known)
        self.token, self.cls, self.pad_value = token[self.columns], ids["<cls>"], encoding.pad_value
        self.by_token = gene_order == "token"
        self.keep = 1 if self.by_token else encoding.keep_first
        self.max_length, self.chance = max_length, chance
        self.grid = torch.linspace(0, 1, encoding.bins - 1)

    def __call__(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Sequences <cls>, gene, gene, ... ; length 0 where nothing is left to bin. Fields: token, value."""
        require_counts(block)
        genes = block.tocsc()[:, self.columns].tocsr()
        genes.sum_duplicates()
        genes.eliminate_zeros()
        parts = [self._cell(int(row), genes, place) for place, row in enumerate(rows)]
        length = np.array([len(tokens) for tokens, _ in parts], dtype=np.int64)
        tokens, values = (np.concatenate([np.zeros(0), *field]) for field in zip(*parts, strict=True))
        return Ragged(length, (tokens.astype(np.int32), values.astype(np.float32)))

    def _cell(self, row: int, genes: sp.csr_matrix, place: int) -> tuple[np.ndarray, np.ndarray]:
        span = slice(genes.indptr[place], genes.indptr[place + 1])
        tokens, values = self.token[genes.indices[span]], genes.data[span]
        if self.by_token:  # columns of one gene by their counts: the order of the file's columns must not enter
            order = np.lexsort((values, tokens))
            tokens, values = tokens[order], values[order]
        tokens = np.concatenate([[self.cls], tokens])
        if len(tokens) <= self.keep:
            return np.zeros(0), np.zeros(0)
        raw = np.concatenate([[self.pad_value], values]).astype(np.float32)
        values = np.concatenate([raw[: self.keep], bin_values(raw[self.keep :], self.grid)])
        if len(tokens) > self.max_length:
            n, fitting = len(tokens) - self.keep, self.max_length - self.keep
            chosen = np.concatenate([np.arange(self.keep), self.chance.subset(row, n, fitting) + self.keep])
            tokens, values = tokens[chosen], values[chosen]
        return tokens, values
