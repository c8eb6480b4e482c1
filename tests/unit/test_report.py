"""The report says what the summary holds, in words, and is what MultiQC takes."""

import base64
import json
import re
from argparse import Namespace
from collections import Counter
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_scores import LOST, REFUSED, TASKS, made_records, make_run

import report_scores
import summarise_scores
from plumbline import tasks
from plumbline.common.errors import UserError
from plumbline.report.figures import spaced
from plumbline.report.layers import layer_section
from plumbline.report.leaderboard import _gained, leaderboard_sections
from plumbline.report.order import LAST, section_order
from plumbline.report.run import labels, read_run
from plumbline.report.sentences import overall, per_task, summary_text
from plumbline.report.task_sections import task_sections
from plumbline.report.verdicts import overview, verdict_cell, verdict_section
from plumbline.report.words import COMPARED, listed, metric_title, number, with_interval
from plumbline.summary.item_writing import write_items
from plumbline.summary.items import ItemTable


@pytest.fixture(scope="module")
def summary(tmp_path_factory) -> Path:
    """SUMMARISE's folder of a made run of three data sets, one of them a published one."""
    where = tmp_path_factory.mktemp("made")
    make_run(where, ("vcc_h1", "kang_pbmc", "replogle_k562"), seeds=(42,), posts=("none",), experiments=True)
    published = Path(__file__).resolve().parents[2] / "assets" / "published_scores.csv"
    about = {"scores": where / "scores", "items": where / "items", "provenance": where / "provenance",
             "expected": where / "expected.json", "models": where / "models.csv", "published": published, "baseline": "pca",
             "experiments": "minimal_data,transfer,generality,cost",
             "data_reports": where / "tables", "plans": None, "n_boot": 200, "n_draws": 50, "decoder_budget": 200,
             "exact": "false", "seed": 0, "outdir": where / "summary"}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "records", made_records)
        summarise_scores.summarise(Namespace(**about))
    return where / "summary"


@pytest.fixture(scope="module")
def sections(summary, tmp_path_factory) -> dict[str, dict]:
    """id -> section of the report."""
    out = tmp_path_factory.mktemp("report")
    report_scores.report(summary, None, out)
    assert (out / "summary.md").read_text() == summary_text(read_run(summary))
    found = {path.name.removesuffix("_mqc.json"): json.loads(path.read_text()) for path in out.glob("*_mqc.json")}
    assert all(part["id"] == name for name, part in found.items())
    return found


def test_every_part_is_there(sections):
    expected = {"verdict", "leaderboard_all", "leaderboard_progress", "leaderboard_ranks", "published_scatter",
                "published_table", "data", "seen", "absent", "cost_quality", "cost_bars", "cost_table", "methods"}  # fmt: skip
    expected |= {"minimal_data_curves", "minimal_data_overtaken", "transfer_matrix", "transfer_table", "generality_agreement",
                 "generality_groups", "cost_front", "cost_lines", "cost_table_fit"}  # fmt: skip
    expected |= {"genes", "gains", "pairs"}  # from items alone; maps need the tables of MAP
    expected |= {f"{task}_{part}" for task in TASKS for part in ("heatmap", "forest", "spread", "metrics")}
    assert set(sections) == {f"plumbline_{name}" for name in expected}


def test_order_of_the_report_names_every_top_level_section(sections):
    order = section_order(list(sections.values()))["report_section_order"]
    assert {part.get("parent_id", part["id"]) for part in sections.values()} <= set(order)
    assert order["plumbline_methods"]["order"] < min(order[name]["order"] for name in order if name not in LAST)


def test_the_report_reads_verdict_first_and_tasks_in_the_order_of_their_records(summary, tmp_path):
    report_scores.report(summary, None, tmp_path)
    order = json.loads((tmp_path / "multiqc_order.json").read_text())["report_section_order"]
    read = sorted(order, key=lambda name: -order[name]["order"])
    assert read[:2] == ["plumbline_verdict", "plumbline_leaderboard"]
    assert [name for name in read if "_task_" in name] == [
        f"plumbline_task_{name}" for name in tasks.records() if name in TASKS
    ]
    assert read[-len(LAST) :] == list(LAST)


def test_parts_of_a_task_are_read_in_alphabetical_order(sections):
    names = [sections[f"plumbline_recall_{part}"]["section_name"] for part in ("forest", "heatmap", "spread", "metrics")]
    assert names == sorted(names)


