"""Minimal training data: scores by fraction of the train cells, and where a trained model overtakes the others."""

import numpy as np
import pandas as pd

from plumbline.report.figures import image, legend_below, panels, small_panel, style, wrapped
from plumbline.report.run import Run
from plumbline.report.words import escape, listed, metric_title, section, table, task_title, with_interval

PARENT = {
    "parent_id": "plumbline_minimal_data",
    "parent_name": "Experiment: minimal training data",
    "parent_description": "Models trained on a fraction of the train cells (whole batches first), scored on all cells.",
}


def sections(run: Run, _folder) -> list[dict]:
    """Learning curves per data set and task, and the fraction that suffices."""
    rows = _curves(run)
    if rows.empty:
        return []
    bands = run.headline[run.headline["role"].isin(("foundation", "external", "floor")) & (run.headline["status"] == "ok")]
    figure = image(_figure(run, rows, bands), "Learning curves; the numbers are in comparisons.tsv, experiment minimal_data.")
    sentences = "".join(f"<li>{line}</li>" for line in _sentences(run, rows))
    about = (
        "Points: one draw of the cells, with its 95 % interval. Right end: all train cells. "
        "Dashed: models that are not trained here."
    )
    parts = [
        section("minimal_data_curves", "Learning curves", about, f"<ul class='pl-says'>{sentences}</ul>{figure}", **PARENT)
    ]
    crossings = _overtaken(run, rows, bands)
    return parts + ([crossings] if crossings else [])


def _curves(run: Run) -> pd.DataFrame:
    """Rows of the main metrics under `corrected`, with columns share and draw; share 1 is the main run's own."""
    rows = run.experiment("minimal_data")
    rows = rows[rows["status"] == "ok"]
    if rows.empty:
        return rows
    words = rows["fit_on"].str.extract(r"@([0-9.]+)#([0-9]+)$")
    rows = rows.assign(share=words[0].astype(float), draw=words[1].astype(int))
    full = run.headline[run.headline["variant"].isin(set(rows["variant"])) & (run.headline["fit_on"] == "train")]
    full = full[full["dataset"].isin(set(rows["dataset"])) & full["task"].isin(set(rows["task"])) & (full["status"] == "ok")]
    return pd.concat([rows, full.assign(share=1.0, draw=1)], ignore_index=True)


def _figure(run: Run, rows: pd.DataFrame, bands: pd.DataFrame):
    parts, variants = rows.groupby(["dataset", "task"]), sorted(set(rows["variant"]))
    figure, axes = panels(len(parts), (3.4, 2.9))
    for axis, ((dataset, task), part) in zip(axes, parts, strict=True):
        flat = bands[(bands["dataset"] == dataset) & (bands["task"] == task)]
        _panel(axis, part, flat, variants, run)
        small_panel(axis, f"{wrapped(run.title(dataset), 34)}\n{task_title(task)}")
    legend_below(figure, axes, 3)
    return figure


def _panel(axis, rows: pd.DataFrame, flat: pd.DataFrame, variants: list[str], run: Run) -> None:
    for place, variant in enumerate(variants):
        part, (colour, marker) = rows[rows["variant"] == variant], style(place)
        mean = part.groupby("share")["value"].mean()
        x = part["share"] * (1 + 0.05 * (place - (len(variants) - 1) / 2))  # intervals side by side
        axis.vlines(x, part["ci_low"], part["ci_high"], color=colour, linewidth=1)
        axis.plot(x, part["value"], marker, color=colour, markersize=4)
        axis.plot(mean.index, mean.to_numpy(), color=colour, linewidth=1.2, label=run.titles.get(variant, variant))
    for row in flat.itertuples():
        axis.axhline(row.value, color="#777777", linestyle="--" if row.role != "floor" else ":", linewidth=1)
        axis.annotate(row.label[:22], (1, row.value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=6.5)
    axis.set_xscale("log")
    axis.set_xlabel("fraction of the train cells", fontsize=7.5)
    axis.set_ylabel(metric_title(rows["metric"].iloc[0]), fontsize=7.5)


def _sentences(run: Run, rows: pd.DataFrame) -> list[str]:
    """For every model: the fraction of the train cells that suffices, and in how many curves."""
    lines = []
    for variant, part in rows.groupby("variant"):
        curves = part[part["share"] < 1].groupby(["dataset", "task"])
        enough = [_sufficient(curve) for _, curve in curves]
        if enough:
            lines.append(f"{escape(run.titles.get(variant, variant))}: {sufficient_fractions(enough)}")
    return lines


def sufficient_fractions(enough: list[float | None]) -> str:
    """The sufficient fractions (None: none) of a model's learning curves, in words."""
    n = len(enough)
    shares = sorted({share for share in enough if share})
    if not shares:
        return f"no tested fraction of the training cells suffices in any of {n} curves."
    first = f"{100 * shares[0]:g} % of the training cells suffice (no significant loss) in {enough.count(shares[0])}"
    others = [f"{100 * share:g} % in {enough.count(share)}" for share in shares[1:]]
    missing = f"; in {enough.count(None)}, no tested fraction does" if None in enough else ""
    return f"{listed([first, *others])} of {n} curves{missing}."


def _sufficient(curve: pd.DataFrame) -> float | None:
    """The smallest share from which on every draw is better than all train cells or tied with them; None if there is none."""
    short = ~curve["verdict"].isin(("better", "tied"))  # worse, or nothing can be said
    worse = short.groupby(curve["share"]).any().sort_index(ascending=False)
    good = [share for share in worse.index if not worse[worse.index >= share].any()]
    return min(good) if good else None


def _overtaken(run: Run, rows: pd.DataFrame, bands: pd.DataFrame) -> dict | None:
    """The fraction at which a trained model's mean score overtakes a model that was not trained here."""
    body = []
    for band in bands[bands["role"] != "floor"].itertuples():
        here = rows[(rows["dataset"] == band.dataset) & (rows["task"] == band.task)]
        for variant, part in here.groupby("variant"):
            mean = part.groupby("share")["value"].mean().sort_index()
            ahead = np.flatnonzero(band.direction * (mean.to_numpy() - band.value) > 0)
            share = f"{100 * mean.index[ahead[0]]:g} %" if len(ahead) else "never"
            text = with_interval(band.value, band.ci_low, band.ci_high, band.metric)
            names = (run.title(band.dataset), task_title(band.task), band.label, text, run.titles.get(variant, variant), share)
            body.append([escape(name) for name in names])
    if not body:
        return None
    head = ["Data set", "Task", "Not trained here", "Its score", "Trained model", "Overtakes with"]
    about = "The smallest fraction of the train cells with which the mean score over draws is higher."
    return section("minimal_data_overtaken", "Overtaken", about, f'<div class="pl-scroll">{table(head, body)}</div>', **PARENT)
