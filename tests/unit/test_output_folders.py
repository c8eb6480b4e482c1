"""Output folders of other versions, of runs that did not end, and copied in part: what their readers say."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from made_run import SEEDS, exit_code

import compare_runs
import share_splits
import show_gene
import submit_run
from plumbline.bundles import runs, splits
from plumbline.bundles.comparing import compare_entries, entries_of
from plumbline.common.errors import UserError
from plumbline.common.files import write_json, write_parquet

LACKING = [("about.json", key) for key in ("", "n_draws", "baseline", "models", "tasks.consistency.rules", "tasks.magnitude")]
LACKING += [("scores.parquet", "seed"), ("comparisons.parquet", "experiment"), ("items.parquet", "unit_kind"), ("data", "")]
LACKING += [(f"{name}.parquet", "") for name in ("scores", "comparisons", "items")] + [("steps.tsv", ""), ("cost.tsv", "")]


def without(run: Path, name: str, part: str) -> None:
    """Take a key, a column, or the whole file away."""
    path = run / name
    if not part:
        (shutil.rmtree if path.is_dir() else Path.unlink)(path)
    elif path.suffix == ".parquet":
        pd.read_parquet(path).drop(columns=part).to_parquet(path)
    else:
        *outer, key = part.split(".")
        about = inner = json.loads(path.read_text())
        for step in outer:
            inner = inner[step]
        del inner[key]
        path.write_text(json.dumps(about))


def refusals(monkeypatch, capsys, made: Path, run: Path) -> list[str]:
    """What the readers of an output folder say to it: one line each, of those that refuse it; none fails in another way."""
    words = {show_gene: ("--run", run, "HDAC2"), compare_runs: (made / "run", run, "--n-boot", 20)}
    words[submit_run] = (run, "--output", run.parent / "bundles")
    ends = [exit_code(monkeypatch, module, *given) for module, given in words.items()]
    lines = capsys.readouterr().err.splitlines()
    assert set(ends) <= {0, 1}
    assert len(lines) == sum(ends)
    return lines


@pytest.mark.parametrize(("name", "part"), LACKING)
def test_a_run_of_another_version_or_not_whole_is_refused_by_what_it_lacks(made, tmp_path, monkeypatch, capsys, name, part):
    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    without(run, name, part)
    lines = refusals(monkeypatch, capsys, made, run)
    assert lines
    assert all(name.split(".")[0] in line and part.split(".")[-1] in line and "again with -resume" in line for line in lines)


@pytest.mark.parametrize("name", ["about.json", "scores.parquet", "comparisons.parquet", "items.parquet", "cost.tsv"])
def test_a_file_that_was_copied_in_part_is_named(made, tmp_path, monkeypatch, capsys, name):
    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    whole = (run / name).read_bytes()
    (run / name).write_bytes(b"" if name.endswith("tsv") else whole[: len(whole) // 2])
    lines = refusals(monkeypatch, capsys, made, run)
    assert len(lines) == 3
    assert all(str(run / name) in line for line in lines)


def test_what_a_later_run_left_beside_older_scores_is_not_bundled(made, tmp_path):
    """Embeddings and data sets are published when they are made, scores at the end: a run into the same folder that is
    stopped in between leaves new ones beside the old scores."""
    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    contents = partial(runs.contents_of, runs.read_output(run), "tiny")
    contents("mine")
    (path,) = run.glob("embeddings/tiny.mine*.json")
    write_json(path, json.loads(path.read_text()) | {"seconds": 12.5})
    with pytest.raises(UserError, match=r"tiny.mine.npz is not what .*scores.parquet scored: a later run into this folder"):
        contents("mine")
    facts = run / "data/tiny/tables/dataset.json"
    write_json(facts, json.loads(facts.read_text()) | {"min_counts": 99})
    with pytest.raises(UserError, match=r"tables is not what .*scores.parquet scored"):
        contents("pca")


def test_a_folder_without_an_end_is_told_from_one_that_is_no_run(made, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    for number, state in enumerate(
        ("does not exist", "it has no about.json. Give the --outdir", "its run has not ended, or a part of it was")
    ):
        lines = refusals(monkeypatch, capsys, made, run)
        assert [state in line or "is not a folder. A bundle" in line for line in lines] == [True] * 3
        (run, run / "data", run / "embeddings")[number].mkdir()


def test_splits_of_other_cells_and_damaged_tables_are_refused(made, tmp_path, monkeypatch, capsys):
    source = Path(shutil.copytree(made / "data/tiny", tmp_path / "tiny"))
    splits.export_splits(source / "tables", SEEDS, tmp_path / "splits.tsv")
    write_parquet(source / "tables/splits.parquet", pd.DataFrame({f"{part}_42": [True] for part in splits.PARTS}))
    with pytest.raises(UserError, match=r"splits.parquet has 1 rows, cells.parquet \d+: they are of different runs"):
        splits.export_splits(source / "tables", [42], tmp_path / "other.tsv")
    cells = source / "tables/cells.parquet"
    cells.write_bytes(cells.read_bytes()[:-100])
    for words in (["export", source], ["import", tmp_path / "splits.tsv", "--data", source]):
        assert exit_code(monkeypatch, share_splits, *words, "--seeds", 42, "--output", tmp_path / "new.tsv") == 1
        assert "cells.parquet cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "new.tsv").exists()


def test_a_score_without_units_is_identical_where_its_value_is(made):
    """A description of a model has no items: a run differed from itself in it."""
    (one,) = [make() for (_, variant), make in entries_of(made / "run").items() if variant == "mine"]
    bare = replace(one, items=one.items.of(task="none"))
    assert set(compare_entries(bare, bare, 20)["evidence"]) == {"identical"}
    other = replace(bare, scores=bare.scores.assign(value=bare.scores["value"] + 1))
    assert "too few units" in set(compare_entries(bare, other, 20)["evidence"])
