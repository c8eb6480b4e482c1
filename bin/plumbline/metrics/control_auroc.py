"""How well a perturbation's cells are told from control cells of the same batches: cross-validated AUROC.

The classifier is linear discriminant analysis with a covariance shrunk by the oracle approximating formula (Chen et al. 2010,
IEEE Trans. Signal Process. 58:5016, eq. 23): closed form, one factorisation for all perturbations.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from plumbline.metrics.neighbours import principal_components
from plumbline.metrics.rows import READ, Rows, held
from plumbline.scoring.vectors import RowSource

FOLDS = 5
MIN_CELLS = 3  # scored cells below which a perturbation is left out
MAX_CONTROLS = 500  # controls of a batch that its cells are compared with; more are sub-sampled
MAX_DIMENSIONS, WIDE = 512, 2**26  # principal components that stand for a wider embedding of more than so many numbers
BLOCK = 4_194_304  # comparisons held at once
CELLS = READ // 4  # numbers (64 MB of float64) of a block of cells less their controls


@dataclass(frozen=True)
class Cells:
    """Cells to separate. values (n, d), a source of rows; perturbation (n,) codes, -1 for controls; batch (n,) codes; test (n,)
    bool: the cells to be scored, the others only help to fit. exact: in all dimensions, however many."""

    values: RowSource
    perturbation: np.ndarray
    batch: np.ndarray
    test: np.ndarray
    exact: bool = False

    @property
    def reduced(self) -> bool:
        """Whether principal components stand for the dimensions: where these are many, and cells are, too."""
        n, d = self.values.shape
        return d > MAX_DIMENSIONS and n * d > WIDE and not self.exact


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
    enter. Batches without controls are left out. Covariance and principal components are those of the cells that are not for
    testing; where all are, those of the other folds.
    """
    random = np.random.default_rng(seed)
    fold, spare = _folds(cells, random), np.flatnonzero(~cells.test)
    common = _space(cells, spare) if len(spare) else None
    shares, codes, positions = [np.zeros(0)], [np.zeros(0, dtype=int)], [np.zeros(0, dtype=int)]
    for number in range(fold.max() + 1):
        others, held_out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        space, whiten = common or _space(cells, others)
        directions, known = _directions(space, others, n_perturbations)
        share, scored = _share_below(space, held_out, (directions @ whiten).astype(np.float32), known, random)
        shares.append(share)
        codes.append(cells.perturbation[scored])
        positions.append(scored)
    return np.concatenate(shares), np.concatenate(codes), np.concatenate(positions)


def shrinkage(covariance: np.ndarray, n: int) -> float:
    """Share of the mean variance in the oracle approximating shrinkage of an empirical covariance (d, d) of n cells."""
    d = len(covariance)
    scale, square = np.trace(covariance) / d, float((covariance**2).mean())
    rest = (n + 1) * (square - scale**2 / d)
    return 1.0 if rest <= 0 else min(1.0, (square + scale**2) / rest)


def _space(cells: Cells, rows: np.ndarray) -> tuple[Cells, np.ndarray]:
    """The cells in the space they are compared in, and its whitening (d, d), both from some ``rows``."""
    values = cells.values
    if cells.reduced:
        mean, axes, _ = principal_components(Rows(values, rows))
        values = Rows(values, shift=mean.astype(np.float32), axes=axes[:, :MAX_DIMENSIONS].astype(np.float32))
    space = replace(cells, values=held(values))
    return space, _whitening(space, rows)


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


def _centred(cells: Cells, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean control (n_batches, d) of each batch among some rows, float64, and those rows whose batch has one."""
    control = rows[cells.perturbation[rows] < 0]
    n_batches = int(cells.batch.max(initial=0)) + 1
    batches = ((cells.values[part], cells.batch[part]) for part in _parts(control, cells.values.shape[1]))
    means, n_controls = _means(batches, n_batches, cells.values.shape[1])
    return means, rows[n_controls[cells.batch[rows]] > 0]


def _parts(rows: np.ndarray, d: int) -> Iterator[np.ndarray]:
    """Rows in blocks that fit in memory."""
    step = max(1, CELLS // d)
    return (rows[start : start + step] for start in range(0, len(rows), step))


def _means(blocks: Iterator[tuple[np.ndarray, np.ndarray]], n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (n, d) and size (n,) of the groups 0 .. n - 1 of rows, which come in blocks of (values, codes)."""
    from scipy.sparse import csr_matrix

    total, size = np.zeros((n, d)), np.zeros(n, dtype=np.int64)
    for values, code in blocks:
        size += np.bincount(code, minlength=n)
        total += csr_matrix((np.ones(len(code), dtype=np.float32), (code, np.arange(len(code)))), shape=(n, len(code))) @ values
    return total / np.maximum(size, 1)[:, None], size


def _whitening(cells: Cells, rows: np.ndarray) -> np.ndarray:
    """Inverse (d, d) of the shrunk covariance within perturbations and controls of some rows, batches aligned on their
    controls."""
    d = cells.values.shape[1]
    controls, rows = _centred(cells, rows)
    code = cells.perturbation + 1
    centred = ((cells.values[part] - controls[cells.batch[part]], code[part]) for part in _parts(rows, d))
    means, size = _means(centred, int(code[rows].max(initial=0)) + 1, d)
    square = np.zeros((d, d))
    for part in _parts(rows, d):
        residual = cells.values[part] - controls[cells.batch[part]] - means[code[part]]
        square += residual.T @ residual
    n = max(len(rows) - int((size > 0).sum()), 1)
    covariance = square / n
    share = shrinkage(covariance, n)
    mean_variance = np.trace(covariance) / len(covariance)
    if not mean_variance > 0:
        return np.eye(len(covariance))
    return np.linalg.inv((1 - share) * covariance + share * mean_variance * np.eye(len(covariance)))


def _directions(cells: Cells, rows: np.ndarray, n_perturbations: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean difference (n_perturbations, d) of some rows to the controls of the same batches, and whether there is one."""
    d = cells.values.shape[1]
    controls, usable = _centred(cells, rows)
    perturbed = usable[cells.perturbation[usable] >= 0]
    parts = ((cells.values[part] - controls[cells.batch[part]], cells.perturbation[part]) for part in _parts(perturbed, d))
    means, size = _means(parts, n_perturbations, d)
    return means, size > 0


def _share_below(
    cells: Cells, held_out: np.ndarray, weights: np.ndarray, known: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """For each held-out cell that is perturbed and can be scored: the share of its batch's controls scored below it, and its
    position among the cells."""
    shares, positions = [np.zeros(0)], [np.zeros(0, dtype=int)]
    order = held_out[np.argsort(cells.batch[held_out], kind="stable")]
    for rows in np.split(order, np.flatnonzero(np.diff(cells.batch[order])) + 1):
        code = cells.perturbation[rows]
        controls, perturbed = rows[code < 0], rows[(code >= 0) & known[code]]
        if len(controls) > MAX_CONTROLS:
            controls = random.choice(controls, MAX_CONTROLS, replace=False)
        values = cells.values[controls]
        for start in range(0, len(perturbed) if len(controls) else 0, BLOCK // MAX_CONTROLS):
            part = perturbed[start : start + BLOCK // MAX_CONTROLS]
            own = weights[cells.perturbation[part]]
            score = np.einsum("ij,ij->i", cells.values[part], own)
            reference = values @ own.T
            shares.append((reference < score).mean(axis=0) + (reference == score).mean(axis=0) / 2)
            positions.append(part)
    return np.concatenate(shares), np.concatenate(positions)
