"""Modified objectives: models trained with perturbation labels, scored on perturbations and batches they never saw."""

import numpy as np
import pandas as pd

from plumbline.report.figures import bare, image, panels, wrapped
from plumbline.report.forest import differences
from plumbline.report.run import Run
from plumbline.report.words import VERDICTS, escape, listed, metric_title, number, section, table, task_title, with_interval
from plumbline.scoring.protocol import REFERENCES

PARENT = {
    "parent_id": "plumbline_objectives",
    "parent_name": "Experiment: modified objectives",
    "parent_description": "Models trained with the perturbation in the objective, on train perturbations alone, and scored on "
    "held-out perturbations in held-out batches, compared with the same model without labels on the same cells.",
}
LABELLED = ("head=", "tune=", "architecture=")  # settings of models.csv that put the perturbation into the objective


def sections(run: Run, _folder) -> list[dict]:
    """The gain from labels: a sentence per model, a figure of differences, all scores, the cost. [] without scores."""
    rows = _rows(run)
    scored = rows[rows["labelled"] & (rows["status"] == "ok")]
    if scored.empty:
        return []
    sentences = "".join(f"<li>{line}</li>" for line in [_overall(scored), *_each(scored)])
    content = f"<ul class='pl-says'>{sentences}</ul>"
    figure = _figure(run, scored[scored["diff_low"].notna()])
    if figure:
        content += image(figure, "Differences to the same model without labels, 95 % intervals; the numbers are in the table.")
    about = (
        "Difference to the same model without labels (right of the line: labels help), paired on the same units, with its 95 % "
        "bootstrap interval. ▲ better, ▼ worse, ■ tied (q ≤ 0.05)."
    )
    parts = [section("objectives_gain", "Differences", about, content, **PARENT), _table(run, rows)]
    cost = _cost(run, rows)
    return parts + ([cost] if cost else [])


def _rows(run: Run) -> pd.DataFrame:
    """Main metrics under `corrected` with columns labelled and reference: the label of the row each is compared with."""
    rows = run.experiment("objectives")
    rows = rows[~rows["role"].isin(REFERENCES)].reset_index(drop=True)
    settings = {name: str(about.get("settings", "")) for name, about in run.about["models"].items()}
    labelled = [any(word in settings.get(name, "") for word in LABELLED) for name in rows["variant"]]
    rows = rows.assign(labelled=np.array(labelled, dtype=bool))
    others = rows.drop_duplicates("variant").set_index("variant")["label"]
    return rows.assign(reference=rows["compared_with"].map(others).fillna("").where(rows["labelled"], ""))


def _overall(scored: pd.DataFrame) -> str:
    tested = scored[scored["verdict"].isin(("better", "worse", "tied"))]
    if tested.empty:
        return "No difference to a model without labels could be tested."
    count = tested["verdict"].value_counts()
    shares = ", ".join(f"{count.get(word, 0)} {word}" for word in ("better", "tied", "worse"))
    return (
        f"Of {len(tested)} comparisons with the same model without labels, on perturbations not seen in training: "
        f"<b>{shares}</b> (q ≤ 0.05)."
    )


def _each(scored: pd.DataFrame) -> list[str]:
    """A sentence per data set and model: the tasks in which it is better and worse, with difference and interval."""
    lines = []
    for (_, variant), part in scored.groupby(["dataset", "variant"], sort=True):
        name, reference = escape(part["label"].iloc[0]), escape(part["reference"].iloc[0] or "the reference")
        words = [f"{verdict} in {listed([_gain(row) for row in own.itertuples()])}"
                 for verdict in ("better", "worse") if len(own := part[part["verdict"] == verdict])]  # fmt: skip
        tied = part[part["verdict"] == "tied"]
        words += [f"tied in {listed([task_title(task).lower() for task in tied['task']])}"] if len(tied) else []
        if words:
            lines.append(f"<b>{name}</b> compared with {reference} ({escape(part['dataset'].iloc[0])}): {'; '.join(words)}.")
        else:
            lines.append(f"<b>{name}</b> ({escape(part['dataset'].iloc[0])}, {escape(variant)}): not tested.")
    return lines


