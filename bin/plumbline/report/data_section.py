"""What a reader should know of the data before believing a score."""

import re

from plumbline.report.run import Run
from plumbline.report.words import escape, number, section, table


def data_section(run: Run) -> list[dict]:
    """Sizes, confounding and warnings of every data set. Reads the data report as far as it is there."""
    known = {name: run.about["datasets"][name] for name in run.datasets if name in run.about["datasets"]}
    if not known:
        return []
    head = [
        "Data set",
        "Organism",
        "Perturbation",
        "Cells",
        "Controls",
        "Perturbations",
        "Cells each (median)",
        "Batches",
        "Genes",
        "Split by",
        "Batch and perturbation",
    ]
    body = [_row(found["facts"], found.get("report") or {}) for found in known.values()]
    told = "\n".join(_warnings(found["facts"], found.get("report") or {}) for found in known.values())
    about = "Last column: how far batch and perturbation are the same thing (Cramér's V, 0 = independent, 1 = the same)."
    content = f'<div class="pl-scroll" style="max-height:none">{table(head, body)}</div>{told}'
    return [section("data", "The data", about, content)]


def _row(facts: dict, report: dict) -> list[str]:
    sizes = report.get("perturbations") if isinstance(report.get("perturbations"), dict) else {}
    batches = _count(facts.get("n_batches")) if facts.get("has_batches", True) else "none"
    controls = _count(facts.get("n_controls")) if facts.get("has_controls", True) else "none"
    counts = [_count(facts.get("n_cells")), controls, _count(facts.get("n_perturbations")), number(sizes.get("cells_median"))]
    numbers = [f'<td class="n">{text}</td>' for text in (*counts, batches, _count(facts.get("n_genes")))]
    named = f"<b>{escape(str(facts.get('title') or facts.get('name')))}</b>"
    words = [escape(str(facts.get(name) or "–")) for name in ("organism", "perturbation_type")]
    return [named, *words, *numbers, escape(str(facts.get("split_by") or "–")), _confounding(report.get("confounding"))]


def _confounding(found: dict | None) -> str:
    if not isinstance(found, dict):
        return "–"
    v = found.get("cramers_v")
    level = {"none": "independent enough", "partial": "partly confounded", "nested": "nested", "full": "fully confounded"}
    told = level.get(found.get("level"), str(found.get("level", "–")))
    return escape(told if v is None else f"{told} (V = {number(v)})")


def _warnings(facts: dict, report: dict) -> str:
    texts = list(dict.fromkeys([*(report.get("warnings") or []), *(facts.get("warnings") or [])]))
    if not texts:
        return ""
    items = "".join(f"<li>{escape(str(text))}</li>" for text in texts)
    return f"<b>⚠ {escape(str(facts.get('title') or facts.get('name')))}</b><ul class='pl-says'>{items}</ul>"


def _count(value: int | float | None) -> str:
    return "–" if value is None else re.sub(r"\.0$", "", f"{value:,}")
