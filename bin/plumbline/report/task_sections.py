"""A section for every task: scores, differences, spread over units, all metrics."""

import math

import pandas as pd

from plumbline import tasks
from plumbline.report.forest import forest
from plumbline.report.run import Run
from plumbline.report.words import (
    escape,
    folded,
    metric_title,
    number,
    section,
    table,
    task_question,
    task_title,
    with_interval,
)
from plumbline.scoring.protocol import CENTER_PERTURBED, CHOSEN, POSTPROCESSINGS, REFERENCES

POSTS = [*reversed(CHOSEN.values()), *POSTPROCESSINGS, CENTER_PERTURBED]
WIDEST = 6  # metrics of a table that is as wide as the page on a screen of 1,300 px
CIVIDIS = [[0, "#00224e"], [0.25, "#434e6c"], [0.5, "#7d7c78"], [0.75, "#bcae6c"], [1, "#fee838"]]


def task_sections(run: Run, task: str) -> list[dict]:
    """The sections of one task; those without content are left out."""
    rows = run.headline[run.headline["task"] == task]
    found = [_heatmap(run, task, rows), _forest(run, task, rows), _spread(run, task), _all_metrics(run, task)]
    return [part for part in found if part]


def _parent(task: str) -> dict:
    return {"parent_id": f"plumbline_task_{task}", "parent_name": task_title(task), "parent_description": task_question(task)}


def _heatmap(run: Run, task: str, rows: pd.DataFrame) -> dict | None:
    good = rows[rows["status"] == "ok"]
    if good.empty:
        return None
    models = [label for label in run.models if label in set(good["label"])]
    sets = [name for name in run.datasets if name in set(good["dataset"])]
    values = good.pivot_table(index="label", columns="dataset", values="value").reindex(index=models, columns=sets)
    data = [[None if pd.isna(value) else round(float(value), 4) for value in line] for line in values.to_numpy()]
    candidates = good[~good["role"].isin(REFERENCES)]["value"]
    limits = {"min": float(candidates.min()), "max": float(candidates.max())} if candidates.nunique() > 1 else {}
    config = {"id": f"plumbline_{task}_heatmap_plot", "title": f"{task_title(task)}: score", "xlab": "Data set",
              "ylab": "Model", "series_label": False, "square": False,
              "tt_decimals": 1 if good["metric"].str.endswith("_pct").all() else 3,
              "display_values": True, "cluster_rows": False, "cluster_cols": False, "cluster_switch_clustered_active": False,
              "colstops": CIVIDIS, **limits}  # fmt: skip
    about = escape(
        f"{_main_metrics(run, good)}. Protocol corrected, post-processing chosen on the validation part. Floors and ceilings "
        "come last and do not stretch the colours."
    )
    return {"id": f"plumbline_{task}_heatmap", **_parent(task), "section_name": "Scores", "description": about,
            "plot_type": "heatmap", "pconfig": config, "xcats": sets, "ycats": models,
            "data": data}  # fmt: skip


def _main_metrics(run: Run, rows: pd.DataFrame) -> str:
    """The main metric, or each with its data sets where they differ."""
    metrics = rows.groupby("dataset")["metric"].first()
    if metrics.nunique() == 1:
        return f"Main metric: {metric_title(metrics.iloc[0])}"
    named = {metric: [run.title(name) for name in metrics.index[metrics == metric]] for metric in metrics.unique()}
    return "Main metrics: " + "; ".join(f"{metric_title(metric)} ({', '.join(names)})" for metric, names in named.items())


def _forest(run: Run, task: str, rows: pd.DataFrame) -> dict | None:
    figure = forest(run, rows)
    if not figure:
        return None
    about = escape(
        "Paired on the same units, 95 % bootstrap interval. ▲ better, ▼ worse, ■ tied (q ≤ 0.05), ● cannot tell, ◆ reference. "
        f"Right of the line: better than {run.baseline}."
    )
    return section(f"{task}_forest", f"Differences to {run.baseline}", about, figure, **_parent(task))


def _spread(run: Run, task: str) -> dict | None:
    table = run.distributions[(run.distributions["task"] == task) & (run.distributions["n"] >= 5)]
    if table.empty:
        return None
    names, data = [], []
    for dataset in [name for name in run.datasets if name in set(table["dataset"])]:
        rows = table[table["dataset"] == dataset].set_index("label")
        shown = "p value (small is good)" if rows["shows"].iloc[0] == "p value" else metric_title(rows["metric"].iloc[0])
        names.append({"name": run.title(dataset), "xlab": shown})
        boxes = ("min", "q1", "median", "q3", "max", "mean")
        present = [label for label in run.models if label in rows.index]
        data.append({label: {key: float(rows.loc[label, key]) for key in boxes} for label in present})
    kind, shows = table["unit_kind"].mode().iloc[0], table["shows"].iloc[0]
    several = f"{kind}es" if kind.endswith("ch") else f"{kind}s"
    config = {"id": f"plumbline_{task}_spread_plot", "title": f"{task_title(task)}: per {kind}", "data_labels": names,
              "sort_samples": False}  # fmt: skip
    return {"id": f"plumbline_{task}_spread", **_parent(task), "section_name": f"Spread over {several}", "plot_type": "box",
            "description": f"The {shows} of each {kind}: quartiles, ends and mean.", "pconfig": config,
            "data": data if len(data) > 1 else data[0]}  # fmt: skip


