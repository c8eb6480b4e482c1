"""Structural integrity and reconstruction errors, gathered gene chunk by gene chunk (Bendidi et al. 2024).

Cells are sorted by batch; arrays have genes in rows, so that a chunk of genes of all cells is one small matrix and memory
does not grow with the number of genes.
"""

import numpy as np

from plumbline.metrics.correlation import pearson_rows, spearman_rows
from plumbline.scoring.scores import Items

_CELLS = 4096  # cells worked on at once
_GENES = 256


class Reconstruction:
    """Sums over the cells of each batch, and correlations of each gene, of a prediction of expression.

    batch (n,): batch of each cell, sorted. is_control (n,). uncentred: what happens to a batch without controls: False
    (the protocol) leaves it out of structural integrity; True keeps it without centring, as the original code did.
    """

    def __init__(self, batch: np.ndarray, is_control: np.ndarray, uncentred: bool = False) -> None:
        self.names, first = np.unique(batch, return_index=True)
        if (np.sort(first) != first).any() or (batch[1:] < batch[:-1]).any():
            raise ValueError("cells must be sorted by batch")
        self.starts = np.append(first, len(batch))
        self.controls = [start + np.flatnonzero(is_control[start:stop]) for start, stop in self._spans()]
        self.n_cells = np.diff(self.starts)
        self.in_integrity = np.array([len(rows) > 0 or uncentred for rows in self.controls])
        self.n_genes = 0
        self.residual, self.signal, self.squared, self.absolute, self.total, self.total_squared = np.zeros((6, len(first)))
        self.pearson: list[np.ndarray] = []
        self.spearman: list[np.ndarray] = []

    def _spans(self) -> list[tuple[int, int]]:
        return list(zip(self.starts[:-1], self.starts[1:], strict=True))

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Take in some genes: truth and prediction, (genes, n_cells), each gene once."""
        for low in range(0, len(truth), _GENES):
            t, p = truth[low : low + _GENES], prediction[low : low + _GENES]
            self.pearson.append(pearson_rows(t, p))
            self.spearman.append(spearman_rows(t, p))
            for b, (start, stop) in enumerate(self._spans()):
                centres = _mean(t[:, self.controls[b]]), _mean(p[:, self.controls[b]])
                for cell in range(start, stop, _CELLS):
                    cells = slice(cell, min(cell + _CELLS, stop))
                    # one memory layout, so that equal numbers add up to equal sums
                    block = (x[:, cells].astype(np.float64, order="C") for x in (t, p))
                    self._add_block(b, *block, *centres)
        self.n_genes += len(truth)

    def _add_block(self, b: int, t: np.ndarray, p: np.ndarray, t_centre: np.ndarray, p_centre: np.ndarray) -> None:
        error = p - t
        self.squared[b] += np.einsum("ij,ij->", error, error)
        self.absolute[b] += np.abs(error, out=error).sum()
        self.total[b] += t.sum()
        self.total_squared[b] += np.einsum("ij,ij->", t, t)
        t -= t_centre
        p -= p_centre
        p -= t
        self.signal[b] += np.einsum("ij,ij->", t, t)
        self.residual[b] += np.einsum("ij,ij->", p, p)

    def integrity(self, effect: bool = False, residual: np.ndarray | None = None) -> Items:
        """Structural integrity by batch: 1 - mean_b(|P_b - T_b| / n_b) / (2 mean_b(|T_b| / n_b)), Frobenius norms.

        P_b, T_b: predicted and true expression of batch b (n_b cells, controls included), each centred on its own mean
        over the batch's controls. 0.5 = no effect predicted, 1 = perfect; no lower bound. With ``effect``: 2 SI - 1.
        residual (batches,): |P_b - T_b|^2 of another prediction of the same cells.
        """
        used, residual = self.in_integrity, self.residual if residual is None else residual
        over = self.n_cells[used]
        numerator, denominator = np.sqrt(residual[used]) / over, np.sqrt(self.signal[used]) / over
        scale = -1.0 if effect else -0.5
        return Items("batch", self.names[used], numerator, denominator, offset=1.0, scale=scale, extra={"n_cells": over})

    def errors(self, absolute: bool = False) -> Items:
        """Mean squared (or absolute) error over all cells and genes, by batch; >= 0, lower is better."""
        sums = self.absolute if absolute else self.squared
        return Items("batch", self.names, sums, self.n_cells * float(self.n_genes), extra={"n_cells": self.n_cells})

    def r2(self) -> Items:
        """1 - sum of squared errors / sum of squared deviations from one grand mean, by batch; <= 1."""
        size = self.n_cells * float(self.n_genes)
        grand = self.total.sum() / size.sum()
        spread = self.total_squared - 2 * grand * self.total + grand**2 * size
        return Items("batch", self.names, self.squared, spread, offset=1.0, scale=-1.0, extra={"n_cells": self.n_cells})

    def correlation(self, kind: str, genes: np.ndarray, constant_as_zero: bool = False) -> Items:
        """Mean over genes of the correlation over cells ('pearson' or 'spearman'), -1..1.

        genes (g,): names, in the order they were added. Genes with one true value everywhere are left out, or count as
        a correlation of 0 with ``constant_as_zero`` (what the original's Spearman gives them).
        """
        value = np.concatenate(getattr(self, kind))
        if constant_as_zero:
            value = np.nan_to_num(value, nan=0.0)
        known = np.isfinite(value)
        return Items("gene", genes[known], value[known], np.ones(known.sum()))


def _mean(x: np.ndarray) -> np.ndarray:
    """Mean of each row of x (g, n) as a column, float64; exact for a constant row, 0 for no columns."""
    if not x.shape[1]:
        return np.zeros((len(x), 1))
    first = x[:, :1].astype(np.float64)
    return first + (x - first).mean(axis=1, keepdims=True)
