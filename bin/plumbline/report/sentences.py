"""The answer in plain words: who beats the baseline, where, by how much."""

import pandas as pd

from plumbline.report.run import Run
from plumbline.report.words import COMPARED, SILENT, TESTED, listed, metric_title, number, task_title, with_interval
from plumbline.scoring.protocol import POSTPROCESSINGS, REFERENCES
from plumbline.scoring.scores import counted


def overall(run: Run) -> list[str]:
    """The answer over all data sets, in one to four sentences. Everything is counted as the tables below it show it."""
    compared = run.headline[run.headline["verdict"].isin(COMPARED)]
    silent, base = int(compared["verdict"].isin(SILENT).sum()), run.baseline
    others = run.comparisons[~run.comparisons["role"].isin((*REFERENCES, "baseline"))]
    if others.empty and len(run.comparisons):
        advice = "Name models with --models, or bring embeddings of your own with --embeddings."
        return [f"This run has no model to compare with {base}: the others are references, which give the scale. {advice}"]
    if compared.empty:
        return [f"No model could be compared with {base} in this run: see “Not applicable and failed”."]
    if silent == len(compared):
        return [f"Nothing can be said of any model and {base}: {_silence(silent)}."]
    counts = compared.groupby(["label", "verdict"]).size().unstack(fill_value=0).reindex(columns=[*COMPARED], fill_value=0)
    counts = counts.sort_values(["better", "worse"], ascending=[False, True])
    winners, never = counts[counts["better"] > 0], counts[(counts["better"] == 0) & (counts[[*TESTED]].sum(axis=1) > 0)]
    text = [f"On {counted(len(run.compared_datasets), 'data set')}, {_winners(winners, base)}."]
    if len(never) and len(winners):
        text.append(f"Never better than {base}: {listed(never.index.tolist(), 10)}.")
    return text + _missing(run, compared, silent)


def _winners(counts: pd.DataFrame, base: str) -> str:
    if counts.empty:
        return f"no model beats {base} at anything"
    parts = [f"{name} ({_score(row)})" for name, row in counts.iterrows()]
    return f"{_models(len(counts))} {base} somewhere: {listed(parts)}"


def _missing(run: Run, compared: pd.DataFrame, silent: int) -> list[str]:
    """What has no answer: comparisons that say nothing, data sets without a comparison, results that failed."""
    text = []
    if silent:
        text.append(f"Of {counted(len(compared), 'comparison')}, {_silence(silent)}.")
    if empty := [run.title(name) for name in run.compared_datasets if name not in set(compared["dataset"])]:
        text.append(f"No model could be compared with {run.baseline} on {listed(empty)}.")
    lost = run.headline[(run.headline["status"] == "failed") & ~run.headline["role"].isin(REFERENCES)]
    if len(lost):
        are = "is" if len(lost) == 1 else "are"
        text.append(f"{counted(len(lost), 'comparison')} {are} missing because a step failed (marked ✖).")
    return text


def _silence(n: int) -> str:
    return f"{n} cannot tell (too few units, scores at the floor, or intervals too wide; marked ?)"


def _models(n: int) -> str:
    return f"{n} models beat" if n > 1 else "1 model beats"


def _score(row: pd.Series) -> str:
    total = int(row.sum())
    worse = f", worse in {int(row['worse'])}" if row["worse"] else ""
    return f"better in {int(row['better'])} of {total} comparisons{worse}"


def per_task(run: Run, dataset: str) -> list[tuple[str, str]]:
    """(task title, sentence) for every task of a data set."""
    table = run.headline[run.headline["dataset"] == dataset]
    return [(task_title(task), _sentence(table[table["task"] == task], run.baseline)) for task in run.compared_tasks]


