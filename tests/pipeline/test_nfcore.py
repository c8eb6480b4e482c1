"""nf-core's own checks, where its tools are installed (pip install nf-core==4.2.1), and a meta.yml for every module."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT

yaml = pytest.importorskip("yaml")
MODULES = sorted(path.parent for path in ROOT.glob("modules/local/**/main.nf"))


@pytest.mark.pipeline
@pytest.mark.parametrize(
    "words", ["pipelines lint --dir .", "pipelines schema lint nextflow_schema.json", "modules lint --all --local --dir ."]
)
def test_nf_core_finds_no_fault(words: str, tmp_path: Path):
    """Warnings are not faults: labels env_*, one image for all engines, keys of the meta map, and no `when:`."""
    if not shutil.which("nf-core"):
        pytest.skip("needs nf-core's tools: pip install nf-core==4.2.1")
    modules_repository(tmp_path / "nfcore/nf-core/modules")
    quiet = {"NXF_OFFLINE": "true", "NFCORE_NO_VERSION_CHECK": "1", "XDG_CONFIG_HOME": str(tmp_path)}
    nextflow = os.path.dirname(os.environ["PLUMBLINE_NEXTFLOW"])
    quiet["PATH"] = f"{os.environ['PATH']}{os.pathsep}{nextflow}"
    command = ["nf-core", *words.split()]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr


def modules_repository(folder: Path) -> None:
    """An empty one where nf-core keeps its clone of nf-core/modules, so that local modules are checked without network."""
    source = folder.parent / "source"
    files = {
        ".nf-core.yml": "repository_type: modules\norg_path: nf-core\n",
        "modules/nf-core/.keep": "",
        "subworkflows/nf-core/.keep": "",
        "modules/meta-schema.json": "{}",
        "modules/environment-schema.json": "{}",
    }
    for name, text in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    author = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    for words in (["init", "-q", "-b", "master", "."], ["add", "-A"], [*author, "commit", "-q", "-m", "empty"]):
        subprocess.run(["git", *words], cwd=source, check=True)
    subprocess.run(["git", "clone", "-q", source, folder], check=True)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_meta_describes_every_input_and_output(module):
    about = yaml.safe_load((module / "meta.yml").read_text())
    process = (module / "main.nf").read_text()
    # EMBED_MODEL is not called as its folder: EMBED is the workflow
    name = "_".join(module.relative_to(ROOT / "modules/local").parts)
    assert about["name"] == ("embed_model" if name == "embed" else name)
    inputs, outputs = (
        process.split("    output:")[0].split("    input:")[1],
        process.split("    output:")[1].split("script:")[0],
    )
    declared = re.findall(r"(?:val|path)[ (](\w+)", inputs)
    described = [name for entry in about["input"] for part in (entry if isinstance(entry, list) else [entry]) for name in part]
    assert described == declared
    assert list(about["output"]) == re.findall(r"emit: (\w+)", outputs)
