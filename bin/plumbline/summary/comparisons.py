"""One row a model and metric: its score over seeds, its distance to the baseline, its place between floor and ceiling."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from plumbline.scoring.protocol import CHOSEN, POSTPROCESSINGS, REFERENCES
from plumbline.scoring.records import Metric
from plumbline.scoring.scores import Items
from plumbline.scoring.units import n_units
from plumbline.summary.calibration import calibrate, progress
from plumbline.summary.contest import Contest
from plumbline.summary.items import ItemTable
from plumbline.summary.tables import describes, known_metric, main_metric
from plumbline.summary.verdicts import LEVEL, decide, rank_intervals, verdict

COLUMNS = [
    *("dataset", "task", "metric", "main", "direction", "protocol", "model", "variant", "fit_on", "postprocess", "chosen"),
    *("role", "status", "reason", "value", "ci_low", "ci_high", "n", "n_seeds", "sd_seeds", "baseline_value", "difference"),
    *("diff_low", "diff_high", "p", "q", "n_shared", "n_left_out", "unit", "n_units", "detectable", "verdict", "note"),
    *(
        "floor",
        "floor_low",
        "floor_high",
        "ceiling",
        "calibrated",
        "repeat",
        "progress",
        "why_not_calibrated",
        "rank_low",
        "rank_high",
    ),
]
_TESTED = [
    *("ci_low", "ci_high", "n", "difference", "diff_low", "diff_high", "p", "n_shared", "n_left_out", "n_units", "detectable"),
]
_GROUP = ["dataset", "task", "metric", "protocol"]


def compare(
    scores: pd.DataFrame, items: ItemTable, roles: dict[str, str], facts: dict[str, dict], baseline: str, n_boot: int, seed: int
) -> pd.DataFrame:
    """The comparison table (docs/results_format.md). ``roles``: variant -> role; ``facts``: data set -> its facts."""
    chosen = scores[(scores["postprocess"] == scores["protocol"].map(CHOSEN)) & (scores["metric"] != "")]
    frames, pairs, start = [], [], 0
    for (dataset, task, metric, protocol), part in chosen.groupby(_GROUP, sort=True):
        frame = _over_seeds(part)
        frame.index += start  # a row keeps its number when the groups are joined
        start += len(frame)
        frame["role"] = [roles.get(variant, "external") for variant in frame["variant"]]
        frame["candidate"] = ~frame["role"].isin(REFERENCES) & (not describes(task))
        frame["main"] = metric == main_metric(task, facts.get(dataset, {}), protocol)
        frame["direction"] = known_metric(metric).direction
        frame["uncalibrated"] = known_metric(metric).uncalibrated
        about = {"dataset": dataset, "task": task, "metric": metric, "protocol": protocol}
        contest = Contest.of(_parts(items, about, frame[frame["status"] == "ok"]), n_boot, seed)
        frame = _test(frame, contest, baseline, known_metric(metric).bounds)
        frame = calibrate(frame, contest, _chance(known_metric(metric)))
        frame["repeat"] = _repeat(chosen, (dataset, task, metric, protocol), baseline)
        frame["progress"] = progress(frame)
        if describes(task):
            frame[["repeat", "progress", "floor", "floor_low", "floor_high", "ceiling", "calibrated"]] = np.nan
            frame["why_not_calibrated"] = "a description: neither more nor less is better"
        frames.append(frame)
        # main metrics of a data set are one family: the headline and the ranks rest on the same tests
        family = (dataset, protocol, *(("", "") if frame["main"].all() else (task, metric)))
        both = contest.pairs([row for row in contest.parts if frame.loc[row, "candidate"]])
        pairs.append(both.assign(family="\t".join(family), group=len(frames) - 1))
    if not frames:
        return pd.DataFrame(columns=COLUMNS)
    tests = pd.concat([part for part in pairs if len(part)] or pairs[:1], ignore_index=True)
    return _with_verdicts(frames, tests, baseline).reset_index(drop=True)[COLUMNS]


def _parts(items: ItemTable, about: dict[str, str], rows: pd.DataFrame) -> Iterator[tuple[int, dict[int, Items]]]:
    """The row and the items by seed of every model, one after another: a contest keeps less of them."""
    for row in rows.itertuples():
        if found := items.read(**about, variant=row.variant, fit_on=row.fit_on):
            yield row.Index, found


def _repeat(chosen: pd.DataFrame, group: tuple[str, str, str, str], baseline: str) -> float:
    """What a repeat of the experiment scores in the space of the baseline (``Metric.repeat``); NaN where nothing says it."""
    dataset, task, metric, protocol = group
    variant, name = baseline, known_metric(metric).repeat
    same = (chosen["dataset"] == dataset) & (chosen["task"] == task) & (chosen["protocol"] == protocol)
    rows = chosen[same & (chosen["variant"] == variant) & (chosen["metric"] == name) & (chosen["status"] == "ok")]
    return float(rows["value"].mean()) if len(rows) else np.nan


def _chance(metric: Metric) -> float | None:
    """What ``calibrate`` asks of a metric: its chance level, None where it is not known, NaN where there is no floor."""
    if metric.noise_scores_best:
        return np.nan
    return None if np.isnan(metric.chance) else metric.chance


def _over_seeds(part: pd.DataFrame) -> pd.DataFrame:
    """One row a model: mean and standard deviation of the value over seeds; a reason for seeds that gave none."""
    rows = []
    for (model, variant, fit_on), runs in part.groupby(["model", "variant", "fit_on"], sort=True):
        is_ok, first = runs["status"].to_numpy() == "ok", runs.iloc[0]
        good, bad = runs[is_ok], runs[~is_ok]
        status = "ok" if len(good) else "failed" if (bad["status"] == "failed").any() else "not_applicable"
        reason = "" if bad.empty else bad.sort_values("status")["reason"].iloc[0]
        if len(good) and len(bad):
            reason = f"{len(bad)} of {len(runs)} seeds gave no score: {reason}"
        one_seed = len(good) == 1
        rows.append({
            **{name: first[name] for name in (*_GROUP, "postprocess")},
            "model": model, "variant": variant, "fit_on": fit_on, "status": status, "reason": reason,
            "chosen": ", ".join(sorted({text.partition(":")[0] for text in good["reason"]} & set(POSTPROCESSINGS))),
            "value": good["value"].mean(), "n_seeds": good["seed"].nunique(), "n": int(good["n"].max()) if len(good) else 0,
            "sd_seeds": good["value"].std(ddof=1) if len(good) > 1 else np.nan,
            "ci_low": good["ci_low"].iloc[0] if one_seed else np.nan,
            "ci_high": good["ci_high"].iloc[0] if one_seed else np.nan,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _test(frame: pd.DataFrame, contest: Contest, baseline: str, possible: tuple[float, float]) -> pd.DataFrame:
    """Intervals over the units of all seeds and differences to the baseline, on which units and how many.

    An interval over few units may reach beyond the values that are ``possible``: it ends there. detectable: half the width
    of the interval of a difference, the smallest that could have been told from none.
    """
    span = possible[1] - possible[0]
    home = baseline_row(frame, baseline)
    found = {}
    for row, items in contest.pooled.items():
        low, high = np.clip(contest.interval(row), *possible)
        found[row] = {"ci_low": low, "ci_high": high, "n": len(items.unit), "n_units": n_units(items)}
        if home in contest.parts and row != home:
            gap = contest.difference(row, home)
            low, high = np.clip((gap.low, gap.high), -span, span)
            found[row] |= {"difference": gap.value, "diff_low": low, "diff_high": high, "p": gap.p, "n_shared": gap.n_shared,
                           "n_left_out": gap.n_left_out, "n_units": gap.n_units, "detectable": (high - low) / 2}  # fmt: skip
    table = pd.DataFrame.from_dict(found, orient="index").reindex(index=frame.index, columns=_TESTED).astype(float)
    for name in ("ci_low", "ci_high", "n"):  # a score without items keeps what its own row says
        table[name] = table[name].where(table.index.isin(list(found)), frame[name])
    units = {row: "gene" if items.kind == "pair" else items.kind for row, items in contest.pooled.items()}
    table["unit"] = [units.get(row, "") for row in frame.index]
    worth = np.nan if home is None else frame.loc[home, "value"]
    least = possible[0] if frame["direction"].iloc[0] > 0 else possible[1]
    return frame.drop(columns=["ci_low", "ci_high", "n"]).join(table).assign(baseline_value=worth, least=least)


def baseline_row(frame: pd.DataFrame, baseline: str) -> int | None:
    """The row of the baseline in one group: fitted on train where there are several; None if it has no score."""
    is_home = (frame["variant"].to_numpy() == baseline) & (frame["status"].to_numpy() == "ok")
    on_train = is_home & (frame["fit_on"].to_numpy() == "train")
    rows = frame.index[on_train if on_train.any() else is_home]
    return None if rows.empty else rows[0]


def _with_verdicts(frames: list[pd.DataFrame], pairs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """q, verdict and its note of every candidate's main metric, and rank intervals of every metric, from one set of tests."""
    frame = pd.concat(frames)
    frame = frame.assign(q=np.nan, verdict="not tested", rank_low=np.nan, rank_high=np.nan)
    frame["note"] = [LEVEL + why if why else "" for why in frame["uncalibrated"]]
    pairs, ranks = decide(pairs, frame), {}
    for number, part in enumerate(frames):
        own = pairs[pairs["group"] == number]
        names = part.index[part["candidate"] & (part["unit"] != "")].tolist()
        ranks |= rank_intervals(names, own, part["direction"].iloc[0] > 0)
        home = baseline_row(part, baseline)
        if home is None:
            frame.loc[[row for row in names if not frame.loc[row, "note"]], "note"] = f"{baseline} has no score to compare with"
            continue
        frame.loc[home, "verdict"] = "baseline"
        for pair in own[(own["a"] == home) | (own["b"] == home)].to_dict("records") if part["main"].all() else []:
            row = pair["a"] if pair["b"] == home else pair["b"]
            frame.loc[row, ["verdict", "note"]] = verdict(frame.loc[row], pair)
            frame.loc[row, ["p", "q"]] = pair["p"], pair["q"]
    frame.loc[list(ranks), ["rank_low", "rank_high"]] = np.array(list(ranks.values()), dtype=float).reshape(-1, 2)
    return frame
