"""SUMMARISE on a made run with known answers: better is better, equal is tied, lost is failed."""

import json
import re
import subprocess
import sys
from argparse import Namespace

import jsonschema
import numpy as np
import pandas as pd
import pytest
from made_scores import LOST, MODELS, REFUSED, TASKS, made_records, make_run
from scipy import stats as scipy_stats

import summarise_scores
from plumbline import tasks
from plumbline.common.errors import UserError
from plumbline.scoring import evaluation, writing
from plumbline.scoring.scores import COLUMNS, Items, Score
from plumbline.scoring.writing import write_rows
from plumbline.summary import tables
from plumbline.summary.absent import absent_rows
from plumbline.summary.calibration import calibrate, progress
from plumbline.summary.comparisons import _repeat, baseline_row, compare
from plumbline.summary.contest import Contest
from plumbline.summary.distributions import unit_values
from plumbline.summary.items import items_of
from plumbline.summary.published import METRICS, POSTPROCESS, beside_published
from plumbline.summary.published import MODELS as PUBLISHED_MODELS
from plumbline.summary.schema import check_scores, load_schema, violations
from plumbline.summary.tables import RUN
from plumbline.summary.verdicts import decide, rank_intervals, verdict


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A made run and its summary."""
    where = tmp_path_factory.mktemp("run")
    make_run(where, ("vcc_h1", "kang_pbmc"), posts=("none",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "records", made_records)
        summarise_scores.summarise(_arguments(where))
    return where


def _arguments(where, **other):
    paths = {name: where / name for name in ("scores", "items", "provenance")}
    about = {"expected": where / "expected.json", "models": where / "models.csv", "published": None, "baseline": "pca",
             "experiments": "", "plans": None, "data_reports": where / "tables", "n_boot": 300, "n_draws": 50, "seed": 0,
             "decoder_budget": 200, "exact": "false", "outdir": where / "summary"}  # fmt: skip
    return Namespace(**{**paths, **about, **other})


@pytest.fixture(scope="module")
def comparisons(folder):
    return pd.read_parquet(folder / "summary" / "comparisons.parquet")


def _headline(comparisons, dataset="vcc_h1"):
    chosen = comparisons["main"] & (comparisons["protocol"] == "corrected") & (comparisons["dataset"] == dataset)
    return comparisons[chosen].set_index(["variant", "task"])


def test_planted_answers(comparisons):
    table = _headline(comparisons)
    for task in ("separability", "consistency", "magnitude", "recall"):
        assert table.loc[("scvi", task), "verdict"] == "better"
        assert table.loc[("geneformer_v1", task), "verdict"] == "worse"
        assert table.loc[("pca", task), "verdict"] == "baseline"
    equal = table.loc[["uce_33", "pca_all"], "verdict"]
    # of 12 with p <= 0.05 in 5 % each, two or fewer have it in 98 %; the pairs of recall, made independent, have the interval
    # of independent pairs, with which one of the 12 has p = 0.014 (the bootstrap that counted a pair three times gave 0.14)
    assert equal.isin(["tied", "cannot tell"]).sum() >= 10
    assert (equal == "tied").sum() >= 9
    assert (table.loc["scvi", "difference"] > 0).all()
    assert np.allclose(table.loc["scvi", "difference"], table.loc["scvi", "value"] - table.loc["pca", "value"])


def test_not_applicable_failed_and_a_score_are_three_results(comparisons):
    lost = comparisons[(comparisons["dataset"] == LOST[0]) & (comparisons["variant"] == LOST[1])]
    assert set(lost["status"]) == {"failed"}
    assert set(lost["task"]) == set(TASKS)
    assert lost["reason"].str.contains("EMBED left no result").all()
    refused = comparisons[(comparisons["dataset"] == REFUSED[0]) & (comparisons["variant"] == REFUSED[1])]
    assert set(refused["status"]) == {"not_applicable"}
    assert set(refused["reason"]) == {"Geneformer knows human genes only"}
    absent = comparisons[comparisons["status"] != "ok"]
    assert absent["value"].isna().all()
    assert (absent["verdict"] == "not tested").all()
    assert comparisons[comparisons["status"] == "ok"]["value"].notna().all()


def test_no_run_vanishes(comparisons):
    assert comparisons.groupby("dataset")["variant"].nunique().to_dict() == {"kang_pbmc": len(MODELS), "vcc_h1": len(MODELS)}


def test_intervals_hold_the_value(comparisons):
    good = comparisons[(comparisons["status"] == "ok") & (comparisons["n"] > 10)]
    inside = (good["ci_low"] <= good["value"]) & (good["value"] <= good["ci_high"])
    assert inside.all()
    tested = comparisons[comparisons["p"].notna()]
    assert ((tested["diff_low"] <= tested["difference"]) & (tested["difference"] <= tested["diff_high"])).mean() > 0.99
    assert tested["p"].between(0, 1).all()


def test_q_is_over_candidates_and_main_metrics_only(comparisons):
    tested = comparisons[comparisons["q"].notna()]
    assert tested["main"].all()
    assert not set(tested["role"]) & {"floor", "ceiling", "predictor"}
    assert (tested["q"] >= tested["p"]).all()


def test_value_is_the_mean_over_seeds(folder, comparisons):
    scores = pd.read_parquet(folder / "summary" / "scores.parquet")
    for row in comparisons[comparisons["status"] == "ok"].sample(40, random_state=0).itertuples():
        keys = ["dataset", "task", "metric", "protocol", "variant", "fit_on", "postprocess"]
        same = scores[(scores[keys] == [getattr(row, key) for key in keys]).all(axis=1)]
        assert row.value == pytest.approx(same["value"].mean())
        assert (row.n_seeds, row.sd_seeds) == (2, pytest.approx(same["value"].std()))


def test_calibration(comparisons):
    table = _headline(comparisons)
    assert table.loc[("label_oracle", "recall"), "calibrated"] == pytest.approx(1.0)
    recall = table.xs("recall", level="task").loc[["random", "scrambled_pca"]]  # both clearly above the known chance of 0.1
    assert recall["calibrated"].max() == pytest.approx(0.0)
    noise = table.loc[[("random", "separability"), ("scrambled_pca", "separability")]]
    assert noise["floor"].iloc[0] == pytest.approx(noise["value"].mean())  # chance is not known: two draws of it
    assert noise["calibrated"].mean() == pytest.approx(0.0)
    assert table.loc[("split_half", "reconstruction"), "calibrated"] == pytest.approx(1.0)
    assert 0 < table.loc[("pca", "recall"), "calibrated"] < table.loc[("scvi", "recall"), "calibrated"] < 1
    error = comparisons[(comparisons["metric"] == "mse") & (comparisons["dataset"] == "vcc_h1")]
    assert (error["floor"] > error["ceiling"]).all()  # lower is better
    calibrated = error.groupby("variant")["calibrated"].mean()
    assert calibrated["scvi"] > calibrated["pca"]


def test_progress_goes_from_the_baseline_to_the_ceiling(comparisons):
    recall = _headline(comparisons).xs("recall", level="task")
    baseline, model, ceiling = (recall.loc[name, "value"] for name in ("pca", "scvi", "label_oracle"))
    assert recall.loc[["pca", "label_oracle"], "progress"].tolist() == pytest.approx([0, 1])
    assert recall.loc["scvi", "progress"] == pytest.approx((model - baseline) / (ceiling - baseline))
    assert recall.loc["random", "progress"] < 0
    error = comparisons[
        (comparisons["metric"] == "mse") & (comparisons["variant"] == "scvi") & comparisons["calibrated"].notna()
    ]
    assert len(error)
    assert (error["progress"] > 0).all()  # lower is better
    assert comparisons.loc[comparisons["calibrated"].isna(), "progress"].isna().all()
    at_the_ceiling = recall.assign(baseline_value=recall["ceiling"])
    assert progress(at_the_ceiling).isna().all()
    half = progress(recall.assign(repeat=(baseline + ceiling) / 2))  # a repeat of the experiment scores less than the labels
    np.testing.assert_allclose(half, 2 * recall["progress"])


def test_a_repeat_is_that_of_the_baseline():
    rows = [("retrieval", "retrieval_pds_ceiling", "pca", 0.9), ("retrieval", "retrieval_pds_ceiling", "scvi", 0.95),
            ("recall", "recall_ceiling", "pca", 0.6), ("map", "map_activity_ceiling", "pca", 0.8),
            ("separability", "linear_top1", "pca", 0.7)]  # fmt: skip
    chosen = pd.DataFrame(rows, columns=["task", "metric", "variant", "value"])
    chosen = chosen.assign(dataset="x", protocol="corrected", status="ok")
    metrics = {"retrieval": "retrieval_pds", "recall": "recall_mean", "map": "map_activity", "separability": "linear_top1"}
    found = [_repeat(chosen, ("x", task, metric, "corrected"), "pca") for task, metric in metrics.items()]
    np.testing.assert_array_equal(found, [0.9, 0.6, 0.8, np.nan])
    assert np.isnan(_repeat(chosen, ("y", "recall", "recall_mean", "corrected"), "pca"))


def _scored(shares: dict[str, np.ndarray], kind: str = "batch") -> tuple[pd.DataFrame, Contest]:
    """The rows of one metric of these models, by their score per unit, and their contest; the rows are numbered."""
    roles = {"random": "floor", "scrambled_pca": "floor", "untrained": "floor", "label_oracle": "ceiling",
             "no_effect": "predictor", "split_half": "predictor"}  # fmt: skip
    parts = {}
    for number, values in enumerate(shares.values()):
        parts[number] = {42: Items(kind, np.arange(len(values)).astype(str), values, np.ones(len(values)))}
    contest = Contest.of(parts.items(), 500)
    frame = pd.DataFrame({"variant": list(shares), "role": [roles.get(name, "trained") for name in shares]})
    frame = frame.assign(value=[values.mean() for values in shares.values()], status="ok", direction=1)
    frame["candidate"] = frame["role"] == "trained"
    frame["ci_low"], frame["ci_high"] = np.transpose([contest.interval(number) for number in parts])
    return frame, contest


def _shares(low: float, high: float, n: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, n)


def test_no_calibration_where_floor_and_ceiling_are_the_same_but_for_noise():
    found = calibrate(*_scored({"random": _shares(0.4, 0.6), "label_oracle": _shares(0.4, 0.6, seed=1) + 0.005}), None)
    assert found["calibrated"].isna().all()
    assert found["why_not_calibrated"].str.contains("is not above the floor").all()
    shares = {"random": _shares(0.4, 0.6), "pca": _shares(0.4, 0.6, seed=1) + 0.005, "label_oracle": _shares(0.6, 0.8, seed=2)}
    frame, contest = _scored(shares)
    assert calibrate(frame, contest, None)["calibrated"].tolist() == pytest.approx([0, 0.05, 1], abs=0.1)
    alone = calibrate(frame.iloc[1:], contest, 0.1)  # the floor is chance, far below
    assert alone["calibrated"].notna().all()
    flat = calibrate(frame.iloc[1:2].assign(role="ceiling", candidate=False), contest, 0.5)
    assert flat["calibrated"].isna().all()


def test_a_span_without_an_interval_calibrates_nothing():
    """One batch has no interval: a ceiling of 0.5035 over a floor of 0.5 would place 0.71 at 60."""
    shares = {"no_effect": np.array([0.5]), "pca": np.array([0.5034]), "split_half": np.array([0.5035])}
    found = calibrate(*_scored(shares), 0.5)
    assert found["calibrated"].isna().all()
    assert found["why_not_calibrated"].str.contains("the ceiling has no interval").all()


def test_what_models_pass_is_no_ceiling():
    """The mean of a perturbation's cells knows its effect, not the cell's own state, which an embedding may know."""
    effect = 0.5 + _shares(0.003, 0.004, 12)
    frame, contest = _scored({"no_effect": np.full(12, 0.5), "pca": _shares(0.65, 0.8, 12, 1), "split_half": effect})
    found = calibrate(frame, contest, 0.5)
    assert found["calibrated"].isna().all()
    assert found["why_not_calibrated"].str.contains("split_half is no ceiling here: pca is better").all()
    assert found["off_floor"].tolist() == [False, True, True]
    assert calibrate(frame.drop(index=1), contest, 0.5)["calibrated"].tolist() == pytest.approx([0, 1])


def test_a_known_chance_is_the_floor_unless_a_floor_model_is_better_for_certain():
    """Of 10 perturbations the random embedding finds 3 by chance, at a chance of 5 %."""
    lucky = np.repeat([100.0, 0.0], [3, 7])
    shares = {"random": lucky, "pca": np.repeat([100.0, 0.0], [8, 2]), "label_oracle": np.repeat([100.0, 0.0], [9, 1])}
    frame, contest = _scored(shares)
    assert calibrate(frame, contest, 5.0)["floor"].unique().tolist() == [5.0]
    shares["untrained"] = np.repeat([100.0, 0.0], [7, 3])
    assert calibrate(*_scored(shares), 5.0)["floor"].unique().tolist() == [70.0]


def test_an_unknown_chance_is_the_mean_of_the_draws_of_noise():
    shares = {"random": _shares(0.0, 0.2), "scrambled_pca": _shares(0.02, 0.22, seed=1), "pca": _shares(0.5, 0.7),
              "label_oracle": _shares(0.8, 1.0)}  # fmt: skip
    frame, contest = _scored(shares)
    found = calibrate(frame, contest, None).iloc[0]
    assert found["floor"] == pytest.approx(frame["value"][:2].mean())
    np.testing.assert_allclose(found[["floor_low", "floor_high"]].astype(float), frame[["ci_low", "ci_high"]][:2].mean())
    assert calibrate(frame, contest, 0.1)[["floor_low", "floor_high"]].isna().all(axis=None)  # theory has no interval


def test_where_noise_scores_best_there_is_no_floor():
    found = calibrate(
        *_scored({"random": _shares(0.9, 1.0), "pca": _shares(0.2, 0.4), "label_oracle": _shares(0.9, 1)}), np.nan
    )
    assert found[["floor", "calibrated"]].isna().all(axis=None)
    assert found["why_not_calibrated"].str.contains("noise has the best score").all()
    assert found["off_floor"].all()


def _judged(
    shares: dict[str, np.ndarray], chance: float | None = None, kind: str = "batch", uncalibrated: str = ""
) -> pd.DataFrame:
    """verdict, note and rank of each candidate against pca."""
    frame, contest = _scored(shares, kind)
    frame = calibrate(frame, contest, chance).assign(unit=kind, least=0.0, uncalibrated=uncalibrated)
    home = frame.index[frame["variant"] == "pca"][0]
    frame["baseline_value"] = frame.loc[home, "value"]
    candidates = frame.index[frame["candidate"]].tolist()
    pairs = decide(contest.pairs(candidates).assign(family="one"), frame)
    ranks = rank_intervals(candidates, pairs)
    for pair in pairs[(pairs["a"] == home) | (pairs["b"] == home)].to_dict("records"):
        row = pair["a"] if pair["b"] == home else pair["b"]
        gap = contest.difference(row, home)
        ends = {"difference": gap.value, "diff_low": gap.low, "diff_high": gap.high, "detectable": (gap.high - gap.low) / 2}
        frame.loc[row, list(ends)] = list(ends.values())
        frame.loc[row, ["verdict", "note"]] = verdict(frame.loc[row], pair)
    frame["rank"] = [ranks.get(row) for row in frame.index]
    return frame.set_index("variant")


FLOOR, CEILING = {"random": _shares(0.0, 0.1)}, {"label_oracle": _shares(0.9, 1.0, seed=9)}


def test_better_worse_and_tied_are_said_of_enough_units_off_the_floor():
    shares = {"pca": _shares(0.4, 0.5), "up": _shares(0.5, 0.6, seed=1), "down": _shares(0.2, 0.3, seed=2),
              "same": _shares(0.4, 0.5) + np.tile([0.01, -0.01], 10)}  # fmt: skip
    found = _judged(FLOOR | shares | CEILING)
    assert found.loc[["up", "down", "same"], "verdict"].tolist() == ["better", "worse", "tied"]
    assert found.loc["same", "note"].startswith("a difference below 0.00")
    assert found.loc[["up", "pca", "same", "down"], "rank"].tolist() == [(1, 1), (2, 3), (2, 3), (4, 4)]


def test_too_few_units_are_said_instead_of_a_verdict():
    shares = {
        name: values[:7] for name, values in (FLOOR | {"pca": _shares(0.4, 0.5), "up": _shares(0.8, 0.9)} | CEILING).items()
    }
    found = _judged(shares)
    assert found.loc["up", "verdict"] == "too few units"
    assert "7 batches, at least 8" in found.loc["up", "note"]
    assert found.loc["up", "rank"] == found.loc["pca", "rank"] == (1, 2)  # the ranks rest on the same tests


def test_a_metric_whose_intervals_do_not_hold_their_level_gets_no_verdict_and_no_ranks():
    shares = FLOOR | {"pca": _shares(0.4, 0.5), "up": _shares(0.8, 0.9)} | CEILING
    assert _judged(shares).loc["up", "verdict"] == "better"
    found = _judged(shares, uncalibrated="15 % of equals are called different")
    assert found.loc["up", "verdict"] == "not tested"
    assert found.loc["up", "note"].startswith("intervals of this metric do not hold their level: 15 % of equals")
    assert found.loc["up", "rank"] == found.loc["pca", "rank"] == (1, 2)


def test_cells_of_one_perturbation_are_no_units():
    assert _judged(FLOOR | {"pca": _shares(0.4, 0.5), "up": _shares(0.8, 0.9)} | CEILING, kind="cell").loc["up", "verdict"] == (
        "too few units"
    )


def test_two_scores_at_the_floor_are_not_ranked():
    """A difference of 0.001 that any test sees, between scores that noise has too."""
    noise = _shares(0.4, 0.6)
    alike = _shares(0.4, 0.6, seed=1)
    found = _judged({"random": noise, "pca": alike, "up": alike + 0.001 + _shares(-1e-5, 1e-5)} | CEILING)
    assert found.loc["up", "verdict"] == "at the floor"
    assert found.loc["up", "note"].startswith("neither score is above the floor")
    below = _judged(FLOOR | {"pca": _shares(0.2, 0.3), "up": _shares(0.3, 0.4)} | {"label_oracle": _shares(0.0, 0.45)})
    assert below.loc["up", "verdict"] == "better"
    level = _judged({"random": noise, "pca": noise + 0.2, "up": noise + 0.3, "label_oracle": noise[::-1] + 0.01}, None)
    assert level.loc["up", "verdict"] == "better"  # a ceiling that models pass does not count


def test_a_wide_interval_is_no_tie():
    shares = {"pca": np.tile([0.0, 1.0], 5), "other": np.tile([1.0, 0.0], 5)}
    found = _judged({"random": np.zeros(10), "label_oracle": np.ones(10)} | shares)
    assert found.loc["other", "verdict"] == "cannot tell"
    assert re.match(r"a difference below 0\.\d+ could not have been seen", found.loc["other", "note"])


def test_an_interval_without_0_is_no_tie_where_the_family_of_tests_says_no():
    pair = {"word": "", "note": "", "told": False, "p": 0.03, "q": 0.09}
    row = {"direction": 1, "difference": 0.004, "diff_high": 0.008, "detectable": 0.004, "baseline_value": 0.45, "floor": 0.05}
    assert verdict(pd.Series(row | {"diff_low": -0.001}), pair)[0] == "tied"
    assert verdict(pd.Series(row | {"diff_low": 0.001}), pair) == (
        "cannot tell", "p = 0.03 alone, q = 0.09 among the tests of this data set"
    )  # fmt: skip
    assert verdict(pd.Series(row | {"diff_low": -0.001, "diff_high": 0.21}), pair)[0] == "cannot tell"  # half of 0.4 is 0.2


def test_headline_and_ranks_are_of_one_family(comparisons):
    """A model that is better than the baseline has a better rank, and one that is tied shares a place with it."""
    main = comparisons[comparisons["main"] & (comparisons["protocol"] == "corrected") & comparisons["rank_low"].notna()]
    for _, rows in main.groupby(["dataset", "task"]):
        home = rows[rows["verdict"] == "baseline"]
        if home.empty:
            continue
        low, high = home[["rank_low", "rank_high"]].iloc[0]
        better, worse = rows[rows["verdict"] == "better"], rows[rows["verdict"] == "worse"]
        assert low == 1 + len(better)
        assert high == len(rows) - len(worse)


def test_every_verdict_has_its_units_beside_it(comparisons):
    told = comparisons[comparisons["verdict"].isin(["better", "worse", "tied"])]
    assert (told["n_units"] >= 8).all()
    assert (told["unit"] != "").all()
    pairs = told[told["task"] == "recall"]
    assert (pairs["unit"] == "gene").all()
    assert (pairs["n_units"] <= 60).all()  # genes, not their pairs
    assert (comparisons.loc[comparisons["verdict"].isin(["tied", "cannot tell"]), "note"] != "").all()


def test_intervals_end_where_the_metric_does(comparisons):
    percent = comparisons[comparisons["metric"].str.endswith("_pct") & comparisons["ci_low"].notna()]
    assert percent[["ci_low", "ci_high"]].stack().between(0, 100).all()


def test_ranks_are_shared_by_models_that_cannot_be_told_apart(comparisons):
    table = _headline(comparisons)
    ranks = table.xs("magnitude", level="task")[["rank_low", "rank_high"]]
    assert ranks.loc["pca"].tolist() == ranks.loc["pca_all"].tolist() == ranks.loc["uce_33"].tolist()
    assert ranks.loc["scvi", "rank_low"] == 1
    assert ranks.loc["geneformer_v1"].tolist() == [9, 9]
    assert ranks.loc[["random", "label_oracle"]].isna().all(axis=None)


def test_main_metric_follows_the_data_set(comparisons):
    metrics = comparisons[comparisons["main"] & (comparisons["task"] == "separability")].groupby("dataset")["metric"].unique()
    assert metrics["vcc_h1"].tolist() == ["linear_top1"]
    assert metrics["kang_pbmc"].tolist() == ["auroc_control"]


def test_items_are_joined_whole(folder):
    files = [pd.read_parquet(path) for path in (folder / "items").rglob("*.parquet")]
    joined = pd.read_parquet(folder / "summary" / "items.parquet")
    assert len(joined) == sum(len(frame) for frame in files)
    assert joined["numerator"].sum() == pytest.approx(
        sum(frame.get("numerator", pd.Series(dtype=float)).sum() for frame in files)
    )


def test_costs_know_their_data_set(folder):
    cost = pd.read_csv(folder / "summary" / "cost.tsv", sep="\t")
    assert len(cost) == 2 * len(MODELS) - 1
    assert set(cost["dataset"]) == {"vcc_h1", "kang_pbmc"}


def test_two_summaries_are_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "records", made_records)
    make_run(tmp_path, ("kang_pbmc",), seeds=(42,), posts=(), variants=("pca", "scvi", "random"))
    for name in ("one", "two"):
        summarise_scores.summarise(_arguments(tmp_path, outdir=tmp_path / name, n_boot=50))
    for name in ("comparisons.tsv", "scores.tsv", "about.json", "distributions.tsv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_score_table_satisfies_the_schema(folder):
    rows = json.loads(pd.read_parquet(folder / "summary" / "scores.parquet").to_json(orient="records"))
    jsonschema.validate(rows[:400] + [row for row in rows if row["status"] != "ok"], load_schema())
    jsonschema.Draft202012Validator.check_schema(load_schema())


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", "maybe"),
        ("protocol", "mine"),
        ("n", -1),
        ("value", None),
        ("dataset", ""),
        ("postprocess", "tnv"),
        ("metric", 3),
    ],
)
def test_schema_check_agrees_with_jsonschema(column, value):
    row = dict.fromkeys(COLUMNS, "x") | {"postprocess": "none", "seed": 42, "protocol": "paper", "value": 0.5, "ci_low": 0.4,
                                        "ci_high": 0.6, "n": 7, "status": "ok", "reason": ""}  # fmt: skip
    assert violations(pd.DataFrame([row]), load_schema()["items"]) == []
    jsonschema.validate([row], load_schema())
    broken = row | {column: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([broken], load_schema())
    frame = pd.DataFrame([broken], columns=COLUMNS)
    with pytest.raises(UserError, match=column):
        check_scores(frame)


def test_schema_wants_a_reason_for_what_is_missing():
    row = dict.fromkeys(COLUMNS, "x") | {"postprocess": "none", "seed": 42, "protocol": "paper", "value": None, "ci_low": None,
                                        "ci_high": None, "n": 0, "status": "failed", "reason": ""}  # fmt: skip
    with pytest.raises(UserError, match="reason"):
        check_scores(pd.DataFrame([row]))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([row], load_schema())


def _part(rng, k, shift=0.0):
    return Items("perturbation", np.arange(k).astype(str), rng.normal(0.5 + shift, 0.05, k), np.ones(k))


def test_contest_joins_models_on_the_units_and_seeds_both_have():
    rng = np.random.default_rng(0)
    parts = {"a": {1: _part(rng, 30), 2: _part(rng, 30)}, "b": {1: _part(rng, 20)}, "c": {3: _part(rng, 5)}}
    contest = Contest.of(parts.items(), n_boot=200)
    found = contest.difference("a", "b")
    assert (found.n_shared, found.n_left_out) == (20, 10)
    first = [parts[name][1].numerator[:20].mean() for name in "ab"]
    assert found.value == pytest.approx(first[0] - first[1])
    assert np.isnan(contest.difference("a", "c").p)
    assert contest.parts["a"][1].unit is contest.parts["a"][2].unit  # names of the same units lie in memory once


def test_contest_draws_models_on_the_same_units_with_the_same_weights():
    rng = np.random.default_rng(1)
    part = _part(rng, 25)
    contest = Contest.of([("a", {1: part}), ("b", {1: part})], n_boot=200)
    assert contest.difference("a", "b").low == contest.difference("a", "b").high == 0.0
    assert contest.pairs(["a", "b"])[["value", "p"]].to_numpy().tolist() == [[0.0, 1.0]]


def test_ranks_follow_the_direction_of_the_metric():
    rng = np.random.default_rng(2)
    contest = Contest.of([("low", {1: _part(rng, 40)}), ("high", {1: _part(rng, 40, 0.3)})])
    pairs = contest.pairs(["low", "high"])
    pairs["told"] = pairs["p"] < 0.01
    assert rank_intervals(["low", "high"], pairs) == {"low": (2, 2), "high": (1, 1)}
    assert rank_intervals(["low", "high"], pairs, higher_is_better=False) == {"low": (1, 1), "high": (2, 2)}


def test_baseline_is_the_one_fitted_on_train():
    frame = pd.DataFrame({"variant": ["pca", "pca", "x"], "fit_on": ["all", "train", "train"], "status": "ok"})
    assert baseline_row(frame, "pca") == 1
    assert baseline_row(frame.assign(status="failed"), "pca") is None


def test_expected_runs_are_read_in_every_form(tmp_path):
    run = {"dataset": "d", "model": "pca", "variant": "pca", "fit_on": "train", "task": "recall", "role": "baseline", "id": "x"}
    rows = [run | {"seeds": "42,43"}, run | {"seeds": [42]}, run | {"seed": 42}, run]
    (tmp_path / "expected.json").write_text(json.dumps(rows))
    assert tables.read_expected(tmp_path / "expected.json")["seeds"].tolist() == [[42, 43], [42], [42], []]


def test_a_refitted_model_that_fails_on_one_seed_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "records", made_records)
    run = {"dataset": "d", "model": "pca", "variant": "pca", "fit_on": "train", "task": "recall", "role": "baseline"}
    (tmp_path / "expected.json").write_text(json.dumps([run | {"seeds": "42", "id": "a"}, run | {"seeds": "43", "id": "b"}]))
    have = pd.DataFrame([{**dict.fromkeys(COLUMNS, ""), **run, "seed": 42, "protocol": "corrected"}])
    rows = absent_rows(have, tables.read_expected(tmp_path / "expected.json"), pd.DataFrame({"embedding": ["b"]}))
    assert set(rows["seed"]) == {43}
    assert set(rows["metric"]) == set(TASKS["recall"][1])
    assert rows["reason"].str.startswith("EVALUATE left no result").all()


ABSENT_RUN = {"dataset": "d", "model": "pca", "variant": "pca", "fit_on": "train", "task": "recall", "id": "a",
              "seeds": "42,43", "role": "", "protocols": "corrected", "code": "ab12"}  # fmt: skip


@pytest.mark.parametrize(
    ("run", "provenance", "status", "reason", "code"),
    [
        ({"not_applicable": "compounds"}, {"status": "ok"}, "not_applicable", "compounds", "ab12"),
        ({"not_applicable": "compounds"}, {"status": "not_applicable", "reason": "mouse"}, "not_applicable", "mouse", "ab12"),
        ({"failure": "killed"}, {"status": "ok"}, "failed", "EVALUATE failed: killed", ""),
        ({"failure": "killed", "not_applicable": "compounds"}, None, "failed", "EMBED failed: killed", ""),
    ],
)
def test_what_was_never_scored_says_why(tmp_path, monkeypatch, run, provenance, status, reason, code):
    """The pipeline starts no EVALUATE where the data set or the model already says that there is nothing to score."""
    monkeypatch.setattr(tasks, "records", made_records)
    main = ABSENT_RUN | run
    (tmp_path / "expected.json").write_text(json.dumps([main, main | {"experiment": "transfer"}]))
    made = pd.DataFrame([{"embedding": "a", "reason": "", **provenance}]) if provenance else pd.DataFrame()
    rows = absent_rows(pd.DataFrame(columns=COLUMNS), tables.read_expected(tmp_path / "expected.json"), made)
    assert len(rows) == 2 * len(TASKS["recall"][1]), "once, though an experiment expects it too"
    assert set(rows["seed"]) == {42, 43}
    assert set(zip(rows["status"], rows["reason"], rows["code"], rows["postprocess"], strict=True)) == {
        (status, reason, code, "selected")
    }


def test_rows_of_what_does_not_apply_are_those_of_evaluate(tmp_path):
    """The same rows as if EVALUATE had been started to find out."""
    about = {name: ABSENT_RUN[name] for name in ("dataset", "model", "variant", "fit_on", "code")}
    task, run = tasks.load("recall"), ABSENT_RUN | {"not_applicable": "compounds", "protocols": "paper,corrected"}
    found = evaluation.absent_rows(task, [42, 43], ["paper", "corrected"], "compounds")
    write_rows(found, task, about, 10, {}, (tmp_path / "scores" / "a.parquet", tmp_path / "items" / "a.parquet"))
    (tmp_path / "expected.json").write_text(json.dumps([run]))
    made = pd.DataFrame([{"embedding": "a", "status": "ok"}])
    rows = absent_rows(pd.DataFrame(columns=COLUMNS), tables.read_expected(tmp_path / "expected.json"), made)
    pd.testing.assert_frame_equal(rows, tables.read_scores(tmp_path / "scores"), check_dtype=False)


def test_an_item_table_written_in_portions_is_the_same_table(tmp_path, monkeypatch):
    """With columns that some parts lack: whole numbers, text, the second name of a pair, what units share."""
    ones, names = np.ones(3), np.array(["a", "b", "c"])
    items = [
        Items("perturbation", names, ones, ones, extra={"n_cells": np.arange(3), "p": ones / 2, "batch": names.astype(object)}),
        Items("pair", names, ones, ones, unit2=names[::-1], influence={"a": 0.25}),
    ]
    rows = [evaluation.Row(42, "paper", "none", Score.of("recall_corum", one)) for one in items]
    about = {name: ABSENT_RUN[name] for name in ("dataset", "model", "variant", "fit_on", "code")}
    read = []
    for portion in (1_000, 1):
        monkeypatch.setattr(writing, "PORTION", portion)
        paths = tmp_path / f"{portion}.scores.parquet", tmp_path / f"{portion}.items.parquet"
        writing.write_rows(rows, tasks.load("recall"), about, 10, {"seconds": 1}, paths)
        read.append(pd.read_parquet(paths[1]))
    whole = pd.concat(list(evaluation.item_frames(rows)), ignore_index=True)
    assert len(whole) == 7
    whole["batch"] = (
        whole["batch"].astype(object).where(whole["batch"].notna(), None)
    )  # what a file holds where there is no text
    pd.testing.assert_frame_equal(*read)
    pd.testing.assert_frame_equal(read[1][list(whole)], whole)
    assert set(read[1]) - set(whole) == {*about, "task"} - {"code"}


def test_one_seed_of_several_that_fails_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "records", made_records)
    have = pd.DataFrame([{**dict.fromkeys(COLUMNS, ""), **{name: ABSENT_RUN[name] for name in RUN}, "seed": 42}])
    for protocols, missing in (("corrected", {43}), ("paper", set())):  # without a split, paper has one seed alone
        run = ABSENT_RUN | {"failure": "killed", "protocols": protocols}
        (tmp_path / "expected.json").write_text(json.dumps([run]))
        rows = absent_rows(have, tables.read_expected(tmp_path / "expected.json"), pd.DataFrame({"embedding": ["a"]}))
        assert set(rows["seed"]) == missing


def test_the_plan_joins_the_report_of_its_data_set(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "plans").mkdir()
    (tmp_path / "tables" / "dataset.json").write_text('{"name": "kang"}')
    (tmp_path / "tables" / "data_report.json").write_text('{"warnings": ["few genes"]}')
    plan = {"dataset": "kang", "splits": [{"seed": 42}], "warnings": ["Seeds [42]: ..."], "not_applicable": {}}
    (tmp_path / "plans" / "kang.plan.json").write_text(json.dumps(plan))
    report = tables.read_datasets(tmp_path / "tables", tmp_path / "plans")["kang"]["report"]
    assert report == {"warnings": ["few genes", "Seeds [42]: ..."], "splits": [{"seed": 42}]}


def test_unit_values():
    pairs = Items("pair", np.array(["a", "a", "b"]), np.array([1.0, 0, 1]), np.ones(3), np.array(["b", "c", "c"]))
    kind, shows, values = unit_values([pairs])
    assert (kind, shows, sorted(values)) == ("gene", "score", [0.5, 0.5, 1.0])
    tested = Items("perturbation", np.array(["a", "b"]), np.array([1.0, 0]), np.ones(2), extra={"p": np.array([0.01, 0.5])})
    assert unit_values([tested])[1:] == ("p value", pytest.approx([0.01, 0.5]))


def test_the_p_values_of_another_metric_of_the_task_are_not_this_ones():
    """Metrics of a task share a file: the column of one is empty for the others."""
    about = {"unit_kind": "gene", "unit": ["a", "b"], "numerator": 1.0, "denominator": 2.0, "offset": 0.0, "scale": 1.0}
    assert items_of(pd.DataFrame(about | {"p": np.nan})).extra == {}
    assert list(items_of(pd.DataFrame(about | {"p": [0.1, np.nan]})).extra) == ["p"]


def test_published_scores_come_beside_ours_on_the_same_scale(root):
    path = root / "assets" / "published_scores.csv"
    row = dict.fromkeys(COLUMNS, "") | {"dataset": "mine", "model": "pca", "variant": "pca_raw", "fit_on": "all", "seed": 42,
                                       "postprocess": "center_scale", "protocol": "paper", "task": "separability", "n": 9,
                                       "metric": "linear_top1", "value": 0.04, "status": "ok"}  # fmt: skip
    scores = pd.DataFrame([row, row | {"variant": "pca", "value": 0.05}, row | {"metric": "recall_corum", "task": "recall"}])
    found = beside_published(scores, path, {"mine": {"published_as": "replogle_K562_GWPS"}})
    ours = found[found["ours"].notna()].set_index(["metric", "postprocess", "published_model"]).sort_index()
    probe = ours.loc[("linear_top1", "center_scale", "PCA")]
    assert (probe["published"], probe["variant"], probe["same_settings"]) == (pytest.approx(0.03269), "pca_raw", True)
    assert probe["difference"] == pytest.approx(0.04 - 0.03269)
    assert ours.loc[("recall_corum", "center_scale", "PCA"), "published"] == 0.45
    assert len(found) > len(ours)
    assert beside_published(scores, path, {"mine": {"published_as": ""}}).empty


def test_published_names_are_all_known(root):
    published = pd.read_csv(root / "assets" / "published_scores.csv", keep_default_na=False)
    assert set(METRICS) <= set(published["metric"])
    assert set(published["metric"]) - set(METRICS) == {"consistency_p01", "avg6"}
    assert set(published["postprocess"]) == set(POSTPROCESS)
    assert set(PUBLISHED_MODELS) <= set(published["model"])


def test_errors_say_what_to_do(folder, tmp_path):
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no score table: it lacks dataset"):
        tables.read_scores(tmp_path)
    with pytest.raises(UserError, match=r"no such model in this run.* Did you mean 'pca'"):
        summarise_scores.summarise(_arguments(folder, baseline="pac", outdir=tmp_path))
    (tmp_path / "expected.json").write_text("{")
    with pytest.raises(UserError, match="expected a JSON list"):
        tables.read_expected(tmp_path / "expected.json")
    (tmp_path / "models.csv").write_text("id,model\npca,pca\n")
    with pytest.raises(UserError, match="lacks the column title, role"):
        tables.read_models(tmp_path / "models.csv")


def test_the_script_needs_nothing_but_its_arguments(root):
    done = subprocess.run([sys.executable, root / "bin" / "summarise_scores.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--baseline" in done.stdout


def test_data_sets_are_found_behind_links(tmp_path):
    """Nextflow stages folders as links."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "dataset.json").write_text('{"name": "kang"}')
    (tmp_path / "staged" / "1").mkdir(parents=True)
    (tmp_path / "staged" / "1" / "tables").symlink_to(tmp_path / "real")
    assert list(tables.read_datasets(tmp_path / "staged")) == ["kang"]