def _sentence(rows: pd.DataFrame, base: str) -> str:
    tested = rows[rows["verdict"].isin(TESTED)]
    if tested.empty:
        return _untested(rows[~rows["role"].isin(REFERENCES)], base)
    better, n = tested[tested["verdict"] == "better"], units(tested)
    better = better.loc[(better["difference"] * better["direction"]).sort_values(ascending=False).index]
    if better.empty:
        named = {word: tested[tested["verdict"] == word]["label"].tolist() for word in ("tied", "cannot tell")}
        told = [f"{word}: {listed(labels, 4)}" for word, labels in named.items() if labels]
        if not told:
            return f"nothing beats {base}; every model is worse ({n})."
        return f"nothing beats {base} ({'; '.join([*told, n])})."
    best = better.iloc[0]
    sign = best["direction"]
    ends = sorted([sign * best["diff_low"], sign * best["diff_high"]])
    amount = with_interval(sign * best["difference"], *ends, best["metric"])
    points = " points" if best["metric"].endswith("_pct") else ""
    text = f"{best['label']} beats {base} by {amount}{points} ({metric_title(best['metric'])}; {n})"
    others = better["label"].tolist()[1:]
    return text + (f"; so do{'es' if len(others) == 1 else ''} {listed(others, 4)}." if others else ".")


def units(rows: pd.DataFrame) -> str:
    """'n = 12 batches': what the comparisons of one metric rest on; the fewest and the most where models differ."""
    known = rows[rows["n_units"].notna() & (rows["unit"] != "")]
    if known.empty:
        return "n = 0"
    low, high = int(known["n_units"].min()), int(known["n_units"].max())
    several = counted(high, known["unit"].iloc[0])
    return f"n = {several}" if low == high else f"n = {low} to {several}"


def _untested(rows: pd.DataFrame, base: str) -> str:
    """Why there is no comparison: the baseline has no score, the others have none, or there is too little to resample."""
    home = rows[rows["role"] == "baseline"].sort_values("verdict", key=lambda verdict: verdict != "baseline")
    others, gone = rows[(rows["status"] == "ok") & (rows["verdict"] != "baseline")], rows[rows["status"] != "ok"]
    if len(others) and (rows["verdict"] == "baseline").any():
        notes = [note for note in others["note"] if note] or ["it cannot be tested"]
        why, metric = max(set(notes), key=notes.count), metric_title(others["metric"].iloc[0])
        return f"no verdict: {why}; {_standing(others, base)} ({metric})."
    told = gone[gone["status"] == "not_applicable"] if len(home) and home["status"].iloc[0] == "not_applicable" else gone
    if told.empty:
        return f"no model could be compared with {base}."
    kind = "not applicable" if (told["status"] == "not_applicable").all() else "failed"
    reason = told["reason"].mode().iloc[0]
    sentence = f"{kind}: {plain_reason(reason).rstrip('.')}."
    if home.empty or home["status"].iloc[0] != "ok":
        return sentence
    return f"nothing to compare {base} with; {told.loc[told['reason'] == reason, 'label'].iloc[0]} {sentence}"


def _standing(others: pd.DataFrame, base: str) -> str:
    """Who has the best score, as far as the printed digits tell."""
    metric, sign = others["metric"].iloc[0], others["direction"].iloc[0]
    best = others.loc[(others["value"] * sign).idxmax()]
    ours, theirs = number(best["value"], metric), number(best["baseline_value"], metric)
    level = [label for label, value in zip(others["label"], others["value"], strict=True) if number(value, metric) == ours]
    names = listed(level, 4)
    if ours == theirs:
        return f"{base} and {names} share the best score, {ours}"
    if sign * (best["value"] - best["baseline_value"]) < 0:
        return f"the best score is that of {base}, {theirs}, before {names}, {ours}"
    return f"{names} share the best score, {ours}; {base} has {theirs}" if len(level) > 1 else (
        f"the best score is that of {names}, {ours}; {base} has {theirs}"
    )  # fmt: skip


def plain_reason(reason: str) -> str:
    """A reason without the note on post-processing that may stand before it ('none: ...; reason')."""
    note, _, rest = reason.partition("; ")
    return rest if rest and note.partition(":")[0] in POSTPROCESSINGS else reason


def summary_text(run: Run) -> str:
    """The summary as Markdown: the answer first, so that its first 15 lines can be printed at the end of a run."""
    lines = [f"# Does it beat {run.baseline}?", "", *overall(run)]
    for dataset in run.compared_datasets:
        lines += ["", f"## {run.title(dataset)}"]
        lines += [f"- {title}: {sentence}" for title, sentence in per_task(run, dataset)]
    return "\n".join(
        [
            *lines,
            "",
            "Differences are paired on the same units, with 95 % bootstrap intervals; better and worse are at q ≤ 0.05 over "
            "all pairs of models and tasks of a data set; tied: less than half of the baseline's lead over the floor apart.",
            "",
        ]
    )
