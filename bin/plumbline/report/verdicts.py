"""First section: does it beat the baseline?"""

import pandas as pd

from plumbline.report.run import Run
from plumbline.report.sentences import overall, per_task
from plumbline.report.words import (
    SILENT,
    VERDICTS,
    escape,
    folded,
    metric_title,
    number,
    section,
    table,
    task_question,
    task_title,
)
from plumbline.scoring.protocol import REFERENCES
from plumbline.scoring.scores import counted

STYLE = """<style>
.pl-lead{font-size:1.12em;max-width:68em;line-height:1.5;margin:.2em 0 .8em}
.pl-key span{display:inline-block;margin-right:1.1em}
table.pl{border-collapse:collapse;margin:.4em 0 1.1em;font-size:.92em;font-variant-numeric:tabular-nums}
table.pl th,table.pl td{padding:.28em .7em;border-bottom:1px solid rgba(128,128,128,.35);vertical-align:top;text-align:left}
table.pl th{border-bottom:2px solid rgba(128,128,128,.7);font-weight:600}
table.pl td:first-child{min-width:8.5em}
table.pl td.v{white-space:nowrap;color:#222}
table.pl.pl-tight{font-size:.88em}
table.pl.pl-tight th,table.pl.pl-tight td{padding:.28em .3em;overflow-wrap:break-word}
table.pl.pl-tight td:first-child{min-width:7em}
table.pl.pl-tight td.v{white-space:normal}
table.pl.pl-tight td.v b,table.pl td small span{white-space:nowrap}
table.pl td.t{background:var(--t);border-left:3px solid var(--v)}
.pl-v{color:var(--v)}
table.pl td.v small{display:block;color:#444;font-weight:normal}
table.pl td.n{white-space:nowrap;text-align:right}
table.pl tr:hover td{box-shadow:inset 0 0 0 99em rgba(128,128,128,.06)}
.pl-scroll{overflow-x:auto;max-height:34em;overflow-y:auto}
.pl-says{margin:.1em 0 .6em;padding-left:1.2em;max-width:68em}
.pl-says li{margin:.12em 0}
.pl-grey{color:#777}
details.pl>summary{cursor:pointer;padding:.25em 0;font-weight:600}
details.pl>summary.pl-set{font-size:1.15em}
img.pl{max-width:100%;height:auto;background:#fff}
[data-bs-theme=dark] table.pl td.v,[data-bs-theme=dark] table.pl td.v small{color:inherit}
[data-bs-theme=dark] table.pl td.t{background:color-mix(in srgb,var(--v) 22%,transparent)}
[data-bs-theme=dark] .pl-v{color:color-mix(in srgb,var(--v) 45%,#fff)}
[data-bs-theme=dark] .pl-grey{color:#aaa}
[data-bs-theme=dark] img.pl{filter:invert(.9) hue-rotate(180deg)}
#mqc_welcome,#page_title .multiqc-logo-wrapper,.multiqc-logo-wrapper{display:none!important}
</style>"""


def verdict_section(run: Run) -> dict:
    """The answer over all data sets, then for each data set sentences and a table of models x tasks."""
    base, sets = escape(run.baseline), run.compared_datasets
    parts = [STYLE, "".join(f'<p class="pl-lead">{escape(text)}</p>' for text in overall(run)), _key(run)]
    if len(sets) > 1:
        parts += ["<h4>Over all data sets</h4>", overview(run)]
    for dataset in sets:
        rows = run.headline[run.headline["dataset"] == dataset]
        says = "".join(f"<li><b>{escape(title)}</b>: {escape(text)}</li>" for title, text in per_task(run, dataset))
        content = f'<ul class="pl-says">{says}</ul>{matrix(run, rows)}'
        parts.append(folded(run.title(dataset), content, large=True, opened=len(sets) <= 3))
    about = f"Every model against {base} on the same cells and units; protocol <code>corrected</code>."
    return section("verdict", f"Does it beat {run.baseline}?", about, "\n".join(parts))


def overview(run: Run) -> str:
    """Models x tasks over all data sets: on how many a model is better, tied, worse."""
    shown = run.headline[~run.headline["role"].isin(REFERENCES) & (run.headline["variant"] != run.about["baseline"])]
    present = set(shown["label"])
    head = ["Model"] + [f'<span title="{escape(task_question(t))}">{escape(task_title(t))}</span>' for t in run.compared_tasks]
    body = [
        [
            f"<b>{escape(label)}</b>",
            *(_tally(shown[(shown["label"] == label) & (shown["task"] == task)]) for task in run.compared_tasks),
        ]
        for label in run.models
        if label in present
    ]
    return f'<div class="pl-scroll" style="max-height:none">{table(head, body, "pl-tight")}</div>'


