"""Floor and ceiling of a metric on a data set, and where a score lies between them.

A score is only placed on this scale where the scale is real: a span that may be noise makes any score look far away, and what
models pass is no ceiling.
"""

import numpy as np
import pandas as pd

from plumbline.scoring.protocol import NOISE
from plumbline.summary.contest import Contest


def calibrate(frame: pd.DataFrame, contest: Contest, chance: float | None) -> pd.DataFrame:
    """The rows of one metric with floor, ceiling, calibrated = (value - floor) / (ceiling - floor), why_not_calibrated, and
    what verdicts ask: off_floor (the score is better than the floor) and has_range (no known ceiling lies at the floor).

    chance: what the metric gives by chance alone, None where the floor models have to say it, NaN where there is no floor
    because noise scores best. Rows have a column ``candidate``: not a floor, ceiling or predictor.
    """
    sign, good = frame["direction"].iloc[0], frame[frame["status"] == "ok"]
    floor, floor_row = _floor(good, sign, chance)
    ceilings = good[good["variant"] == "split_half"]
    highest = _best(ceilings if len(ceilings) else good[good["role"] == "ceiling"], sign)
    ceiling = np.nan if highest is None else good.loc[highest, "value"]
    off = pd.Series([_off(good, contest, row, floor, floor_row) for row in good.index], index=good.index, dtype=bool)
    why, has_range = _why_not(good, contest, (floor, floor_row), highest)
    if chance is not None and np.isnan(chance):
        why = "noise has the best score: there is no scale from a floor to a ceiling"
    calibrated = (frame["value"] - floor) / (ceiling - floor) if not why else np.nan
    floor_low, floor_high = _floor_interval(good, floor, floor_row)
    return frame.assign(floor=floor, floor_low=floor_low, floor_high=floor_high, ceiling=ceiling, calibrated=calibrated,
                        why_not_calibrated=why, has_range=has_range,
                        off_floor=off.reindex(frame.index, fill_value=False))  # fmt: skip


def progress(frame: pd.DataFrame) -> pd.Series:
    """(value - baseline) / (repeat - baseline): how much a model gains of what the baseline leaves.

    ``repeat``: what a repeat of the experiment scores, the ceiling where nothing says that. NaN where there is neither
    (``why_not_calibrated``), no score of the baseline, or no room between the two.
    """
    ceiling = frame["ceiling"].where(frame["why_not_calibrated"] == "")
    room = (frame["repeat"].fillna(ceiling) - frame["baseline_value"]).astype(float)
    real = frame["direction"] * room > 0
    return (frame["value"] - frame["baseline_value"]) / room.where(real)


def _floor(good: pd.DataFrame, sign: int, chance: float | None) -> tuple[float, object]:
    """The floor, and its row where it is a model's: a known chance level unless a floor model is better for certain."""
    floors = good[(good["role"] == "floor") | (good["variant"] == "no_effect")]
    if chance is not None:
        near = floors["ci_low"] if sign > 0 else floors["ci_high"]
        ahead = _best(floors[sign * (near - chance) > 0], sign) if np.isfinite(chance) else None
        return (chance, None) if ahead is None else (floors.loc[ahead, "value"], ahead)
    noise = floors[floors["variant"].isin(NOISE)]
    if noise.empty:
        best = _best(floors, sign)
        return (np.nan, None) if best is None else (floors.loc[best, "value"], best)
    level = noise["value"].mean()
    near = floors["ci_low"] if sign > 0 else floors["ci_high"]
    ahead = _best(floors[sign * (near - level) > 0], sign)
    return (level, _best(noise, sign)) if ahead is None else (floors.loc[ahead, "value"], ahead)


def _floor_interval(good: pd.DataFrame, floor: float, row: object | None) -> tuple[float, float]:
    """The 95 % interval of a floor that models show; NaN where theory gives it. Of the mean of several: their mean interval."""
    if row is None:
        return np.nan, np.nan
    rows = good.loc[[row]] if good.loc[row, "value"] == floor else good[good["variant"].isin(NOISE)]
    return rows["ci_low"].mean(), rows["ci_high"].mean()


def _best(rows: pd.DataFrame, sign: int) -> object | None:
    return None if rows.empty else (sign * rows["value"]).idxmax()


def _off(good: pd.DataFrame, contest: Contest, row: object, floor: float, floor_row: object | None) -> bool:
    """Whether the 95 % interval of a score less the floor lies on the better side of 0. True where there is no floor."""
    if not np.isfinite(floor):
        return True
    sign, (low, high) = good["direction"].iloc[0], good.loc[row, ["ci_low", "ci_high"]].astype(float) - floor
    if floor_row is not None and row in contest.parts and floor_row in contest.parts:
        difference = contest.difference(row, floor_row)
        low, high = difference.low, difference.high
    return bool(low > 0 if sign > 0 else high < 0)


def _why_not(
    good: pd.DataFrame, contest: Contest, floor: tuple[float, object | None], highest: object | None
) -> tuple[str, bool]:
    """Why nothing can be placed between floor and ceiling, or ''; and whether the data leave room for a verdict."""
    if good.empty:
        return "no score", True
    if not np.isfinite(floor[0]):
        return "there is no floor in this run", True
    if highest is None:
        return "there is no ceiling in this run", True
    sign, best = good["direction"].iloc[0], good.loc[highest]
    edge = best["ci_high"] if sign > 0 else best["ci_low"]
    above = good[good["candidate"] & (sign * (good["value"] - edge) > 0)]
    if len(above):
        first = above.loc[_best(above, sign)]
        return (
            f"{best['variant']} is no ceiling here: {first['variant']} is better ({first['value']:.3g}, {best['value']:.3g})",
            True,
        )
    if not np.isfinite(edge):
        return f"the ceiling has no interval: {best['variant']} was scored on too few units", True
    apart = _off(good, contest, highest, *floor)
    return ("" if apart else f"the ceiling ({best['value']:.3g}) is not above the floor ({floor[0]:.3g})"), apart
