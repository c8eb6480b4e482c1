"""ro-crate-metadata.json describes this version of the pipeline, its folders, and nothing that is not there."""

import json
import re
import runpy
import subprocess
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


def kinds(entity: dict) -> set[str]:
    """The types of an entity, which may be one or several."""
    kind = entity["@type"]
    return {kind} if isinstance(kind, str) else set(kind)


def test_every_folder_is_described(entities):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    folders = {name.partition("/")[0] + "/" for name in files if "/" in name and not name.startswith(".")}
    assert {name for name in entities if name.endswith("/")} - {"./"} == folders
    assert all(entities[name]["description"] for name in folders)


def test_the_version_is_that_of_the_pipeline(entities):
    assert entities["./"]["version"] == entities["main.nf"]["version"] == __version__


def test_every_part_is_there(entities):
    parts = {part["@id"] for part in entities["./"]["hasPart"]}
    assert parts == {name for name, entity in entities.items() if {"File", "Dataset"} & kinds(entity)} - {"./"}
    assert [name for name in parts if not (ROOT / name).exists()] == []


def test_every_reference_leads_somewhere(entities):
    text = json.dumps([entity for name, entity in entities.items() if name != "ro-crate-metadata.json"])
    elsewhere = {"https://www.nextflow.io/"}  # the language's page, as rocrate refers to it
    assert set(re.findall(r'\{"@id": "([^"]+)"\}', text)) - elsewhere <= set(entities)
    assert entities["./"]["mainEntity"] == {"@id": "main.nf"}
    assert "ComputationalWorkflow" in entities["main.nf"]["@type"]


def test_it_is_up_to_date():
    """.ci/ro_crate writes it."""
    pytest.importorskip("rocrate")
    made = runpy.run_path(str(ROOT / ".ci/ro_crate"))["metadata"]()
    assert made == json.loads((ROOT / "ro-crate-metadata.json").read_text()), "run .ci/ro_crate"


def test_another_version_is_described_on_another_day(tmp_path, monkeypatch):
    """While the version stays, so does the date: the file does not change by itself."""
    date = runpy.run_path(str(ROOT / ".ci/ro_crate"))["_date"]
    described = tmp_path / "ro-crate-metadata.json"
    monkeypatch.setitem(date.__globals__, "CRATE", described)
    for version, unchanged in ((__version__, True), ("0.0.0", False)):
        described.write_text(json.dumps({"@graph": [{"@id": "./", "version": version, "datePublished": "2001-01-01"}]}))
        assert (date() == "2001-01-01") == unchanged
