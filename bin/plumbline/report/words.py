"""The words of the report: what a task asks, what a metric is, how a number is printed."""

import math
from collections.abc import Mapping
from html import escape

from plumbline import tasks

TESTED = ("better", "tied", "worse", "cannot tell")  # verdicts of a test that was made
SILENT = ("cannot tell", "too few units", "at the floor")  # verdicts that say nothing of a model
COMPARED = tuple(dict.fromkeys(TESTED + SILENT))  # verdicts of a model and the baseline that both have a score
# symbol, word, colour (Okabe-Ito), tint: never colour alone
VERDICTS = {
    "better": ("▲", "better", "#0072B2", "#dcecf7"),
    "worse": ("▼", "worse", "#D55E00", "#fbe6d9"),
    "tied": ("=", "tied", "#555555", "#f0f0f0"),
    "cannot tell": ("?", "cannot tell", "#555555", "#ffffff"),
    "too few units": ("?", "too few units to tell", "#555555", "#ffffff"),
    "at the floor": ("?", "at the floor", "#555555", "#ffffff"),
    "baseline": ("●", "baseline", "#000000", "#ffffff"),
    "not tested": ("·", "not tested", "#555555", "#ffffff"),
    "not_applicable": ("–", "not applicable", "#777777", "#ffffff"),
    "failed": ("✖", "failed", "#882255", "#f6e3ec"),
}


def verdict_counts(counts: Mapping[str, int]) -> str:
    """'2 better, 0 tied, 1 worse', and how many cannot be told where there are any."""
    return ", ".join(f"{counts.get(word, 0)} {word}" for word in TESTED if counts.get(word, 0) or word != "cannot tell")


def task_title(task: str) -> str:
    """A task's name for readers."""
    record = tasks.records().get(task)
    return record.title if record else task.replace("_", " ").capitalize()


def task_question(task: str) -> str:
    """What a task asks; '' for one that this version does not have."""
    record = tasks.records().get(task)
    return record.question if record else ""


def metric_title(metric: str) -> str:
    """A metric's name for readers."""
    record = tasks.metrics().get(metric)
    return record.title if record else metric.replace("_", " ")


def number(value: float, metric: str = "", sign: bool = False) -> str:
    """A score: one decimal for percentages, else three digits; an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    style = (
        ".1f"
        if metric.endswith("_pct") or size >= 100
        else ".2f"
        if size >= 10
        else ".3f"
        if size >= 5e-4 or not size
        else ".1g"
    )
    return format(value, ("+" if sign else "") + style).replace("-", "−")


def with_interval(value: float, low: float, high: float, metric: str = "", sign: bool = False) -> str:
    """'0.35 [0.30, 0.41]', or the value alone where there is no interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return number(value, metric, sign)
    return f"{number(value, metric, sign)} [{number(low, metric)}, {number(high, metric)}]"


def listed(words: list[str], most: int = 6) -> str:
    """'a, b and c'."""
    words = words if len(words) <= most else [*words[:most], f"{len(words) - most} more"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def table(head: list[str], rows: list[list[str]], kind: str = "") -> str:
    """An HTML table. Cells are HTML: callers escape what users named."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "\n".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f'<table class="pl {kind}"><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table>'


def _cell(cell: str) -> str:
    return cell if cell.startswith("<td") else f"<td>{cell}</td>"


def folded(dataset: str, content: str, opened: bool = False, large: bool = False) -> str:
    """What a section says of one data set, under its title (large, as a heading), to be opened and closed. content: HTML."""
    kind = ' class="pl-set"' if large else ""
    title = f"<summary{kind}>{escape(dataset)}</summary>"
    return f'<details class="pl"{" open" if opened else ""}>{title}{content}</details>'


def section(name: str, section_name: str, description: str, content: str, **more: str) -> dict:
    """A MultiQC custom-content section that holds HTML; ``more``: the parent it is a part of.

    MultiQC shows the parts of a parent in the alphabetical order of ``section_name``: the names are chosen for that.
    """
    about = {"id": f"plumbline_{name}", "section_name": section_name, "description": description, "plot_type": "html"}
    return {**about, **more, "data": content}


__all__ = ["escape", "folded", "listed", "metric_title", "number", "section", "table", "task_title", "with_interval"]
