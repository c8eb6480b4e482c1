"""The repository itself: formatted, free of lint, and free of what belongs to one machine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# written in halves, so that this file does not contain what it looks for
REGISTRIES = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "repo." + "maven.apache",
    "repo1" + ".maven",
    "conda" + ".anaconda",
    "registry" + ".npmjs",
]
MACHINES = ["/" + "opt/plumb-dev", "/" + "work/main", "/" + "work/shared", "/" + "root/"]


def tracked(*patterns: str) -> list[str]:
    """The files git tracks that are still there, as names relative to the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_registry_and_no_path_of_one_machine_is_named():
    found = []
    for name in tracked():
        text = (ROOT / name).read_bytes().decode(errors="replace")
        found += [f"{name}: {word}" for word in REGISTRIES + MACHINES if word in text]
    assert found == []


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff(command: list[str]):
    scripts = [name for name in tracked() if (ROOT / name).read_bytes()[:50].startswith(b"#!/usr/bin/env python3")]
    files = sorted({*tracked("*.py"), *scripts})
    run = subprocess.run([sys.executable, "-m", "ruff", *command, *files], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_types():
    """The rooms that [tool.mypy] of pyproject.toml lists."""
    run = subprocess.run([sys.executable, "-m", "mypy", "--no-incremental"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_pre_commit_has_the_pinned_ruff():
    pinned = re.search(r"^ruff==(\S+)", (ROOT / "tests/requirements.txt").read_text(), re.MULTILINE).group(1)
    assert f"rev: v{pinned}\n" in (ROOT / ".pre-commit-config.yaml").read_text()


def test_scripts_are_executable():
    """Nextflow calls them by name; git keeps the mode."""
    listed = subprocess.run(
        ["git", "ls-files", "-s", "bin", "plumb"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    modes = {line.split("\t")[1]: line[:6] for line in listed.splitlines()}
    wrong = [name for name, mode in modes.items() if (name == "plumb" or name.count("/") == 1) and mode != "100755"]
    assert wrong == []


def test_shell_scripts_parse():
    bash = shutil.which("bash")
    for name in tracked():
        if (ROOT / name).read_bytes()[:30].startswith((b"#!/usr/bin/env bash", b"#!/bin/bash")):
            subprocess.run([bash, "-n", name], cwd=ROOT, check=True)


def test_no_selector_of_the_configuration_is_used_twice():
    """Of two files with the very same selector, Nextflow takes the later one whole, and drops what the other set."""
    found = [
        (selector, path.relative_to(ROOT).as_posix())
        for path in (ROOT / "conf").rglob("*.config")
        for selector in re.findall(r"with(?:Name|Label): *'?([^'{]+?)'? *\{", path.read_text())
    ]
    assert len(found) > 10
    places = {selector: [path for other, path in found if other == selector] for selector, _ in found}
    assert {selector: paths for selector, paths in places.items() if len(paths) > 1} == {}
