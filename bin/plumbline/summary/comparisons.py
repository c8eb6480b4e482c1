"""One row a model and metric: its score over seeds, its distance to the baseline, its place between floor and ceiling."""

import numpy as np
import pandas as pd

from plumbline.scoring.protocol import CHOSEN, POSTPROCESSINGS, REFERENCES
from plumbline.scoring.stats import bh
from plumbline.summary.contest import Contest
from plumbline.summary.tables import ItemFiles, known_metric, main_metric

FDR = 0.05
COLUMNS = [
    *("dataset", "task", "metric", "main", "direction", "protocol", "model", "variant", "fit_on", "postprocess", "chosen"),
    *("role", "status", "reason", "value", "ci_low", "ci_high", "n", "n_seeds", "sd_seeds", "baseline_value", "difference"),
    *("diff_low", "diff_high", "p", "q", "n_shared", "n_left_out", "verdict", "floor", "ceiling", "calibrated"),
    *("rank_low", "rank_high"),
]
_TESTED = [
    "ci_low",
    "ci_high",
    "n",
    "rank_low",
    "rank_high",
    "difference",
    "diff_low",
    "diff_high",
    "p",
    "n_shared",
    "n_left_out",
]
_GROUP = ["dataset", "task", "metric", "protocol"]


def compare(
    scores: pd.DataFrame, items: ItemFiles, roles: dict[str, str], facts: dict[str, dict], baseline: str, n_boot: int, seed: int
) -> pd.DataFrame:
    """The comparison table (docs/results_format.md). ``roles``: variant -> role; ``facts``: data set -> its facts."""
    chosen = scores[(scores["postprocess"] == scores["protocol"].map(CHOSEN)) & (scores["metric"] != "")]
    frames = []
    for (dataset, task, metric, protocol), part in chosen.groupby(_GROUP, sort=True):
        frame = _over_seeds(part)
        frame["role"] = [roles.get(variant, "external") for variant in frame["variant"]]
        frame["main"] = metric == main_metric(task, facts.get(dataset, {}))
        frame["direction"] = known_metric(metric).direction
        parts = {}
        for row in frame[frame["status"] == "ok"].itertuples():
            found = items.read(dataset, row.variant, row.fit_on, task, metric, protocol)
            if found:
                parts[row.Index] = found
        contest = Contest.of(parts, n_boot, seed)
        frames.append(_calibrate(_test(frame, contest, baseline, known_metric(metric).bounds), contest))
    if not frames:
        return pd.DataFrame(columns=COLUMNS)
    return _verdicts(pd.concat(frames, ignore_index=True), baseline)[COLUMNS]


