"""ro-crate-metadata.json describes this version of the pipeline, every part of it, and nothing that is not there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from plumbline import __version__

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def entities() -> dict[str, dict]:
    """{id: entity}"""
    graph = json.loads((ROOT / "ro-crate-metadata.json").read_text())["@graph"]
    found = {entity["@id"]: entity for entity in graph}
    assert len(found) == len(graph)
    return found


def test_every_module_and_subworkflow_is_named(entities):
    for path in [*ROOT.glob("modules/**/main.nf"), *ROOT.glob("subworkflows/**/main.nf")]:
        entity = entities[str(path.relative_to(ROOT))]
        process = re.search(r"^process (\w+)", path.read_text(), re.M)
        if process:
            assert entity["name"] == process[1]
            assert entity["description"]


def test_the_version_is_that_of_the_pipeline(entities):
    assert entities["./"]["version"] == entities["main.nf"]["version"] == __version__


def test_every_file_is_there_and_part_of_the_crate(entities):
    files = {name for name, entity in entities.items() if "File" in entity["@type"]}
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert {part["@id"] for part in entities["./"]["hasPart"]} == files


def test_every_reference_leads_somewhere(entities):
    text = json.dumps([entity for name, entity in entities.items() if name != "ro-crate-metadata.json"])
    assert set(re.findall(r'\{"@id": "([^"]+)"\}', text)) <= set(entities)
    assert entities["./"]["mainEntity"] == {"@id": "main.nf"}
    assert "ComputationalWorkflow" in entities["main.nf"]["@type"]


def test_it_is_up_to_date():
    """.ci/ro_crate writes it."""
    script = "import runpy, json; print(json.dumps(runpy.run_path('.ci/ro_crate')['crate']()))"
    made = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(made) == json.loads((ROOT / "ro-crate-metadata.json").read_text()), "run .ci/ro_crate"
