"""What has no score, why, and what to do next."""

from plumbline.report.advice import next_step
from plumbline.report.run import Run
from plumbline.report.sentences import plain_reason
from plumbline.report.words import VERDICTS, escape, listed, section, table, task_title

HEAD = ["Result", "Reason", "Data sets", "Models", "Tasks", "What to do next"]


def absent_section(run: Run) -> list[dict]:
    """Every score that is missing, and why: not applicable and failed are not zero."""
    table_ = run.comparisons
    table_ = table_.assign(reason=table_["reason"].map(plain_reason))
    gone = table_[(table_["status"] != "ok") & ~((table_["role"] == "predictor") & (table_["status"] == "not_applicable"))]
    if gone.empty:
        return []
    body = []
    for (status, reason), rows in sorted(gone.groupby(["status", "reason"]), key=lambda part: part[0]):
        symbol, word, colour, _ = VERDICTS[status]
        tasks = [task_title(task) for task in run.tasks if task in set(rows["task"])]
        mark = f'<b style="color:{colour}">{symbol} {word}</b>'
        sets = listed([escape(run.title(name)) for name in sorted(set(rows["dataset"]))], 8)
        body.append(
            [
                mark,
                escape(reason),
                sets,
                listed([escape(n) for n in sorted(set(rows["label"]))], 8),
                escape(listed(tasks)),
                escape(next_step(status, reason)),
            ]
        )
    content = f'<div class="pl-scroll pl-whole">{table(HEAD, body)}</div>'
    about = "A model that cannot take a data set, a step that failed and a score of 0 are three different results."
    return [section("absent", "Not applicable and failed", about, content)]