def _over_seeds(part: pd.DataFrame) -> pd.DataFrame:
    """One row a model: mean and standard deviation of the value over seeds; a reason for seeds that gave none."""
    rows = []
    for (model, variant, fit_on), runs in part.groupby(["model", "variant", "fit_on"], sort=True):
        good, bad = runs[runs["status"] == "ok"], runs[runs["status"] != "ok"]
        status = "ok" if len(good) else "failed" if (bad["status"] == "failed").any() else "not_applicable"
        reason = "" if bad.empty else bad.sort_values("status")["reason"].iloc[0]
        if len(good) and len(bad):
            reason = f"{len(bad)} of {len(runs)} seeds gave no score: {reason}"
        one_seed = len(good) == 1
        rows.append({
            **{name: runs[name].iloc[0] for name in (*_GROUP, "postprocess")},
            "model": model, "variant": variant, "fit_on": fit_on, "status": status, "reason": reason,
            "chosen": ", ".join(sorted({text.partition(":")[0] for text in good["reason"]} & set(POSTPROCESSINGS))),
            "value": good["value"].mean(), "n_seeds": good["seed"].nunique(), "n": int(good["n"].max()) if len(good) else 0,
            "sd_seeds": good["value"].std(ddof=1) if len(good) > 1 else np.nan,
            "ci_low": good["ci_low"].iloc[0] if one_seed else np.nan,
            "ci_high": good["ci_high"].iloc[0] if one_seed else np.nan,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _test(frame: pd.DataFrame, contest: Contest, baseline: str, possible: tuple[float, float]) -> pd.DataFrame:
    """Intervals over the units of all seeds, differences to the baseline, rank intervals of the candidates.

    An interval over few units may reach beyond the values that are ``possible``: it ends there.
    """
    span = possible[1] - possible[0]
    home = baseline_row(frame, baseline)
    roles, sign = frame["role"].to_dict(), frame["direction"].iloc[0]
    ranks = contest.ranks([row for row in contest.parts if roles[row] not in REFERENCES], sign > 0, FDR)
    found = {}
    for row in contest.parts:
        low, high = np.clip(contest.interval(row), *possible)
        found[row] = {"ci_low": low, "ci_high": high, "n": len(contest.pooled[row].unit)}
        if row in ranks:
            found[row] |= dict(zip(("rank_low", "rank_high"), ranks[row], strict=True))
        if home in contest.parts and row != home:
            gap = contest.difference(row, home)
            low, high = np.clip((gap.low, gap.high), -span, span)
            found[row] |= {"difference": gap.value, "diff_low": low, "diff_high": high, "p": gap.p, "n_shared": gap.n_shared,
                           "n_left_out": gap.n_left_out}  # fmt: skip
    table = pd.DataFrame.from_dict(found, orient="index").reindex(index=frame.index, columns=_TESTED).astype(float)
    for name in ("ci_low", "ci_high", "n"):  # a score without items keeps what its own row says
        table[name] = table[name].where(table.index.isin(list(found)), frame[name])
    worth = np.nan if home is None else frame.loc[home, "value"]
    return frame.drop(columns=["ci_low", "ci_high", "n"]).join(table).assign(baseline_value=worth)


def baseline_row(frame: pd.DataFrame, baseline: str) -> int | None:
    """The row of the baseline in one group: fitted on train where there are several; None if it has no score."""
    rows = frame[(frame["variant"] == baseline) & (frame["status"] == "ok")]
    rows = rows.loc[(rows["fit_on"] != "train").sort_values(kind="stable").index]
    return None if rows.empty else rows.index[0]


def _calibrate(frame: pd.DataFrame, contest: Contest) -> pd.DataFrame:
    """floor, ceiling and (value - floor) / (ceiling - floor), in the direction of the metric; nan where the two cannot be
    told apart: a span of noise would make any score look far away."""
    sign, metric = frame["direction"].iloc[0], frame["metric"].iloc[0]
    good = frame[frame["status"] == "ok"]
    floors = good[(good["role"] == "floor") | (good["variant"] == "no_effect")]["value"]
    ceilings = good[good["variant"] == "split_half"]["value"]
    ceilings = ceilings if len(ceilings) else good[good["role"] == "ceiling"]["value"]
    lowest, highest = _extreme(sign, floors), _extreme(sign, ceilings)
    floor = known_metric(metric).chance if lowest is None else floors[lowest]
    ceiling = np.nan if highest is None else ceilings[highest]
    apart = sign * (ceiling - floor) > 0 and _apart(frame, contest, lowest, highest, floor)
    calibrated = (frame["value"] - floor) / (ceiling - floor) if apart else np.nan
    return frame.assign(floor=floor, ceiling=ceiling, calibrated=calibrated)


def _extreme(sign: int, values: pd.Series) -> int | None:
    """The row of the best of ``values``; None if there is none."""
    return None if values.empty else (sign * values).idxmax()


def _apart(frame: pd.DataFrame, contest: Contest, lowest: int | None, highest: int, floor: float) -> bool:
    """Whether the 95 % interval of ceiling - floor leaves 0 out (that of the ceiling alone, where the floor is a number);
    also where there is no interval, as over one unit."""
    low, high = frame.loc[highest, "ci_low"] - floor, frame.loc[highest, "ci_high"] - floor
    if lowest in contest.parts and highest in contest.parts:
        gap = contest.difference(highest, lowest)
        low, high = gap.low, gap.high
    return not low <= 0 <= high


def _verdicts(frame: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """q over the candidates' main metrics of a data set and protocol, and what it says: better, worse or tied."""
    frame["q"], frame["verdict"] = np.nan, "not tested"
    family = frame["main"] & ~frame["role"].isin(REFERENCES) & frame["p"].notna()
    for _, rows in frame[family].groupby(["dataset", "protocol"]):
        frame.loc[rows.index, "q"] = bh(rows["p"].to_numpy())
    tested = frame["q"].notna()
    ahead = frame["difference"] * frame["direction"] > 0
    frame.loc[tested, "verdict"] = np.where(frame["q"] > FDR, "tied", np.where(ahead, "better", "worse"))[tested]
    for _, rows in frame.groupby(_GROUP):
        home = baseline_row(rows, baseline)
        if home is not None:
            frame.loc[home, "verdict"] = "baseline"
    return frame
