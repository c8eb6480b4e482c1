"""SUMMARISE on a made run with known answers: better is better, equal is tied, lost is failed."""

import json
import subprocess
import sys
from argparse import Namespace

import jsonschema
import numpy as np
import pandas as pd
import pytest
from made_scores import LOST, MODELS, REFUSED, TASKS, made_records, make_run

import summarise_scores
from plumbline import tasks
from plumbline.common.errors import UserError
from plumbline.scoring.scores import COLUMNS, Items
from plumbline.summary import tables
from plumbline.summary.comparisons import _calibrate, baseline_row
from plumbline.summary.contest import Contest
from plumbline.summary.distributions import unit_values
from plumbline.summary.published import METRICS, POSTPROCESS, beside_published
from plumbline.summary.published import MODELS as PUBLISHED_MODELS
from plumbline.summary.schema import check_scores, load_schema, violations


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
             "experiments": "",
             "data_reports": where / "tables", "n_boot": 300, "seed": 0, "outdir": where / "summary"}  # fmt: skip
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
    assert (equal == "tied").sum() >= 11  # of 12 at a false discovery rate of 5 %
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
    assert table.loc[["random", "scrambled_pca"], "calibrated"].max() == pytest.approx(0.0)
    assert table.loc[("split_half", "reconstruction"), "calibrated"] == pytest.approx(1.0)
    assert 0 < table.loc[("pca", "recall"), "calibrated"] < table.loc[("scvi", "recall"), "calibrated"] < 1
    error = comparisons[(comparisons["metric"] == "mse") & (comparisons["dataset"] == "vcc_h1")]
    assert (error["floor"] > error["ceiling"]).all()  # lower is better
    calibrated = error.groupby("variant")["calibrated"].mean()
    assert calibrated["scvi"] > calibrated["pca"]


def test_no_calibration_where_floor_and_ceiling_are_the_same_but_for_noise():
    random = np.random.default_rng(0)
    shares = {0: random.uniform(0.4, 0.6, 20), 1: random.uniform(0.4, 0.6, 20) + 0.005, 2: random.uniform(0.6, 0.8, 20)}
    units = np.arange(20).astype(str)
    contest = Contest.of({name: {42: Items("batch", units, values, np.ones(20))} for name, values in shares.items()}, 500)
    frame = pd.DataFrame({"variant": ["random", "label_oracle", "pca"], "role": ["floor", "ceiling", "baseline"]})
    frame = frame.assign(value=[values.mean() for values in shares.values()], status="ok", direction=1, metric="recall_mean")
    frame["ci_low"], frame["ci_high"] = np.transpose([contest.interval(name) for name in shares])
    assert _calibrate(frame, contest)["calibrated"].isna().all()
    clear = frame.assign(role=["floor", "baseline", "ceiling"])
    assert _calibrate(clear, contest)["calibrated"].tolist() == pytest.approx([0, 0.05, 1], abs=0.1)
    alone = _calibrate(frame.iloc[1:], contest)  # the floor is chance, 0.1: far below
    assert alone["calibrated"].notna().all()
    flat = _calibrate(frame.iloc[1:].assign(metric="auroc_control"), contest)  # chance is 0.5
    assert flat["calibrated"].isna().all()


def test_intervals_end_where_the_metric_does(comparisons):
    percent = comparisons[comparisons["metric"].str.endswith("_pct") & comparisons["ci_low"].notna()]
    assert percent[["ci_low", "ci_high"]].stack().between(0, 100).all()


def test_ranks_are_shared_by_models_that_cannot_be_told_apart(comparisons):
    table = _headline(comparisons)
    ranks = table.xs("recall", level="task")[["rank_low", "rank_high"]]
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
    contest = Contest.of(parts, n_boot=200)
    found = contest.difference("a", "b")
    assert (found.n_shared, found.n_left_out) == (20, 10)
    first = [parts[name][1].numerator[:20].mean() for name in "ab"]
    assert found.value == pytest.approx(first[0] - first[1])
    assert np.isnan(contest.difference("a", "c").p)


def test_contest_draws_models_on_the_same_units_with_the_same_weights():
    rng = np.random.default_rng(1)
    part = _part(rng, 25)
    contest = Contest.of({"a": {1: part}, "b": {1: part}}, n_boot=200)
    assert contest.difference("a", "b").low == contest.difference("a", "b").high == 0.0
    assert contest.ranks(["a", "b"]) == {"a": (1, 2), "b": (1, 2)}


def test_ranks_follow_the_direction_of_the_metric():
    rng = np.random.default_rng(2)
    contest = Contest.of({"low": {1: _part(rng, 40)}, "high": {1: _part(rng, 40, 0.3)}})
    assert contest.ranks(["low", "high"]) == {"low": (2, 2), "high": (1, 1)}
    assert contest.ranks(["low", "high"], higher_is_better=False) == {"low": (1, 1), "high": (2, 2)}


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
    rows = tables.missing_rows(have, tables.read_expected(tmp_path / "expected.json"), pd.DataFrame({"embedding": ["b"]}))
    assert set(rows["seed"]) == {43}
    assert set(rows["metric"]) == set(TASKS["recall"][1])
    assert rows["reason"].str.startswith("EVALUATE left no result").all()


def test_unit_values():
    pairs = Items("pair", np.array(["a", "a", "b"]), np.array([1.0, 0, 1]), np.ones(3), np.array(["b", "c", "c"]))
    kind, shows, values = unit_values([pairs])
    assert (kind, shows, sorted(values)) == ("gene", "score", [0.5, 0.5, 1.0])
    tested = Items("perturbation", np.array(["a", "b"]), np.array([1.0, 0]), np.ones(2), extra={"p": np.array([0.01, 0.5])})
    assert unit_values([tested])[1:] == ("p value", pytest.approx([0.01, 0.5]))


def test_the_p_values_of_another_metric_of_the_task_are_not_this_ones():
    """Metrics of a task share a file: the column of one is empty for the others."""
    about = {"unit_kind": "gene", "unit": ["a", "b"], "numerator": 1.0, "denominator": 2.0, "offset": 0.0, "scale": 1.0}
    assert tables._items(pd.DataFrame(about | {"p": np.nan})).extra == {}
    assert list(tables._items(pd.DataFrame(about | {"p": [0.1, np.nan]})).extra) == ["p"]


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
