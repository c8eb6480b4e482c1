"""Verdicts and rank intervals, from one family of tests, and only where the data can carry a verdict."""

import numpy as np
import pandas as pd

from plumbline.scoring.scores import counted
from plumbline.scoring.stats import bh

FDR = 0.05
LEVEL = "intervals of this metric do not hold their level: "
MIN_UNITS = 8  # perturbations, batches or genes below which nothing is said


def decide(pairs: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The pairs with columns word and note ('' or the verdict and reason of what cannot be tested), q, and told (q <= FDR).

    pairs: a, b (rows of ``frame``), p, n_units, family. Benjamini-Hochberg over the pairs of a family that can be tested, those
    at the floor among them: of ten models that know nothing, the one that chance lifts above the floor is also the one that
    differs from the others, and a family of its pairs alone would find differences in three times as many runs as it says.
    """
    pairs = _with_words(pairs, [_not_testable(frame.loc[pair.a], frame.loc[pair.b], pair) for pair in pairs.itertuples()])
    pairs["q"] = np.nan
    for _, rows in pairs[pairs["word"] == ""].groupby("family"):
        pairs.loc[rows.index, "q"] = bh(rows["p"].to_numpy(dtype=float))
    low = [(pair.word, pair.note) if pair.word else _at_the_floor(frame.loc[pair.a], frame.loc[pair.b])
           for pair in pairs.itertuples()]  # fmt: skip
    pairs = _with_words(pairs, low)
    pairs["q"] = pairs["q"].where(pairs["word"] == "")
    return pairs.assign(told=pairs["q"] <= FDR)


def _with_words(pairs: pd.DataFrame, found: list[tuple[str, str]]) -> pd.DataFrame:
    words, notes = zip(*found, strict=True) if found else ((), ())
    return pairs.assign(word=np.array(words, dtype=object), note=np.array(notes, dtype=object))


def _not_testable(a: pd.Series, b: pd.Series, pair) -> tuple[str, str]:
    if a["uncalibrated"]:
        return "not tested", LEVEL + a["uncalibrated"]
    if a["unit"] == "cell":
        return "too few units", "too few units to tell: cells of one perturbation are no repeats of the experiment"
    if pair.n_units < MIN_UNITS:
        units = counted(int(pair.n_units), a["unit"])
        return "too few units", f"too few units to tell: {units}, at least {MIN_UNITS} are needed"
    if not np.isfinite(pair.p):
        return "not tested", "not tested: the score has no spread over its units"
    if not a["has_range"]:
        return "at the floor", a["why_not_calibrated"]
    return "", ""


def _at_the_floor(a: pd.Series, b: pd.Series) -> tuple[str, str]:
    if a["off_floor"] or b["off_floor"]:
        return "", ""
    return "at the floor", f"neither score is above the floor ({a['floor']:.3g})"


def rank_intervals(names: list, pairs: pd.DataFrame, higher_is_better: bool = True) -> dict[object, tuple[int, int]]:
    """Rank interval (best, worst) of each of ``names``, 1 being the best, from the told ones of their pairs.

    Best rank = 1 + the number of models told to be better; worst = number of models less those told to be worse. Models
    that nothing tells apart share a rank.
    """
    losses, wins = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for pair in pairs[pairs["told"]].itertuples():
        winner, loser = (pair.a, pair.b) if (pair.value > 0) == higher_is_better else (pair.b, pair.a)
        wins[winner] += 1
        losses[loser] += 1
    return {name: (1 + losses[name], len(names) - wins[name]) for name in names}


def verdict(row: pd.Series, pair: dict) -> tuple[str, str]:
    """(verdict, note) of a model against the baseline. pair: their decided pair.

    'tied' says that, with 95 % confidence, the difference is less than half of what the baseline has above the floor (or above
    the least possible value); where the interval is wider, or leaves out 0 though q does not say so, it is 'cannot tell'.
    """
    if pair["word"]:
        return pair["word"], pair["note"]
    if pair["told"]:
        return ("better" if row["difference"] * row["direction"] > 0 else "worse"), ""
    if not row["diff_low"] <= 0 <= row["diff_high"]:
        return "cannot tell", f"p = {pair['p']:.2g} alone, q = {pair['q']:.2g} among the tests of this data set"
    height = abs(row["baseline_value"] - (row["floor"] if np.isfinite(row["floor"]) else row["least"]))
    note = f"a difference below {row['detectable']:.2g} could not have been seen"
    return ("cannot tell" if max(-row["diff_low"], row["diff_high"]) > height / 2 else "tied"), note
