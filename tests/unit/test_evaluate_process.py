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
