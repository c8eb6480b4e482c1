"""The `paper` protocol beside published scores."""

import pandas as pd

from plumbline.report.run import Run
from plumbline.report.words import escape, folded, metric_title, number, section, table, with_interval

PARENT = {
    "parent_id": "plumbline_published",
    "parent_name": "Beside published scores",
    "parent_description": "Protocol <code>paper</code>: what the paper and its code compute, on the data sets it used.",
}


def published_sections(run: Run) -> list[dict]:
    """Ours against theirs as a scatter, and every pair in a table; nothing where no data set is a published one."""
    pairs = run.published[run.published["ours"].notna()] if len(run.published) else run.published
    return [_scatter(run, pairs), _table(run, pairs)] if len(pairs) else []


def _scatter(run: Run, pairs: pd.DataFrame) -> dict:
    small = pairs[~pairs["metric"].isin(["ilisi_raw", "consistency_pct"])]  # the others are fractions, 0..1
    data = {
        label: [
            {
                "x": float(row.published),
                "y": float(row.ours),
                "name": f"{row.metric}, {row.postprocess}, {run.title(row.dataset)}",
            }
            for row in rows.itertuples()
        ]
        for label, rows in small.groupby("label")
    }
    config = {"id": "plumbline_published_plot", "title": "Published and ours", "xlab": "published", "ylab": "this run",
              "xmin": 0, "ymin": 0, "xmax": 1, "ymax": 1, "square": True}  # fmt: skip
    about = "Metrics on the scale 0..1. A point on the diagonal repeats the published score."
    return {"id": "plumbline_published_scatter", **PARENT, "section_name": "Agreement", "description": about,
            "plot_type": "scatter", "pconfig": config, "data": data}  # fmt: skip


def _table(run: Run, pairs: pd.DataFrame) -> dict:
    head = ["Metric", "Post-processing", "Published model", "Published", "Our model", "Ours", "Difference", "Note"]
    parts = []
    for dataset, rows in pairs.sort_values(["task", "metric", "postprocess", "published_model"]).groupby("dataset"):
        content = table(head, [_row(row) for row in rows.itertuples()])
        parts.append(folded(run.title(dataset), f'<div class="pl-scroll">{content}</div>', opened=True))
    about = (
        "Marked *: the settings of our variant are not those of the paper, or the paper does not state its own. In full, "
        "with the published scores that have no counterpart in this run: <code>published.tsv</code>."
    )
    return section("published_table", "Every pair", about, "\n".join(parts), **PARENT)


def _row(row) -> list[str]:
    names = " and ".join(metric_title(metric) for metric in row.metric.split("+"))
    theirs = number(row.published, row.metric) + (f" ± {row.published_sd:.2g}" if row.published_sd > 0 else "")
    ours = with_interval(row.ours, row.ci_low, row.ci_high, row.metric)
    note = row.note if isinstance(row.note, str) else ""
    source = f'<small class="pl-grey">{escape(row.source)}</small>'
    cells = [escape(names), escape(row.postprocess), f"{escape(row.published_model)} {source}"]
    cells += [
        f'<td class="n">{theirs}</td>',
        escape(row.label) + ("" if row.same_settings else " *"),
        f'<td class="n">{ours}</td>',
    ]
    return [*cells, f'<td class="n">{number(row.difference, row.metric, sign=True)}</td>', f"<small>{escape(note)}</small>"]
