"""Cells of several files, one after the other, as one ``Counts``: what is to be embedded by the same model in one go."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from plumbline.counts.reading import BLOCK, Counts


@dataclass(frozen=True)
class StackedCounts(Counts):
    """Rows of ``parts``, in their order; every part has the same genes in the same order. path: that of the last part."""

    parts: tuple[tuple[Counts, np.ndarray], ...] = ()

    def layer(self, name: str) -> "StackedCounts":
        """As ``Counts.layer``, of every part."""
        return replace(self, matrix=f"layers/{name}", parts=tuple((part.layer(name), rows) for part, rows in self.parts))

    def take_genes(self, genes: np.ndarray) -> "StackedCounts":
        """As ``Counts.take_genes``, of every part."""
        names = {name: getattr(self, name)[genes] for name in ("ensembl_id", "symbol")}
        return replace(self, **names, parts=tuple((part.take_genes(genes), rows) for part, rows in self.parts))

    def renamed(self, ensembl_id: np.ndarray, symbol: np.ndarray) -> "StackedCounts":
        """As ``Counts.renamed``, of every part."""
        parts = tuple((part.renamed(ensembl_id, symbol), rows) for part, rows in self.parts)
        return replace(self, ensembl_id=parts[0][0].ensembl_id, symbol=parts[0][0].symbol, parts=parts)

    def blocks(self, rows: np.ndarray | None = None, size: int = BLOCK) -> Iterator[tuple[np.ndarray, sp.csr_matrix]]:
        """As ``Counts.blocks``."""
        rows = np.arange(len(self.cell_id)) if rows is None else np.asarray(rows)
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            yield chunk, self._read(chunk)

    def _read(self, chunk: np.ndarray) -> sp.csr_matrix:
        found, places, first = [], [], 0
        for part, rows in self.parts:
            place = np.flatnonzero((chunk >= first) & (chunk < first + len(rows)))
            if len(place):
                found += [block for _, block in part.blocks(rows[chunk[place] - first], len(place))]
                places.append(place)
            first += len(rows)
        block = found[0] if len(found) == 1 else sp.vstack(found, format="csr")
        order = np.concatenate(places)
        return block if (np.diff(order) > 0).all() else block[np.argsort(order)]


def stack(*parts: tuple[Counts, np.ndarray]) -> StackedCounts:
    """The cells ``rows`` of each ``(counts, rows)``, in that order; the genes are named as in the last one."""
    last = parts[-1][0]
    cell_id = np.concatenate([counts.cell_id[rows] for counts, rows in parts])
    return StackedCounts(last.path, cell_id, last.ensembl_id, last.symbol, last.matrix, parts=parts)
