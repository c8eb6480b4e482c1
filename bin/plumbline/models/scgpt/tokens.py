"""scGPT's input: the expressed genes of a cell, each with its expression in one of 50 bins between the cell's own quantiles.

Source: Cui et al. 2024 (doi:10.1038/s41592-024-02201-0); the authors' embed_data of scgpt 0.2.4. X is used as it is: bins are
between quantiles of the cell, so that normalising or taking logarithms (monotone) would not change them.
"""

import json
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import UserError
from plumbline.embedding.damage import understood
from plumbline.embedding.weights import fetch_hint, open_file, whole_numbers
from plumbline.models.runtime.batches import Ragged
from plumbline.models.shared.chance import Chance

SPECIALS = ("<pad>", "<cls>", "<eoc>")
N_BINS = 51  # fixed in the authors' code, whatever args.json says: bins 1..50, and 0 for what is not expressed


def load_vocabulary(file: Path, variant: str) -> dict[str, int]:
    """vocab.json: symbol -> token id, with the special tokens appended, in the order of ``SPECIALS``, where it lacks them."""
    with open_file(file, variant) as stream, understood(file, "is no vocabulary", variant):
        vocabulary = whole_numbers({str(name): number for name, number in json.load(stream).items()}, file, variant)
    for name in SPECIALS:
        vocabulary.setdefault(name, len(vocabulary))
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise UserError(f"{file}: token ids are not 0 to {len(vocabulary) - 1}. {fetch_hint(variant)}")
    return vocabulary


def bin_values(values: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Bin 1..50 of each of a cell's non-zero ``values`` (k,), between 50 quantiles of them; both (k,).

    A value that equals several edges (ties, the normal case for counts) belongs to several bins: ``uniform`` chooses.
    """
    edges = np.quantile(values, np.linspace(0, 1, N_BINS - 1))
    upper = np.searchsorted(edges, values, side="right")
    lower = np.searchsorted(edges, values, side="left")
    return np.ceil(uniform * (lower - upper) + upper).astype(np.int64)


class Tokenizer:
    """Token ids and bins of the cells of one file; bin 0 stands for the value (-2) that <cls> and padding get."""

    def __init__(self, symbol: np.ndarray, vocabulary: dict[str, int], max_length: int, chance: Chance) -> None:
        """symbol (n_genes,): matched exactly, as upstream; a symbol that comes twice gives two tokens."""
        token = np.array([vocabulary.get(str(name), -1) if name not in SPECIALS else -1 for name in symbol], dtype=np.int64)
        self.known = token >= 0
        self.columns = np.flatnonzero(self.known)
        self.token = token[self.columns]
        self.cls, self.max_length, self.chance = vocabulary["<cls>"], max_length, chance

    def __call__(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Sequences <cls>, gene, gene, ... ; length 0 where no known gene is expressed. Fields: token id, bin."""
        genes = block.tocsc()[:, self.columns].tocsr()
        genes.sum_duplicates()
        genes.eliminate_zeros()
        parts = [self._cell(int(row), genes, place) for place, row in enumerate(rows)]
        length = np.array([len(tokens) for tokens, _ in parts], dtype=np.int64)
        none = np.zeros(0, dtype=np.int32)
        return Ragged(length, tuple(np.concatenate([none, *field]).astype(np.int32) for field in zip(*parts, strict=True)))

    def _cell(self, row: int, genes: sp.csr_matrix, place: int) -> tuple[np.ndarray, np.ndarray]:
        span = slice(genes.indptr[place], genes.indptr[place + 1])
        tokens, values = self.token[genes.indices[span]], genes.data[span]
        if not len(tokens):
            return tokens, tokens
        bins = bin_values(values, self.chance.uniform(row, len(values)))
        if len(tokens) + 1 > self.max_length:
            chosen = self.chance.subset(row, len(tokens), self.max_length - 1)
            tokens, bins = tokens[chosen], bins[chosen]
        return np.concatenate([[self.cls], tokens]), np.concatenate([[0], bins])