def _tally(rows: pd.DataFrame) -> str:
    verdicts = rows["verdict"].where(~rows["verdict"].isin(SILENT), "cannot tell")
    counts = verdicts.where(rows["status"] == "ok", rows["status"]).value_counts()
    n_tested = sum(counts.get(name, 0) for name in ("better", "tied", "worse", "cannot tell"))
    if not n_tested:
        scored = counts.get("not tested") or not len(rows)
        name = "failed" if counts.get("failed") else "not tested" if scored else "not_applicable"
        symbol, word, colour, _ = VERDICTS[name]
        return f'<td class="v"><span class="pl-v" style="--v:{colour}">{symbol} {word}</span></td>'
    told = [f'<b class="pl-v" style="--v:{VERDICTS[name][2]}">{VERDICTS[name][0]} {counts[name]} {VERDICTS[name][1]}</b>'
            for name in ("better", "tied", "worse", "cannot tell", "failed") if counts.get(name)]  # fmt: skip
    ahead = counts.get("better", 0) - counts.get("worse", 0)
    name = "better" if ahead > 0 else "worse" if ahead < 0 else "tied"
    colour, tint = VERDICTS[name][2:]
    return f'<td class="v t" style="--t:{tint};--v:{colour}">{"<br>".join(told)}</td>'


def _key(run: Run) -> str:
    meanings = {
        "better": f"better than {run.baseline} (q ≤ 0.05)", "worse": "worse (q ≤ 0.05)",
        "tied": "the difference is less than half of what the baseline has above the floor (95 %)",
        "cannot tell": "neither a difference nor a tie can be shown",
        "too few units": "fewer than 8 perturbations, batches or genes",
        "at the floor": "neither score, or not even the ceiling, is above the floor",
        "not tested": "a score without a verdict, as the text says",
        "not_applicable": "does not apply", "failed": "a step failed",
    }  # fmt: skip
    words = {
        name: f'<b class="pl-v" style="--v:{colour}">{symbol} {word}</b>'
        for name, (symbol, word, colour, _) in VERDICTS.items()
    }
    marks = "".join(f"<span>{words[name]}: {escape(text)}</span>" for name, text in meanings.items())
    return f'<p class="pl-key">{marks}</p>'


def matrix(run: Run, rows: pd.DataFrame) -> str:
    """Models x tasks: symbol, word, difference to the baseline and its interval."""
    shown = rows[~rows["role"].isin(REFERENCES)]
    scored = set(shown[shown["status"] != "not_applicable"]["task"])  # the sentences say why the others are not there
    tasks = [task for task in run.tasks if task in scored]
    head = ["Model"] + [_task_head(shown[shown["task"] == task], task) for task in tasks]
    cells = {(row.label, row.task): row for row in shown.itertuples()}
    present = set(shown["label"])
    body = [
        [f"<b>{escape(label)}</b>", *(verdict_cell(cells.get((label, task))) for task in tasks)]
        for label in run.models
        if label in present
    ]
    return f'<div class="pl-scroll" style="max-height:none">{table(head, body, "pl-tight")}</div>'


def _task_head(rows: pd.DataFrame, task: str) -> str:
    metric = rows["metric"].iloc[0]
    question = escape(task_question(task))
    under = f'<small class="pl-grey">{escape(metric_title(metric))}</small>'
    return f'<span title="{question}">{escape(task_title(task))}</span><br>{under}'


def verdict_cell(row) -> str:
    """One cell: never colour alone; the reason is in the tooltip."""
    if row is None:
        return '<td class="v pl-grey">not run</td>'
    name = row.verdict if row.status == "ok" else row.status
    symbol, word, colour, tint = VERDICTS[name]
    detail = _detail(row, name) if row.status == "ok" else ""
    why = "; ".join(part for part in (row.note, row.reason) if part)
    style = f"--t:{tint};--v:{colour}"
    return f'<td class="v t" style="{style}" title="{escape(why)}"><b class="pl-v">{symbol} {word}</b>{detail}</td>'


def _detail(row, name: str) -> str:
    """The difference and its interval, or the score alone; the units behind it; the smallest difference a test could see."""
    text = number(row.value, row.metric)
    if name in ("better", "worse", "tied", "cannot tell"):
        ends = f"<span>[{number(row.diff_low, row.metric)}, {number(row.diff_high, row.metric)}]</span>"
        text = f"{number(row.difference, row.metric, sign=True)} {ends}"
    n = f"n = {counted(int(row.n_units), row.unit)}" if row.unit and row.n_units == row.n_units else ""
    visible = f"visible from {number(row.detectable, row.metric)}" if name in ("tied", "cannot tell") else ""
    return "".join(f"<small>{line}</small>" for line in (text, n, visible) if line)
