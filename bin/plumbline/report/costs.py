"""What quality costs."""

import pandas as pd

from plumbline.report.run import CONTROLS, Run
from plumbline.report.words import escape, number, section, table

PARENT = {
    "parent_id": "plumbline_cost",
    "parent_name": "Cost",
    "parent_description": "Time and memory of the embedding step on this run's hardware; models may have run on different devices.",
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
    data = {
        label: [
            {"x": round(float(row.seconds), 3), "y": round(float(row.calibrated), 4), "name": run.title(row.dataset)}
            for row in rows.itertuples()
        ]
        for label, rows in both.groupby("label")
    }
    config = {
        "id": "plumbline_cost_scatter_plot",
        "title": "Quality and cost",
        "xlab": "seconds to embed",
        "ylab": "calibrated score, mean over tasks",
        "xlog": True,
    }
    return {"id": "plumbline_cost_scatter", **PARENT, "section_name": "Quality and cost", "plot_type": "scatter", "pconfig": config,
            "description": "One point a model and data set. Up and left is good: high score, little time.", "data": data}  # fmt: skip


def _bars(run: Run, cost: pd.DataFrame) -> dict:
    means = cost.groupby(["label", "dataset"])["seconds"].mean()
    data = {
        label: {run.title(name): round(float(value), 3) for name, value in part.droplevel(0).items()}
        for label, part in means.groupby(level=0)
    }
    config = {
        "id": "plumbline_cost_bars_plot",
        "title": "Seconds to embed",
        "ylab": "seconds",
        "cpswitch": False,
        "stacking": "group",
        "sort_samples": False,
    }
    return {"id": "plumbline_cost_bars", **PARENT, "section_name": "Seconds to embed", "plot_type": "bargraph", "pconfig": config,
            "description": "Mean over seeds.", "data": {label: data[label] for label in run.models if label in data}}  # fmt: skip


def _table(run: Run, cost: pd.DataFrame) -> dict:
    head = [
        "Data set",
        "Model",
        "Cells",
        "Dimensions",
        "Seconds",
        "Cells/s",
        "Peak memory",
        "Peak GPU memory",
        "Device",
        "Genes known",
        "Counts known",
    ]
    order = {label: place for place, label in enumerate(run.models)}
    rows = cost.groupby(["dataset", "label"], sort=False).first().reset_index()
    rows = rows.sort_values(
        ["dataset", "label"],
        key=lambda column: column.map(lambda name: order.get(name, 99)) if column.name == "label" else column,
    )
    body = []
    for row in rows.itertuples():
        genes = f"{row.genes_used:,.0f} of {row.genes_total:,.0f}" if pd.notna(row.genes_used) else "–"
        counts = f"{100 * row.counts_used:.0f} %" if pd.notna(row.counts_used) else "–"
        numbers = [
            f"{row.n_cells:,.0f}",
            f"{row.n_dimensions:,.0f}",
            number(row.seconds),
            f"{row.cells_per_second:,.0f}",
            _bytes(row.peak_memory_bytes),
            _bytes(row.peak_gpu_memory_bytes),
        ]
        device = row.gpu if isinstance(row.gpu, str) and row.gpu else row.device
        body.append(
            [
                escape(run.title(row.dataset)),
                escape(row.label),
                *(f'<td class="n">{text}</td>' for text in numbers),
                escape(str(device)),
                genes,
                counts,
            ]
        )
    about = "Genes and counts of the data set that the model knows. In full: <code>cost.tsv</code>."
    return section("cost_table", "Numbers", about, f'<div class="pl-scroll">{table(head, body)}</div>', **PARENT)


def _bytes(value: float) -> str:
    return "–" if pd.isna(value) else f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
