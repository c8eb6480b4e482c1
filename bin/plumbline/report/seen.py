"""What each checkpoint saw: pre-trained models by data set, with their verdicts, to be filtered in the page."""

import pandas as pd

from plumbline.report.run import Run
from plumbline.report.words import TESTED, escape, section, table, verdict_counts

# radio buttons and CSS: the filter works without a script
WORDS = {"yes": "✖ seen", "no": "✔ not seen", "unknown": "? unknown"}
CHOICES = {
    "all": ("all", tuple(WORDS)),
    "unseen": ("not known to be seen", ("no", "unknown")),
    "sure": ("surely unseen", ("no",)),
}


def seen_section(run: Run) -> list[dict]:
    """One section; nothing where no model of the run was pre-trained."""
    rows = run.headline[run.headline["seen"] != ""] if "seen" in run.headline else run.headline[:0]
    if rows.empty:
        return []
    body = [_row(run, *key, part) for key, part in rows.groupby(["label", "dataset"], sort=True)]
    head = ["Model", "Data set", "Seen in pre-training", f"Against {escape(run.baseline)}", "Why"]
    about = (
        "Whether a pre-trained model may have met these very cells before. No model publishes a complete list of its cells, so "
        "that most answers are unknown; a score on data that a model has seen says little about new data."
    )
    content = f'{_filter()}<div class="pl-scroll">{table(head, body, "pl-seen")}</div></div>'
    return [section("seen", "Seen in pre-training?", about, content)]


def _row(run: Run, label: str, dataset: str, part: pd.DataFrame) -> list[str]:
    answer, source = part["seen"].iloc[0], part["seen_source"].iloc[0]
    counts = {name: int((part["verdict"] == name).sum()) for name in TESTED}
    mark = f'<td class="v pl-is-{answer}" style="color:inherit">{WORDS[answer]}</td>'
    return [f"<b>{escape(label)}</b>", escape(run.title(dataset)), mark, verdict_counts(counts), escape(source)]


def _filter() -> str:
    buttons, rules = [], []
    for name, (words, shown) in CHOICES.items():
        checked = " checked" if name == "all" else ""
        buttons.append(
            f'<input type="radio" name="pl-seen" id="pl-seen-{name}"{checked}> <label for="pl-seen-{name}">{words}</label> '
        )
        hidden = [answer for answer in WORDS if answer not in shown]
        rules += [f".pl-filter:has(#pl-seen-{name}:checked) tr:has(td.pl-is-{answer}){{display:none}}" for answer in hidden]
    return f'<style>{"".join(rules)}</style><div class="pl-filter"><p>Show: {"".join(buttons)}</p>'
