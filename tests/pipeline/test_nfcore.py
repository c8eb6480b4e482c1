"""nf-core's own checks, where its tools are installed (pip install nf-core==4.2.1), and a meta.yml for every module."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT

yaml = pytest.importorskip("yaml")
SUBWORKFLOWS = sorted(path.parent for path in ROOT.glob("subworkflows/local/*/main.nf"))
MODULES = sorted(path.parent for path in ROOT.glob("modules/local/**/main.nf"))


@pytest.mark.pipeline
@pytest.mark.parametrize(
    "words", ["pipelines lint --dir .", "pipelines schema lint nextflow_schema.json", "modules lint --all --local --dir ."]
)
def test_nf_core_finds_no_fault(words: str, tmp_path: Path):
    """Warnings are not faults, but few: keys of the meta map, names of folders.

    24 of modules lint are of nf-core's tools, which resolve containers with Nextflow 25.04.4 or newer only.
    """
    if not shutil.which("nf-core"):
        pytest.skip("needs nf-core's tools: pip install nf-core==4.2.1")
    modules_repository(tmp_path / "nfcore/nf-core/modules")
    quiet = {"NXF_OFFLINE": "true", "COLUMNS": "250", "NFCORE_NO_VERSION_CHECK": "1", "XDG_CONFIG_HOME": str(tmp_path)}
    nextflow = os.path.dirname(os.environ["PLUMBLINE_NEXTFLOW"])
    quiet["PATH"] = f"{os.environ['PATH']}{os.pathsep}{nextflow}"
    command = ["nf-core", *words.split()]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    warned = re.search(r"(\d+) (?:Test )?Warnings?", run.stdout)
    assert not warned or int(warned[1]) - run.stdout.count("Unable to resolve") < 20, run.stdout


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


@pytest.mark.parametrize("subworkflow", SUBWORKFLOWS, ids=lambda path: path.name)
def test_meta_of_a_subworkflow_describes_what_it_takes_emits_and_includes(subworkflow):
    about = yaml.safe_load((subworkflow / "meta.yml").read_text())
    text = (subworkflow / "main.nf").read_text()
    assert about["name"] == subworkflow.name
    assert len(about["description"]) > 20
    assert len(about["keywords"]) > 2
    takes = re.findall(r"^    (\w+)", _block(text, "take"), re.MULTILINE)
    assert [name for entry in about.get("input", []) for name in entry] == takes
    emits = re.findall(r"^    (\w+) =", _block(text, "emit"), re.MULTILINE)
    assert [name for entry in about.get("output", []) for name in entry] == emits
    included = re.findall(r"from '(?:\.\./)+(?:modules/local/)?([\w/]+)/main'", text)
    assert set(about.get("components", [])) == set(included)


def _block(text: str, name: str) -> str:
    """The lines below `take:` or `emit:`."""
    found = re.search(rf"^    {name}:\n((?:    .*\n)+)", text, re.MULTILINE)
    return found[1] if found else ""
