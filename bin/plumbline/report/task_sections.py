"""A section for every task: scores, differences, spread over units, all metrics."""

import pandas as pd

from plumbline.report.forest import forest
from plumbline.report.run import Run
from plumbline.report.words import METRICS, TASKS, escape, metric_title, section, table, task_title, with_interval

CIVIDIS = [[0, "#00224e"], [0.25, "#434e6c"], [0.5, "#7d7c78"], [0.75, "#bcae6c"], [1, "#fee838"]]


def task_sections(run: Run, task: str) -> list[dict]:
    """The sections of one task; those without content are left out."""
    rows = run.headline[run.headline["task"] == task]
    found = [_heatmap(run, task, rows), _forest(run, task, rows), _spread(run, task), _all_metrics(run, task)]
    return [part for part in found if part]


def _parent(task: str) -> dict:
    about = f"{TASKS.get(task, ('', ''))[1]}"
    return {"parent_id": f"plumbline_task_{task}", "parent_name": task_title(task), "parent_description": about}


def _heatmap(run: Run, task: str, rows: pd.DataFrame) -> dict | None:
    good = rows[rows["status"] == "ok"]
    if good.empty:
        return None
    models = [label for label in run.models if label in set(good["label"])]
    sets = [name for name in run.datasets if name in set(good["dataset"])]
    values = good.pivot_table(index="label", columns="dataset", values="value").reindex(index=models, columns=sets)
    data = [[None if pd.isna(value) else round(float(value), 4) for value in line] for line in values.to_numpy()]
    metrics = good.groupby("dataset")["metric"].first()
    named = {metric: [run.title(s) for s in metrics.index[metrics == metric]] for metric in metrics.unique()}
    told = metric_title(metrics.iloc[0]) if len(named) == 1 else "; ".join(
        f"{metric_title(metric)} ({', '.join(names)})" for metric, names in named.items())  # fmt: skip
    config = {"id": f"plumbline_{task}_heatmap_plot", "title": f"{task_title(task)}: score", "xlab": "Data set", "ylab": "Model",
              "square": False, "tt_decimals": 3, "display_values": True, "cluster_rows": False, "cluster_cols": False,
              "cluster_switch_clustered_active": False, "colstops": CIVIDIS}  # fmt: skip
    about = escape(
        f"Main metric: {told}. Protocol corrected, post-processing chosen on the validation part. Floors and ceilings last."
    )
    return {"id": f"plumbline_{task}_heatmap", **_parent(task), "section_name": "Scores", "description": about,
            "plot_type": "heatmap", "pconfig": config, "xcats": [run.title(name) for name in sets], "ycats": models, "data": data}  # fmt: skip


def _forest(run: Run, task: str, rows: pd.DataFrame) -> dict | None:
    figure = forest(run, rows)
    if not figure:
        return None
    about = escape(
        f"Paired on the same units, 95 % bootstrap interval. ▲ better, ▼ worse, ■ tied (q ≤ 0.05), ◆ reference. Right of the line: better than {run.baseline}."
    )
    return section(f"{task}_forest", f"Differences to {run.baseline}", about, figure, **_parent(task))


def _spread(run: Run, task: str) -> dict | None:
    table = run.distributions[(run.distributions["task"] == task) & (run.distributions["n"] >= 5)]
    if table.empty:
        return None
    names, data = [], []
    for dataset in [name for name in run.datasets if name in set(table["dataset"])]:
        rows = table[table["dataset"] == dataset].set_index("label")
        names.append({"name": run.title(dataset), "ylab": metric_title(rows["metric"].iloc[0])})
        boxes = ("min", "q1", "median", "q3", "max", "mean")
        data.append({label: {key: float(rows.loc[label, key]) for key in boxes} for label in run.models if label in rows.index})
    kind = table["unit_kind"].mode().iloc[0]
    config = {"id": f"plumbline_{task}_spread_plot", "title": f"{task_title(task)}: per {kind}", "data_labels": names,
              "sort_by_median": False, "sort_switch_sorted_active": False}  # fmt: skip
    return {"id": f"plumbline_{task}_spread", **_parent(task), "section_name": f"Spread over {kind}s", "plot_type": "box",
            "description": f"The score of each {kind}: quartiles, ends and mean.", "pconfig": config,
            "data": data if len(data) > 1 else data[0]}  # fmt: skip


def _all_metrics(run: Run, task: str) -> dict | None:
    scores = run.scores[(run.scores["task"] == task) & (run.scores["status"] == "ok")]
    if scores.empty:
        return None
    metrics = [name for name in METRICS if name in set(scores["metric"])]
    metrics += sorted(set(scores["metric"]) - set(metrics))
    parts = []
    for dataset in [name for name in run.datasets if name in set(scores["dataset"])]:
        rows = scores[scores["dataset"] == dataset]
        cells = _cells(rows) | _chosen(
            run.comparisons[(run.comparisons["dataset"] == dataset) & (run.comparisons["task"] == task)]
        )
        order = {label: place for place, label in enumerate(run.models)}
        keys = sorted(
            {key[:3] for key in cells},
            key=lambda key: (order.get(key[0], 99), key[1] != "corrected", key[2] not in ("selected", "best"), key[2]),
        )
        head = ["Model", "Protocol", "Post-processing", *(escape(metric_title(metric)) for metric in metrics)]
        body = [[escape(label), protocol, post, *(f'<td class="n">{cells.get((label, protocol, post, metric), "–")}</td>' for metric in metrics)]
                for label, protocol, post in keys]  # fmt: skip
        parts.append(
            f'<details class="pl"><summary>{escape(run.title(dataset))}</summary><div class="pl-scroll">{table(head, body)}</div></details>'
        )
    about = "Mean over split seeds with 95 % interval (± standard deviation over seeds where several); every post-processing, both protocols. In full: <code>scores.tsv</code>."
    return section(f"{task}_metrics", "All metrics", about, "\n".join(parts), **_parent(task))


def _cells(rows: pd.DataFrame) -> dict[tuple, str]:
    keys = ["label", "protocol", "postprocess", "metric"]
    found = rows.groupby(keys).agg(
        value=("value", "mean"), sd=("value", "std"), n=("value", "size"), low=("ci_low", "first"), high=("ci_high", "first")
    )
    return {key: with_interval(row.value, row.low, row.high, key[3]) if row.n == 1 else f"{with_interval(row.value, float('nan'), 0.0, key[3])} ± {row.sd:.2g}"
            for key, row in zip(found.index, found.itertuples(), strict=True)}  # fmt: skip


def _chosen(rows: pd.DataFrame) -> dict[tuple, str]:
    good = rows[rows["status"] == "ok"]
    return {(row.label, row.protocol, row.postprocess, row.metric): with_interval(row.value, row.ci_low, row.ci_high, row.metric)
            for row in good.itertuples()}  # fmt: skip
