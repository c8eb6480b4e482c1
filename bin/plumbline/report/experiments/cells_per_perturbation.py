"""Cells per perturbation: scores with fewer cells, their plateau, and whether more cells or another model would help."""

from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.report.figures import image, legend_below, panels, small_panel, style, wrapped
from plumbline.report.run import Run
from plumbline.report.words import escape, metric_title, number, section, table, task_title, with_interval

NAME = "cells_per_perturbation"
PARENT = {
    "parent_id": f"plumbline_{NAME}",
    "parent_name": "Experiment: cells per perturbation",
    "parent_description": "The same embeddings scored with a quarter, half and all cells of every perturbation, and the "
    "score that any number of cells would give: floor + A n / (n + k), fitted to the three.",
}
SYMBOLS = {"more cells help": "▲", "enough cells": "=", "cannot tell": "?", "no estimate": "·"}


def sections(run: Run, folder: Path) -> list[dict]:
    """The curves in a figure and in words, and the table of plateaus."""
    curves = read_curves(run, folder)
    good = curves[curves["status"] == "ok"] if len(curves) else curves
    if good.empty:
        return []
    about = (
        "Points: scores with their 95 % intervals, of the mean over draws that use every cell once. Line: the fitted form. "
        "Right end: its plateau with interval, where there is one. Dotted: the floor."
    )
    lines = "".join(f"<li>{line}</li>" for line in sentences(run, good))
    figure = image(_figure(run, good), "Scores by cells per perturbation; the numbers are in the table below.")
    parts = [section(f"{NAME}_curves", "Curves", about, f"<ul class='pl-says'>{lines}</ul>{figure}", **PARENT)]
    return [*parts, _table(run, curves)]


def read_curves(run: Run, folder: Path) -> pd.DataFrame:
    """The rows of all embeddings' curves, with the models' titles as ``label``; share: infinity for a plateau."""
    paths = sorted(folder.glob(f"*.{NAME}.parquet"))
    frames = [frame for path in paths if path.stat().st_size and len(frame := pd.read_parquet(path))]
    if not frames:
        return pd.DataFrame()
    curves = pd.concat(frames, ignore_index=True)
    return curves.assign(label=[run.titles.get(variant, variant) for variant in curves["variant"]])


def sentences(run: Run, good: pd.DataFrame) -> list[str]:
    """Per data set and task: what the baseline would gain with more cells, and what another model gains with the same."""
    lines = []
    for (dataset, task), part in good.groupby(["dataset", "task"], sort=True):
        ends = part[np.isinf(part["share"])].set_index("variant")
        ends = ends.assign(cells_all=part[part["share"] == 1].set_index("variant")["cells"])
        whole = part[part["share"] == 1].set_index("variant")["value"]
        name = run.about["baseline"] if run.about["baseline"] in ends.index else ends.index[0]
        where = f"<b>{escape(task_title(task))}</b>, {escape(run.title(dataset))}"
        lines.append(f"{where}: {_cells(ends.loc[name])}{_other(ends.loc[name], ends['label'], whole)}.")
    return lines


def _cells(row: pd.Series) -> str:
    """What more cells would do to one model's score."""
    label, n = escape(row["label"]), row["cells_all"]
    if row["verdict"] == "no estimate":
        return f"for {label} nothing can be said of more cells ({escape(row['reason'])})"
    if np.isnan(row["attained"]):
        helps = f"more cells would help {label}"
        said = helps if row["verdict"] == "more cells help" else f"whether {helps} cannot be told"
        return f"{said} ({escape(row['reason'])})"
    share = f"{100 * row['attained']:.0f} % [{100 * row['attained_low']:.0f}, {100 * row['attained_high']:.0f}]"
    said = f"with {n:g} cells per perturbation {label} has {share} of what it would have above the floor with any number"
    if row["verdict"] == "cannot tell":
        return f"{said}; whether more would help cannot be told"
    need = f"{number_of_cells(row['cells_needed'], n)} are enough for 90 %"
    return f"{said}: {'more would help, ' if row['verdict'] == 'more cells help' else ''}{need}"


def number_of_cells(needed: float, n: float) -> str:
    """'about 40 cells'; never further than four times what there are, nor below the least that was scored."""
    if not np.isfinite(needed) or needed > 4 * n:
        return f"more than {4 * n:g} cells"
    return f"about {needed:.0f} cells" if needed >= n / 4 else f"fewer than {n / 4:g} cells"


