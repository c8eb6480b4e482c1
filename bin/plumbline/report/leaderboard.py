"""Second section: the leaderboard. Wins against the baseline, calibrated scores, rank intervals."""

import numpy as np
import pandas as pd

from plumbline.report.run import Run
from plumbline.report.words import SILENT, escape, folded, number, section, table, task_title
from plumbline.scoring.protocol import REFERENCES

PARENT = {
    "parent_id": "plumbline_leaderboard",
    "parent_name": "Leaderboard",
    "parent_description": "All models over all tasks: the baseline, then the others in the order of comparisons won less "
    "comparisons lost, and of their mean calibrated score where these are equal.",
}


def leaderboard_sections(run: Run) -> list[dict]:
    """A sortable table over all data sets, progress towards a repeat of the experiment, and rank intervals for each."""
    return [part for part in (_table(run), _progress(run), _ranks(run)) if part]


def _table(run: Run) -> dict:
    shown = run.headline[~run.headline["role"].isin(REFERENCES)]
    data = {}
    for label in [name for name in run.models if name in set(shown["label"])]:
        rows = shown[shown["label"] == label]
        means = rows.groupby("task")["calibrated"].mean().dropna()
        counts = {name: int((rows["verdict"] == name).sum()) for name in ("better", "tied", "worse")}
        counts["untold"] = int(rows["verdict"].isin(SILENT).sum())
        data[label] = counts | {task: round(float(value), 4) if abs(value) >= 0.005 else 0.0 for task, value in means.items()}
    calibrated = [task for task in run.tasks if any(task in row for row in data.values())]
    about = (
        "Over all data sets. Task columns are calibrated: 0 is the best of the floors (random, scrambled or untrained "
        "embeddings, or chance), 1 the ceiling (labels, or split halves of the data). Empty: not run, not applicable, or "
        f"without a scale. {_left_out(run, calibrated)}"
    ).strip()
    config = {
        "id": "plumbline_leaderboard_table",
        "title": "Leaderboard",
        "col1_header": "Model",
        "no_violin": True,
        "sort_rows": False,
    }
    return {"id": "plumbline_leaderboard_all", **PARENT, "section_name": "Calibrated scores", "description": about,
            "plot_type": "table", "pconfig": config, "headers": _headers(run.baseline, calibrated), "data": data}  # fmt: skip


def _left_out(run: Run, calibrated: list[str]) -> str:
    """The tasks without a column, and why."""
    told = []
    for task in [name for name in run.compared_tasks if name not in calibrated]:
        rows = run.headline[run.headline["task"] == task]
        whys = rows.loc[rows["status"] == "ok", "why_not_calibrated"]
        why = whys.mode().iloc[0] if len(whys) else "it has no score"
        told.append(f"{task_title(task)}: {why}")
    return escape(f"Not in this table: {'; '.join(told)}.") if told else ""


def _headers(base: str, tasks: list[str]) -> dict[str, dict]:
    count = {"format": "{:,.0f}", "min": 0}
    share = {"format": "{:,.2f}", "scale": "Blues", "min": 0, "max": 1}
    told = "calibrated: 0 = best floor, 1 = ceiling; mean over data sets"
    return {
        "better": {
            **count,
            "title": "▲ better",
            "scale": "Blues",
            "description": f"comparisons in which the model beats {base}",
        },
        "tied": {**count, "title": "= tied", "scale": "Greys", "description": "comparisons without a difference"},
        "worse": {**count, "title": "▼ worse", "scale": "Oranges", "description": f"comparisons in which {base} is better"},
        "untold": {
            **count,
            "title": "? cannot tell",
            "scale": "Greys",
            "description": "comparisons on too few units, at the floor, or with intervals too wide for a tie",
        },
    } | {task: {**share, "title": task_title(task), "description": told} for task in tasks}


def _progress(run: Run) -> dict | None:
    """How much of what the baseline leaves each model gains, task by task, and the sentence that says how much is gained."""
    shown = run.headline[~run.headline["role"].isin(REFERENCES) & (run.headline["variant"] != run.about["baseline"])]
    shown = shown[shown["progress"].notna()] if "progress" in shown else shown[:0]
    if shown.empty:
        return None
    means = shown.groupby(["label", "task"])["progress"].mean()
    tasks = [task for task in run.tasks if task in set(shown["task"])]
    body = []
    for label in [name for name in run.models if name in set(shown["label"])]:
        cells = [number(means.get((label, task), np.nan)) for task in tasks]
        body.append([f"<b>{escape(label)}</b>", *(f'<td class="n">{cell}</td>' for cell in cells)])
    content = table(["Model", *(escape(task_title(task)) for task in tasks)], body)
    base, gained = run.baseline, escape(_gained(means, run.baseline))
    about = (
        f"(score − {base}) / (repeat − {base}), mean over data sets: 0 is as good as {base}, 1 as good as a repeat of the "
        "experiment, below 0 is worse. What a repeat scores is measured on halves of the data where that can be done (known "
        "biology, rebuilding effects, finding perturbations again); elsewhere the ceiling made of the labels stands for it."
    )
    text = f'<p>{gained}</p><div class="pl-scroll pl-whole">{content}</div>'
    return section("leaderboard_progress", "Progress towards a repeat", escape(about), text, **PARENT)


def _gained(means: pd.Series, base: str) -> str:
    """The most that any model gains, in one sentence."""
    (label, task), best = means.idxmax(), 100 * float(means.max())
    if best <= 0:
        return f"No model gains anything of what {base} leaves to a repeat of the experiment."
    return f"Of what {base} leaves to a repeat of the experiment, {label} gains the most: {best:.0f} % ({task_title(task)})."


def _ranks(run: Run) -> dict:
    shown = run.headline[~run.headline["role"].isin(REFERENCES) & run.headline["rank_low"].notna()]
    parts = []
    for dataset in run.datasets:
        rows = shown[shown["dataset"] == dataset]
        if rows.empty:
            continue
        tasks = [task for task in run.tasks if task in set(rows["task"])]
        cells = {(row.label, row.task): _rank(row.rank_low, row.rank_high) for row in rows.itertuples()}
        body = [
            [f"<b>{escape(label)}</b>", *(f'<td class="n">{cells.get((label, task), "–")}</td>' for task in tasks)]
            for label in run.models
            if label in set(rows["label"])
        ]
        ranks = table(["Model", *(escape(task_title(task)) for task in tasks)], body)
        content = f'<div class="pl-scroll pl-whole">{ranks}</div>'
        parts.append(folded(run.title(dataset), content, opened=len(run.datasets) <= 3))
    about = (
        "1 is the best. Models that cannot be told apart share ranks. The tests are those of the first section: paired, "
        "Benjamini-Hochberg over all pairs of models and main metrics of a data set, q ≤ 0.05."
    )
    return section("leaderboard_ranks", "Rank intervals", about, "\n".join(parts) or "<p>No ranks.</p>", **PARENT)


def _rank(low: float, high: float) -> str:
    return "–" if np.isnan(low) else f"{low:.0f}" if low == high else f"{low:.0f}–{high:.0f}"
