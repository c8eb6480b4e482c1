"""scFoundation's input: the expressed genes of a cell, and two tokens of depth, T (asked for) and S (the cell's own).

Source: Hao et al. 2024 (doi:10.1038/s41592-024-02305-7). A token is a position in a fixed list of 19,264 symbols and a value:
log1p of counts per 10,000 over the listed genes. Nothing is truncated. Upstream shifts all later tokens where a symbol occurs
twice in a file; here the columns of one symbol are added.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import UserError
from plumbline.counts.reading import require_counts
from plumbline.embedding.damage import understood
from plumbline.embedding.weights import fetch_hint, open_file
from plumbline.models.runtime.batches import Ragged

GENES = Path(__file__).with_name("OS_scRNA_gene_index.19264.tsv")


def gene_file(folder: Path) -> Path:
    """The list of genes: one in the checkpoint's own folder (a model of other genes), else the authors'."""
    own = folder / GENES.name
    return own if own.is_file() else GENES


def read_genes(file: Path, variant: str) -> list[str]:
    """Symbols in the order of their tokens. Raises UserError if the file is not such a list."""
    open_file(file, variant).close()
    what = "is not a list of genes with the columns gene_name and index"
    with understood(file, what, variant), open(file, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
        names, places = [row["gene_name"] for row in rows], [int(row["index"]) for row in rows]
    if places != list(range(len(names))) or len(set(names)) != len(names):
        rule = f"index must run from 0 to {len(names) - 1}, and each gene_name occur once"
        raise UserError(f"{file}: {rule}. {fetch_hint(variant)}")
    return names


@dataclass(frozen=True)
class Target:
    """The value of token T. kind: t (the number itself), f (log10 of depth times the number), a (log10 of depth plus it)."""

    kind: str
    number: float

    def __call__(self, log_depth: float) -> float:
        """T of a cell, > 0. log_depth: log10 of its total, > 0."""
        if self.kind == "t":
            return self.number
        return log_depth + (np.log10(self.number) if self.kind == "f" else self.number)


def read_target(text: str) -> Target:
    """The setting tgthighres, such as t4, f1 or a5. Raises UserError for another form, and where T could be 0 or less.

    The network takes only values > 0 for tokens, and upstream reads a T of 102 or 103 as its mask or its padding.
    """
    match = re.fullmatch(r"([tfa])(\d+(?:\.\d+)?)", text)
    number = float(match[2]) if match else -1.0
    lowest = {"t": 1e-6, "f": 1.0, "a": 0.0}[match[1]] if match else 0.0
    if match is None or not lowest <= number <= (1e9 if match[1] == "f" else 50):
        raise UserError(
            f"--set tgthighres={text}: expected t, f or a and a number: t4 (T = 4), f1 (T = log10(1 x depth); at least 1) or "
            "a5 (T = log10(depth) + 5)."
        )
    return Target(match[1], number)


class Tokenizer:
    """Tokens of the cells of one file. pre_normalized: X holds log-normalised values; S is then log10 of their sum."""

    def __init__(self, symbol: np.ndarray, genes: list[str], target: Target, pre_normalized: bool) -> None:
        """symbol (n_genes,): matched exactly, as upstream."""
        place = {name: number for number, name in enumerate(genes)}
        token = np.array([place.get(str(name), -1) for name in symbol], dtype=np.int64)
        self.known, self.target, self.pre_normalized = token >= 0, target, pre_normalized
        columns = np.flatnonzero(self.known)
        ones = np.ones(len(columns))
        self.to_list = sp.csr_matrix((ones, (columns, token[columns])), shape=(len(token), len(genes)))
        self.target_token, self.depth_token = len(genes), len(genes) + 1
        self.max_length = len(np.unique(token[columns])) + 2

    def __call__(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Sequences S, T, gene, gene, ... ; length 0 for a total of 1 or less, for which upstream has no embedding.

        Fields: token, value. Genes in the order of the list, so that the order of the file's columns does not enter.
        """
        require_counts(block)
        listed = (block.astype(np.float64) @ self.to_list).tocsr()
        listed.eliminate_zeros()
        listed.sort_indices()
        parts = [self._cell(listed, place) for place in range(len(rows))]
        length = np.array([len(tokens) for tokens, _ in parts], dtype=np.int64)
        tokens, values = (np.concatenate([np.zeros(0), *field]) for field in zip(*parts, strict=True))
        return Ragged(length, (tokens.astype(np.int32), values.astype(np.float32)))

    def _cell(self, listed: sp.csr_matrix, place: int) -> tuple[np.ndarray, np.ndarray]:
        span = slice(listed.indptr[place], listed.indptr[place + 1])
        genes, values = listed.indices[span], listed.data[span]
        total = values.sum()
        if total <= 1:
            return np.zeros(0), np.zeros(0)
        depth = np.log10(total)
        if not self.pre_normalized:
            values = np.log1p(values / total * 1e4)
        return (
            np.concatenate([[self.depth_token, self.target_token], genes]),
            np.concatenate([[depth, self.target(depth)], values]),
        )
