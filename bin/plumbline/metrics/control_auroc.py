"""How well a perturbation's cells are told from control cells of the same batches: cross-validated AUROC.

The classifier is linear discriminant analysis with a covariance shrunk by the oracle approximating formula (Chen et al. 2010,
IEEE Trans. Signal Process. 58:5016, eq. 23): closed form, one factorisation for all perturbations.
"""

from dataclasses import dataclass

import numpy as np

from plumbline.metrics.neighbours import principal_components

FOLDS = 5
MIN_CELLS = 3  # scored cells below which a perturbation is left out
MAX_CONTROLS = 500  # controls of a batch that its cells are compared with; more are sub-sampled
MAX_DIMENSIONS = 512  # wider embeddings are reduced to this many principal components
BLOCK = 4_194_304  # comparisons held at once


@dataclass(frozen=True)
class Cells:
    """Cells to separate. values (n, d); perturbation (n,) codes, -1 for controls; batch (n,) codes; test (n,) bool: the cells
    to be scored, the others only help to fit."""

    values: np.ndarray
    perturbation: np.ndarray
    batch: np.ndarray
    test: np.ndarray

    def take(self, rows: np.ndarray) -> "Cells":
        """A subset of the cells."""
        return Cells(self.values[rows], self.perturbation[rows], self.batch[rows], self.test[rows])


def control_auroc(cells: Cells, n_perturbations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (n_perturbations,) of each perturbation against batch-matched controls, and the number of its scored cells.

    0.5 is chance, 1 perfect separation; NaN below MIN_CELLS scored cells. The mean of ``placements`` over cells.
    """
    share, code, _ = placements(cells, n_perturbations, seed)
    count = np.bincount(code, minlength=n_perturbations)
    above = np.bincount(code, weights=share, minlength=n_perturbations)
    return np.where(count >= MIN_CELLS, above / np.maximum(count, 1), np.nan), count


def placements(cells: Cells, n_perturbations: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each perturbed test cell the share of its batch's controls scored below it (a tie counts half; its placement value,
    DeLong et al. 1988, Biometrics 44:837), with its perturbation code and its position in ``cells``.

    Test batches (or test cells, if they lie in one batch) make 5 folds; a fold's cells are scored by a classifier of all other
    cells, and each is compared only with the controls of its own batch, so neither batch effects nor the sizes of batches
    enter. Batches without controls are left out.
    """
    cells = _reduced(cells)
    random = np.random.default_rng(seed)
    fold, whiten = _folds(cells, random), _whitening(cells.take(np.flatnonzero(~cells.test)))
    shares, codes, positions = [np.zeros(0)], [np.zeros(0, dtype=int)], [np.zeros(0, dtype=int)]
    for number in range(fold.max() + 1):
        directions, known = _directions(cells.take(np.flatnonzero(fold != number)), n_perturbations)
        held_out = np.flatnonzero(fold == number)
        share, scored = _share_below(cells.take(held_out), (directions @ whiten).astype(np.float32), known, random)
        shares.append(share)
        codes.append(cells.perturbation[held_out[scored]])
        positions.append(held_out[scored])
    return np.concatenate(shares), np.concatenate(codes), np.concatenate(positions)


def shrinkage(covariance: np.ndarray, n: int) -> float:
    """Share of the mean variance in the oracle approximating shrinkage of an empirical covariance (d, d) of n cells."""
    d = len(covariance)
    scale, square = np.trace(covariance) / d, float((covariance**2).mean())
    rest = (n + 1) * (square - scale**2 / d)
    return 1.0 if rest <= 0 else min(1.0, (square + scale**2) / rest)


def _reduced(cells: Cells) -> Cells:
    if cells.values.shape[1] <= MAX_DIMENSIONS:
        return cells
    mean, axes, _ = principal_components(cells.values[~cells.test])
    values = (cells.values - mean.astype(np.float32)) @ axes[:, :MAX_DIMENSIONS].astype(np.float32)
    return Cells(values, cells.perturbation, cells.batch, cells.test)


def _folds(cells: Cells, random: np.random.Generator) -> np.ndarray:
    """Fold (n,) of each test cell, -1 for cells that only help to fit."""
    batches = np.unique(cells.batch[cells.test])
    fold = np.full(len(cells.test), -1)
    if len(batches) > 1:
        number = np.zeros(batches.max() + 1, dtype=int)
        number[random.permutation(batches)] = np.arange(len(batches)) % FOLDS
        fold[cells.test] = number[cells.batch[cells.test]]
        return fold
    rows = np.flatnonzero(cells.test)
    order = np.lexsort((random.random(len(rows)), cells.perturbation[rows]))
    fold[rows[order]] = np.arange(len(rows)) % FOLDS
    return fold


def _centred(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Values less the mean control of the cell's batch, and codes; cells of batches without controls are left out."""
    control = cells.perturbation < 0
    means, n_controls = _means(cells.values[control], cells.batch[control], int(cells.batch.max(initial=0)) + 1)
    usable = n_controls[cells.batch] > 0
    return cells.values[usable] - means[cells.batch[usable]], cells.perturbation[usable]


def _means(values: np.ndarray, code: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (n, d) and size (n,) of the groups 0 .. n - 1 of rows."""
    from scipy.sparse import csr_matrix

    size = np.bincount(code, minlength=n)
    member = csr_matrix((np.ones(len(code), dtype=np.float32), (code, np.arange(len(code)))), shape=(n, len(code)))
    return (member @ values) / np.maximum(size, 1)[:, None], size


def _whitening(cells: Cells) -> np.ndarray:
    """Inverse (d, d) of the shrunk covariance within perturbations and controls, batches aligned on their controls."""
    values, perturbation = _centred(cells)
    means, size = _means(values, perturbation + 1, int(perturbation.max(initial=-1)) + 2)
    residual = (values - means[perturbation + 1]).astype(np.float64)
    n = max(len(residual) - int((size > 0).sum()), 1)
    covariance = residual.T @ residual / n
    share = shrinkage(covariance, n)
    mean_variance = np.trace(covariance) / len(covariance)
    if not mean_variance > 0:
        return np.eye(len(covariance))
    return np.linalg.inv((1 - share) * covariance + share * mean_variance * np.eye(len(covariance)))


def _directions(cells: Cells, n_perturbations: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean difference (n_perturbations, d) to the controls of the same batches, and whether there is one."""
    values, perturbation = _centred(cells)
    means, size = _means(values, np.where(perturbation < 0, n_perturbations, perturbation), n_perturbations + 1)
    return means[:-1], size[:-1] > 0


def _share_below(
    cells: Cells, weights: np.ndarray, known: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """For each perturbed cell that can be scored: the share of its batch's controls scored below it, and its position."""
    shares, positions = [np.zeros(0)], [np.zeros(0, dtype=int)]
    order = np.argsort(cells.batch, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(cells.batch[order])) + 1):
        code = cells.perturbation[rows]
        controls, perturbed = rows[code < 0], rows[(code >= 0) & known[code]]
        if len(controls) > MAX_CONTROLS:
            controls = random.choice(controls, MAX_CONTROLS, replace=False)
        for start in range(0, len(perturbed) if len(controls) else 0, BLOCK // MAX_CONTROLS):
            part = perturbed[start : start + BLOCK // MAX_CONTROLS]
            own = weights[cells.perturbation[part]]
            score = np.einsum("ij,ij->i", cells.values[part], own)
            reference = cells.values[controls] @ own.T
            shares.append((reference < score).mean(axis=0) + (reference == score).mean(axis=0) / 2)
            positions.append(part)
    return np.concatenate(shares), np.concatenate(positions)
