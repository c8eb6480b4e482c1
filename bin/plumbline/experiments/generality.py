"""Agreement of data sets on the ranking of models: Kendall's coefficient of concordance."""

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Concordance:
    """w: 0 (no agreement) .. 1 (every data set ranks the models alike). low, high: 95 % interval, or nan.

    p: permutation form of the Friedman test. n_judges data sets ranked n_models models.
    """

    w: float
    low: float
    high: float
    p: float
    n_judges: int
    n_models: int


def kendalls_w(scores: np.ndarray) -> float:
    """Kendall's W, corrected for ties.

    Parameters
    ----------
    scores
        Finite scores, (n_judges, n_models).

    Returns
    -------
    float
        0 (no agreement) to 1; nan if all scores are tied.

    References
    ----------
    Kendall and Smith 1939, The Annals of Mathematical Statistics 10:275.
    """
    ranks = stats.rankdata(scores, axis=1)
    m, n = ranks.shape
    ties = sum((np.unique(row, return_counts=True)[1] ** 3.0 - np.unique(row, return_counts=True)[1]).sum() for row in ranks)
    spread = ((ranks.sum(axis=0) - m * (n + 1) / 2) ** 2).sum()
    largest = m**2 * (n**3 - n) - m * ties
    return float(12 * spread / largest) if largest > 0 else float("nan")


def concordance(scores: np.ndarray, n_permutations: int = 2000, seed: int = 0) -> Concordance:
    """W of data sets (rows) over models (columns), its jackknife interval over data sets, and a permutation p value.

    The jackknife leaves out one data set at a time and uses Student's t with n_judges - 1 degrees of freedom: resampling
    data sets with replacement would count one twice and take that for agreement. An interval needs 3 data sets.

    Parameters
    ----------
    scores
        Finite scores, (n_judges, n_models).
    n_permutations, seed
        Of the null distribution.

    Returns
    -------
    Concordance

    References
    ----------
    Efron and Stein 1981, The Annals of Statistics 9:586.
    """
    m, n = scores.shape
    w, nan = kendalls_w(scores), float("nan")
    if not np.isfinite(w):
        return Concordance(nan, nan, nan, nan, m, n)
    rng = np.random.default_rng(seed)
    null = np.array([kendalls_w(rng.permuted(scores, axis=1)) for _ in range(n_permutations)])
    p = float((1 + (null >= w - 1e-12).sum()) / (1 + n_permutations))
    low = high = nan
    if m >= 3:
        left = np.array([kendalls_w(np.delete(scores, judge, axis=0)) for judge in range(m)])
        pseudo = m * w - (m - 1) * left
        half = stats.t.ppf(0.975, m - 1) * pseudo.std(ddof=1) / np.sqrt(m)
        low, high = max(0.0, pseudo.mean() - half), min(1.0, pseudo.mean() + half)
    return Concordance(w, float(low), float(high), p, m, n)