def test_sentences_say_the_planted_answer(summary):
    text = summary_text(read_run(summary))
    assert text.startswith("# Does it beat PCA?")
    first = text.splitlines()[2]
    assert "beat PCA somewhere" in first
    assert "scVI (ZINB) (better in" in first
    never = next(line for line in text.splitlines() if line.startswith("Never better"))
    assert "geneformer v1" in never
    assert "hvg" in never
    assert re.search(r"Known biology: scVI \(ZINB\) beats PCA by 0\.0\d\d \[0\.0\d\d, 0\.\d{3}\] \(recall", text)
    assert "Batch mixing: not applicable: the data set has one batch." in text


def test_a_description_is_shown_and_not_compared(summary):
    run = read_run(summary)
    rows = run.comparisons[run.comparisons["task"] == "recall"].assign(task="geometry", metric="effective_rank", main=False)
    scores = run.scores[run.scores["task"] == "recall"].assign(task="geometry", metric="effective_rank")
    comparisons, scores = pd.concat([run.comparisons, rows]), pd.concat([run.scores, scores])
    run = replace(run, comparisons=comparisons.reset_index(drop=True), scores=scores.reset_index(drop=True))
    assert "geometry" in run.tasks
    assert "Geometry" not in dict(per_task(run, "vcc_h1"))
    assert all("Geometry" not in json.dumps(part) for part in (verdict_section(run), *leaderboard_sections(run)))
    shown = task_sections(run, "geometry")
    assert [part["id"] for part in shown] == ["plumbline_geometry_metrics"]
    assert "effective rank" in shown[0]["data"]


def test_sentence_when_nothing_beats_the_baseline(summary):
    run = read_run(summary)
    table = run.comparisons
    table.loc[table["verdict"] == "better", "verdict"] = "tied"
    told = dict(per_task(run, "vcc_h1"))
    assert told["Known biology"].startswith("nothing beats PCA (tied: ")
    assert "no model beats PCA at anything" in summary_text(run)
    table.loc[table["verdict"] == "tied", "verdict"] = "worse"
    assert dict(per_task(run, "vcc_h1"))["Known biology"] == ("nothing beats PCA; every model is worse (n = 60 genes).")
    some = table["verdict"] == "worse"
    table.loc[some & (table["variant"] == "scvi"), "verdict"] = "cannot tell"
    assert "cannot tell: scVI (ZINB); n = 60 genes" in dict(per_task(run, "vcc_h1"))["Known biology"]


def test_a_run_of_the_baseline_and_references_alone_says_so(summary):
    """It pointed to a section of failures, which was empty."""
    run = read_run(summary)
    table = run.comparisons
    alone = table[table["role"].isin(["baseline", "floor", "ceiling"])]
    assert alone["role"].nunique() > 1
    (sentence,) = overall(replace(run, comparisons=alone))
    assert sentence.startswith("This run has no model to compare with PCA: the others are references")
    assert "--models" in sentence


def test_sentence_where_nothing_can_be_tested(summary):
    run = read_run(summary)
    table = run.comparisons
    rows = (table["dataset"] == "vcc_h1") & (table["task"] == "recall") & table["main"]
    table.loc[rows & (table["verdict"] != "baseline"), "verdict"] = "too few units"
    table.loc[rows, "note"] = "too few units to tell: 2 genes, at least 8 are needed"
    told = dict(per_task(run, "vcc_h1"))["Known biology"]
    assert re.match(
        r"no verdict: too few units to tell: 2 genes, at least 8 are needed; "
        r"the best score is that of scVI \(ZINB\), 0\.4\d\d; PCA has 0\.3\d\d \(recall, mean of sources\)\.",
        told,
    )
    table.loc[rows, "baseline_value"] = 0.535
    told = dict(per_task(run, "vcc_h1"))["Known biology"]
    assert re.search(r"; the best score is that of PCA, 0\.535, before scVI \(ZINB\), 0\.4\d\d", told)
    table.loc[rows & table["variant"].isin(["scvi", "hvg"]), "value"] = 0.6
    told = dict(per_task(run, "vcc_h1"))["Known biology"]
    assert "; hvg and scVI (ZINB) share the best score, 0.600; PCA has 0.535" in told
    table.loc[rows, "baseline_value"] = 0.6
    told = dict(per_task(run, "vcc_h1"))["Known biology"]
    assert "; PCA and hvg and scVI (ZINB) share the best score, 0.600" in told
    table.loc[rows, ["status", "verdict"]] = ["not_applicable", "not tested"]
    table.loc[rows, "reason"] = "none: it cannot be chosen; no pair is known"
    table.loc[rows & (table["variant"] == "scvi"), ["status", "reason"]] = ["failed", "boom"]
    assert dict(per_task(run, "vcc_h1"))["Known biology"] == "not applicable: no pair is known."
    table.loc[rows & (table["role"] == "baseline"), ["status", "verdict"]] = ["ok", "baseline"]
    table.loc[rows & (table["variant"] == "scvi"), ["status", "reason"]] = ["not_applicable", "it is a model of counts."]
    table.drop(table.index[rows & ~table["variant"].isin(["pca", "scvi"])], inplace=True)
    told = dict(per_task(run, "vcc_h1"))["Known biology"]
    assert told == "nothing to compare PCA with; scVI (ZINB) not applicable: it is a model of counts."


