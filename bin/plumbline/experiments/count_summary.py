"""Summary of the count distribution of a data set, with bootstrap intervals over genes."""

import numpy as np
import pandas as pd

from plumbline.scoring.scores import Items
from plumbline.scoring.stats import interval

MODELS = ("poisson", "nb", "zinb")
TREND_BINS = 20
FDR = 0.05
FREQUENT = 1.0  # mean counts per cell from which a gene's distribution can be identified


def summarise(table: pd.DataFrame) -> dict:
    """JSON-able summary of the table of genes; intervals are 95 %, bootstrap over genes.

    Returns
    -------
    dict
        ``supported``: the model with the smallest BIC summed over genes, as a network has one likelihood for all of them (a
        gene with few counts is best described by Poisson whatever its distribution). ``lead``: how much larger the BIC of
        the others is, mean over genes; ``clear``: whether these intervals exclude 0. ``shares``: of tested genes best
        described by each model (BIC); ``shares_frequent``: the same among genes of FREQUENT counts per cell or more.
        ``zeros``: mean over genes of the zero fraction, observed and expected, and the mean excess (observed minus
        expected). ``tests``: share of genes at q <= 0.05. ``trend``: dispersion (NB) in bins of equally many genes by mean.
    """
    tested = table[table["tested"]]
    supported = min(MODELS, key=lambda model: tested[f"bic_{model}"].sum())
    lead = {model: _mean(tested["gene_id"], tested[f"bic_{model}"] - tested[f"bic_{supported}"])
            for model in MODELS if model != supported}  # fmt: skip
    zeros = {"observed": _mean(tested["gene_id"], tested["zeros_observed"])}
    for model in MODELS:
        excess = _mean(tested["gene_id"], tested["zeros_observed"] - tested[f"zeros_{model}"])
        zeros[model] = {"expected": float(tested[f"zeros_{model}"].mean()), "excess": excess}
    tests = {f"{model}_over_{smaller}": _mean(tested["gene_id"], (tested[f"q_{model}"] <= FDR).astype(float))
             for model, smaller in (("nb", "poisson"), ("zinb", "nb"))}  # fmt: skip
    return {
        "n_genes": len(table),
        "n_tested": len(tested),
        "shares": _shares(tested),
        "shares_frequent": _shares(tested[tested["mean"] >= FREQUENT]) if (tested["mean"] >= FREQUENT).any() else None,
        "n_frequent": int((tested["mean"] >= FREQUENT).sum()),
        "supported": supported,
        "lead": lead,
        "clear": all(own["low"] is not None and own["low"] > 0 for own in lead.values()),
        "zeros": zeros,
        "tests": tests,
        "dispersion_median": _median(tested["dispersion_nb"]),
        "zero_inflation_median": _median(tested.loc[tested["best"] == "zinb", "zero_inflation"]),
        "trend": trend(tested),
    }


def _shares(genes: pd.DataFrame) -> dict:
    return {model: _mean(genes["gene_id"], (genes["best"] == model).astype(float)) for model in MODELS}


def trend(tested: pd.DataFrame, bins: int = TREND_BINS) -> list[dict]:
    """Dispersion against mean: quartiles of the NB dispersion among the genes of each of ``bins`` bins of the mean."""
    order = np.argsort(tested["mean"].to_numpy(), kind="stable")
    rows = []
    for part in np.array_split(order, min(bins, len(order))):
        genes = tested.iloc[part]
        low, middle, high = np.quantile(genes["dispersion_nb"], [0.25, 0.5, 0.75])
        rows.append({"mean": float(np.exp(np.log(genes["mean"]).mean())), "dispersion": float(middle),
                     "low": float(low), "high": float(high), "n": len(genes)})  # fmt: skip
    return rows


def _mean(genes: pd.Series, values: pd.Series) -> dict:
    """A mean over genes and its interval; null with fewer than two genes."""
    items = Items("gene", genes.to_numpy(dtype=str), values.to_numpy(float), np.ones(len(values)))
    low, high = interval(items)
    return {"value": items.value, "low": None if np.isnan(low) else low, "high": None if np.isnan(high) else high}


def _median(values: pd.Series) -> float | None:
    return float(values.median()) if len(values) else None
