"""From a statistic and its null values to p values and to the share of significant perturbations."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from plumbline.scoring.scores import Items, Score, counted
from plumbline.scoring.screen import Screen
from plumbline.scoring.stats import bh

ALPHA = 0.05
STEEPEST = 0.6  # slope beyond which Benjamini-Hochberg's threshold is not followed
MIN_NULL = 19  # unexpressed perturbations below which the paper's test is not made: of 2, noise passes both in 1 of 3 cases


def paper_p_value(value: np.ndarray, null: np.ndarray, side: str) -> np.ndarray:
    """1 - rank of ``value`` (k,) among ``null`` (m,), over m: 0..1, 0 possible (EFAAR, Celik et al. 2024).

    side: 'left' counts the null values below a value (consistency), 'right' those up to it (magnitude).
    """
    return 1 - np.searchsorted(np.sort(null), value, side=side) / len(null)


def draw_p_value(value: np.ndarray, null: np.ndarray) -> np.ndarray:
    """(b + 1) / (K + 1), b being the number of the K draws that reach the value. value: (k,); null: (k, K).

    Never 0 (Phipson & Smyth 2010). Rounding in the last digits counts as a tie, i.e. against significance.
    """
    slack = 1e-6 * np.abs(null).max(axis=1, initial=1e-300)
    reached = (null >= (value - slack)[:, None]).sum(axis=1)
    return (reached + 1) / (null.shape[1] + 1)


def unexpressed_null(names: np.ndarray, screen: Screen) -> tuple[np.ndarray, str]:
    """The paper's null: which of ``names`` (k,) target an unexpressed gene, as a mask, and if none does, why.

    A name is looked up among the symbols and Ensembl ids of the gene table; unexpressed = the gene's value in the column
    facts['unexpressed_scale'] is strictly below facts['unexpressed_threshold']. A gene that was not measured is not known
    to be unexpressed. Of several rows of one gene the largest value counts.
    """
    scale, threshold = screen.facts.get("unexpressed_scale"), screen.facts.get("unexpressed_threshold")
    if not scale or threshold is None:
        return np.zeros(len(names), dtype=bool), "no threshold of expression is given for the null of unexpressed genes"
    values = screen.genes[scale].to_numpy(dtype=float)
    level = pd.concat([pd.Series(values, index=screen.genes[key].astype(str)) for key in ("symbol", "ensembl_id")])
    found = level[level.index != ""].groupby(level=0).max().reindex(names).to_numpy()
    mask = found < threshold
    known = np.isfinite(found).sum()
    if not known:
        return mask, "the paper's null needs perturbations of genes, and none of the perturbations is a measured gene"
    return mask, "" if mask.any() else f"all {known} perturbed genes are expressed ({scale} >= {threshold}): there is no null"


def null_too_small(n: int, what: str) -> str:
    """Why the paper's p values cannot be had from a null of n perturbations, or ''. what: which perturbations count."""
    if n >= MIN_NULL:
        return ""
    number = "no perturbation" if not n else counted(n, "perturbation")
    return f"{number} of unexpressed genes {what}: a null of fewer than {MIN_NULL} cannot hold false positives at 5 %"


def significance(  # noqa: PLR0913 - what a perturbation's row shows, and how it is counted
    metric: str,
    names: np.ndarray,
    p: np.ndarray,
    value: np.ndarray,
    n_cells: np.ndarray,
    reason: str = "",
    fdr: bool = False,
    influence: Callable[[float], dict[str, float]] | None = None,
) -> Score:
    """Percentage of perturbations with p <= 0.05, or with ``fdr`` with q <= 0.05 (Benjamini-Hochberg). All arrays (k,).

    influence: of what the perturbations share, by name, on the percentage with p up to a given threshold. With ``fdr`` the
    threshold itself moves with every perturbation: that is an influence of its own.
    """
    q = bh(p)
    hit = 100.0 * ((q if fdr else p) <= ALPHA)
    threshold, steep = bh_threshold(p, q) if fdr else (ALPHA, 1.0)
    shared = {name: steep * part for name, part in influence(threshold).items()} if influence else {}
    if steep > 1:
        shared |= zip(names.tolist(), ((steep - 1) * (hit - hit.mean()) / len(hit)).tolist(), strict=True)
    extra = {"p": p, "q": q, "value": value, "n_cells": n_cells}
    items = Items("perturbation", names, hit, np.ones(len(names)), extra=extra, influence=shared)
    return Score.of(metric, items, reason=reason)


def bh_threshold(p: np.ndarray, q: np.ndarray) -> tuple[float, float]:
    """The largest p with q <= 0.05 (0.05 / k if there is none), and by how much Benjamini-Hochberg spreads the share F(t) below it.

    The threshold t solves F(t) = t / 0.05; one more p below it raises it, and so lets in others: the influence of each p on
    F(t) is 1 / (1 - e) times that at a fixed t, e being the slope of log F over log t, here taken from t / 3 to 3 t.
    """
    k, found = len(p), np.sort(p[q <= ALPHA])
    if not len(found):
        return ALPHA / max(k, 1), 1.0
    at = np.searchsorted(np.sort(p), [found[-1] / 3, 3 * found[-1]], side="right")
    slope = np.log((at[1] + 0.5) / (at[0] + 0.5)) / np.log(9)
    return float(found[-1]), 1 / (1 - min(slope, STEEPEST))


def influence_on_share(observed: np.ndarray, null: np.ndarray, pull: np.ndarray, threshold: float) -> dict[str, float]:
    """Influence of groups of controls on the percentage of perturbations with p <= threshold.

    observed (k,); null (k, K); pull (k, groups): influence of each group on ``observed``. A group counts where it can turn the
    test: in units of the null's standard deviation, a normal kernel of width 1 about the null's (1 - threshold) quantile.
    """
    spread = np.maximum(null.std(axis=1), np.finfo(float).tiny)
    beyond = (observed - np.quantile(null, 1 - threshold, axis=1)) / spread
    density = np.exp(-np.minimum(beyond**2, 200) / 2) / np.sqrt(2 * np.pi)
    total = 100 * (density / spread) @ pull / max(len(observed), 1)
    return {f"controls {group}": float(part) for group, part in enumerate(total) if part}