def _all_metrics(run: Run, task: str) -> dict | None:
    scores = run.scores[(run.scores["task"] == task) & (run.scores["status"] == "ok")]
    if scores.empty:
        return None
    metrics = [name for name in tasks.metrics() if name in set(scores["metric"])]
    metrics += sorted(set(scores["metric"]) - set(metrics))
    parts = []
    for dataset in [name for name in run.datasets if name in set(scores["dataset"])]:
        compared = run.comparisons[(run.comparisons["dataset"] == dataset) & (run.comparisons["task"] == task)]
        content = _metric_tables(run, scores[scores["dataset"] == dataset], compared, metrics)
        parts.append(folded(run.title(dataset), content))
    about = (
        "Mean over split seeds with its 95 % interval (for single post-processings over several seeds: ± standard deviation "
        "over seeds); every post-processing, both protocols. In full: <code>scores.tsv</code>."
    )
    return section(f"{task}_metrics", "Table of all metrics", about + _uncalibrated(metrics), "\n".join(parts), **_parent(task))


def _uncalibrated(metrics: list[str]) -> str:
    """What is to be known of metrics whose intervals do not hold their level."""
    records = [record for name, record in tasks.metrics().items() if name in metrics and record.uncalibrated]
    told = "; ".join(f"{escape(one.title)}: {escape(one.uncalibrated)}" for one in records)
    return f" No verdict and no rank rests on a metric whose intervals do not hold their level ({told})." if told else ""


def _metric_tables(run: Run, scores: pd.DataFrame, compared: pd.DataFrame, metrics: list[str]) -> str:
    """Several tables where one would be wider than a page: of these metrics, those that this data set has a score of."""
    cells = _over_seeds(scores) | _chosen(compared)
    present = {key[3] for key in cells}
    shown = [name for name in metrics if name in present]
    n_tables = math.ceil(len(shown) / WIDEST)
    parts = [shown[round(i * len(shown) / n_tables) : round((i + 1) * len(shown) / n_tables)] for i in range(n_tables)]
    return "".join(f'<div class="pl-scroll">{_metric_table(run, cells, part)}</div>' for part in parts)


def _metric_table(run: Run, cells: dict[tuple, str], metrics: list[str]) -> str:
    place = {label: place for place, label in enumerate(run.models)}
    keys = {key[:3] for key in cells if key[3] in metrics}
    keys = sorted(keys, key=lambda key: (place.get(key[0], len(place)), key[1] != "corrected", POSTS.index(key[2])))
    body = []
    for key in keys:
        numbers = [f'<td class="n">{_stacked(cells.get((*key, metric), "–"))}</td>' for metric in metrics]
        body.append([*map(escape, key), *numbers])
    head = ["Model", "Protocol", "Post-processing", *(escape(metric_title(metric)) for metric in metrics)]
    return table(head, body, "pl-tight")


def _stacked(text: str) -> str:
    """The interval below its value, which halves the width of a column."""
    value, bracket, interval = text.partition(" [")
    return f"{value}<br><small>[{interval}</small>" if bracket else text


def _over_seeds(rows: pd.DataFrame) -> dict[tuple, str]:
    """(label, protocol, postprocess, metric) -> text, for every post-processing."""
    groups = rows.groupby(["label", "protocol", "postprocess", "metric"])
    found = groups.agg(value=("value", "mean"), sd=("value", "std"), n=("value", "size"), low=("ci_low", "first"),
                       high=("ci_high", "first"))  # fmt: skip
    texts = {}
    for key, row in zip(found.index, found.itertuples(), strict=True):
        alone = with_interval(row.value, row.low, row.high, key[3])
        texts[key] = alone if row.n == 1 else f"{number(row.value, key[3])} ± {row.sd:.2g}"
    return texts


def _chosen(compared: pd.DataFrame) -> dict[tuple, str]:
    """The same for the chosen post-processing, whose interval covers the units of all seeds."""
    good = compared[compared["status"] == "ok"]
    keys = zip(good["label"], good["protocol"], good["postprocess"], good["metric"], strict=True)
    ends = zip(good["value"], good["ci_low"], good["ci_high"], good["metric"], strict=True)
    return {key: with_interval(*end) for key, end in zip(keys, ends, strict=True)}
