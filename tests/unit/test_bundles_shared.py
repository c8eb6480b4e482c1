"""Runs and bundles compared, submitted and checked; splits exported and imported."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest
from made_run import DRAWS, ROOT, SEEDS, change_table, exit_code, sign, texts

import compare_runs
import share_splits
import submit_run
import verify_bundle
from plumbline.benchmark.verifying import prepared_data, verify
from plumbline.bundles import board, digests, files, runs, splits, submission, writing
from plumbline.bundles.comparing import changes, compare_entries, entries_of, judged, pairs_of
from plumbline.bundles.findings import NOTE, OK, UNVERIFIED
from plumbline.bundles.manifest import find_bundles, read_bundle
from plumbline.common.errors import UserError
from plumbline.embedding.stored import StoredArray


def table_of(a: Path, b: Path) -> pd.DataFrame:
    sides = entries_of(a), entries_of(b)
    return judged(pd.concat([compare_entries(sides[0][one](), sides[1][other](), 200) for one, other in pairs_of(*sides)]))


def test_a_run_equals_its_bundles(made):
    table = table_of(made / "run", made / "bundles")
    assert len(table) == 30
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
        last = table["metric"] == "magnitude_fdr_pct"  # as another library does to all units: certain, and no change
        table.loc[last, "numerator"] += 1e-8 * table.loc[last, "denominator"]

    change_table(bundle, "items", moved)
    sign(bundle, settings=read_bundle(bundle).manifest["settings"] | {"n_draws": 999})
    table = table_of(made / "bundles/mine", bundle)
    assert table["evidence"].iloc[0] == "changed"
    assert set(table.loc[table["evidence"] == "changed", "metric"]) == {"magnitude_pct"}
    rounded = table[(table["metric"] == "magnitude_fdr_pct") & table["a"].notna()]
    assert set(zip(rounded["evidence"], rounded["note"], strict=True)) == {("identical", "but for rounding")}
    sides = [next(iter(entries_of(path).values()))().manifest for path in (made / "bundles/mine", bundle)]
    assert list(changes(*sides)) == [("settings.n_draws", str(DRAWS), "999")]


def test_one_model_is_compared_with_another(made):
    table = table_of(made / "bundles/mine", made / "bundles/random")
    assert set(table["variant"]) == {"mine / random"}
    row = table[(table["metric"] == "magnitude_pct") & (table["protocol"] == "corrected")].iloc[0]
    assert row["difference"] == pytest.approx(row["b"] - row["a"])


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


def test_no_item_table_is_read_whole(made, tmp_path, monkeypatch):
    """Five seeds of 9,866 perturbations are 26 million rows, which took more than 10 GB as a table of pandas."""
    whole = parquet.read_table

    def refuse(path, *args, **kwargs):
        assert "items" not in str(path), f"{path} was read whole"
        return whole(path, *args, **kwargs)

    monkeypatch.setattr(parquet, "read_table", refuse)
    monkeypatch.setattr(pd, "read_parquet", lambda path, **how: refuse(path, **how).to_pandas())
    monkeypatch.setattr(parquet.ParquetFile, "read", lambda *_, **__: pytest.fail("a file was read whole"))
    run = runs.read_output(made / "run")
    for name in ("pca", "mine"):
        writing.write_bundle(tmp_path / name, runs.contents_of(run, "tiny", name))
    found = verify(read_bundle(tmp_path / "mine"), None, [read_bundle(tmp_path / "pca")])
    assert {one.status for one in found} == {OK, UNVERIFIED, NOTE}
    assert "differences to pca follow" in " ".join(one.text for one in found)
    assert table_of(tmp_path / "pca", tmp_path / "mine")["difference"].notna().any()


def test_an_embedding_is_checked_where_it_lies(made):
    """One of two million cells in 1,280 dimensions is 10 GB."""
    bundle = read_bundle(find_bundles(made / "bundles/mine")[0])
    values = files.open_embedding_of(bundle, bundle.manifest["embeddings"][0]).values
    assert isinstance(values, StoredArray)
    assert values.shape == (bundle.manifest["dataset"]["n_cells"], 6)


def test_rows_that_alternate_between_scores_are_no_bundle(bundle, monkeypatch):
    monkeypatch.setattr(files, "MOST_STRETCHES", 3)
    with pytest.raises(UserError, match="do not lie next to each other"):
        files.item_table(read_bundle(bundle))


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
    assert len(found.submissions) == len(paths)
    assert {row["dataset"] for row in found.submissions} == {"vcc_h1_demo", "kang_demo", "simulated_corum"}
    assert {row["variant"] for row in found.submissions} == {"pca", "scvi", "random"}
    assert all("embedding" in read_bundle(path).manifest["left_out"] for path in paths)
    assert sum(file.stat().st_size for path in paths for file in path.iterdir()) < 1_500_000


def test_the_commands_end_with_the_code_that_they_promise(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--models", "mine", "--revision", "r1", "--code", "https://example.org"]
    assert exit_code(monkeypatch, submit_run, made / "run", *options) == 0
    assert "for a submission: At least 5 split seeds" in capsys.readouterr().out
    data = ["--data", made / "data/tiny", "--threads", 1]
    for words, code, last in (
        (data, 0, "verified"),
        ([], 2, "not everything could be verified"),
        ([*data, "--checklist"], 1, "FAILED"),
    ):
        assert exit_code(monkeypatch, verify_bundle, "results", *words) == code
        assert capsys.readouterr().out.splitlines()[-1] == last
    assert exit_code(monkeypatch, compare_runs, "results", made / "run", "--output", "table.tsv") == 0
    shown = capsys.readouterr().out
    assert "only in B: pca on tiny" in shown
    assert "model.revision: r1 -> " in shown
    assert "10 scores: 10 identical" in shown
    assert len(pd.read_csv("table.tsv", sep="\t")) == 10
    (tmp_path / "results/mine/r1/tiny/embedding.json").unlink()
    assert exit_code(monkeypatch, verify_bundle, "results", *data) == 1
    assert exit_code(monkeypatch, submit_run, made / "run", "--revision", "r1") == 1
    assert "need one model: add --models NAME" in capsys.readouterr().err
    assert exit_code(monkeypatch, submit_run, made / "run", "--output", made / "data/../run") == 1
    assert "Name another one: --output bundles" in capsys.readouterr().err
    assert exit_code(monkeypatch, submit_run, made / "run", "--models", "mime") == 1
    assert "Did you mean 'mine'" in capsys.readouterr().err


def test_splits_are_imported_by_cell_id_and_scored(made, tmp_path, monkeypatch, bundle):
    file, source = tmp_path / "tiny.splits.tsv.gz", made / "data/tiny"
    assert exit_code(monkeypatch, share_splits, "export", source, "--output", file) == 0
    shuffled = pd.read_csv(file, sep="\t", dtype=str).sample(frac=1, random_state=0)
    other = {f"{part}_{a}": f"{part}_{b}" for part in splits.PARTS for a, b in ((42, 43), (43, 42))}
    swapped = shuffled.rename(columns=other)
    for name, table in (("same", shuffled), ("swapped", swapped)):
        table.to_csv(tmp_path / f"{name}.tsv", sep="\t", index=False)
        words = ["import", tmp_path / f"{name}.tsv", "--data", source, "--output", tmp_path / name]
        assert exit_code(monkeypatch, share_splits, *words) == 0
    assert texts(bundle, prepared_data(tmp_path / "same")) == ""
    assert "other cells are in the splits of the seeds 42, 43" in texts(bundle, prepared_data(tmp_path / "swapped"))
    assert (tmp_path / "same/counts.h5ad").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.iloc[1:], r"1 missing, 0 extra, such as"),
        (lambda table: table.assign(train_42="1"), "seed 42 has cells that are in train and in a test part"),
        (lambda table: table.assign(test1_43="yes"), "the column test1_43 holds other values than 0 and 1"),
        (lambda table: table.drop(columns="test2_42"), "has no column test2_42"),
        (lambda table: table.assign(validation_42="1"), "validation cells that are in no test part"),
        (lambda table: table.assign(train_42="0"), "has no train cells"),
        (lambda table: table.assign(fold="1"), "the column 'fold' is unknown"),
        (
            lambda table: table.assign(test2_42=table[["test1_42", "test2_42"]].max(axis=1)),
            "seed 42 has perturbed cells that are in test1 and in test2",
        ),
        (
            lambda table: table.assign(test1_42="0", test2_42=np.where(table["test1_42"] == "1", "1", table["test2_42"])),
            "in train and in test2, which is for perturbations that train lacks",
        ),
    ],
)
def test_a_file_that_is_no_split_of_these_cells_is_refused(made, tmp_path, change, message):
    splits.export_splits(made / "data/tiny/tables", SEEDS, tmp_path / "splits.tsv")
    change(pd.read_csv(tmp_path / "splits.tsv", sep="\t", dtype=str)).to_csv(tmp_path / "splits.tsv", sep="\t", index=False)
    with pytest.raises(UserError, match=message):
        splits.import_splits(tmp_path / "splits.tsv", made / "data/tiny", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_import_that_is_cut_short_leaves_no_data_set_with_other_splits(made, tmp_path, monkeypatch):
    splits.export_splits(made / "data/tiny/tables", SEEDS, tmp_path / "splits.tsv")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(splits, "_link", full)
    with pytest.raises(OSError, match="No space left"):
        splits.import_splits(tmp_path / "splits.tsv", made / "data/tiny", tmp_path / "deep/new")
    assert list((tmp_path / "deep").iterdir()) == []