def _other(row: pd.Series, labels: pd.Series, whole: pd.Series) -> str:
    """What the best model has over this one with the same cells, next to what more cells would give this one."""
    best = whole.idxmax()
    if len(whole) < 2 or best == row.name:
        return ""
    gap = number(whole[best] - whole[row.name], row["metric"], sign=True)
    text = f"; with the same cells {escape(labels[best])} scores {gap}"
    if np.isnan(row["value"]):
        return text
    return f"{text}, any number of cells would give {number(row['value'] - whole[row.name], row['metric'], sign=True)}"


def _figure(run: Run, good: pd.DataFrame):
    parts, variants = good.groupby(["dataset", "task"]), sorted(set(good["variant"]))
    figure, axes = panels(len(parts), (3.4, 2.9))
    for axis, ((dataset, task), part) in zip(axes, parts, strict=True):
        for place, variant in enumerate(variants):
            own = part[part["variant"] == variant].sort_values("share")
            if len(own):
                _line(axis, own, place)
        axis.axhline(part["floor"].iloc[0], color="#777777", linestyle=":", linewidth=1)
        axis.set_xscale("log")
        axis.set_xlabel("cells per perturbation", fontsize=7.5)
        axis.set_ylabel(metric_title(part["metric"].iloc[0]), fontsize=7.5)
        small_panel(axis, f"{wrapped(run.title(dataset), 34)}\n{task_title(task)}")
    legend_below(figure, axes, 3)
    return figure


def _line(axis, own: pd.DataFrame, place: int) -> None:
    (colour, marker), points, end = style(place), own[np.isfinite(own["share"])], own.iloc[-1]
    x = points["cells"] * 1.03**place  # intervals side by side
    axis.vlines(x, points["ci_low"], points["ci_high"], color=colour, linewidth=1)
    axis.plot(x, points["value"], marker, color=colour, markersize=4, label=end["label"])
    if np.isnan(end["value"]):
        return
    k, last = end["cells_needed"] / 9, points["cells"].max()
    n = np.geomspace(points["cells"].min(), 8 * last, 60)
    axis.plot(n, end["floor"] + (end["value"] - end["floor"]) * n / (n + k), color=colour, linewidth=1)
    at = 10 * last * 1.06**place
    axis.vlines(at, end["ci_low"], end["ci_high"], color=colour, linewidth=1)
    axis.plot(at, end["value"], marker, color=colour, markersize=5, fillstyle="none")


def _table(run: Run, curves: pd.DataFrame) -> dict:
    head = [
        "Data set",
        "Task",
        "Model",
        "A quarter",
        "Half",
        "All cells",
        "Cells",
        "Plateau",
        "Attained",
        "Cells for 90 %",
        "Result",
    ]
    body = []
    for (dataset, task, label), part in curves.groupby(["dataset", "task", "label"], sort=True):
        names, end = [run.title(dataset), task_title(task), label], part.iloc[-1]
        if end["status"] != "ok":
            body.append([escape(str(cell)) for cell in [*names, *["–"] * 7, end["reason"]]])
            continue
        points = part[np.isfinite(part["share"])].sort_values("share")
        scores = [with_interval(row.value, row.ci_low, row.ci_high, row.metric) for row in points.itertuples()]
        plateau = with_interval(end["value"], end["ci_low"], end["ci_high"], end["metric"])
        shares = 100 * end[["attained", "attained_low", "attained_high"]].astype(float)
        attained = "–" if shares.isna().any() else f"{shares.iloc[0]:.0f} % [{shares.iloc[1]:.0f}, {shares.iloc[2]:.0f}]"
        n = points["cells"].max()
        needed = "–" if np.isnan(end["attained"]) else number_of_cells(end["cells_needed"], n).removesuffix(" cells")
        result = f"{SYMBOLS[end['verdict']]} {end['verdict']}" + (f": {end['reason']}" if end["reason"] else "")
        body.append([escape(str(cell)) for cell in [*names, *scores, f"{n:g}", plateau, attained, needed, result]])
    about = (
        "Cells: median of the scored perturbations. Attained: share of the plateau's advantage over the floor, with 95 % "
        "interval over the units; more cells help if it is below 90 %, there are enough if it is 90 % or more."
    )
    return section(f"{NAME}_table", "Table", about, f'<div class="pl-scroll">{table(head, body)}</div>', **PARENT)