def test_models_that_know_nothing_are_not_told_apart_by_the_one_that_chance_lifts_above_the_floor():
    """Ten models of noise, two tasks: in at most 5 % of runs anything is told (20 % if pairs at the floor were no tests)."""
    rng, models, told = np.random.default_rng(0), 10, 0
    a, b = np.triu_indices(models, 1)
    for _ in range(120):
        z = rng.normal(size=(2, models))
        frame = pd.DataFrame({"off_floor": z.ravel() > 1.96, "uncalibrated": "", "unit": "perturbation"})
        frame = frame.assign(has_range=True, floor=0.5)
        p = 2 * scipy_stats.norm.sf(np.abs(z[:, a] - z[:, b]) / np.sqrt(2)).ravel()
        pairs = pd.DataFrame({"a": np.r_[a, a + models], "b": np.r_[b, b + models], "p": p, "n_units": 50, "family": "one"})
        decided = decide(pairs, frame)
        told += decided["told"].any()
        floor = ~frame["off_floor"].to_numpy()
        np.testing.assert_array_equal(decided["word"] == "at the floor", floor[pairs["a"]] & floor[pairs["b"]])
        assert decided["q"].isna().equals(decided["word"] != "")
    assert told / 120 <= 0.08


def test_a_missing_baseline_is_said_and_models_are_ranked_all_the_same():
    rng, units = np.random.default_rng(0), np.arange(40).astype(str)
    items = {name: Items("perturbation", units, level + 0.1 * rng.normal(size=40), np.ones(40)) for name, level in
             (("one", 0.9), ("two", 0.6))}  # fmt: skip
    about = {"dataset": "d", "fit_on": "train", "postprocess": "selected", "seed": 42, "protocol": "corrected", "n": 40}
    about |= {"task": "retrieval", "task_version": "1", "metric": "retrieval_pds", "status": "ok", "reason": "", "code": ""}
    rows = [about | {"model": name, "variant": name, "value": one.value, "ci_low": 0.5, "ci_high": 0.95}
            for name, one in items.items()]  # fmt: skip
    table = Namespace(read=lambda *_, variant, **__: {42: items[variant]})
    found = compare(pd.DataFrame(rows)[COLUMNS], table, {}, {"d": {"n_perturbations": 40}}, "pca", 200, 0)
    assert found["verdict"].tolist() == ["not tested"] * 2
    assert set(found["note"]) == {"pca has no score to compare with"}
    assert found["rank_low"].tolist() == [1, 2]