def test_difference_of_an_error_is_told_as_an_improvement(summary):
    run = read_run(summary)
    rows = (run.comparisons["dataset"] == "vcc_h1") & (run.comparisons["task"] == "reconstruction") & run.comparisons["main"]
    columns = ["direction", "difference", "diff_low", "diff_high", "verdict"]
    run.comparisons.loc[rows & (run.comparisons["variant"] == "scvi"), columns] = [-1, -0.5, -0.6, -0.4, "better"]
    assert "scVI (ZINB) beats PCA by 0.500 [0.400, 0.600]" in dict(per_task(run, "vcc_h1"))["Rebuilding effects"]


def test_what_says_nothing_is_counted_and_not_called_a_tie(summary):
    run = read_run(summary)
    table = run.comparisons
    tested = table["verdict"].isin(["better", "worse", "tied", "cannot tell"])
    table.loc[tested & (table["task"] != "recall"), "verdict"] = "too few units"
    assert re.search(r"Of \d+ comparisons, \d+ cannot tell \(too few units", summary_text(run))
    table.loc[tested, "verdict"] = "at the floor"
    assert "Nothing can be said of any model and PCA" in summary_text(run)


def test_the_answer_counts_the_data_sets_and_comparisons_that_are_shown(summary):
    run = read_run(summary)
    table = run.comparisons
    few = (table["dataset"] == "kang_pbmc") & table["verdict"].isin(COMPARED)
    table.loc[few, "verdict"] = "too few units"
    lead = " ".join(overall(run))
    assert lead.startswith("On 3 data sets, ")
    assert summary_text(run).count("\n## ") == verdict_section(run)["data"].count('<summary class="pl-set">') == 3
    rows = leaderboard_sections(run)[0]["data"]
    judged = {name: sum(row[word] for word in ("better", "tied", "worse", "untold")) for name, row in rows.items()}
    assert f"scVI (ZINB) (better in {rows['scVI (ZINB)']['better']} of {judged['scVI (ZINB)']} comparisons" in lead
    assert f"Of {sum(judged.values())} comparisons, {sum(row['untold'] for row in rows.values())} cannot tell" in lead
    table.loc[few, ["verdict", "status"]] = ["not tested", "not_applicable"]
    lead = " ".join(overall(run))
    assert lead.startswith("On 3 data sets, ")
    assert f"No model could be compared with PCA on {run.title('kang_pbmc')}." in lead


def test_every_verdict_stands_beside_its_units(summary):
    run = read_run(summary)
    row = run.headline[run.headline["dataset"] == "vcc_h1"].set_index(["task", "variant"]).loc[("recall", "scvi")]
    assert "<small>n = 60 genes</small>" in verdict_cell(row)
    tied = row.copy()
    tied["verdict"] = "tied"
    assert f"<small>visible from {number(row['detectable'])}</small>" in verdict_cell(tied)
    few = row.copy()
    few[["verdict", "note", "n_units"]] = ["too few units", "too few units to tell: 2 genes, at least 8 are needed", 2.0]
    assert "? too few units to tell" in verdict_cell(few)
    assert "n = 2 genes" in verdict_cell(few)
    assert 'title="too few units to tell: 2 genes' in verdict_cell(few)


def test_the_leaderboard_names_the_tasks_it_leaves_out_and_its_order(sections, summary):
    from plumbline.report.leaderboard import leaderboard_sections

    part = sections["plumbline_leaderboard_all"]
    shown = {key for row in part["data"].values() for key in row}
    missing = set(read_run(summary).tasks) - shown
    assert "batch_effect" in missing
    assert "Not in this table: " in part["description"]
    assert "Batch mixing: noise has the best score" in part["description"]
    assert part["parent_description"].startswith("All models over all tasks: the baseline, then the others")
    run = read_run(summary)
    run.comparisons["calibrated"] = 0.5
    assert "Not in this table" not in leaderboard_sections(run)[0]["description"]


