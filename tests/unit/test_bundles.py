"""Bundles: what is written can be verified; what was changed, swapped or made by an enemy is refused with a reason."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_run import DRAWS, ROOT, SEEDS, TASKS, made_run, made_screen

import plumbline as pl
from plumbline.benchmark.verifying import TOLERANCE, Data, compared_scores, prepared_data, verify
from plumbline.bundles import board, checks, digests, moving, runs, submission, writing
from plumbline.bundles.comparing import changes, compare_entries, entries_of, judged, pairs_of
from plumbline.bundles.findings import FAILED, NOTE, OK, UNVERIFIED
from plumbline.bundles.manifest import MANIFEST, find_bundles, read_bundle
from plumbline.common.errors import UserError
from plumbline.common.files import sha256, write_json
from plumbline.scoring.rules import rules_digest
from plumbline.tasks import load


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data/tiny, run (its output) and bundles (of pca, random and 'mine')."""
    folder = tmp_path_factory.mktemp("made")
    screen = made_screen(folder)
    run = runs.read_output(made_run(screen, folder / "run"))
    for dataset, variant in run.pairs:
        contents = runs.contents_of(run, dataset, variant)
        writing.write_bundle(submission.place_of(folder / "bundles", contents.model, dataset), contents)
    return folder


@pytest.fixture(scope="module")
def data(made) -> Data:
    return prepared_data(made / "data/tiny")


@pytest.fixture
def bundle(made, tmp_path) -> Path:
    """A copy of the bundle of 'mine', to be damaged."""
    (source,) = find_bundles(made / "bundles/mine")
    return Path(shutil.copytree(source, tmp_path / "bundle"))


