"""Cost: time by number of cells, extrapolation to larger data, and the Pareto front of quality and cost."""

import numpy as np
import pandas as pd

from plumbline.common.usage import duration
from plumbline.experiments.cost import at_cells, fit_costs, pareto_front
from plumbline.report.figures import bare, cost_axis, image, spaced, style
from plumbline.report.run import Run
from plumbline.report.words import escape, listed, section, table, task_title
from plumbline.scoring.protocol import REFERENCES

PARENT = {
    "parent_id": "plumbline_cost_experiment",
    "parent_name": "Experiment: cost",
    "parent_description": "Time of every step of this run, on its machines, as a function of the number of cells.",
}
SIZES = (10_000, 100_000, 1_000_000)


def sections(run: Run, _folder) -> list[dict]:
    """The Pareto front of quality and cost, and the fitted lines with their extrapolation to larger data."""
    if run.steps.empty:
        return []
    fits = fit_costs(run.steps)
    return [part for part in (_front(run), _lines(run, fits), _table(run, fits)) if part]


def _front(run: Run) -> dict | None:
    """Pareto front of quality versus cost; one point per model."""
    shown = run.headline[~run.headline["role"].isin(REFERENCES)]
    quality = shown.groupby(["dataset", "variant"])["calibrated"].mean().dropna().groupby("variant").mean()
    embed = run.steps[(run.steps["step"] == "EMBED") & run.steps["variant"].isin(set(shown["variant"]))]
    seconds = (1e4 * embed["cpu_seconds"] / embed["n_cells"]).groupby(embed["variant"]).mean()
    both = pd.concat([quality, seconds.rename("seconds")], axis=1, join="inner").dropna()
    if both.empty:
        return None
    both = both.rename(index=lambda name: run.titles.get(name, name))
    front = pareto_front(both["seconds"].to_numpy(), both["calibrated"].to_numpy())
    sentence = f"On the front (no other model is both cheaper and better): {escape(listed(list(both.index[front])))}."
    about = (
        "One point per model: mean calibrated score over tasks and data sets versus processor time of the embedding, "
        "fitting included."
    )
    figure = image(_front_figure(both, front), f"{about} {sentence}")
    return section("cost_front", "Pareto front: quality versus cost", about, f"<p>{sentence}</p>{figure}", **PARENT)


def _front_figure(both: pd.DataFrame, front: np.ndarray):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    axis = figure.subplots()
    edge = both[front].sort_values("seconds")
    axis.step(edge["seconds"], edge["calibrated"], where="post", color="#0072B2", linewidth=1.2)
    axis.plot(both["seconds"][front], both["calibrated"][front], "o", color="#0072B2", markersize=7)
    axis.plot(both["seconds"][~front], both["calibrated"][~front], "o", mfc="white", color="#555555", markersize=7)
    heights = spaced(both["calibrated"].tolist(), 0.05 * (np.ptp(both["calibrated"]) or 1.0))
    cost_axis(axis, both, heights, 8, ("processor seconds per 10,000 cells", "calibrated score"))
    return figure


def _lines(run: Run, fits: pd.DataFrame) -> dict:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, step in zip(axes, ("EMBED", "EVALUATE"), strict=True):
        for place, (name, part) in enumerate(run.steps[run.steps["step"] == step].groupby("name")):
            colour, marker = style(place)
            title = run.titles.get(name, name) if step == "EMBED" else task_title(name)
            axis.plot(part["n_cells"], part["seconds"], marker, color=colour, markersize=4, alpha=0.7, label=title[:28])
            line = fits[(fits["step"] == step) & (fits["name"] == name)].iloc[0]
            x = np.geomspace(part["n_cells"].min() / 1.5, part["n_cells"].max() * 1.5, 20)
            axis.plot(x, at_cells(line, x), color=colour, linewidth=1)
        axis.set(xscale="log", yscale="log")
        axis.set_title(step.capitalize(), fontsize=9, loc="left", fontweight="bold")
        axis.set_xlabel("cells of the data set", fontsize=8)
        axis.legend(fontsize=6, frameon=False, ncols=2)
        axis.tick_params(labelsize=7.5)
        bare(axis)
    axes[0].set_ylabel("seconds", fontsize=8)
    about = "One point per task; lines: time = base + rate x work (cells, genes, dimensions, seeds), fitted to logarithms."
    return section("cost_lines", "Time by number of cells", about, image(figure, about), **PARENT)


def _table(run: Run, fits: pd.DataFrame) -> dict:
    larger = [f"{size:,} cells" for size in SIZES]
    head = ["Step", "Model or task", "Tasks", "Sizes measured", "Base, s", "Median error", *larger]
    body = []
    for _, row in fits.iterrows():
        title = task_title(row["name"]) if row["step"] == "EVALUATE" else run.titles.get(row["name"], row["name"])
        larger = [duration(seconds) for seconds in at_cells(row, np.array(SIZES))]
        line = [f"{row['seconds_base']:.1f}", f"{100 * row['error']:.0f} %"]
        cells = [f'<td class="n">{text}</td>' for text in (row["n_tasks"], row["n_sizes"], *line, *larger)]
        body.append([escape(row["step"].capitalize()), escape(title), *cells])
    about = (
        "The right columns are extrapolated from this run: order-of-magnitude estimates; run times depend on the hardware. "
        "<code>./plumb estimate</code> applies the same lines (steps.tsv) before a run."
    )
    return section(
        "cost_table_fit", "Extrapolation to larger data", about, f'<div class="pl-scroll">{table(head, body)}</div>', **PARENT
    )
