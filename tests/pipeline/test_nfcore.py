"""nf-core's own checks, where its tools are installed (pip install nf-core==4.2.1), and a meta.yml for every module."""

import os
import re
import shutil
import subprocess

import pytest

from .conftest import ROOT

yaml = pytest.importorskip("yaml")
MODULES = sorted(path.parent for path in ROOT.glob("modules/local/**/main.nf"))


@pytest.mark.pipeline
@pytest.mark.parametrize("words", ["lint --dir .", "schema lint nextflow_schema.json"])
def test_nf_core_finds_no_fault(words: str):
    if not shutil.which("nf-core"):
        pytest.skip("needs nf-core's tools: pip install nf-core==4.2.1")
    nextflow = os.path.dirname(os.environ["PLUMBLINE_NEXTFLOW"])
    quiet = {"NXF_OFFLINE": "true", "NFCORE_NO_VERSION_CHECK": "1", "PATH": f"{os.environ['PATH']}{os.pathsep}{nextflow}"}
    command = ["nf-core", "pipelines", *words.split()]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_meta_describes_every_input_and_output(module):
    about = yaml.safe_load((module / "meta.yml").read_text())
    process = (module / "main.nf").read_text()
    assert about["name"] == "_".join(module.relative_to(ROOT / "modules/local").parts)
    inputs, outputs = (
        process.split("    output:")[0].split("    input:")[1],
        process.split("    output:")[1].split("script:")[0],
    )
    declared = re.findall(r"(?:val|path)[ (](\w+)", inputs)
    described = [name for entry in about["input"] for part in (entry if isinstance(entry, list) else [entry]) for name in part]
    assert described == declared
    assert list(about["output"]) == re.findall(r"emit: (\w+)", outputs)
