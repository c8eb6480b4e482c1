"""The experiments on simulated screens whose answers are known: a run of those of one screen, and one of those of several."""

import json

import pandas as pd
import pytest

from plumbline.report.experiments import MODULES

from .conftest import plumb_run, write_sheet

pytestmark = pytest.mark.pipeline
SIZES = {"n-perturbations": 120, "n-batches": 6, "cells-per-perturbation": 16, "n-genes": 600, "effect": 1.0,
         "batch-effect": 0.1}  # fmt: skip
SCREEN = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]
# the former fit models by the dozen, or need no second screen
OF_ONE = [
    "count_distribution",
    "minimal_data",
    "objectives",
    "robustness",
    "cells_per_perturbation",
    "gene_recall",
    "integrity",
]
OF_MORE = ["transfer", "cross_context", "generality", "cost"]
SCVI = ("scvi", "scvi_nb", "scvi_poisson", "scvi_lognorm", "scvi_contrastive", "scanvi", "contrastivevi")
SETTINGS = [f"{name}:max_epochs=2,{name}:n_hvg=200,{name}:n_hidden=32,{name}:n_latent=8" for name in SCVI]
SETTINGS += ["pca:n_components=12", "pca_contrastive:n_components=32"]


@pytest.fixture(scope="module")
def rows(simulate) -> dict[str, str]:
    """Of the sheet: `target`; `sister`, another screen of the same effects; `stranger`, a screen of other effects."""
    seeds = {"target": ("7", "0"), "sister": ("7", "1"), "stranger": ("8", "0")}
    paths = {name: simulate(name, *SCREEN, "--seed", one, "--cells-seed", cells) for name, (one, cells) in seeds.items()}
    return {name: f"{name},{path},perturbation,non-targeting,batch,human,counts,0,crispri" for name, path in paths.items()}


def run_experiments(folder, names: list[str], *rows: str):
    options = ["--models", "pca,label_oracle", "--model_settings", ",".join(SETTINGS), "--experiments", ",".join(names)]
    options += ["--experiment_tasks", "recall", "--tasks", "recall", "--shares", "0.1", "--share_draws", "2"]
    options += ["--damages", "thinned10"]
    done = plumb_run(folder, "--input", write_sheet(folder / "sheet.csv", *rows), "-profile", "test", *options)
    assert done.code == 0, done.output
    return done


@pytest.fixture(scope="module")
def alone(rows, tmp_path_factory):
    return run_experiments(tmp_path_factory.mktemp("alone"), OF_ONE, rows["target"])


@pytest.fixture(scope="module")
def run(rows, tmp_path_factory):
    return run_experiments(tmp_path_factory.mktemp("experiments"), OF_MORE, *rows.values())


def comparisons(run) -> pd.DataFrame:
    table = pd.read_parquet(run.results / "comparisons.parquet")
    return table[(table["protocol"] == "corrected") & table["main"]]


@pytest.fixture(scope="module")
def compared(run):
    return comparisons(run)


def test_the_estimate_comes_first(run):
    assert "Estimate: " in run.output
    assert run.output.index("Estimate: ") < run.output.index("SUMMARISE")


def test_every_experiment_has_its_section(run, alone):
    assert {*OF_ONE, *OF_MORE} == {module.__name__.rpartition(".")[2] for module in MODULES}
    for names, done in ((OF_ONE, alone), (OF_MORE, run)):
        page = (done.results / "multiqc_report.html").read_text()
        for name in names:
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
    assert set(main["variant"]) == {"pca", "label_oracle"}
    assert set(main["dataset"]) == {"target", "sister", "stranger"}


def test_counts_are_described_as_what_they_were_drawn_from(alone):
    found = json.loads((alone.results / "experiments" / "target.count_distribution.json").read_text())
    assert found["status"] == "ok"
    assert found["supported"] == "nb"


def test_held_out_perturbations_are_scored_apart(alone):
    held = comparisons(alone).query("experiment == 'objectives'")
    assert set(held["dataset"]) == {"target.heldout"}
    assert {"pca", "pca_contrastive", "scanvi", "contrastivevi"} <= set(held["variant"])


def test_thinned_counts_are_compared_with_all_counts_of_the_same_cells(alone):
    """A tenth of the counts carries less of the effects: PCA of them recalls less."""
    thinned = comparisons(alone).query("experiment == 'robustness'").set_index("dataset")
    assert set(thinned["fit_on"]) == {"train+thinned10"}
    assert (thinned["n_left_out"] == 0).all()
    assert thinned.loc["target", "diff_high"] < 0


def test_curves_and_gene_tables_are_published(alone):
    curves = pd.read_parquet(alone.results / "experiments" / "target.pca.42.cells_per_perturbation.parquet")
    assert curves["status"].tolist() == ["ok"] * 4
    assert curves["cells"].tolist() == [4, 8, 16, float("inf")]
    genes = pd.read_parquet(alone.results / "experiments" / "target.gene_recall.parquet")
    assert set(genes["table"]) == {"pca_loadings", "random"}


def test_steps_are_priced(run):
    steps = pd.read_csv(run.results / "steps.tsv", sep="\t")
    assert set(steps["step"]) == {"PREPARE", "EMBED", "START", "EVALUATE"}
    assert (steps["cpu_seconds"] > 0).all()
