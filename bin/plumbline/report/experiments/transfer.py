"""Transfer: a model trained on one data set and applied to another by shared genes, compared with training on the target."""

import numpy as np
import pandas as pd

from plumbline.report.figures import image, panels
from plumbline.report.run import Run
from plumbline.report.words import VERDICTS, escape, metric_title, number, section, table, task_title, with_interval

PARENT = {
    "parent_id": "plumbline_transfer",
    "parent_name": "Experiment: transfer",
    "parent_description": "Models trained on one data set and applied to another, on their shared genes.",
}


def sections(run: Run, _folder) -> list[dict]:
    """A matrix per model and task, and the difference of every transfer to training on the target itself."""
    rows = run.experiment("transfer")
    good = rows[rows["status"] == "ok"]
    if good.empty:
        return []
    figure = image(_figure(run, good), "Scores by training and target data set; the numbers are in the table below.")
    about = (
        "Rows: trained on; columns: scored on; the diagonal is training on the target's own train cells. "
        "Grey scale: from the floor (light) to the diagonal (dark). ▼ ▲ = : worse, better, tied with the diagonal (q ≤ 0.05)."
    )
    parts = [section("transfer_matrix", "Matrix", about, f"<p>{_sentence(run, good)}</p>{figure}", **PARENT)]
    return [*parts, _table(run, rows)]


def _sentence(run: Run, good: pd.DataFrame) -> str:
    """How many of the tested transfers are worse than training on the target."""
    tested = good[good["verdict"].isin(("better", "worse", "tied"))]
    if tested.empty:
        return "No transfer could be compared with training on the target."
    text = []
    for variant, part in tested.groupby("variant"):
        counts = part["verdict"].value_counts()
        verdicts = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in ("better", "tied", "worse"))
        title = escape(run.titles.get(variant, variant))
        text.append(f"<b>{title}</b> trained on another data set, compared with the target: {verdicts} (of {len(part)}).")
    return " ".join(text)


def _figure(run: Run, good: pd.DataFrame):
    parts, names = good.groupby(["task", "variant"]), sorted(set(good["dataset"]) | set(good["fit_on"]))
    size = 1.0 + 0.75 * len(names)
    figure, axes = panels(len(parts), (size + 0.6, size), border=(0, 0.4))
    for axis, ((task, variant), part) in zip(axes, parts, strict=True):
        _matrix(axis, part, names)
        title = f"{task_title(task)}\n{run.titles.get(variant, variant)}, {metric_title(part['metric'].iloc[0])}"
        axis.set_title(title, fontsize=7.5, loc="left", fontweight="bold")
    return figure


def _matrix(axis, part: pd.DataFrame, names: list[str]) -> None:
    shade = np.full((len(names), len(names)), np.nan)
    for row in part.itertuples():
        at, to = names.index(row.fit_on), names.index(row.dataset)
        floor = row.floor if np.isfinite(row.floor) else 0.0
        span = row.baseline_value - floor
        shade[at, to] = np.clip((row.value - floor) / span, 0, 1) if span else np.nan
        if np.isfinite(row.baseline_value):
            shade[to, to] = 1.0
            axis.text(to, to, number(row.baseline_value, row.metric), ha="center", va="center", fontsize=7, color="white")
        dark = np.isfinite(shade[at, to]) and shade[at, to] > 0.8
        text = f"{number(row.value, row.metric)}\n{VERDICTS[row.verdict][0]}"
        axis.text(to, at, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axis.imshow(shade, cmap="Greys", vmin=0, vmax=1.25)
    axis.set_xticks(range(len(names)), [name[:14] for name in names], fontsize=6.5, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), [name[:14] for name in names], fontsize=6.5)
    axis.set_xlabel("scored on", fontsize=7)
    axis.set_ylabel("trained on", fontsize=7)


def _table(run: Run, rows: pd.DataFrame) -> dict:
    head = ["Trained on", "Scored on", "Model", "Task", "Score", "Trained on the target", "Difference", "Result"]
    body = []
    for row in rows.sort_values(["dataset", "fit_on", "variant", "task"]).itertuples():
        names = [run.title(row.fit_on), run.title(row.dataset), run.titles.get(row.variant, row.variant), task_title(row.task)]
        if row.status == "ok":
            symbol, word = VERDICTS[row.verdict][:2]
            values = [with_interval(row.value, row.ci_low, row.ci_high, row.metric), number(row.baseline_value, row.metric),
                      with_interval(row.difference, row.diff_low, row.diff_high, row.metric, sign=True),
                      f"{symbol} {word}"]  # fmt: skip
        else:
            values = ["–", "–", "–", row.reason]
        body.append([escape(str(cell)) for cell in names + values])
    about = "Differences are paired on the same units, with 95 % intervals."
    return section("transfer_table", "Table", about, f'<div class="pl-scroll">{table(head, body)}</div>', **PARENT)
