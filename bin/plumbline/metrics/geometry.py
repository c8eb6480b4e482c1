"""The shape of a cloud of cells: how many dimensions it uses, how much all cells, and all effects, point one way."""

import numpy as np

from plumbline.metrics.units import unit_rows


def spectrum(x: np.ndarray) -> np.ndarray:
    """Eigenvalues of the covariance of x (n, d), largest first, (min(n, d),); none is negative."""
    centred = np.asarray(x, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    small = centred.T @ centred if centred.shape[1] <= len(centred) else centred @ centred.T
    return np.linalg.eigvalsh(small)[::-1].clip(0) / len(x)


def effective_rank(variances: np.ndarray) -> float:
    """Exponential of the entropy of the singular values, which are the roots of ``variances`` (Roy & Vetterli 2007).

    1 where one dimension has all the variance, d where d have the same.
    """
    share = np.sqrt(variances)
    share = share[share > 1e-7 * share.max(initial=0)]  # below that, rounding of float32
    share /= share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def participation_ratio(variances: np.ndarray) -> float:
    """Square of the sum of ``variances`` over the sum of their squares: 1 to d; dimensions of little variance hardly count."""
    return float(variances.sum() ** 2 / (variances**2).sum())


def mean_cosine(x: np.ndarray) -> float:
    """Mean cosine of all pairs of rows of x (n, d): 0 where they point anywhere, near 1 where all point one way."""
    unit = unit_rows(x, np.float64)
    total = unit.sum(axis=0)
    return float(np.clip((total @ total - (unit**2).sum()) / (len(x) * (len(x) - 1)), -1, 1))


def systematic_terms(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per perturbation the products of its effect with the mean effect, and with itself, (p,) each.

    first, second: effects (p, d) in two halves of the data. The ratio of their sums is |mean effect|^2 / mean |effect|^2, the
    systematic share of Systema (Vinas Torne et al. 2025). Each factor of a product is of another half, so that noise, which
    would otherwise be added to every squared length, cancels on average.
    """
    mean_first, mean_second = first.mean(axis=0), second.mean(axis=0)
    return (first @ mean_second + second @ mean_first) / 2, np.einsum("ij,ij->i", first, second)