def _gain(row) -> str:
    gain = with_interval(row.difference, row.diff_low, row.diff_high, row.metric, sign=True)
    return f"{task_title(row.task).lower()} ({metric_title(row.metric)} {gain})"


def _figure(run: Run, shown: pd.DataFrame):
    if shown.empty:
        return None
    parts = shown.groupby(["dataset", "task"])
    names = list(dict.fromkeys(shown.sort_values(["model", "variant"])["label"]))[::-1]
    figure, axes = panels(len(parts), (2.9, 1.1 + 0.26 * len(names)), border=(2.6, 0), sharey=True)
    for axis, ((dataset, task), part) in zip(axes, parts, strict=True):
        differences(axis, part, names, "← labels hurt     labels help →", 7)
        bare(axis)
        axis.set_title(f"{wrapped(run.title(dataset), 36)}\n{task_title(task)}", fontsize=8, loc="left", fontweight="bold")
    return figure


def _table(run: Run, rows: pd.DataFrame) -> dict:
    head = ["Data set", "Task", "Model", "Score", "Compared with", "Its score", "Difference", "Result"]
    body = []
    for row in rows.sort_values(["dataset", "task", "model", "labelled", "variant"]).itertuples():
        names = [run.title(row.dataset), task_title(row.task), row.label]
        if row.status != "ok":
            values = ["–", "–", "–", "–", row.reason]
        elif not row.labelled:
            values = [with_interval(row.value, row.ci_low, row.ci_high, row.metric), "–", "–", "–", "without labels"]
        else:
            gain = with_interval(row.difference, row.diff_low, row.diff_high, row.metric, sign=True)
            other, result = number(row.baseline_value, row.metric), " ".join(VERDICTS[row.verdict][:2])
            score = with_interval(row.value, row.ci_low, row.ci_high, row.metric)
            values = [score, row.reference or "–", other, gain, result]
        body.append([escape(str(cell)) for cell in names + values])
    about = "Held-out perturbations in held-out batches. Differences are paired on the same units, with 95 % intervals."
    return section("objectives_table", "Table", about, f'<div class="pl-scroll">{table(head, body)}</div>', **PARENT)


def _cost(run: Run, rows: pd.DataFrame) -> dict | None:
    """Seconds and memory of the labelled models and of the models they are compared with."""
    cost = run.experiment_cost
    if not len(cost) or "experiment" not in cost:
        return None
    cost = cost[(cost["experiment"] == "objectives") & (cost["status"] == "ok") & cost["seconds"].notna()]
    means = cost.groupby(["dataset", "label"])[["seconds", "peak_memory_bytes"]].mean()
    labelled = rows[rows["labelled"]].drop_duplicates(["dataset", "variant"]).sort_values(["dataset", "model", "variant"])
    body = []
    for row in labelled.itertuples():
        if (row.dataset, row.label) not in means.index:
            continue
        own, key = means.loc[(row.dataset, row.label)], (row.dataset, row.reference)
        other = number(means.loc[key, "seconds"]) if key in means.index else "–"
        memory = f"{own['peak_memory_bytes'] / 1e9:.2f} GB" if pd.notna(own["peak_memory_bytes"]) else "–"
        cells = [run.title(row.dataset), row.label, number(own["seconds"]), other, memory]
        body.append([escape(str(cell)) for cell in cells])
    if not body:
        return None
    head = ["Data set", "Model", "Seconds", "Seconds without labels", "Peak memory"]
    about = "Training and embedding together; a head also needs the embedding of its training cells."
    return section("objectives_zcost", "Cost", about, f'<div class="pl-scroll">{table(head, body)}</div>', **PARENT)
