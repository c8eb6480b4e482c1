"""First section: does it beat the baseline?"""

import pandas as pd

from plumbline.report.run import CONTROLS, Run
from plumbline.report.sentences import overall, per_task
from plumbline.report.words import TASKS, VERDICTS, escape, metric_title, number, section, table, task_title

STYLE = """<style>
.pl-lead{font-size:1.12em;max-width:68em;line-height:1.5;margin:.2em 0 .8em}
.pl-key span{display:inline-block;margin-right:1.1em;white-space:nowrap}
table.pl{border-collapse:collapse;margin:.4em 0 1.1em;font-size:.92em;font-variant-numeric:tabular-nums}
table.pl th,table.pl td{padding:.28em .7em;border-bottom:1px solid rgba(128,128,128,.35);vertical-align:top;text-align:left}
table.pl th{border-bottom:2px solid rgba(128,128,128,.7);font-weight:600}
table.pl td.v{white-space:nowrap;color:#222}
table.pl td.v small{display:block;color:#444;font-weight:normal}
table.pl td.n{white-space:nowrap;text-align:right}
table.pl tr:hover td{box-shadow:inset 0 0 0 99em rgba(128,128,128,.06)}
.pl-scroll{overflow-x:auto;max-height:34em;overflow-y:auto}
.pl-says{margin:.1em 0 .6em;padding-left:1.2em;max-width:68em}
.pl-says li{margin:.12em 0}
.pl-grey{color:#777}
details.pl>summary{cursor:pointer;padding:.2em 0;font-weight:600}
img.pl{max-width:100%;height:auto;background:#fff}
</style>"""


def verdict_section(run: Run) -> dict:
    """Sentences, then a table of models x tasks for each data set."""
    base = escape(run.baseline)
    parts = [STYLE, "".join(f'<p class="pl-lead">{escape(text)}</p>' for text in overall(run)), _key(run)]
    for dataset in run.datasets:
        rows = run.headline[run.headline["dataset"] == dataset]
        if rows.empty:
            continue
        says = "".join(f"<li><b>{escape(title)}</b>: {escape(text)}</li>" for title, text in per_task(run, dataset))
        parts += [f"<h4>{escape(run.title(dataset))}</h4>", f'<ul class="pl-says">{says}</ul>', matrix(run, rows)]
    about = f"Every model against {base} on the same cells and units; protocol <code>corrected</code>."
    return section("verdict", f"Does it beat {run.baseline}?", about, "\n".join(parts))


def _key(run: Run) -> str:
    meanings = {
        "better": f"better than {run.baseline} (q ≤ 0.05)", "worse": "worse (q ≤ 0.05)", "tied": "cannot be told apart",
        "not_applicable": "does not apply", "failed": "a step failed",
    }  # fmt: skip
    marks = "".join(
        f'<span><b style="color:{VERDICTS[name][2]}">{VERDICTS[name][0]} {VERDICTS[name][1]}</b>: {escape(text)}</span>'
        for name, text in meanings.items()
    )
    return f'<p class="pl-key">{marks}</p>'


def matrix(run: Run, rows: pd.DataFrame) -> str:
    """Models x tasks: symbol, word, difference to the baseline and its interval."""
    shown = rows[~rows["role"].isin(CONTROLS)]
    tasks = [task for task in run.tasks if task in set(shown["task"])]
    head = ["Model"] + [_task_head(shown[shown["task"] == task], task) for task in tasks]
    cells = {(row.label, row.task): row for row in shown.itertuples()}
    present = set(shown["label"])
    body = [
        [f"<b>{escape(label)}</b>", *(verdict_cell(cells.get((label, task))) for task in tasks)]
        for label in run.models
        if label in present
    ]
    return f'<div class="pl-scroll" style="max-height:none">{table(head, body)}</div>'


def _task_head(rows: pd.DataFrame, task: str) -> str:
    metric = rows["metric"].iloc[0]
    question = escape(TASKS.get(task, ("", ""))[1])
    return f'<span title="{question}">{escape(task_title(task))}</span><br><small class="pl-grey">{escape(metric_title(metric))}</small>'


def verdict_cell(row) -> str:
    """One cell: never colour alone; the reason is in the tooltip."""
    if row is None:
        return '<td class="v pl-grey">not run</td>'
    name = row.verdict if row.status == "ok" else row.status
    symbol, word, colour, tint = VERDICTS[name]
    detail = ""
    if name in ("better", "worse", "tied"):
        interval = f"[{number(row.diff_low, row.metric)}, {number(row.diff_high, row.metric)}]"
        detail = f"<small>{number(row.difference, row.metric, sign=True)} {interval}</small>"
    elif row.status == "ok":
        detail = f"<small>{number(row.value, row.metric)}</small>"
    style = f"background:{tint};border-left:3px solid {colour}"
    return (
        f'<td class="v" style="{style}" title="{escape(row.reason)}"><b style="color:{colour}">{symbol} {word}</b>{detail}</td>'
    )
