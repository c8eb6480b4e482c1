"""Where in a network is the perturbation? Scores of the hidden states that --model_settings MODEL:layers=... asked for."""

import pandas as pd

from plumbline.common.states import state_of
from plumbline.report.figures import bare, image, legend_below, panels, style
from plumbline.report.run import Run
from plumbline.report.words import escape, metric_title, number, section, table, task_title

ABOUT = (
    "Main metric of each task, by layer: 0 is what the first layer reads, the last row the model's own embedding. Hidden "
    "states are pooled over a cell's positions in the model's way, or by their mean, without what follows the last layer. "
    "Broken line: {}."
)


def layer_section(run: Run) -> list[dict]:
    """One section, a figure and a table per model and data set; nothing without hidden states."""
    rows = run.headline
    if rows.empty:
        return []
    states = rows[[state_of(name) is not None for name in rows["variant"]]]
    parts = [_part(run, str(dataset), model) for dataset in run.datasets for model in _models(states, str(dataset))]
    about = escape(ABOUT.format(run.baseline))
    return [section("layers", "Scores by layer", about, "".join(parts))] if parts else []


def _models(states: pd.DataFrame, dataset: str) -> list[str]:
    return list(dict.fromkeys(state_of(name)[0] for name in states["variant"][states["dataset"] == dataset]))


def _part(run: Run, dataset: str, model: str) -> str:
    """Figure and table of one model on one data set."""
    rows = run.headline[run.headline["dataset"] == dataset]
    places = [(state_of(name) or (name, -1, "own")) for name in rows["variant"]]
    found = rows.assign(
        of=[of for of, _, _ in places], layer=[at for _, at, _ in places], pooling=[how for _, _, how in places]
    )
    found = found[found["of"] == model]
    base = rows[rows["variant"] == run.about["baseline"]].drop_duplicates("task").set_index("task")["value"]
    title = escape(f"{run.titles.get(model, model)}, {run.title(dataset)}")
    figure = image(_figure(run, found, base), f"Scores by layer of {model} on {dataset}; the numbers are in the table.")
    return f'<h4>{title}</h4>{figure}<div class="pl-scroll">{_table(run, found, base)}</div>'


def _figure(run: Run, found: pd.DataFrame, base: pd.Series):
    """One panel per task: score by layer, a line per pooling; the baseline broken."""
    tasks = [task for task in run.tasks if task in set(found["task"])]
    figure, axes = panels(len(tasks), (2.9, 2.2), (0.0, 0.4))
    for axis, task in zip(axes, tasks, strict=True):
        part = found[(found["task"] == task) & (found["layer"] >= 0)]
        for place, (pooling, line) in enumerate(part.groupby("pooling")):
            colour, marker = style(place)
            line = line.sort_values("layer")
            axis.plot(line["layer"], line["value"], marker=marker, color=colour, label=f"pooling: {pooling}", linewidth=1.2)
        if task in base:
            axis.axhline(base[task], color="#555555", linestyle="--", linewidth=0.9, label=run.baseline)
        axis.set_title(task_title(task), fontsize=9)
        axis.set_xlabel("layer", fontsize=8)
        axis.tick_params(labelsize=7)
        bare(axis)
    legend_below(figure, axes, 3)
    return figure


def _table(run: Run, found: pd.DataFrame, base: pd.Series) -> str:
    """Rows: layers, the model's own embedding, the baseline; columns: tasks."""
    tasks = [task for task in run.tasks if task in set(found["task"])]
    metric = found.groupby("task")["metric"].first()
    wide = found.pivot_table(index=["pooling", "layer"], columns="task", values="value", aggfunc="first")
    states = [key for key in sorted(wide.index, key=lambda key: (key[0] != "own", key[1])) if key[1] >= 0]
    body = [[f"{layer}{'' if how == 'own' else f' ({how})'}", *_cells(wide.loc[(how, layer)], tasks)] for how, layer in states]
    if ("own", -1) in wide.index:
        body.append(["own embedding", *_cells(wide.loc[("own", -1)], tasks)])
    body.append([escape(run.baseline), *_cells(base, tasks)])
    return table(["Layer", *(f"{task_title(task)}: {metric_title(metric[task])}" for task in tasks)], body)


def _cells(scores: pd.Series, tasks: list[str]) -> list[str]:
    return [f'<td class="n">{number(scores.get(task, float("nan")))}</td>' for task in tasks]
