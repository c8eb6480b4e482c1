"""What a profile asks its engine and its scheduler for: images, GPU flags, variables. The engines are stand-ins on PATH."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from plumbline import __version__
from plumbline.embedding.variants import read_rows

from .conftest import ROOT, Run, plumb_run

pytestmark = pytest.mark.pipeline
GPU_FLAG = {"docker": "--gpus all", "podman": "--device nvidia.com/gpu=all", "apptainer": "--nv"}
# runs what follows the image, outside of any container
CONTAINER = """#!/usr/bin/env bash
while [ $# -gt 0 ] && [[ $1 != *plumbline-*0.* ]]; do shift; done
shift
"$@"
"""
BATCH = """#!/usr/bin/env bash
bash "${@: -1}" >/dev/null 2>&1 </dev/null
echo "Submitted batch job $RANDOM"
"""


def test_every_process_has_an_image_that_we_build(tiny_sheet, tmp_path):
    images = images_of(tmp_path, tiny_sheet, "-profile", "docker")
    # EMBED_MODEL takes its image from the row of the model
    of_models = {f"ghcr.io/plumbline/plumbline-{row['env']}:{__version__}" for row in read_rows()}
    names = {path.parent.name for path in ROOT.glob("containers/*/requirements.in")}
    built = {f"ghcr.io/plumbline/plumbline-{name}:{__version__}": name for name in names}
    assert set(images.values()) | of_models == set(built)
    sources = [path.read_text() for path in ROOT.glob("modules/**/main.nf")]
    processes = {process for text in sources for process in re.findall(r"^process (\w+)", text, re.M)}
    assert set(images) == processes


def images_of(folder: Path, sheet: Path, *options: object) -> dict[str, str]:
    """Process -> image, as Nextflow resolves them."""
    command = [os.environ["PLUMBLINE_NEXTFLOW"], "inspect", ROOT, "--input", sheet, *options]
    shown = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=True).stdout
    return {entry["name"].split(":")[-1]: entry["container"] for entry in json.loads(shown[shown.index("{") :])["processes"]}


def test_images_for_cpus_and_images_by_digest(tiny_sheet, tmp_path):
    cpu = images_of(tmp_path, tiny_sheet, "-profile", "docker,cpu")
    assert cpu.pop("MULTIQC") == f"ghcr.io/plumbline/plumbline-multiqc:{__version__}"
    assert set(cpu.values()) == {f"ghcr.io/plumbline/plumbline-cpu-base:{__version__}"}
    (tmp_path / "digests.txt").write_text(
        "".join(f"{name} lab/{name}@sha256:{'0' * 64}\n" for name in ("base", "scvi", "multiqc"))
    )
    command = [sys.executable, ROOT / "containers/digests.py", tmp_path / "digests.txt"]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (tmp_path / "digests.config").write_text(made)
    pinned = images_of(tmp_path, tiny_sheet, "-profile", "docker", "-c", tmp_path / "digests.config")
    assert pinned.pop("MULTIQC").startswith("lab/multiqc@sha256")
    assert {image.partition("@")[0] for image in pinned.values()} == {"lab/base"}


def stub_run(profile: str, folder: Path, sheet: Path, patch: pytest.MonkeyPatch, *more: str) -> dict[str, str]:
    """Task name -> the script that Nextflow wrote for it (.command.run), in a stub run with stand-ins for all engines."""
    tools = folder / "tools"
    tools.mkdir()
    stand_ins = {**dict.fromkeys(GPU_FLAG, CONTAINER), "sbatch": BATCH, "squeue": "#!/bin/sh\n"}
    for name, text in stand_ins.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    for name in ("base", "scvi", "multiqc"):
        (tools / f"ghcr.io-plumbline-plumbline-{name}-{__version__}.img").touch()
    patch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("NXF_APPTAINER_CACHEDIR", str(tools))
    # long enough for an evaluation to begin beside an embedding, if nothing held it back
    slow = "process { withName: 'EMBED_GPU.*' { beforeScript = 'sleep 4' } }"
    (folder / "site.config").write_text(f"executor.pollInterval = '1 sec'\n{slow}\n")
    words = [
        "-profile",
        profile,
        "-c",
        folder / "site.config",
        "--models",
        "pca,scvi",
        "--tasks",
        "recall,batch_effect",
        "--seeds",
        "42",
        "--max_together",
        "0",
    ]
    run: Run = plumb_run(folder, "--input", sheet, *words, *more, "-stub-run")
    assert run.code == 0, run.output
    scripts = [path.read_text() for path in folder.glob("work/*/*/.command.run")]
    return {re.search(r"^### name: '(.*)'", text, re.M)[1]: text for text in scripts}


def works(folder: Path, process: str, name: str) -> list[Path]:
    """This file of every task of a process."""
    return [path.with_name(name) for path in folder.glob("work/*/*/.command.run") if f":{process} (" in path.read_text()]


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_gpu_goes_to_the_tasks_that_use_one(engine, tiny_sheet, tmp_path, monkeypatch):
    scripts = stub_run(f"test,{engine},gpu", tmp_path, tiny_sheet, monkeypatch)
    for task, script in scripts.items():
        assert (GPU_FLAG[engine] in script) == ("_GPU" in task), task
        assert "plumbline-multiqc" in script if "MULTIQC" in task else "plumbline-" in script
    # one GPU, --max_gpus 1: no evaluation beside an embedding
    begun = [path.stat().st_mtime for path in works(tmp_path, "EVALUATE_GPU", ".command.begin")]
    ended = [path.stat().st_mtime for path in works(tmp_path, "EMBED_GPU", ".exitcode")]
    assert len(begun) > 1
    assert min(begun) > max(ended)


def test_slurm_is_asked_for_a_gpu_and_the_container_sees_which_one(tiny_sheet, tmp_path, monkeypatch):
    configs = clone_of_nf_core_configs(tmp_path)
    more = ["--gpu_type", "a100", "--custom_config_base", str(configs)]
    scripts = stub_run("test,apptainer,gpu,slurm,lab", tmp_path, tiny_sheet, monkeypatch, *more)
    for task, script in scripts.items():
        assert "#SBATCH --mem" in script
        assert "#SBATCH -p long" in script  # of the institution
        assert ("#SBATCH --gres=gpu:a100:1" in script) == ("_GPU" in task), task
        assert ("--nv" in script) == ("_GPU" in task), task
        # the label's memory, cut to that of the test profile; without its label it would be 2 GB
        assert "EMBED_GPU" not in task or "#SBATCH --mem 3072M" in script
        assert "CUDA_VISIBLE_DEVICES" in script


def clone_of_nf_core_configs(folder: Path) -> Path:
    """With one institution in it, whose profile has what such profiles have."""
    base = folder / "configs"
    (base / "conf").mkdir(parents=True)
    (base / "nfcore_custom.config").write_text(
        'profiles { lab { includeConfig "${params.custom_config_base}/conf/lab.config" } }\n'
    )
    (base / "conf/lab.config").write_text(
        "params { config_profile_description = 'A laboratory'\n max_memory = 224.GB }\nprocess { queue = 'long' }\n"
    )
    return base


@pytest.mark.parametrize("cloud", ["awsbatch", "googlebatch", "k8s"])
def test_a_cloud_is_asked_for_gpus_without_limit_and_without_flags_of_an_engine(cloud):
    """As far as configuration goes: the executors are plugins, which come from Nextflow's site."""
    command = [os.environ["PLUMBLINE_NEXTFLOW"], "config", ROOT, "-profile", f"docker,{cloud},gpu", "-flat"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings = dict(re.findall(r"^(\S+) = (.*(?:\n[ }].*)*)", shown, re.MULTILINE))
    assert settings["process.executor"].strip("'").replace("-", "") == cloud
    [selector] = {key.rsplit(".", 1)[0] for key in settings if key.endswith(".accelerator")}
    assert settings[f"{selector}.maxForks"] == "0"
    handed_over, flags = settings[f"{selector}.containerOptions"].split("'--gpus all'")
    assert cloud in handed_over.replace("-", "")
    assert cloud not in flags.replace("-", "")
    assert settings["process.resourceLimits"] == "[]"
