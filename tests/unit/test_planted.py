"""The demo's planted embedding is what its script makes, and is called what it is."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

import estimate_cost
from plumbline.data.simulate import Design, lay_out, plant
from plumbline.report.run import Run

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def script():
    spec = importlib.util.spec_from_file_location("make_planted", ASSETS / "make_planted.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_made_by_its_script():
    cells, values = script().planted(Design())
    with np.load(ASSETS / "planted_pathways.npz", allow_pickle=False) as kept:
        assert kept["cell_id"].tolist() == cells.tolist()
        assert np.abs(kept["embedding"].astype(int) - values.astype(int)).max() <= 1  # another processor may round another way


def test_it_knows_the_complex_and_not_the_gene():
    """Within a complex the mean of one gene's cells is no nearer to that of other cells of the gene than to the others'."""
    cells, values = script().planted(Design())
    rng = np.random.default_rng(Design().seed)
    truth = plant(Design(), rng)
    gene = lay_out(Design(), truth, rng).perturbation
    complexes, largest = truth.complexes, pd.Series(truth.complexes[truth.complexes != ""]).mode()[0]
    members = np.flatnonzero(complexes == largest)
    even = np.array([values[(gene == one)][::2].mean(axis=0) for one in members])
    odd = np.array([values[(gene == one)][1::2].mean(axis=0) for one in members])
    cosine = even @ odd.T / np.outer(np.linalg.norm(even, axis=1), np.linalg.norm(odd, axis=1))
    own, others = cosine.diagonal().mean(), cosine[~np.eye(len(members), dtype=bool)].mean()
    assert others > 0.5
    assert abs(own - others) < 0.15
    assert len(cells) == len(gene)


def test_the_report_says_that_it_is_not_a_model():
    none = pd.DataFrame()
    run = Run({"models": {}, "datasets": {}}, none, pd.DataFrame({"variant": ["planted_pathways", "mine"]}), none, none, none)
    assert run.titles == {"planted_pathways": "planted pathways (made of the simulated truth)"}


def test_an_embedding_of_ones_own_is_estimated_as_a_file_that_is_read(tmp_path, monkeypatch):
    """Not as the slowest model of all: an estimate of minutes for a second would make the whole estimate wrong."""
    embed = [{"variant": "mine", "model": "external", "dataset": "kang_demo"}]
    plan = {"datasets": [{"name": "kang_demo"}], "embed": embed, "evaluate": []}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    words = ["--plan", "plan.json", "--costs", str(ASSETS / "costs.tsv"), "--catalogue", str(ASSETS / "catalogue.csv")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["estimate_cost.py", *words, "--output", "estimate.txt"])
    estimate_cost.main()
    assert re.search(r"mine on kang_demo [0-5] s", (tmp_path / "estimate.txt").read_text())
