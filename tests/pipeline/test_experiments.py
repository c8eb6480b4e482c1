"""The experiments on simulated screens whose answers are known: one real run of all of them."""

import json

import pandas as pd
import pytest

from .conftest import plumb_run, write_sheet

pytestmark = pytest.mark.pipeline
SIZES = {"n-perturbations": 120, "n-batches": 6, "cells-per-perturbation": 16, "n-genes": 600, "effect": 1.0,
         "batch-effect": 0.1}  # fmt: skip
SCREEN = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]
NAMES = ["count_distribution", "minimal_data", "transfer", "cross_context", "objectives", "integrity", "generality", "cost"]


@pytest.fixture(scope="module")
def run(simulate, tmp_path_factory):
    """`target`; `sister`, another screen of the same effects; `stranger`, a screen of other effects."""
    seeds = {"target": ("7", "0"), "sister": ("7", "1"), "stranger": ("8", "0")}
    rows = []
    for name, (seed, cells_seed) in seeds.items():
        path = simulate(name, *SCREEN, "--seed", seed, "--cells-seed", cells_seed)
        rows.append(f"{name},{path},perturbation,non-targeting,batch,human,counts,0,crispri")
    folder = tmp_path_factory.mktemp("experiments")
    settings = ",".join(f"{name}:max_epochs=2,{name}:n_hvg=200,{name}:n_hidden=32,{name}:n_latent=8" for name in SCVI)
    settings += ",pca:n_components=12,pca_contrastive:n_components=32"
    options = ["--models", "pca,random,label_oracle", "--model_settings", settings, "--experiments", "all"]
    options += ["--experiment_tasks", "recall", "--tasks", "recall", "--shares", "0.1", "--share_draws", "2"]
    done = plumb_run(folder, "--input", write_sheet(folder / "sheet.csv", *rows), "-profile", "test", *options)
    assert done.code == 0, done.output
    return done


SCVI = ("scvi", "scvi_nb", "scvi_poisson", "scvi_lognorm", "scvi_contrastive", "scanvi", "contrastivevi")


@pytest.fixture(scope="module")
def compared(run):
    table = pd.read_parquet(run.results / "comparisons.parquet")
    return table[(table["protocol"] == "corrected") & table["main"]]


def test_the_estimate_comes_first(run):
    assert "Estimate: " in run.output
    assert run.output.index("Estimate: ") < run.output.index("SUMMARISE")


def test_every_experiment_has_its_section(run):
    page = (run.results / "multiqc_report.html").read_text()
    for name in NAMES:
        assert f"plumbline_{name}" in page, name


def test_a_related_screen_teaches_what_an_unrelated_one_does_not(compared):
    moved = compared[(compared["experiment"] == "transfer") & (compared["dataset"] == "target")].set_index("fit_on")
    assert moved.loc["sister", "verdict"] in ("tied", "better", "cannot tell")
    assert moved.loc["stranger", "verdict"] == "worse"
    assert moved.loc["stranger", "diff_high"] < 0


def test_two_screens_of_the_same_effects_agree(run):
    """PCA of each has a space of its own: what can be compared are the similarities."""
    table = pd.read_parquet(run.results / "experiments" / "cross_context.parquet")
    assert set(table["variant_a"]) | set(table["variant_b"]) == {"pca"}
    assert set(table["measure"]) == {"rsa"}
    found = table.set_index(["dataset_a", "dataset_b"])
    assert found.loc[("sister", "target"), "ci_low"] > 0
    assert found.loc[("sister", "target"), "q"] < 0.05


def test_the_main_run_stays_the_same(compared):
    main = compared[compared["experiment"] == ""]
    assert set(main["variant"]) == {"pca", "random", "label_oracle"}
    assert set(main["dataset"]) == {"target", "sister", "stranger"}


def test_counts_are_described_as_what_they_were_drawn_from(run):
    found = json.loads((run.results / "experiments" / "target.count_distribution.json").read_text())
    assert found["status"] == "ok"
    assert found["supported"] == "nb"


def test_held_out_perturbations_are_scored_apart(compared):
    held = compared[compared["experiment"] == "objectives"]
    assert set(held["dataset"]) == {"target.heldout", "sister.heldout", "stranger.heldout"}
    assert {"pca", "pca_contrastive", "scanvi", "contrastivevi"} <= set(held["variant"])


def test_steps_are_priced(run):
    steps = pd.read_csv(run.results / "steps.tsv", sep="\t")
    assert set(steps["step"]) == {"PREPARE", "EMBED", "EVALUATE"}
    assert (steps["cpu_seconds"] > 0).all()
