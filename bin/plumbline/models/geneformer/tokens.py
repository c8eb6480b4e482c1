"""Geneformer's input: a cell as the list of its genes, ranked by count over the gene's median in the training corpus.

Source: Theodoris et al. 2023 (doi:10.1038/s41586-023-06139-9); the authors' transcriptome tokenizer of June 2025.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import UserError
from plumbline.embedding.weights import fetch_hint, load_dictionary, whole_numbers
from plumbline.models.runtime.batches import Ragged


@dataclass(frozen=True)
class Dictionaries:
    """token: Ensembl id or special -> token id. median: Ensembl id -> non-zero corpus median. mapping: id or symbol -> id."""

    token: dict[str, int]
    median: dict[str, float]
    mapping: dict[str, str]
    files: tuple[Path, ...]

    @property
    def has_specials(self) -> bool:
        """Whether sequences go from <cls> to <eos> (V2) or are genes only (V1)."""
        return "<cls>" in self.token and "<eos>" in self.token


def load_dictionaries(token_file: Path, variant: str) -> Dictionaries:
    """The three dictionaries of one corpus, which lie in one folder and differ in the start of their names."""
    kinds = ("token_dictionary", "gene_median_dictionary", "ensembl_mapping_dict")
    files = tuple(token_file.with_name(token_file.name.replace("token_dictionary", kind)) for kind in kinds)
    token, median, mapping = (load_dictionary(file, variant) for file in files)
    token = whole_numbers(token, files[0], variant)
    if "<pad>" not in token:
        raise UserError(f"{files[0]} has no token <pad>, which fills up shorter cells. {fetch_hint(variant)}")
    if ("<cls>" in token) != ("<eos>" in token):
        raise UserError(f"{files[0]} has one of <cls> and <eos>: V2 has both, V1 none. {fetch_hint(variant)}")
    without = [gene for gene in token if not gene.startswith("<") and gene not in median]
    if without:
        raise UserError(f"{files[1]} has no median for {len(without)} genes of {files[0].name} (such as {without[0]}).")
    # as upstream: what maps to a gene without a token is unknown
    return Dictionaries(token, median, {name: gene for name, gene in mapping.items() if gene in token}, files)


def canonical_ids(ensembl_id: np.ndarray, symbol: np.ndarray, mapping: dict[str, str], strip_versions: bool) -> np.ndarray:
    """Canonical Ensembl id of each gene (n_genes,), '' where unknown: current and retired ids and symbols are mapped.

    A symbol is used only where the Ensembl id is empty. Versioned ids (ENSG00000000419.7) are unknown to upstream and so by
    default; ``strip_versions`` cuts the version off.
    """
    names = np.where(ensembl_id == "", symbol, ensembl_id)
    out = []
    for name in names:
        upper = str(name).upper()
        if strip_versions and upper.startswith("ENSG"):
            upper = upper.partition(".")[0]
        out.append(mapping.get(upper, ""))
    return np.array(out, dtype=str)


def sums_duplicates_upstream(names: np.ndarray, mapping: dict[str, str]) -> bool:
    """Whether upstream would sum the columns that share a canonical id: it compares numbers of *distinct* names and ids.

    Exact duplicates alone are not seen by that test, so that a gene then comes twice in the sequence.
    """
    given = {str(name) for name in names if str(name) in mapping}
    return len(given) != len({mapping[name] for name in given})


class Tokenizer:
    """Rank-value encoding of the cells of one file."""

    def __init__(self, canonical: np.ndarray, dictionaries: Dictionaries, max_length: int, collapse: bool) -> None:
        """canonical (n_genes,): ids from ``canonical_ids``. collapse: sum the counts of columns with the same id."""
        self.known = canonical != ""
        self.specials = dictionaries.has_specials
        self.n_genes = max_length - 2 * self.specials
        columns = np.flatnonzero(self.known)
        ids, place = np.unique(canonical[columns], return_inverse=True)
        if not collapse:
            ids, place = canonical[columns], np.arange(len(columns))
        self.token = np.array([dictionaries.token[gene] for gene in ids], dtype=np.int32)
        self.median = np.array([dictionaries.median[gene] for gene in ids], dtype=np.float64)
        # one row a column of the file, one column a gene of the model
        entries = (np.ones(len(columns), dtype=np.float64), (columns, place))
        self.gather = sp.csr_matrix(entries, shape=(len(canonical), len(ids)))
        if self.specials:
            self.cls, self.eos = dictionaries.token["<cls>"], dictionaries.token["<eos>"]

    def __call__(self, block: sp.csr_matrix) -> Ragged:
        """Token ids of every cell, highest rank first; length 0 where no known gene is expressed.

        Ranks do not change with the cell's total, so it is not needed. Exact ties, whose order upstream leaves to its
        sorting routine, are in the order of the genes' ids: that of no file.
        """
        genes = (block.astype(np.float64) @ self.gather).tocsr()
        genes.sort_indices()
        genes.eliminate_zeros()
        sequences = [self._rank(genes, row) for row in range(genes.shape[0])]
        length = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        return Ragged(length, (np.concatenate([np.zeros(0, dtype=np.int32), *sequences]),))

    def _rank(self, genes: sp.csr_matrix, row: int) -> np.ndarray:
        span = slice(genes.indptr[row], genes.indptr[row + 1])
        columns = genes.indices[span]
        order = np.argsort(-genes.data[span] / self.median[columns], kind="stable")[: self.n_genes]
        ranked = self.token[columns[order]]
        if not self.specials or not len(ranked):
            return ranked
        return np.concatenate([[self.cls], ranked, [self.eos]]).astype(np.int32)
