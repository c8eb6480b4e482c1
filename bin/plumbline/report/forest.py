"""Differences to the baseline with their intervals, as a figure."""

import pandas as pd

from plumbline.report.figures import image, wrapped
from plumbline.report.run import CONTROLS, Run
from plumbline.report.words import VERDICTS, metric_title

MARKERS = {"better": "^", "worse": "v", "tied": "s", "not tested": "D"}


def forest(run: Run, rows: pd.DataFrame) -> str:
    """An <img> with one panel a data set: difference to the baseline (better is right), 95 % interval; '' if none."""
    shown = rows[rows["difference"].notna() & (~rows["role"].isin(CONTROLS) | (rows["variant"] == "mean_effect"))]
    shown = shown[shown["diff_low"].notna()]
    if shown.empty:
        return ""
    from matplotlib.figure import Figure

    names = [label for label in run.models if label in set(shown["label"])][::-1]
    sets = [name for name in run.datasets if name in set(shown["dataset"])]
    columns = 2 if len(sets) == 4 else min(3, len(sets))
    lines = -(-len(sets) // columns)
    figure = Figure(figsize=(2.6 + 3.1 * columns, lines * (0.9 + 0.26 * len(names))), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axis in axes.flat[len(sets) :]:
        axis.set_visible(False)
    for axis, dataset in zip(axes.flat, sets, strict=False):
        _panel(axis, shown[shown["dataset"] == dataset], names, run.title(dataset), run.baseline)
    return image(figure, f"Differences to {run.baseline} with 95 % intervals; the numbers are in the table below.")


def _panel(axis, rows: pd.DataFrame, names: list[str], title: str, base: str) -> None:
    metric, sign = rows["metric"].iloc[0], rows["direction"].iloc[0]
    axis.axvline(0, color="black", linewidth=0.8, zorder=1)
    for row in rows.itertuples():
        colour, height = VERDICTS[row.verdict][2], names.index(row.label)
        ends = sorted([sign * row.diff_low, sign * row.diff_high])
        axis.plot(ends, [height, height], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
        axis.plot(sign * row.difference, height, MARKERS[row.verdict], color=colour, markersize=6, zorder=3)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_title(wrapped(title, 38), fontsize=9, loc="left", fontweight="bold")
    axis.set_xlabel(f"{metric_title(metric)}\n← {base} better     model better →", fontsize=7.5)
    axis.locator_params(axis="x", nbins=5)
    axis.tick_params(axis="x", labelsize=7.5)
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)
