"""A stub run (no task does its work) walks the whole grid, every model included; and what Nextflow itself can check."""

import json
import os
import re
import subprocess

import h5py
import pytest

from plumbline import tasks

from .conftest import ROOT, plumb_run

pytestmark = pytest.mark.pipeline
FOUNDATION = ("geneformer", "scgpt", "uce", "cellplm")


@pytest.mark.parametrize("types_as_strings", [False, True], ids=["typed", "strings"])
def test_the_whole_grid_of_models_and_tasks(types_as_strings, tiny_sheet, tmp_path, monkeypatch):
    """Nextflow 26 hands every parameter over as a string: both ways must give the same run."""
    if types_as_strings:
        monkeypatch.setenv("NXF_DISABLE_PARAMS_TYPE_DETECTION", "true")
    for model in FOUNDATION:
        (tmp_path / "weights" / model).mkdir(parents=True)
    with h5py.File(tmp_path / "mine.h5ad", "w") as file:
        file["obsm/X_a"] = file["obsm/X_b"] = [[0.0]]
    (tmp_path / "mine.csv").write_text(f"dataset,name,path,key\ntiny,mine,{tmp_path / 'mine.h5ad'},*\n")
    models = "pca,scvi,hvg,random,geneformer_v1,scgpt,uce_4l,cellplm"
    own = ["--embeddings", tmp_path / "mine.csv"]
    options = [*own, "--weights", tmp_path / "weights", "--models", models, "--seeds", "42,43", "--n_boot", "100"]
    options += ["--model_settings", "geneformer_v1:layers=0+3"]  # two more embeddings out of one task
    run = plumb_run(tmp_path, "--input", tiny_sheet, "-profile", "test", *options, "-stub-run")
    assert run.code == 0, run.output
    names = list(run.tasks())
    # pca and scvi are refitted for each of two seeds
    assert sum(name.startswith("EMBED:") for name in names) == 12
    assert {"EMBED:EMBED_CPU (tiny.mine.X_a)", "EMBED:EMBED_CPU (tiny.mine.X_b)"} <= set(names)
    # tasks of an embedding of a few cells share a process
    scored = [path.name for path in run.folder.glob("work/*/*/*.scores.parquet")]
    assert sum(name.startswith("EVALUATE") for name in names) == 14
    assert len(scored) == len(set(scored)) == 14 * len(tasks.names())
    assert sum("tiny.geneformer_v1.layer3." in name for name in scored) == len(tasks.names())


def test_every_profile_can_be_read():
    for profile in (
        "docker",
        "podman",
        "singularity",
        "apptainer",
        "charliecloud",
        "uv,gpu",
        "docker,gpu,slurm",
        "docker,gpu,awsbatch",
        "docker,gpu,googlebatch",
        "docker,gpu,k8s",
        "test_full",
    ):
        command = [os.environ["PLUMBLINE_NEXTFLOW"], "config", ROOT, "-profile", profile]
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
        assert shown.returncode == 0, shown.stdout + shown.stderr


def test_help_names_every_parameter(tmp_path):
    run = plumb_run(tmp_path, "--help")
    assert run.code == 0
    groups = json.loads((ROOT / "nextflow_schema.json").read_text())["$defs"].values()
    parameters = [name for group in groups for name in group["properties"]]
    assert len(parameters) > 30
    for name in parameters:
        assert re.search(rf"^  --{name} +\[", run.output, re.MULTILINE), name


def test_every_experiment_joins_the_grid(tiny_sheet, tiny_screen, tmp_path):
    """Requests of the experiments: shares of the train cells, all pairs of data sets, held-out parts."""
    sheet = tmp_path / "two.csv"
    sheet.write_text(tiny_sheet.read_text() + tiny_sheet.read_text().splitlines()[1].replace("tiny,", "again,", 1) + "\n")
    options = ["--models", "pca,random", "--experiments", "all", "--experiment_tasks", "recall", "--shares", "0.1,0.5"]
    run = plumb_run(tmp_path, "--input", sheet, "-profile", "test", *options, "--share_draws", "2", "-stub-run")
    assert run.code == 0, run.output
    names = [name.partition("(")[2].rstrip(")") for name in run.tasks() if name.startswith("EMBED:")]
    assert {"tiny.pca.train_0.1_2.42", "tiny.pca.again.42", "again.heldout.pca.again_train.42", "tiny.scvi_nb.42"} <= set(names)
    assert sum(".train_0." in name for name in names) == 8  # 2 data sets x 2 shares x 2 draws
    assert sum("train_thinned" in name for name in names) == 6  # 2 data sets x 3 shares of the counts
    scored = [name for name in run.tasks() if name.startswith("EVALUATE") and "(tiny.pca.again.42" in name]
    assert scored == ["EVALUATE:EVALUATE_CPU (tiny.pca.again.42.recall)"]
    for process in ("DESCRIBE_COUNTS", "ABLATE_INTEGRITY", "HOLD_OUT", "PREPARE_HELD_OUT", "SCORE_FEWER_CELLS",
                    "RECALL_GENES"):  # fmt: skip
        assert sum(process in name.split(" ")[0].split(":") for name in run.tasks()) == 2, process


def test_an_estimate_starts_nothing(tiny_sheet, tmp_path):
    run = plumb_run(tmp_path, "--input", tiny_sheet, "-profile", "test", "--estimate_only", "-stub-run")
    assert run.code == 0, run.output
    assert [name.split(" ")[0] for name in run.tasks()] == ["ESTIMATE"]
