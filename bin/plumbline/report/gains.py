"""Where a model beats the baseline: its gain on single perturbations against effect size, cells and target expression."""

import numpy as np
import pandas as pd

from plumbline.report.figures import image, legend_below, panels, style
from plumbline.report.genes import Measure, Perturbations
from plumbline.report.run import Run
from plumbline.report.words import escape, section

BINS, LEAST = 4, 8  # groups of equally many perturbations; perturbations per group below which nothing is drawn
BY = {
    "strength": "effect size (strength), weak to strong",
    "n_cells": "cells per perturbation",
    "expression": "expression of the target (log-normalised)",
}


def gain_section(run: Run, found: list[Perturbations]) -> list[dict]:
    """One section; nothing where no data set has enough perturbations scored in the baseline and another model."""
    parts = [part for genes in found if (part := _part(run, genes))]
    about = (
        f"Mean difference to {run.baseline} over four groups of perturbations, with 95 % intervals (Student's t over "
        "perturbations; a model's groups are not independent tests). Effect size is a rank over all models, so that no "
        f"model defines it. Above the line: better than {run.baseline}."
    )
    return [section("gains", f"Where a model beats {run.baseline}", escape(about), "\n".join(parts))] if parts else []


def binned(gain: pd.Series, by: pd.Series) -> pd.DataFrame:
    """middle, mean, half (of the 95 % interval) of ``gain`` in BINS groups of rising ``by``; empty where there are too few."""
    both = pd.DataFrame({"gain": gain, "by": by}).dropna()
    if both["by"].nunique() < BINS or len(both) < BINS * LEAST:
        return pd.DataFrame(columns=["middle", "mean", "half"])
    group = pd.qcut(both["by"], BINS, labels=False, duplicates="drop")
    found = both.groupby(group).agg(middle=("by", "median"), mean=("gain", "mean"), sd=("gain", "std"), n=("gain", "size"))
    found = found[found["n"] >= LEAST]
    from scipy.stats import t

    return found.assign(half=t.ppf(0.975, found["n"] - 1) * found["sd"] / np.sqrt(found["n"]))[["middle", "mean", "half"]]


def _part(run: Run, genes: Perturbations) -> str:
    base = next((label for label in genes.models if label == _baseline(run)), None)
    others = [label for label in genes.models if label != base]
    measure = next((part for part in genes.measures if not part.column), None)  # a fraction, comparable between models
    if base is None or measure is None or not others:
        return ""
    values = genes.values[measure.metric]
    curves = {(by, label): binned(values[label] - values[base], genes.table[by]) for by in BY for label in others}
    shown = [by for by in BY if any(len(curves[by, label]) for label in others)]
    if not shown:
        return ""
    figure = _figure(run, genes, measure, {key: curve for key, curve in curves.items() if key[0] in shown}, shown)
    return f"<h4>{escape(run.title(genes.dataset))}</h4>{figure}"


def _baseline(run: Run) -> str:
    rows = run.headline[run.headline["variant"] == run.about["baseline"]]
    return rows["label"].iloc[0] if len(rows) else ""


def _figure(run: Run, genes: Perturbations, measure: Measure, curves: dict, shown: list[str]) -> str:
    figure, axes = panels(len(shown), (3.3, 2.9), (0, 0.5), sharey=True)
    others = [label for label in genes.models if label != _baseline(run)]
    for axis, by in zip(axes, shown, strict=True):
        axis.axhline(0, color="black", linewidth=0.8)
        for place, label in enumerate(others):
            curve, (colour, marker) = curves[by, label], style(place)
            axis.errorbar(curve["middle"], curve["mean"], curve["half"], color=colour, marker=marker, markersize=4,
                          linewidth=1.3, capsize=2, label=label)  # fmt: skip
        axis.set_xlabel(BY[by], fontsize=8)
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].set_ylabel(f"{measure.title}\nless that of {run.baseline}", fontsize=8)
    legend_below(figure, axes, 3)
    return image(figure, f"Gain in {measure.title} over {run.baseline} against {', '.join(BY[by] for by in shown)}.")
