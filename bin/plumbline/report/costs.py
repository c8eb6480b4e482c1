"""What quality costs."""

import pandas as pd

from plumbline.report.run import CONTROLS, Run
from plumbline.report.words import escape, number, section, table

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
    return [part for part in (_scatter(run, cost), _bars(run, cost), _table(run, cost)) if part]


def _scatter(run: Run, cost: pd.DataFrame) -> dict | None:
    shown = run.headline[~run.headline["role"].isin(CONTROLS)]
    quality = shown.groupby(["dataset", "label"])["calibrated"].mean().dropna()
    seconds = cost.groupby(["dataset", "label"])["seconds"].mean()
    both = pd.concat([quality, seconds], axis=1, join="inner").reset_index()
    if both.empty:
        return None
    both["point"] = [
        {"x": round(float(row.seconds), 3), "y": round(float(row.calibrated), 4), "name": run.title(row.dataset)}
        for row in both.itertuples()
    ]
    data = both.groupby("label")["point"].agg(list).to_dict()
    config = {
        "id": "plumbline_cost_scatter_plot",
        "title": "Quality and cost",
        "xlab": "seconds to embed",
        "ylab": "calibrated score, mean over tasks",
        "xlog": True,
    }
    about = "One point a model and data set. Up and left is good: high score, little time."
    return {"id": "plumbline_cost_scatter", **PARENT, "section_name": "Quality and cost", "description": about,
            "plot_type": "scatter", "pconfig": config, "data": data}  # fmt: skip


def _bars(run: Run, cost: pd.DataFrame) -> dict:
    means = cost.groupby(["label", "dataset"])["seconds"].mean()
    data = {}
    for label in [name for name in run.models if name in means.index.get_level_values(0)]:
        data[label] = {run.title(name): round(float(value), 3) for name, value in means[label].items()}
    config = {"id": "plumbline_cost_bars_plot", "title": "Seconds to embed", "ylab": "seconds", "cpswitch": False,
              "stacking": "group", "sort_samples": False}  # fmt: skip
    return {"id": "plumbline_cost_bars", **PARENT, "section_name": "Seconds to embed", "description": "Mean over seeds.",
            "plot_type": "bargraph", "pconfig": config, "data": data}  # fmt: skip


def _table(run: Run, cost: pd.DataFrame) -> dict:
    head = ["Data set", "Model", "Cells", "Dimensions", "Seconds", "Cells/s", "Peak memory", "Peak GPU memory", "Device",
            "Genes known", "Counts known"]  # fmt: skip
    place = {label: place for place, label in enumerate(run.models)}
    rows = cost.groupby(["dataset", "label"], sort=False).first().reset_index()
    rows = rows.assign(place=rows["label"].map(place).fillna(len(place))).sort_values(["dataset", "place", "label"])
    body = [_row(run, row) for row in rows.itertuples()]
    about = "Genes and counts of the data set that the model knows. In full: <code>cost.tsv</code>."
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