def test_z_scores_are_not_called_log_normalised(summary):
    assert read_run(summary).titles["pca"] == "PCA (log-normalised)"
    run = read_run(summary)
    for found in run.about["datasets"].values():
        found["facts"]["x_kind"] = "signed"
    run = replace(run)  # titles are found once
    assert run.titles["pca"] == "PCA (values as given)"
    assert run.baseline == "PCA"


def test_first_section_shows_words_and_symbols(sections, summary):
    page = sections["plumbline_verdict"]["data"]
    for mark in ("▲ better", "▼ worse", "= tied", "● baseline", "✖ failed", "– not applicable"):
        assert mark in page, mark
    run = read_run(summary)
    rows = run.headline[run.headline["dataset"] == "vcc_h1"].set_index(["variant", "task"])
    scvi = rows.loc[("scvi", "recall")]
    ends = f"[{number(scvi['diff_low'])}, {number(scvi['diff_high'])}]"
    assert f"{number(scvi['difference'], sign=True)} <span>{ends}</span>" in page


def test_no_table_of_metrics_is_wider_than_a_page_and_every_metric_is_in_one(sections, summary):
    run = read_run(summary)
    for task in ("recall", "separability"):
        data = sections[f"plumbline_{task}_metrics"]["data"]
        heads = [re.findall(r"<th>(.*?)</th>", head) for head in re.findall(r"<thead>(.*?)</thead>", data)]
        assert heads
        assert max(len(head) for head in heads) <= 3 + 6
        scores = run.scores[(run.scores["task"] == task) & (run.scores["status"] == "ok")]
        wanted = scores[["dataset", "metric"]].drop_duplicates()["metric"]
        assert Counter(title for head in heads for title in head[3:]) == Counter(escape(metric_title(name)) for name in wanted)


def test_failed_and_not_applicable_have_their_reasons(sections):
    page = sections["plumbline_absent"]["data"]
    assert "EMBED left no result" in page
    assert "Geneformer knows human genes only" in page
    assert LOST[1].replace("_", " ") in page
    assert REFUSED[1].replace("_", " ") in page


def test_heatmap_holds_the_scores_and_gaps(sections, summary):
    part, run = sections["plumbline_recall_heatmap"], read_run(summary)
    lost = part["data"][part["ycats"].index("scgpt human")][part["xcats"].index("vcc_h1")]
    assert lost is None
    rows = run.headline[(run.headline["task"] == "recall") & (run.headline["status"] == "ok")]
    shown = sorted(value for line in part["data"] for value in line if value is not None)
    assert shown == pytest.approx(sorted(rows["value"]), abs=1e-4)
    assert part["ycats"][0] == "PCA (log-normalised)"


def test_leaderboard_counts_verdicts(sections, summary):
    run = read_run(summary)
    for label, row in sections["plumbline_leaderboard_all"]["data"].items():
        rows = run.headline[run.headline["label"] == label]
        assert [row[name] for name in ("better", "tied", "worse")] == [
            (rows["verdict"] == name).sum() for name in ("better", "tied", "worse")
        ]


def test_forest_is_a_picture_with_words(sections):
    page = sections["plumbline_separability_forest"]["data"]
    assert 'alt="Differences to PCA' in page
    picture = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])
    assert picture.startswith(b"<?xml")
    assert len(picture) < 400_000


def test_names_of_users_cannot_break_the_page(summary, tmp_path):
    run = read_run(summary)
    run.about["datasets"]["vcc_h1"]["facts"]["title"] = "<script>alert(1)</script>"
    run.about["datasets"]["vcc_h1"]["report"]["warnings"] = ["a < b"]
    from plumbline.report.data_section import data_section
    from plumbline.report.verdicts import verdict_section

    for part in (verdict_section(run), *data_section(run)):
        assert "<script>" not in part["data"]
    assert "a &lt; b" in data_section(run)[0]["data"]


def test_data_section_reads_what_there_is(summary):
    from plumbline.report.data_section import data_section

    run = read_run(summary)
    run.about["datasets"]["vcc_h1"]["report"] = {"confounding": {"cramers_v": 0.41, "level": "partial"},
                                                 "perturbations": {"cells_median": 77.0}}  # fmt: skip
    page = data_section(run)[0]["data"]
    assert "partly confounded (V = 0.410)" in page
    assert "77.00" in page
    run.about["datasets"] = {}
    assert data_section(run) == []


