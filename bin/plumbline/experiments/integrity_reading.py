"""Interpretation of the ablation: which metrics fall with which damage, and which change although the prediction is as good.

Values are on the scale of the metric itself: 1 = the undamaged prediction, 0 = no effect predicted, of the same replicate.
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata, t

SHOWN = ("structural_integrity", "effect_pearson", "effect_integrity", "mse", "energy_distance", "spearman")
CHANGED = 0.05  # of the scale: a metric that changes by more although nothing got worse is not specific
DETECTED = 0.1  # of the scale: a smaller drop at the largest level does not count


def scaled(table: pd.DataFrame) -> pd.DataFrame:
    """The long table on each metric's own scale, for the metrics of SHOWN.

    Returns
    -------
    pandas.DataFrame
        The table with ``value`` replaced by (value - no effect) / (undamaged - no effect).
    """
    table = table[table["metric"].isin(SHOWN)]
    base = table[table["kind"] == "reference"].pivot(index=["replicate", "metric"], columns="damage", values="value")
    joined = table.join(base[["undamaged", "no_effect"]], on=["replicate", "metric"])
    value = (joined["value"] - joined["no_effect"]) / (joined["undamaged"] - joined["no_effect"])
    return table.assign(value=value.where(np.isfinite(value)).round(6))  # rounding must not make a trend


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval of a value over half-sample replicates: their standard deviation is its standard error.

    Parameters
    ----------
    values
        One value per replicate, (r,).

    Returns
    -------
    tuple
        (mean, low, high); nan where fewer than two are finite.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return (float(values[0]) if len(values) else float("nan")), float("nan"), float("nan")
    reach = t.ppf(0.975, len(values) - 1) * values.std(ddof=1)
    return float(values.mean()), float(values.mean() - reach), float(values.mean() + reach)


def sensitivity(table: pd.DataFrame) -> pd.DataFrame:
    """How much every metric falls with every damage.

    Returns
    -------
    pandas.DataFrame
        One row per damage and metric: rho (Spearman correlation of level, 0 included, and value: -1 = falls at every step),
        drop (1 - value at the largest level), both with low and high, and first: the smallest level with a significant drop
        (NaN if none).
    """
    rows = []
    for (damage, metric), part in _parts(table, "sensitive"):
        values = part.pivot(index="replicate", columns="level", values="value").to_numpy()
        levels = np.sort(part["level"].unique())
        curve = np.column_stack([np.ones(len(values)), values])
        rho = interval(np.array([_rank_correlation(line) for line in curve]))
        significant = [level for level, column in zip(levels, values.T, strict=True) if interval(1 - column)[1] > 0]
        drop = interval(1 - values[:, -1])
        rows.append((damage, metric, *np.clip(rho, -1, 1), *drop, significant[0] if significant else np.nan))
    return pd.DataFrame(rows, columns=["damage", "metric", "rho", "rho_low", "rho_high", "drop", "low", "high", "first"])


def specificity(table: pd.DataFrame) -> pd.DataFrame:
    """One row per damage and metric: the largest mean change from the undamaged value, its level, low and high."""
    rows = []
    for (damage, metric), part in _parts(table, "indifferent"):
        values = part.pivot(index="replicate", columns="level", values="value") - 1
        worst = values.mean().abs().idxmax() if values.notna().any(axis=None) else values.columns[-1]
        rows.append((damage, metric, worst, *interval(values[worst].to_numpy())))
    return pd.DataFrame(rows, columns=["damage", "metric", "level", "change", "low", "high"])


def judged(sensitive: pd.DataFrame, specific: pd.DataFrame) -> pd.DataFrame:
    """One row per metric: the damages it detects (a significant drop of DETECTED or more) and misses, and the harmless ones
    that change it (significantly, by CHANGED or more)."""
    sensitive = sensitive.assign(detected=(sensitive["low"] > 0) & (sensitive["drop"] >= DETECTED))
    changed = ((specific["low"] > 0) | (specific["high"] < 0)) & (specific["change"].abs() >= CHANGED)
    rows = []
    for metric in SHOWN:
        own = sensitive[sensitive["metric"] == metric]
        by = specific[(specific["metric"] == metric) & changed]["damage"].tolist()
        rows.append((metric, own[own["detected"]]["damage"].tolist(), own[~own["detected"]]["damage"].tolist(), by))
    return pd.DataFrame(rows, columns=["metric", "detected", "missed", "changed_by"]).set_index("metric")


def _parts(table: pd.DataFrame, kind: str):
    part = table[table["kind"] == kind]
    return part.groupby(["damage", "metric"], sort=False)


def _rank_correlation(values: np.ndarray) -> float:
    """Spearman correlation with 0, 1, 2, ...; 0 where nothing changes."""
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        return 0.0
    return float(np.corrcoef(np.arange(len(values)), rankdata(values))[0, 1])
