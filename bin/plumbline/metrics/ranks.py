"""From a statistic and its null values to p values and to the share of significant perturbations."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd

from plumbline.metrics.influence import bh_threshold
from plumbline.scoring.scores import Items, Score, counted
from plumbline.scoring.screen import Screen, View
from plumbline.scoring.stats import bh

ALPHA = 0.05
FIRST_DRAWS, MOST_DRAWS = 128, 1024  # draws made before one looks whether more are needed; and made at once in any case
CURTAILED_CELLS = 50_000  # cells beyond which draws end early, unless exact p values are asked for
MIN_NULL = 19  # unexpressed perturbations below which the paper's test is not made: of 2, noise passes both in 1 of 3 cases


def paper_p_value(value: np.ndarray, null: np.ndarray, side: str) -> np.ndarray:
    """1 - rank of ``value`` (k,) among ``null`` (m,), over m: 0..1, 0 possible (EFAAR, Celik et al. 2024).

    side: 'left' counts the null values below a value (consistency), 'right' those up to it (magnitude).
    """
    return 1 - np.searchsorted(np.sort(null), value, side=side) / len(null)


def draw_p_value(value: np.ndarray, null: np.ndarray) -> np.ndarray:
    """(b + 1) / (K + 1), b being the number of the K draws that reach the value. value: (k,); null: (k, K), NaN: not drawn.

    Never 0 (Phipson & Smyth 2010). Rounding in the last digits counts as a tie, i.e. against significance.
    """
    reached, made = _reached(value, null), np.isfinite(null).sum(axis=1)
    return (reached + 1) / (made + 1)


def _reached(value: np.ndarray, null: np.ndarray) -> np.ndarray:
    slack = 1e-6 * np.abs(null).max(axis=1, initial=1e-300, where=np.isfinite(null))
    return (null >= (value - slack)[:, None]).sum(axis=1)


def undecided(value: np.ndarray, null: np.ndarray, n_draws: int) -> np.ndarray:
    """Whether p after all ``n_draws`` draws can still be ALPHA or less, given those made: (k,) bool. NaN: not made.

    Draws that are no longer made once it cannot (curtailed sampling; Besag & Clifford 1991, Biometrika 78:301) change neither
    which perturbations have p <= 0.05 nor, as those above are above in any case, which have q <= 0.05.
    """
    return (_reached(value, null) + 1) / (n_draws + 1) <= ALPHA


def rounds(n_draws: int, curtailed: bool) -> list[slice]:
    """The draws in portions: doubling from FIRST_DRAWS if what is settled is to stop between them."""
    ends = [FIRST_DRAWS * 2**i for i in range(n_draws.bit_length())] if curtailed else range(MOST_DRAWS, n_draws, MOST_DRAWS)
    cuts = [0, *(end for end in ends if end < n_draws), n_draws]
    return [slice(start, stop) for start, stop in pairwise(cuts)]


def may_end_early(view: View) -> bool:
    """Whether draws end once p is settled, and other savings of large data are allowed."""
    return len(view.rows) > CURTAILED_CELLS and not view.exact


def ended_early(null: np.ndarray) -> str:
    """How many of the perturbations of a null (k, K) had fewer than K draws, and why, or ''."""
    few = int(np.isnan(null).any(axis=1).sum())
    return f"draws ended early for {counted(few, 'perturbation')} whose p is above {ALPHA:g} whatever the rest" if few else ""


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
    hit = ((q if fdr else p) <= ALPHA).astype(float)
    threshold, steep = bh_threshold(p, q, ALPHA) if fdr else (ALPHA, 1.0)
    shared = {name: steep * part for name, part in influence(threshold).items()} if influence else {}
    if steep > 1:
        shared |= zip(names.tolist(), ((steep - 1) * 100 * (hit - hit.mean()) / len(hit)).tolist(), strict=True)
    extra = {"p": p, "q": q, "value": value, "n_cells": n_cells}
    items = Items("perturbation", names, hit, np.ones(len(names)), scale=100.0, extra=extra, influence=shared)
    return Score.of(metric, items, reason=reason)
