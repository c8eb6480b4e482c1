"""Second section: the leaderboard. Wins against the baseline, calibrated scores, rank intervals."""

import numpy as np

from plumbline.report.run import Run
from plumbline.report.words import escape, section, table, task_title
from plumbline.scoring.protocol import REFERENCES

PARENT = {
    "parent_id": "plumbline_leaderboard",
    "parent_name": "Leaderboard",
    "parent_description": "All models over all tasks, in the order of comparisons won less comparisons lost.",
}


def leaderboard_sections(run: Run) -> list[dict]:
    """A sortable table over all data sets, and rank intervals for each."""
    return [_table(run), _ranks(run)]


def _table(run: Run) -> dict:
    shown = run.headline[~run.headline["role"].isin(REFERENCES)]
    data = {}
    for label in [name for name in run.models if name in set(shown["label"])]:
        rows = shown[shown["label"] == label]
        means = rows.groupby("task")["calibrated"].mean().dropna()
        counts = {name: int((rows["verdict"] == name).sum()) for name in ("better", "tied", "worse")}
        data[label] = counts | {task: round(float(value), 4) for task, value in means.items()}
    calibrated = [task for task in run.tasks if any(task in row for row in data.values())]
    about = (
        "Over all data sets. Task columns are calibrated: 0 is the best of the floors (random, scrambled or untrained "
        "embeddings, or chance), 1 the ceiling (labels, or split halves of the data). Empty: not run, not applicable, or "
        "floor and ceiling do not differ (batch mixing: noise mixes perfectly)."
    )
    config = {
        "id": "plumbline_leaderboard_table",
        "title": "Leaderboard",
        "col1_header": "Model",
        "no_violin": True,
        "sort_rows": False,
    }
    return {"id": "plumbline_leaderboard_all", **PARENT, "section_name": "Calibrated scores", "description": about,
            "plot_type": "table", "pconfig": config, "headers": _headers(run.baseline, calibrated), "data": data}  # fmt: skip


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
        "tied": {**count, "title": "= tied", "scale": "Greys", "description": "comparisons that cannot be told apart"},
        "worse": {**count, "title": "▼ worse", "scale": "Oranges", "description": f"comparisons in which {base} is better"},
    } | {task: {**share, "title": task_title(task), "description": told} for task in tasks}


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
        opened = " open" if len(run.datasets) <= 3 else ""
        ranks = table(["Model", *(escape(task_title(task)) for task in tasks)], body)
        parts.append(f'<details class="pl"{opened}><summary>{escape(run.title(dataset))}</summary>{ranks}</details>')
    about = "1 is the best. Models that cannot be told apart (paired, Benjamini-Hochberg over all pairs, q ≤ 0.05) share ranks."
    return section("leaderboard_ranks", "Rank intervals", about, "\n".join(parts) or "<p>No ranks.</p>", **PARENT)


def _rank(low: float, high: float) -> str:
    return "–" if np.isnan(low) else f"{low:.0f}" if low == high else f"{low:.0f}–{high:.0f}"
