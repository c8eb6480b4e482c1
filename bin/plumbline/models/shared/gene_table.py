"""A table of gene vectors, and its genes by human symbols."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plumbline.genes import names as gene_names

if TYPE_CHECKING:
    import torch

LEARNED = "gene embeddings of the checkpoint"


@dataclass(frozen=True, kw_only=True)
class GeneTable:
    """names (k,): symbols or Ensembl ids, as the model knows its genes. vectors (k, d), float32. kind: what they are."""

    names: np.ndarray
    vectors: np.ndarray
    kind: str = LEARNED

    @staticmethod
    def of(place: Mapping[str, int], table: "torch.Tensor", kind: str = LEARNED) -> "GeneTable":
        """The rows of ``table`` that names stand for. place: name -> row."""
        import torch

        rows = torch.tensor(list(place.values()), dtype=torch.int64)
        return GeneTable(names=np.array(list(place), dtype=str), vectors=table[rows].float().numpy(), kind=kind)


def by_symbol(table: GeneTable) -> GeneTable:
    """The table by human symbols in upper case, sorted; of a gene that is there twice the first."""
    symbol = gene_names.symbols(table.names, "human")
    names = np.char.upper(np.where(symbol == "", table.names, symbol).astype(str))
    _, first = np.unique(names, return_index=True)
    return GeneTable(names=names[first], vectors=table.vectors[first], kind=table.kind)
