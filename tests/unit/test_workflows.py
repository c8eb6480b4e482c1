"""The workflows of continuous integration and of releases: actions pinned by commit, and every environment is released."""

import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")


@pytest.fixture(params=["ci", "nf-test", "release"])
def workflow(request, root: Path) -> dict:
    return yaml.safe_load((root / ".github" / "workflows" / f"{request.param}.yml").read_text())


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_actions_are_pinned_by_commit(workflow):
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in used), used


def test_no_text_of_others_reaches_a_shell_line(workflow):
    """Titles of pull requests, branch names and the like would be run (script injection)."""
    for step in steps(workflow):
        assert not re.search(r"\$\{\{[^}]*(github\.event\.|head_ref|inputs\.)", step.get("run", "")), step


def test_every_environment_is_released(root: Path):
    release = yaml.safe_load((root / ".github" / "workflows" / "release.yml").read_text())
    built = {file.parent.name for file in (root / "containers").glob("*/requirements.txt")}
    matrix = release["jobs"]["images"]["strategy"]["matrix"]
    assert set(matrix["environment"]) == built
    without_torch = {name for name in built if "torch==" not in (root / f"containers/{name}/requirements.txt").read_text()}
    assert {entry["environment"] for entry in matrix["exclude"]} == without_torch