def test_a_run_without_scores_still_reports(summary, tmp_path):
    for name in ("about.json", "published.tsv", "cost.tsv", "distributions.tsv", "steps.tsv"):
        (tmp_path / name).write_bytes((summary / name).read_bytes())
    for name in ("scores", "comparisons"):
        pd.read_parquet(summary / f"{name}.parquet").iloc[:0].to_parquet(tmp_path / f"{name}.parquet")
    write_items(ItemTable([]), tmp_path / "items.parquet")
    report_scores.report(tmp_path, None, tmp_path / "out")
    assert "No model could be compared" in (tmp_path / "out" / "summary.md").read_text()


def test_report_of_something_else_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"is not the output folder of a run: it has no about\.json"):
        read_run(tmp_path)


def test_words():
    assert number(-0.0712, sign=True) == "−0.071"
    assert number(41.234, "consistency_pct") == "41.2"
    assert number(0.0001) == "0.0001"
    assert number(0.0) == "0.000"
    assert number(float("nan")) == "–"
    assert with_interval(0.5, float("nan"), 1.0) == "0.500"
    assert with_interval(0.5, 0.4, 0.6) == "0.500 [0.400, 0.600]"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcd"), 2) == "a, b and 2 more"


def test_labels_tell_apart_what_a_variant_was_fitted_on():
    pairs = pd.DataFrame({"variant": ["pca", "pca", "x"], "fit_on": ["train", "all", "all"]})
    assert labels(pairs, {"pca": "PCA"}) == {
        ("pca", "train"): "PCA, fitted on train", ("pca", "all"): "PCA, fitted on all", ("x", "all"): "x"
    }  # fmt: skip


def test_labels_of_points_do_not_meet():
    heights = spaced([0.5, 0.5, 0.1, 0.51], 0.05)
    assert np.diff(sorted(heights)).min() >= 0.05 - 1e-12
    assert heights[2] == 0.1


def test_cell_of_a_model_that_was_not_run():
    assert "not run" in verdict_cell(None)


def test_scores_by_layer_stand_beside_the_models_own_and_the_baseline(summary):
    run = read_run(summary)
    assert layer_section(run) == []
    own = run.comparisons[run.comparisons["variant"] == "uce_33"]
    states = [own.assign(variant=f"uce_33.{name}", value=own["value"] + shift)
              for name, shift in (("layer0", 10.0), ("layer12", 20.0), ("layer12_mean", 30.0))]  # fmt: skip
    with_states = replace(run, comparisons=pd.concat([run.comparisons, *states]))
    (found,) = layer_section(with_states)
    text = found["data"]
    first = text[text.index("<table") : text.index("</table>")]
    rows = [re.sub("<[^>]+>", " ", row).split() for row in first.split("<tr>")[2:]]
    assert [row[0] for row in rows] == ["0", "12", "12", "own", "PCA"]
    scored = lambda row: float(next(word for word in row if re.fullmatch(r"-?[0-9.]+", word) and "." in word))  # noqa: E731
    zero, twelve, mean, itself, _ = map(scored, rows)
    assert np.round([zero - itself, twelve - itself, mean - itself], 1).tolist() == [10, 20, 30]
    assert text.count("<table") == text.count('<img class="pl"') == own["dataset"].nunique()
    assert with_states.titles["uce_33.layer12_mean"].endswith(": layer 12, mean")
    assert with_states.titles["uce_33.layer0"].endswith(": input of layer 1")


def test_progress_is_said_in_one_sentence():
    index = pd.MultiIndex.from_tuples([("scVI", "recall"), ("scVI", "retrieval"), ("UCE", "recall")])
    said = _gained(pd.Series([0.25, -0.1, 0.1], index=index), "PCA")
    assert said == "Of what PCA leaves to a repeat of the experiment, scVI gains the most: 25 % (Known biology)."
    nothing = _gained(pd.Series([-0.25, -0.1, 0.0], index=index), "PCA")
    assert nothing == "No model gains anything of what PCA leaves to a repeat of the experiment."


def test_what_has_scores_and_no_verdict_is_not_called_not_applicable(summary):
    """mAP, whose intervals do not hold their level, stood as not applicable in the table over all data sets."""
    run = read_run(summary)
    task, comparisons = run.compared_tasks[0], run.comparisons.copy()
    comparisons.loc[(comparisons["task"] == task) & (comparisons["status"] == "ok"), "verdict"] = "not tested"
    changed = overview(replace(run, comparisons=comparisons))
    assert "not tested" not in overview(run)
    assert "not tested" in changed
    assert changed.count("not applicable") == overview(run).count("not applicable")