def sign(bundle: Path, **changes) -> None:
    """What a careful forger does: the manifest again states the files that are there."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    files = {path.name: sha256(path) for path in bundle.iterdir() if path.name != MANIFEST}
    write_json(bundle / MANIFEST, {**manifest, "files": files, **changes})


def change_table(bundle: Path, name: str, change) -> None:
    table = pd.read_parquet(bundle / f"{name}.parquet")
    change(table)
    table.to_parquet(bundle / f"{name}.parquet", index=False)


def texts(bundle: Path, data: Data | None = None, status: str = FAILED) -> str:
    """The findings of a status, one per line."""
    return "\n".join(f"{one.what}: {one.text}" for one in verify(read_bundle(bundle), data) if one.status == status)


def test_every_bundle_of_a_run_is_verified_to_the_last_digit(made, data):
    bundles = [read_bundle(path) for path in find_bundles(made / "bundles")]
    assert sorted(bundle.variant for bundle in bundles) == ["mine", "pca", "random"]
    for bundle in bundles:
        findings = verify(bundle, data)
        assert {one.status for one in findings} == {OK}
        scored = [one for one in findings if ": " in f"{one.what}: " and one.what.partition(":")[0] in TASKS]
        assert len(scored) == 4
        assert all("largest deviation 0 " in one.text for one in scored)
        assert (len(bundle.manifest["embeddings"]) == 2) == (bundle.variant == "pca")  # one per seed


def test_the_manifest_identifies_what_was_scored_and_no_machine(made):
    (path,) = find_bundles(made / "bundles/pca")
    manifest = read_bundle(path).manifest
    assert manifest["settings"] == {"baseline": "pca", "seeds": SEEDS, "protocols": ["corrected", "paper"], "n_draws": DRAWS,
                                    "n_boot": DRAWS}  # fmt: skip
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
    assert {one.status for one in verify(read_bundle(saved), prepared_data(made / "data/tiny"))} == {OK}
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
    assert "version 1 (rules 0123456789ab); here it is version 2" in found[0].text
    assert "Use plumbline" in found[0].advice
    sign(bundle, tasks=tasks | {"magnitude": tasks["magnitude"] | {"code": "0123456789ab"}, "recal": tasks["magnitude"]})
    assert f"magnitude (0123456789ab, here {digests.task_code('magnitude')})" in texts(bundle, data, NOTE)
    assert "protocol of recal: this version of plumbline has no such task" in texts(bundle, data, UNVERIFIED)


def test_what_cannot_be_verified_is_said(bundle, made):
    assert "scores: no data set was given" in texts(bundle, None, UNVERIFIED)
    tasks = json.loads((bundle / MANIFEST).read_text())["tasks"]
    about = {"version": load("reconstruction").version, "rules": rules_digest(load("reconstruction"))}
    sign(bundle, tasks=tasks | {"reconstruction": tasks["magnitude"] | about})
    tables = prepared_data(made / "data/tiny/tables")
    assert "reconstruction: needs counts" in texts(bundle, Data(tables=tables.tables, counts=None), UNVERIFIED)


def test_the_tolerance_is_a_share_of_the_metrics_range():
    task = load("magnitude")
    row = {"task": task.name, "metric": "magnitude_pct", "protocol": "corrected", "postprocess": "none", "seed": 42, "status": "ok",
           "n": 9, "value": 50.0, "ci_low": 40.0, "ci_high": 60.0}  # fmt: skip
    stated = pd.DataFrame([row])
    for gap, status in ((90 * TOLERANCE, OK), (110 * TOLERANCE, FAILED)):
        (one,) = compared_scores(task, stated, stated.assign(ci_low=40.0 + gap))
        assert one.status == status
    (one,) = compared_scores(task, stated, stated.assign(value=51.0), tolerance=0.02)
    assert one.status == OK
    for change, text in (({"n": 8}, "n is 9, scored again it is 8"), ({"status": "failed"}, "status is 'ok'")):
        (one,) = compared_scores(task, stated, stated.assign(**change))
        assert text in one.text
    (one,) = compared_scores(task, stated, pd.concat([stated, stated.assign(seed=43)]))
    assert "1 scores are missing in the bundle" in one.text


# --- hostile bundles ---------------------------------------------------------------------------------------------------


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_pickle_is_loaded(bundle, tmp_path):
    ids = np.array(["a"] * 133)
    np.savez(bundle / "embedding.npz", cell_id=ids, embedding=np.array([[Bomb(tmp_path / "run")]] * 133, dtype=object))
    sign(bundle)
    assert "holds Python objects, which are never loaded" in texts(bundle)
    (bundle / "embedding.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "run")))
    sign(bundle)
    assert "embedding.npz cannot be read" in texts(bundle)
    assert not (tmp_path / "run").exists()


def test_an_array_that_states_more_than_it_holds_takes_no_memory(bundle):
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (133, 60000), }".ljust(117) + b"\n"
    with np.load(bundle / "embedding.npz") as arrays:
        ids = arrays["cell_id"]
    np.savez(bundle / "embedding.npz", cell_id=ids)
    with zipfile.ZipFile(bundle / "embedding.npz", "a") as archive:
        archive.writestr("embedding.npy", header)
    sign(bundle)
    assert "embedding.npy states 31,920,000 bytes and holds 0" in texts(bundle).replace("holds 128", "holds 0")


@pytest.mark.parametrize("name", ["../outside.parquet", "/etc/passwd", "run.pkl", "a/scores.parquet", ".hidden"])
def test_a_manifest_names_files_of_a_bundle_only(bundle, name):
    manifest = json.loads((bundle / MANIFEST).read_text())
    write_json(bundle / MANIFEST, manifest | {"files": manifest["files"] | {name: "0" * 64}})
    with pytest.raises(UserError, match="is not a file of a bundle"):
        read_bundle(bundle)


def test_links_folders_and_strangers_are_refused(bundle, tmp_path):
    (bundle / "items.parquet").rename(tmp_path / "items.parquet")
    (bundle / "items.parquet").symlink_to(tmp_path / "items.parquet")
    (bundle / "more").mkdir()
    (bundle / "setup.py").touch()
    (bundle / "embedding.7.npz").touch()
    found = texts(bundle)
    assert "items.parquet: a link or folder" in found
    assert "more: a link or folder" in found
    assert "setup.py is not a file of a bundle" in found
    assert "embedding.7.npz is not listed in the manifest" in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bundle_version": "2.0.0"}, r"bundle version '2.0.0', but this plumbline reads 1\.\d"),
        ({"model": {"variant": "../../x"}}, "model.model is missing"),
        (
            {"dataset": {"name": "a/b", "n_cells": 3, "cells": "", "genes": "", "splits": {}}},
            "dataset.name is 'a/b', not a plain name",
        ),
        ({"embeddings": ["x"]}, "embeddings. is not an object"),
        ({"settings": 3}, "settings. is not an object"),
    ],
)
def test_a_manifest_of_another_shape_is_refused(bundle, change, message):
    manifest = json.loads((bundle / MANIFEST).read_text())
    write_json(bundle / MANIFEST, manifest | change)
    with pytest.raises(UserError, match=message):
        read_bundle(bundle)


def test_a_manifest_that_is_no_json_or_too_large_is_refused(bundle):
    for content, message in ((b"[" * 100_000, "cannot be read"), (b" " * 10_000_001, "more than a manifest can need")):
        (bundle / MANIFEST).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_bundle(bundle)


def test_a_table_of_another_model_or_shape_is_refused(bundle):
    change_table(bundle, "scores", lambda table: table.__setitem__("variant", "better"))
    sign(bundle)
    assert "scores.parquet: variant is 'better', but 'mine' in the manifest" in texts(bundle)
    pd.DataFrame({"a": [[1]]}).to_parquet(bundle / "scores.parquet")
    sign(bundle)
    assert "scores.parquet has no column 'dataset'" in texts(bundle)


# --- comparing ---------------------------------------------------------------------------------------------------------


def table_of(a: Path, b: Path) -> pd.DataFrame:
    sides = entries_of(a), entries_of(b)
    return judged(pd.concat([compare_entries(sides[0][one](), sides[1][other](), 200) for one, other in pairs_of(*sides)]))


def test_a_run_equals_its_bundles(made):
    table = table_of(made / "run", made / "bundles")
    assert len(table) == 24
    assert set(table["evidence"]) == {"identical"}
    a, b = entries_of(made / "run"), entries_of(made / "bundles")
    assert [change for pair in a for change in changes(a[pair]().manifest, b[pair]().manifest)] == []


def test_a_difference_beyond_noise_comes_first_and_what_changed_is_said(made, bundle):
    """Every unit of one metric is moved by the same amount; of another, a single unit."""

    def moved(table: pd.DataFrame) -> None:
        every = table["metric"] == "magnitude_pct"
        table.loc[every, "numerator"] = table.loc[every, "numerator"] + 7 * table.loc[every, "denominator"]
        one = table.index[(table["metric"] == "consistency_pct") & (table["seed"] == 42)][:1]
        table.loc[one, "numerator"] += 0.01

    change_table(bundle, "items", moved)
    sign(bundle, settings=read_bundle(bundle).manifest["settings"] | {"n_draws": 999})
    table = table_of(made / "bundles/mine", bundle)
    assert table["evidence"].iloc[0] == "changed"
    assert set(table.loc[table["evidence"] == "changed", "metric"]) == {"magnitude_pct"}
    assert set(table.loc[table["metric"] == "magnitude_fdr_pct", "evidence"]) == {"identical"}
    sides = [next(iter(entries_of(path).values()))().manifest for path in (made / "bundles/mine", bundle)]
    assert list(changes(*sides)) == [("settings.n_draws", str(DRAWS), "999")]


def test_one_model_is_compared_with_another(made):
    table = table_of(made / "bundles/mine", made / "bundles/random")
    assert set(table["variant"]) == {"mine / random"}
    row = table[(table["metric"] == "magnitude_pct") & (table["protocol"] == "corrected")].iloc[0]
    assert row["difference"] == pytest.approx(row["b"] - row["a"])


# --- the checklist, the site ------------------------------------------------------------------------------------------


def test_the_checklist_is_that_of_the_issue_template(made):
    import yaml

    template = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/submission.yml").read_text())
    (boxes,) = [part["attributes"]["options"] for part in template["body"] if part["type"] == "checkboxes"]
    (path,) = find_bundles(made / "bundles/mine")
    items = submission.checklist(read_bundle(path))
    assert [box["label"] for box in boxes] == [item.text for item in items]
    assert {item.name for item in items if not item.met} == {"seeds", "draws", "code", "licence", "corpus"}


def test_a_small_bundle_is_for_comparison_and_says_so(made, tmp_path):
    run = runs.read_output(made / "run")
    folder = writing.write_bundle(tmp_path / "small", runs.contents_of(run, "tiny", "mine"), small=True)
    assert not (folder / "embedding.npz").exists()
    assert (folder / "items.parquet").stat().st_size < (made / "run/items.parquet").stat().st_size
    assert texts(folder, prepared_data(made / "data/tiny")) == ""
    assert "embedding: not in the bundle" in texts(folder, None, UNVERIFIED)
    assert set(table_of(folder, made / "bundles/mine")["evidence"]) == {"identical"}


def test_a_folder_with_other_files_is_not_cleared(made, tmp_path):
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(UserError, match=r"holds 'thesis.doc', which is not part of a bundle"):
        writing.write_bundle(tmp_path, runs.contents_of(runs.read_output(made / "run"), "tiny", "mine"))


def test_the_digest_of_the_code_follows_imports(tmp_path):
    root = Path(shutil.copytree(ROOT / "bin", tmp_path / "bin", ignore=shutil.ignore_patterns("__pycache__", "models")))
    before = {task: digests.task_code(task, root) for task in ("magnitude", "recall")}
    assert before["magnitude"] != before["recall"]
    digests.task_code.cache_clear()
    path = root / "plumbline/metrics/recall.py"
    path.write_text(path.read_text() + "\n# changed\n")
    after = {task: digests.task_code(task, root) for task in before}
    assert {task for task in before if before[task] != after[task]} == {"recall"}
    (root / "evaluate_embedding.py").unlink()
    digests.task_code.cache_clear()
    assert digests.task_code("recall", root) == ""


def test_the_shipped_bundles_are_sound_and_small():
    paths = find_bundles(ROOT / "assets/reference")
    found = board.read_board([ROOT / "assets/reference"])
    assert found.left_out == []
    assert {row["dataset"] for row in found.submissions} == {"vcc_h1_demo", "kang_demo", "simulated_corum"}
    assert all("embedding" in read_bundle(path).manifest["left_out"] for path in paths)
    assert sum(file.stat().st_size for path in paths for file in path.iterdir()) < 1_500_000


def test_the_commands_end_with_the_code_that_they_promise(made, tmp_path):
    """submit, verify and splits as a user starts them; one process each, as an import costs seconds."""
    driver = "import sys, runpy; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[1]); del sys.argv[1]; runpy.run_path(sys.argv[0], run_name='__main__')"

    def start(script: str, *words) -> tuple[int, str]:
        command = [sys.executable, "-c", driver, str(ROOT / "bin" / script), str(ROOT / "bin"), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    code, text = start("submit_run.py", made / "run", "--models", "mine", "--revision", "r1", "--code", "https://example.org")
    assert code == 0, text
    assert "for a submission: At least 5 split seeds" in text
    code, text = start("verify_bundle.py", tmp_path / "results", "--data", made / "data/tiny", "--threads", 1)
    assert (code, text.splitlines()[-1]) == (0, "verified")
    (tmp_path / "results/mine/r1/tiny/embedding.json").unlink()
    code, text = start("verify_bundle.py", tmp_path / "results")
    assert (code, text.splitlines()[-1]) == (1, "FAILED")
