"""Bundles: what is written can be verified; what was changed or swapped is found, with the place and the next step."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_run import DRAWS, SEEDS, TASKS, change_table, made_screen, sign, texts

import plumbline as pl
from plumbline.benchmark.verifying import TOLERANCE, Data, compared_scores, prepared_data, verify
from plumbline.bundles import checks, digests, moving
from plumbline.bundles.findings import FAILED, NOTE, OK, UNVERIFIED
from plumbline.bundles.manifest import MANIFEST, find_bundles, read_bundle
from plumbline.common.errors import UserError
from plumbline.common.files import sha256, write_json
from plumbline.scoring.rules import rules_digest
from plumbline.summary import items
from plumbline.tasks import load


def test_every_bundle_of_a_run_is_verified_to_the_last_digit(made, data):
    bundles = [read_bundle(path) for path in find_bundles(made / "bundles")]
    assert sorted(bundle.variant for bundle in bundles) == ["mine", "pca", "random"]
    for bundle in bundles:
        findings = verify(bundle, data, bundles)
        assert {one.status for one in findings if one.what != "version"} == {OK}, findings
        assert [one.status for one in findings if one.what == "version"] == [NOTE], "this run recorded no code"
        assert ("differences" in {one.what for one in findings}) == (bundle.variant != "pca")
        scored = [one for one in findings if ": " in f"{one.what}: " and one.what.partition(":")[0] in TASKS]
        assert len(scored) == 5
        assert all("largest deviation 0 " in one.text for one in scored)
        assert (len(bundle.manifest["embeddings"]) == 2) == (bundle.variant == "pca")  # one per seed


def test_the_manifest_identifies_what_was_scored_and_no_machine(made):
    (path,) = find_bundles(made / "bundles/pca")
    manifest = read_bundle(path).manifest
    wanted = {"baseline": "pca", "seeds": SEEDS, "protocols": ["corrected", "paper"], "n_draws": DRAWS, "n_boot": DRAWS}
    assert manifest["settings"] == wanted | {"decoder_budget": 200, "exact": False}
    assert manifest["tasks"]["magnitude"]["rules"] == rules_digest(load("magnitude"))
    assert manifest["dataset"]["splits"].keys() == {"42", "43"}
    assert manifest["hardware"]["embedded_on"]["device"] == "cpu"
    assert manifest["cost"]["seconds"] > 0
    assert path.relative_to(made / "bundles") == Path(f"pca/plumbline-{pl.__version__}/tiny")
    for file in path.glob("*.json"):
        assert "hostname" not in file.read_text()
        assert str(made) not in file.read_text()


def test_a_result_saved_from_python_is_the_same_bundle(made, tmp_path):
    screen = pl.Screen.read(made / "data/tiny")
    z = pd.read_parquet(made / "data/tiny/tables/cells.parquet").set_index("cell_id")[["n_counts"]]
    bench = pl.Benchmark(screen, "consistency", references=[], seeds=[43], n_draws=DRAWS, n_boot=DRAWS, threads=1)
    saved = bench.evaluate(z, name="depth").save(tmp_path / "saved")
    assert {one.status for one in verify(read_bundle(saved), prepared_data(made / "data/tiny"))} == {OK, NOTE}
    assert texts(saved, None, NOTE) == "differences: not checked: no bundle of pca on these cells is given next to it"
    place = moving.submit_saved(saved, tmp_path / "results", "v2", {"code": "https://example.org/depth", "seen": "no"})
    assert place == tmp_path / "results/depth/v2/tiny"
    moved = read_bundle(place)
    assert (moved.revision, moved.manifest["submission"]["seen"]) == ("v2", "no")
    assert {one.status for one in checks.check_bundle(moved)} == {OK}
    with pytest.raises(UserError, match="exists already"):
        moving.submit_saved(saved, tmp_path / "results", "v2", {})


def test_a_file_that_was_changed_or_lost_is_named(bundle, data):
    change_table(bundle, "scores", lambda table: table.__setitem__("value", table["value"] + 0.1))
    assert "scores.parquet was changed after the bundle was made" in texts(bundle, data)
    (bundle / "items.parquet").unlink()
    assert "items.parquet is missing. Copy the whole folder again" in texts(bundle, data)


def test_a_better_score_is_not_the_sum_of_its_items(bundle):
    def better(table: pd.DataFrame) -> None:
        table.loc[table["metric"] == "magnitude_pct", "value"] += 5

    change_table(bundle, "scores", better)
    sign(bundle)
    assert re.search(
        r"scores: magnitude_pct \(magnitude, corrected, \w+, seed 42\) is [\d.]+, but its items add up to", texts(bundle)
    )
    assert re.search(r"comparisons: magnitude, magnitude_pct, corrected is .* but the mean of its scores is", texts(bundle))


def test_scores_and_items_changed_together_differ_from_the_embedding(bundle, data):
    """A forger who edits all three tables consistently is met by the embedding."""
    for name, column in (("items", "numerator"), ("scores", "value"), ("comparisons", "value")):
        change_table(bundle, name, lambda table, column=column: table.__setitem__(column, table[column] * 0.5))
    sign(bundle)
    assert texts(bundle) == ""
    assert re.search(
        r"magnitude: magnitude_pct: value is [\d.]+, scored again it is [\d.]+ \(corrected, \w+, seed 4\d\); tolerance",
        texts(bundle, data),
    )


def test_a_verdict_or_a_difference_of_ones_own_making_is_found(bundle, made):
    original = (bundle / "comparisons.parquet").read_bytes()
    change_table(bundle, "comparisons", lambda table: table.__setitem__("verdict", "better"))
    sign(bundle)
    assert re.search(
        r"comparisons: magnitude_pct \(corrected\) is 'better' with a difference of -[\d.]+ and q = ", texts(bundle)
    )
    (bundle / "comparisons.parquet").write_bytes(original)

    def better(table: pd.DataFrame) -> None:
        rows = table["verdict"].isin(["worse", "tied", "cannot tell"]) & (table["metric"] == "magnitude_pct")
        assert rows.any()
        table.loc[rows, ["difference", "q", "verdict"]] = 12.0, 0.01, "better"

    change_table(bundle, "comparisons", better)
    sign(bundle)
    assert texts(bundle) == ""
    baseline = [read_bundle(path) for path in find_bundles(made / "bundles/pca")]
    found = [one.text for one in verify(read_bundle(bundle), None, baseline) if one.status == FAILED]
    assert len(found) == 1
    assert re.search(r"magnitude_pct \(corrected\) is stated to differ by 12 .* but its items by -[\d.]+", found[0])


def test_the_items_of_a_bundle_and_its_baseline_are_indexed_once(made, monkeypatch):
    indexed = []
    index = items._stretches
    monkeypatch.setattr(items, "_stretches", lambda path: indexed.append(path) or index(path))
    bundle, baseline = (read_bundle(find_bundles(made / "bundles" / name)[0]) for name in ("mine", "pca"))
    assert any(one.what == "differences" and one.status == OK for one in verify(bundle, None, [baseline]))
    assert indexed == [one.folder / "items.parquet" for one in (bundle, baseline)]


def test_a_swapped_embedding_is_found_with_and_without_its_data(bundle, data):
    with np.load(bundle / "embedding.npz") as arrays:
        ids, values = arrays["cell_id"], arrays["embedding"]
    np.savez(bundle / "embedding.npz", cell_id=ids, embedding=values[::-1])
    sign(bundle)
    assert "embedding.npz is not the embedding that was scored" in texts(bundle)
    manifest = json.loads((bundle / MANIFEST).read_text())
    part = manifest["embeddings"][0] | {"sha256": sha256(bundle / "embedding.npz")}
    sign(bundle, embeddings=[part])
    assert texts(bundle) == ""
    assert "scored again it is" in texts(bundle, data)


def test_another_data_set_other_splits_and_missing_seeds_are_named(bundle, made, tmp_path):
    other = made_screen(tmp_path / "other", seed=7)
    assert "data: the cells are not those of the bundle" in texts(bundle, prepared_data(other.folder))
    tables = Path(shutil.copytree(made / "data/tiny/tables", tmp_path / "splits/tables"))
    splits = pd.read_parquet(tables / "splits.parquet")
    splits["validation_43"] = False
    splits.to_parquet(tables / "splits.parquet")
    assert texts(bundle, prepared_data(tables)) == "splits: other cells are in the splits of the seeds 43"
    facts = json.loads((tables / "dataset.json").read_text())
    write_json(tables / "dataset.json", facts | {"unexpressed_threshold": 0.5, "title": "Another"})
    assert "unexpressed_threshold is '0.15' in the bundle, 0.5 here" in texts(bundle, prepared_data(tables))
    assert "title is" in texts(bundle, prepared_data(tables), NOTE)


def test_other_rules_fail_and_other_code_is_a_note(bundle, data):
    tasks = json.loads((bundle / MANIFEST).read_text())["tasks"]
    sign(bundle, tasks=tasks | {"magnitude": tasks["magnitude"] | {"version": "1", "rules": "0123456789ab"}})
    found = [one for one in verify(read_bundle(bundle), data) if one.status == FAILED]
    assert [one.what for one in found] == ["protocol of magnitude"]
    assert "version 1 (rules 0123456789ab); here it is version 3" in found[0].text
    assert "Use plumbline" in found[0].advice
    sign(bundle, tasks=tasks | {"magnitude": tasks["magnitude"] | {"code": "0123456789ab"}, "recal": tasks["magnitude"]})
    assert f"magnitude (0123456789ab, here {digests.task_code('magnitude')})" in texts(bundle, data, NOTE)
    assert "protocol of recal: this version of plumbline has no such task" in texts(bundle, data, UNVERIFIED)


def test_a_version_is_said_to_be_stated_unless_the_code_is_that_of_this_one(bundle):
    def version() -> tuple[str, str]:
        return next((found.status, found.text) for found in checks.check_bundle(read_bundle(bundle)) if found.what == "version")

    tasks_ = read_bundle(bundle).manifest["tasks"]
    assert version()[0] == NOTE, "this run recorded no code"
    tasks_ = {name: about | {"code": digests.task_code(name)} for name, about in tasks_.items()}
    sign(bundle, tasks=tasks_)
    assert version() == (OK, f"plumbline {pl.__version__}: the code recorded for every task is the one here")
    sign(bundle, plumbline="9.9.9")
    status, text = version()
    assert status == NOTE
    assert text == f"plumbline 9.9.9 is stated, but the code recorded for every task is that of plumbline {pl.__version__} here"
    first = next(iter(tasks_))
    sign(bundle, tasks=tasks_ | {first: tasks_[first] | {"code": "000000000000"}}, plumbline="9.9.9")
    assert "plumbline 9.9.9 is stated, not proven" in version()[1]


def test_what_cannot_be_verified_is_said(bundle, made):
    assert "scores: no data set was given" in texts(bundle, None, UNVERIFIED)
    tasks = json.loads((bundle / MANIFEST).read_text())["tasks"]
    about = {"version": load("reconstruction").version, "rules": rules_digest(load("reconstruction"))}
    sign(bundle, tasks=tasks | {"reconstruction": tasks["magnitude"] | about})
    tables = prepared_data(made / "data/tiny/tables")
    assert "reconstruction: needs counts" in texts(bundle, Data(tables=tables.tables, counts=None), UNVERIFIED)


def test_the_tolerance_is_a_share_of_the_metrics_values():
    task = load("magnitude")
    row = {"task": task.name, "metric": "magnitude_pct", "protocol": "corrected", "postprocess": "none", "seed": 42}
    row |= {"status": "ok", "n": 9, "value": 50.0, "ci_low": 40.0, "ci_high": 60.0}
    stated = pd.DataFrame([row])
    for gap, status in ((45 * TOLERANCE, OK), (55 * TOLERANCE, FAILED)):
        (one,) = compared_scores(task, stated, stated.assign(ci_low=40.0 + gap))
        assert one.status == status
    (one,) = compared_scores(task, stated, stated.assign(value=50.9), tolerance=0.02)
    assert one.status == OK
    for change, text in (({"n": 8}, "n is 9, scored again it is 8"), ({"status": "failed"}, "status is 'ok'")):
        (one,) = compared_scores(task, stated, stated.assign(**change))
        assert text in one.text
    (one,) = compared_scores(task, stated, pd.concat([stated, stated.assign(seed=43)]))
    assert "1 scores are missing in the bundle" in one.text


def test_an_end_may_move_by_a_share_of_its_interval_and_a_forged_one_fails():
    """By 0.0001 as measured under another processor: an interval of 28 % about a score of 0. No stated number is a scale."""
    task = load("magnitude")
    row = {"task": task.name, "metric": "magnitude_fdr_pct", "protocol": "corrected", "postprocess": "none", "seed": 42}
    row |= {"status": "ok", "n": 12, "value": 0.0, "ci_low": 0.0, "ci_high": 28.0}
    again = pd.DataFrame([row])
    honest = [{"ci_high": 28.0001}, {"value": 0.0001}, {"ci_low": 0.0001}]
    forged = [{name: change[name] + 0.001 for name in change} for change in honest]
    forged += [{"ci_high": 27.0}, {"ci_high": 1e9}, {"value": 1e9, "ci_high": 27.9}, {"ci_low": np.nan, "ci_high": np.nan}]
    for changes, status in ((honest, OK), (forged, FAILED)):
        for change in changes:
            (one,) = compared_scores(task, again.assign(**change), again)
            assert one.status == status, change
    nowhere = again.assign(value=np.nan, ci_low=np.nan, ci_high=np.nan)
    assert [one.status for one in compared_scores(task, nowhere, nowhere)] == [OK]
