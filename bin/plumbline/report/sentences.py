"""The answer in plain words: who beats the baseline, where, by how much."""

import pandas as pd

from plumbline.report.run import Run
from plumbline.report.words import listed, metric_title, number, task_title, with_interval
from plumbline.scoring.protocol import POSTPROCESSINGS, REFERENCES


def overall(run: Run) -> list[str]:
    """The answer over all data sets, in one to three sentences."""
    tested = run.headline[run.headline["verdict"].isin(["better", "worse", "tied"])]
    n_sets, base = tested["dataset"].nunique(), run.baseline
    if tested.empty:
        return [f"No model could be compared with {base} in this run: see “Not applicable and failed”."]
    counts = (
        tested.groupby(["label", "verdict"])
        .size()
        .unstack(fill_value=0)
        .reindex(columns=["better", "tied", "worse"], fill_value=0)
    )
    counts = counts.sort_values(["better", "worse"], ascending=[False, True])
    winners, never = counts[counts["better"] > 0], counts[counts["better"] == 0]
    where = f"{n_sets} data set{'s' if n_sets > 1 else ''}"
    if winners.empty:
        text = [f"On {where}, no model beats {base} at anything."]
    else:
        parts = [f"{name} ({_score(row)})" for name, row in winners.iterrows()]
        text = [f"On {where}, {_models(len(winners))} {base} somewhere: {listed(parts)}."]
    if len(never) and len(winners):
        text.append(f"Never better than {base}: {listed(never.index.tolist(), 10)}.")
    lost = run.headline[(run.headline["status"] == "failed") & ~run.headline["role"].isin(REFERENCES)]
    if len(lost):
        text.append(f"{len(lost)} comparisons are missing because a step failed (marked ✖).")
    return text


def _models(n: int) -> str:
    return f"{n} models beat" if n > 1 else "1 model beats"


def _score(row: pd.Series) -> str:
    total = int(row.sum())
    worse = f", worse in {int(row['worse'])}" if row["worse"] else ""
    return f"better in {int(row['better'])} of {total} comparisons{worse}"


def per_task(run: Run, dataset: str) -> list[tuple[str, str]]:
    """(task title, sentence) for every task of a data set."""
    table = run.headline[run.headline["dataset"] == dataset]
    return [(task_title(task), _sentence(table[table["task"] == task], run.baseline)) for task in run.tasks]


def _sentence(rows: pd.DataFrame, base: str) -> str:
    tested = rows[rows["verdict"].isin(["better", "worse", "tied"])]
    if tested.empty:
        return _untested(rows[~rows["role"].isin(REFERENCES)], base)
    better = tested[tested["verdict"] == "better"]
    better = better.loc[(better["difference"] * better["direction"]).sort_values(ascending=False).index]
    if better.empty:
        tied = tested[tested["verdict"] == "tied"]["label"].tolist()
        return f"nothing beats {base}" + (f" (tied: {listed(tied, 4)})." if tied else "; every model is worse.")
    best = better.iloc[0]
    sign = best["direction"]
    ends = sorted([sign * best["diff_low"], sign * best["diff_high"]])
    amount = with_interval(sign * best["difference"], *ends, best["metric"])
    points = " points" if best["metric"].endswith("_pct") else ""
    text = f"{best['label']} beats {base} by {amount}{points} ({metric_title(best['metric'])})"
    others = better["label"].tolist()[1:]
    return text + (f"; so do{'es' if len(others) == 1 else ''} {listed(others, 4)}." if others else ".")


def _untested(rows: pd.DataFrame, base: str) -> str:
    """Why there is no comparison: the baseline has no score, the others have none, or there is too little to resample."""
    home = rows[rows["role"] == "baseline"].sort_values("verdict", key=lambda verdict: verdict != "baseline")
    others, gone = rows[(rows["status"] == "ok") & (rows["verdict"] != "baseline")], rows[rows["status"] != "ok"]
    if len(others) and (rows["verdict"] == "baseline").any():
        best = others.loc[(others["value"] * others["direction"]).idxmax()]
        ours, theirs = (number(best[name], best["metric"]) for name in ("value", "baseline_value"))
        scores = f"{ours} as {base}" if ours == theirs else f"{ours} against {theirs} of {base}"
        few = f"{best['n']:.0f} unit{'s' if best['n'] > 1 else ''} to resample"
        return f"cannot be tested ({few}); best is {best['label']}, {scores} ({metric_title(best['metric'])})."
    told = gone[gone["status"] == "not_applicable"] if len(home) and home["status"].iloc[0] == "not_applicable" else gone
    if told.empty:
        return f"no model could be compared with {base}."
    kind = "not applicable" if (told["status"] == "not_applicable").all() else "failed"
    reason = told["reason"].mode().iloc[0]
    sentence = f"{kind}: {plain_reason(reason).rstrip('.')}."
    if home.empty or home["status"].iloc[0] != "ok":
        return sentence
    return f"nothing to compare {base} with; {told.loc[told['reason'] == reason, 'label'].iloc[0]} {sentence}"


def plain_reason(reason: str) -> str:
    """A reason without the note on post-processing that may stand before it ('none: ...; reason')."""
    note, _, rest = reason.partition("; ")
    return rest if rest and note.partition(":")[0] in POSTPROCESSINGS else reason


def summary_text(run: Run) -> str:
    """The summary as Markdown: the answer first, so that its first 15 lines can be printed at the end of a run."""
    lines = [f"# Does it beat {run.baseline}?", "", *overall(run)]
    for dataset in run.datasets:
        lines += ["", f"## {run.title(dataset)}"]
        lines += [f"- {title}: {sentence}" for title, sentence in per_task(run, dataset)]
    return "\n".join(
        [
            *lines,
            "",
            "Differences are paired on the same units, with 95 % bootstrap intervals; better and worse are at q ≤ 0.05.",
            "",
        ]
    )
