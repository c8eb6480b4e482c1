"""Differences to the baseline with their intervals, as a figure."""

import pandas as pd

from plumbline.report.figures import image, panels, wrapped
from plumbline.report.run import Run
from plumbline.report.sentences import units
from plumbline.report.words import SILENT, VERDICTS, metric_title
from plumbline.scoring.protocol import REFERENCES

MARKERS = {"better": "^", "worse": "v", "tied": "s", "not tested": "D"} | dict.fromkeys(SILENT, "o")


def forest(run: Run, rows: pd.DataFrame) -> str:
    """An <img> with one panel a data set: difference to the baseline (better is right), 95 % interval; '' if none."""
    shown = rows[rows["difference"].notna() & (~rows["role"].isin(REFERENCES) | (rows["variant"] == "mean_effect"))]
    shown = shown[shown["diff_low"].notna()]
    if shown.empty:
        return ""
    names = [label for label in run.models if label in set(shown["label"])][::-1]
    sets = [name for name in run.datasets if name in set(shown["dataset"])]
    size = (3.1, 0.9 + 0.26 * len(names))
    figure, axes = panels(len(sets), size, (2.6, 0), columns=2 if len(sets) == 4 else 3, sharey=True)
    for axis, dataset in zip(axes, sets, strict=True):
        differences(axis, shown[shown["dataset"] == dataset], names, f"← {run.baseline} better     model better →", 7.5)
        n = units(shown[shown["dataset"] == dataset])
        axis.set_title(f"{wrapped(run.title(dataset), 38)}\n{n}", fontsize=9, loc="left", fontweight="bold")
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.tick_params(axis="y", length=0)
    return image(figure, f"Differences to {run.baseline} with 95 % intervals; the numbers are in the table below.")


def differences(axis, rows: pd.DataFrame, names: list[str], sides: str, size: float) -> None:
    """The rows of one metric at the heights of their labels in ``names``, right is better; ``sides`` is told below."""
    axis.axvline(0, color="black", linewidth=0.8, zorder=1)
    for row in rows.itertuples():
        colour, height, sign = VERDICTS[row.verdict][2], names.index(row.label), row.direction
        ends = sorted([sign * row.diff_low, sign * row.diff_high])
        axis.plot(ends, [height, height], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
        axis.plot(sign * row.difference, height, MARKERS[row.verdict], color=colour, markersize=6, zorder=3)
    axis.set_yticks(range(len(names)), names, fontsize=size + 0.5)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_xlabel(f"{metric_title(rows['metric'].iloc[0])}\n{sides}", fontsize=size)
    axis.locator_params(axis="x", nbins=5)
    axis.tick_params(axis="x", labelsize=size)
