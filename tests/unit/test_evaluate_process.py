"""EVALUATE as a process: what it loads (a run starts hundreds, most of a small one's time is imports), and its seeds apart."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plumbline import tasks
from plumbline.benchmark.evaluation import Scoring, scored
from plumbline.embedding.contract import write_embedding
from plumbline.genes.relationships import known_pairs
from plumbline.scoring.evaluation import score_rows
from plumbline.summary.steps import steps

BIN = Path(__file__).resolve().parents[2] / "bin"
HEAVY = ("torch", "scipy.stats", "sklearn", "scanpy", "anndata", "faiss", "numba", "h5py", "matplotlib", "pandas")
SHOW = "import json, sys; {}; print(json.dumps([name for name in {!r} if name in sys.modules]), flush=True)"


def loaded(statement: str) -> set[str]:
    """The heavy packages that a statement loads in a new process."""
    command = [sys.executable, "-c", SHOW.format(statement, HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BIN)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_package_and_the_scripts_help_load_nothing():
    scripts = "prepare_dataset, plan_evaluation, evaluate_embedding, summarise_scores, report_scores, estimate_cost"
    assert loaded(f"import plumbline, {scripts}") == set()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Tables and an embedding: 40 genes of 6 cells each and controls, in five batches."""
    folder = tmp_path_factory.mktemp("prepared")
    genes, n = list(dict.fromkeys(known_pairs("CORUM").ravel()))[:40], 300
    label = np.array([*genes, *["control"] * 10])[np.arange(n) % 100 // 2]
    cells = pd.DataFrame({"cell_id": [f"c{i}" for i in range(n)], "perturbation": label, "is_control": label == "control"})
    cells = cells.assign(batch=np.array(list("abcde"))[np.arange(n) * 7 // 3 % 5], n_counts=1.0)
    (folder / "tables").mkdir()
    cells.to_parquet(folder / "tables/cells.parquet")
    pd.DataFrame({"gene_id": genes, "ensembl_id": "", "symbol": genes, "mean_count": 1.0}).to_parquet(
        folder / "tables/genes.parquet"
    )
    facts = {"name": "made", "organism": "human", "n_cells": n, "n_perturbations": 40, "n_batches": 5, "has_batches": True}
    facts |= {"has_controls": True, "unexpressed_threshold": 0.0, "unexpressed_scale": "mean_count", "x_kind": "counts"}
    (folder / "tables/dataset.json").write_text(json.dumps(facts | {"split_by": "batch", "perturbation_type": "crispri"}))
    values = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32)
    write_embedding(folder / "e.npz", cells["cell_id"].to_numpy(dtype=str), values, {"status": "ok", "model": "pca"})
    return folder


@pytest.mark.parametrize(
    ("task", "computes_with"),
    [("recall", {"pandas"}), ("consistency", {"pandas", "numba"}), ("batch_effect", {"pandas", "numba", "faiss"})],
)
def test_an_evaluation_loads_what_it_computes_with(task, computes_with, prepared, tmp_path):
    arguments = ["--embedding", prepared / "e.npz", "--tables", prepared / "tables", "--task", task, "--seeds", 42]
    arguments += ["--n-draws", 9, "--n-boot", 9, "--output", tmp_path / "out"]
    command = ["evaluate_embedding.py", *map(str, arguments)]
    assert loaded(f"import sys, evaluate_embedding; sys.argv = {command!r}; evaluate_embedding.main()") <= computes_with
    assert set(pd.read_parquet(tmp_path / "out.scores.parquet")["status"]) >= {"ok"}


def run_tasks(prepared: Path, folder: Path, names: list[str], *more: object) -> subprocess.CompletedProcess:
    """EVALUATE of several tasks as one process."""
    arguments = [
        "--embedding",
        prepared / "e.npz",
        "--tables",
        prepared / "tables",
        "--seeds",
        42,
        "--n-draws",
        9,
        "--n-boot",
        9,
    ]
    arguments += [word for name in names for word in ("--task", name, "--code", f"of {name}", "--output", folder / name)]
    command = [sys.executable, BIN / "evaluate_embedding.py", *arguments, *more]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def test_tasks_in_one_process_give_the_rows_and_have_the_costs_of_each(prepared, tmp_path):
    """One task that fails (reconstruction without counts) says why, and leaves the others."""
    names = ["recall", "reconstruction", "consistency"]
    done = run_tasks(prepared, tmp_path, names, "--threads", 2)
    assert done.returncode == 1
    assert "ERROR: the task reconstruction reads expression" in done.stderr
    assert "no result of reconstruction (1)" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {f"{n}.{kind}.parquet" for n in ("recall", "consistency") for kind in
                                                          ("scores", "items")}  # fmt: skip
    for name in ("recall", "consistency"):
        scores = pd.read_parquet(tmp_path / f"{name}.scores.parquet")
        assert set(scores["code"]) == {f"of {name}"}
        how = Scoring(seeds=[42], protocols=["paper", "corrected"], n_draws=9)
        alone = pd.DataFrame(score_rows(scored(prepared / "e.npz", prepared / "tables", None, name, how), tasks.load(name), 9))
        pd.testing.assert_frame_equal(scores[alone.columns], alone, check_exact=True)
    spent = steps(tmp_path, pd.DataFrame(), {"": {"facts": {"n_cells": 300}, "report": {}}})
    start = spent[spent["step"] == "START"]
    assert len(start) == 1, "of the one process"
    assert set(spent.loc[spent["step"] == "EVALUATE", "name"]) == {"recall", "consistency"}
    assert (spent["cpu_seconds"] > 0).all()


def test_what_belongs_to_a_task_is_given_for_each(prepared, tmp_path):
    done = run_tasks(prepared, tmp_path, ["recall"], "--task", "map")
    assert done.returncode == 2
    assert "are repeated as often as --task" in done.stderr


@pytest.mark.parametrize("task", ["recall", "separability"])
def test_seeds_scored_apart_are_the_rows_of_all_together(task, prepared):
    """Large data sets get an EVALUATE per seed; without a split, `paper` is scored with the first alone."""
    record = tasks.load(task)

    def rows(seeds, protocols):
        how = Scoring(seeds=seeds, protocols=protocols, n_draws=9)
        found = scored(prepared / "e.npz", prepared / "tables", None, task, how)
        return pd.DataFrame(score_rows(found, record, 9))

    further = ["paper", "corrected"] if record.uses_split else ["corrected"]
    apart = pd.concat([rows([42], ["paper", "corrected"]), rows([43], further)])
    keys = ["protocol", "seed", "postprocess", "metric"]
    together = rows([42, 43], ["paper", "corrected"])
    assert (together["status"] == "ok").any()
    pd.testing.assert_frame_equal(*(table.sort_values(keys, ignore_index=True) for table in (apart, together)))
