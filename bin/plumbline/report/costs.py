"""What quality costs."""

import numpy as np
import pandas as pd

from plumbline.report.figures import OKABE_ITO, cost_axis, image, spaced
from plumbline.report.run import Run
from plumbline.report.words import escape, number, section, table
from plumbline.scoring.protocol import REFERENCES

PARENT = {
    "parent_id": "plumbline_cost",
    "parent_name": "Cost",
    "parent_description": "Time and memory of the embedding step on this run's hardware; devices may differ between models.",
}


def cost_sections(run: Run) -> list[dict]:
    """Quality against seconds, seconds a model, and the numbers."""
    cost = run.cost[(run.cost["status"] == "ok") & run.cost["seconds"].notna()]
    if cost.empty:
        return []
    return [part for part in (_quality(run, cost), _bars(run, cost), _table(run, cost)) if part]


def _quality(run: Run, cost: pd.DataFrame) -> dict | None:
    """One point a model: means over the data sets, the time per 10,000 cells, so that data sets of any size add up."""
    shown = run.headline[~run.headline["role"].isin(REFERENCES)]
    quality = shown.groupby(["dataset", "label"])["calibrated"].mean().dropna()
    seconds = (1e4 / cost["cells_per_second"]).groupby([cost["dataset"], cost["label"]]).mean().rename("seconds")
    both = pd.concat([quality, seconds], axis=1, join="inner").groupby(level="label").mean().dropna()
    if both.empty:
        return None
    about = "Calibrated score, mean over tasks and data sets, against the time to embed 10,000 cells. Up and left is good."
    figure = _labelled(both, shown.groupby("label")["model"].first().to_dict())
    return section("cost_quality", "Quality and cost", about, image(figure, f"{about} The numbers are in the table."), **PARENT)


def _labelled(both: pd.DataFrame, families: dict[str, str]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 4.6), layout="constrained")
    axis = figure.subplots()
    colours = dict(zip(sorted(set(families.values())), OKABE_ITO * len(families), strict=False))
    span = (both["calibrated"].max() - both["calibrated"].min()) or 1.0
    column = np.round(2 * np.log10(both["seconds"]))  # labels meet only where the times are alike
    heights = both.groupby(column)["calibrated"].transform(lambda values: spaced(values.tolist(), 0.045 * span))
    for row in both.itertuples():
        axis.plot(row.seconds, row.calibrated, "o", color=colours[families[row.Index]], markersize=7)
    cost_axis(axis, both, heights, 6, ("seconds per 10,000 cells", "calibrated score (0 = floor, 1 = ceiling)"))
    axis.tick_params(labelsize=8)
    return figure


def _bars(run: Run, cost: pd.DataFrame) -> dict:
    means = cost.groupby(["label", "dataset"])["seconds"].mean()
    data = {}
    for label in [name for name in run.models if name in means.index.get_level_values(0)]:
        data[label] = {run.title(name): round(float(value), 3) for name, value in means[label].items()}
    names = [run.title(name) for name in run.datasets]
    colours = {name: {"name": name, "color": colour} for name, colour in zip(names, OKABE_ITO * len(names), strict=False)}
    config = {"id": "plumbline_cost_bars_plot", "title": "Seconds to embed", "ylab": "seconds", "cpswitch": False,
              "stacking": "group", "sort_samples": False}  # fmt: skip
    return {"id": "plumbline_cost_bars", **PARENT, "section_name": "Seconds to embed", "description": "Mean over seeds.",
            "plot_type": "bargraph", "pconfig": config, "categories": colours, "data": data}  # fmt: skip


def _table(run: Run, cost: pd.DataFrame) -> dict:
    head = ["Data set", "Model", "Cells", "Dimensions", "Seconds", "Cells/s", "Peak memory", "Peak GPU memory", "Device",
            "Genes known", "Counts known"]  # fmt: skip
    place = {label: place for place, label in enumerate(run.models)}
    rows = cost.groupby(["dataset", "label"], sort=False).first().reset_index()
    rows = rows.assign(place=rows["label"].map(place).fillna(len(place))).sort_values(["dataset", "place", "label"])
    body = [_row(run, row) for row in rows.itertuples()]
    about = (
        "Genes and counts of the data set that the model knows (mouse: by one-to-one orthologs). All: <code>cost.tsv</code>."
    )
    return section("cost_table", "Table", about, f'<div class="pl-scroll">{table(head, body)}</div>', **PARENT)


def _row(run: Run, row) -> list[str]:
    memory = [_bytes(row.peak_memory_bytes), _bytes(row.peak_gpu_memory_bytes)]
    numbers = [_count(row.n_cells), _count(row.n_dimensions), number(row.seconds), _count(row.cells_per_second), *memory]
    device = row.gpu if isinstance(row.gpu, str) and row.gpu else row.device
    genes = f"{_count(row.genes_used)} of {_count(row.genes_total)}" if pd.notna(row.genes_used) else "–"
    counts = f"{100 * row.counts_used:.0f} %" if pd.notna(row.counts_used) else "–"
    cells = [f'<td class="n">{text}</td>' for text in numbers]
    return [escape(run.title(row.dataset)), escape(row.label), *cells, escape(str(device)), genes, counts]


def _count(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:,.0f}"


def _bytes(value: float) -> str:
    return "–" if pd.isna(value) else f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
