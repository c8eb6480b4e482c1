"""Predictions of expression without an embedding: floors and a ceiling of the reconstruction task.

Each predicts some genes, (genes, n) float32, from the true expression of the same cells, sorted by batch: the mean of a
batch's controls, plus an effect on the perturbed cells. A batch without controls takes the mean of all controls.
"""

import numpy as np
import scipy.sparse as sp

from plumbline.common.random import uniform_by_id


def mean_of_groups(code: np.ndarray, rows: np.ndarray, n_groups: int, n: int) -> sp.csr_matrix:
    """Matrix (n_groups, n) whose product with cells (n, ...) is the mean over ``rows`` of each group; 0 for an empty one."""
    sizes = np.bincount(code[rows], minlength=n_groups)
    return sp.csr_matrix((1.0 / sizes[code[rows]], (code[rows], rows)), shape=(n_groups, n))


class ControlMean:
    """Mean over the controls of each batch, gene by gene."""

    def __init__(self, batch: np.ndarray, is_control: np.ndarray) -> None:
        names, self.code = np.unique(batch, return_inverse=True)
        rows = np.flatnonzero(is_control)
        self.means = mean_of_groups(self.code, rows, len(names), len(batch))
        self.without = np.flatnonzero(np.bincount(self.code[rows], minlength=len(names)) == 0)
        self.everywhere = is_control

    def predict(self, truth: np.ndarray) -> np.ndarray:
        """The control mean of each cell's batch, (genes, n) float32. truth: (genes, n)."""
        by_batch = (self.means @ truth.T).T
        if len(self.without):
            by_batch[:, self.without] = truth[:, self.everywhere].mean(axis=1, dtype=np.float64)[:, None]
        return by_batch.astype(np.float32)[:, self.code]


def mean_effect_weights(perturbation: np.ndarray, batch: np.ndarray, is_control: np.ndarray) -> np.ndarray:
    """Weights (n,) of cells whose weighted sum of expression is the mean over perturbations of their mean effect.

    The effect of a cell is its expression less the control mean of its batch; cells of batches without controls are left
    out. Every perturbation counts the same. All zero if no perturbed cell shares a batch with controls.
    """
    _, code = np.unique(batch, return_inverse=True)
    controls = np.bincount(code[is_control], minlength=code.max(initial=0) + 1)
    used = ~is_control & (controls[code] > 0)
    weights = np.zeros(len(batch))
    if used.any():
        _, which, size = np.unique(perturbation[used], return_inverse=True, return_counts=True)
        weights[used] = 1 / (size[which] * len(size))
        taken = np.bincount(code[used], weights[used], minlength=len(controls))
        weights[is_control] = -(taken / np.maximum(controls, 1))[code[is_control]]
    return weights


class SplitHalf:
    """The effect of a perturbation as seen in the other half of its own cells (a half without cells shows none)."""

    def __init__(self, cell_id: np.ndarray, perturbation: np.ndarray, is_control: np.ndarray, seed: int) -> None:
        names, code = np.unique(perturbation, return_inverse=True)
        order = np.lexsort((uniform_by_id(cell_id, seed), code))
        half = np.empty(len(code), dtype=np.int64)
        half[order] = np.arange(len(code)) % 2  # in a random order of each perturbation's cells, every second one
        self.other, self.is_control = 2 * code + 1 - half, is_control
        self.means = mean_of_groups(2 * code + half, np.flatnonzero(~is_control), 2 * len(names), len(code))

    def effect(self, residual: np.ndarray) -> np.ndarray:
        """Effects (genes, n) float32 from true expression less control means (genes, n); 0 for controls."""
        effect = (self.means @ residual.T).T.astype(np.float32)[:, self.other]
        effect[:, self.is_control] = 0
        return effect
