"""The words of the report: what a task asks, what a metric is, how a number is printed."""

import math
from html import escape

TASK_ORDER = ["separability", "recall", "reconstruction", "consistency", "magnitude", "batch_effect"]
TASKS = {
    "separability": ("Telling perturbations apart", "Whether cells of one perturbation can be told from cells of the others."),
    "recall": ("Known biology", "Whether perturbations of genes that are known to work together lie together."),
    "reconstruction": (
        "Rebuilding expression",
        "Whether the expression of cells with unseen perturbations, their own state and the effect together, can be decoded "
        "from the embedding.",
    ),
    "consistency": ("Consistency", "Whether the cells of one perturbation agree more than chance."),
    "magnitude": ("Effect magnitude", "How many perturbations move away from the controls."),
    "batch_effect": (
        "Batch mixing",
        "Whether cells of different batches mix. Read it beside the tasks on biology: noise mixes perfectly.",
    ),
}
METRICS = {
    "ilisi_raw": "iLISI (effective number of batches)", "ilisi_ratio": "iLISI / shuffled", "ilisi_scaled": "iLISI, 0..1",
    "ilisi_scib": "iLISI (scib-metrics)", "linear_top1": "linear probe, top-1 accuracy",
    "linear_top5": "linear probe, top-5 accuracy", "knn_top1": "kNN, top-1 accuracy", "knn_top5": "kNN, top-5 accuracy",
    "linear_balanced": "linear probe, balanced accuracy", "auroc_control": "AUROC against controls",
    "consistency_pct": "percent of perturbations, p ≤ 0.05", "consistency_fdr_pct": "percent of perturbations, q ≤ 0.05",
    "magnitude_pct": "percent of perturbations, p ≤ 0.05", "magnitude_fdr_pct": "percent of perturbations, q ≤ 0.05",
    "recall_mean": "recall, mean of sources", "corum_ks": "CORUM complexes (KS)",
    "structural_integrity": "structural integrity",
    "si_effect": "structural integrity of the effect", "spearman": "Spearman per gene",
    "pearson": "Pearson per gene", "mse": "mean squared error",
    "mae": "mean absolute error", "r2": "R²",
}  # fmt: skip
TESTED = ("better", "worse", "tied", "cannot tell")  # verdicts of a test that was made
SILENT = ("cannot tell", "too few units", "at the floor")  # verdicts that say nothing of a model
METHODS = ("none", "center", "center_scale", "tvn")  # post-processings
SOURCES = {"corum": "CORUM", "humap": "HuMAP", "reactome": "Reactome", "signor": "SIGNOR", "stringdb": "StringDB"}
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


def task_title(task: str) -> str:
    """A task's name for readers."""
    return TASKS.get(task, (task.replace("_", " ").capitalize(), ""))[0]


def metric_title(metric: str) -> str:
    """A metric's name for readers."""
    if metric in METRICS:
        return METRICS[metric]
    kind, _, source = metric.partition("_")
    name, _, band = source.partition("_")
    if kind in ("recall", "precision") and name in SOURCES:
        return f"{kind}, {SOURCES[name]}" + (f" ({band} % band)" if band else "")
    return metric.replace("_", " ")


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


def section(name: str, section_name: str, description: str, content: str, **more: str) -> dict:
    """A MultiQC custom-content section that holds HTML; ``more``: the parent it is a part of.

    MultiQC shows the parts of a parent in the alphabetical order of ``section_name``: the names are chosen for that.
    """
    about = {"id": f"plumbline_{name}", "section_name": section_name, "description": description, "plot_type": "html"}
    return {**about, **more, "data": content}


__all__ = ["escape", "listed", "metric_title", "number", "section", "table", "task_title", "with_interval"]
