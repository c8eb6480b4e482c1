"""The house keeps its rules: rooms, the direction of imports, and everything a model or a task must have."""

import ast
import os
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import plumbline
from plumbline import tasks
from plumbline.embedding.variants import read_variants

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / "bin"
PACKAGE = BIN / "plumbline"
# room -> rooms it may import (docs/architecture.md)
MAY_IMPORT = {
    "common": set(),
    "counts": {"common"},
    "genes": {"common", "counts"},
    "data": {"common", "counts", "genes"},
    "embedding": {"common", "counts", "genes", "data"},
    "models": {"common", "counts", "genes", "data", "embedding"},
    "scoring": {"common", "counts", "genes", "data"},
    "metrics": {"common", "counts", "scoring"},
    "tasks": {"common", "counts", "genes", "data", "scoring", "metrics"},
    "experiments": {"common", "counts", "genes", "data", "scoring", "metrics", "tasks"},
    "summary": {"common", "genes", "embedding", "scoring", "metrics", "tasks", "experiments"},
    "report": {"common", "scoring", "metrics", "tasks", "summary", "experiments"},
    "bundles": {"common", "data", "embedding", "scoring", "tasks", "summary", "report"},
    "benchmark": {
        "bundles",
        "common",
        "data",
        "counts",
        "embedding",
        "genes",
        "models",
        "scoring",
        "tasks",
        "summary",
        "report",
    },
}
NAMES = {path: ".".join(path.relative_to(BIN).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
MODULES = {name.removesuffix(".__init__"): path for path, name in NAMES.items()}


def imports(path: Path) -> set[str]:
    """Modules of plumbline that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("plumbline"):
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in named}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("plumbline")}
    return found


GRAPH = {name: imports(path) - {name} for name, path in MODULES.items()}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_the_hall_holds_the_face_of_the_package_alone():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py"}
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(MAY_IMPORT)


def test_no_import_circle():
    try:
        list(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_circle_would_be_found():
    with pytest.raises(CycleError):
        list(TopologicalSorter(GRAPH | {"plumbline.common.errors": {"plumbline.common.files"}}).static_order())


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_one_way(name):
    allowed = {"", room(name)} | MAY_IMPORT.get(room(name), set())
    assert {room(other) for other in GRAPH[name]} <= allowed


def test_what_a_gpu_is_called_is_said_once():
    asked = [path for path in BIN.rglob("*.py") if re.search(r"""startswith\(["']cuda|[!=]= ["']cuda["']""", path.read_text())]
    # a request ('cuda': all that there are) is no device's name
    assert asked == [PACKAGE / "common/devices.py", PACKAGE / "models/runtime/devices.py"]


@pytest.mark.parametrize("model", sorted({variant.model for variant in read_variants().values()} | {"external"}))
def test_a_model_has_all_its_pieces(model):
    script = BIN / f"embed_{model}.py"
    assert script.is_file(), f"a script {script.name}"
    assert os.access(script, os.X_OK), f"chmod +x {script.name}"
    assert re.search(rf'run\(\s*"{model}"', script.read_text()), "the script names its model"
    forward = [PACKAGE / "models" / f"{model}.py", PACKAGE / "models" / model / "__init__.py"]
    assert any(path.is_file() for path in forward), f"a forward pass: {forward[0].relative_to(ROOT)}"
    tested = [path for path in (ROOT / "tests").rglob("test_*.py") if f"models.{model}" in path.read_text() or
              f"models import {model}" in path.read_text()]  # fmt: skip
    assert tested, f"a test that imports plumbline.models.{model}"


@pytest.mark.parametrize("variant", read_variants().values(), ids=lambda variant: variant.id)
def test_a_variant_has_its_environment(variant):
    folder = ROOT / "containers" / variant.row["env"]
    assert (folder / "requirements.in").is_file()
    assert (folder / "requirements.txt").is_file(), "lock it: containers/lock"


@pytest.mark.parametrize("name", tasks.names())
def test_a_task_is_a_complete_record(name):
    task = tasks.load(name)
    assert task.name == name
    assert task.title
    assert task.question.endswith(".")
    assert task.metric(task.main_metric)
    assert all(metric.title and metric.lowest < metric.highest for metric in task.metrics)
    assert (ROOT / "tests" / "unit" / f"test_{name}.py").is_file()
    # Nextflow reads the flags from the source, each on a line of its own
    lines = [line.strip() for line in (PACKAGE / "tasks" / f"{name}.py").read_text().splitlines()]
    for flag in ("needs_counts", "scores_predictors", "uses_device"):
        assert (f"{flag}=True," in lines) == getattr(task, flag)


def test_no_metric_and_no_place_in_the_report_is_taken_twice():
    records = tasks.records().values()
    names = [metric.name for task in records for metric in task.metrics]
    assert len(names) == len(set(names))
    assert len({task.order for task in records}) == len(records)


def test_no_two_classes_of_one_name():
    """Families of models may share names: each has its Network, its Tokenizer. The package's face has those that users expect,
    Screen and Result, whatever they are called within."""
    places: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        family = len(module.split(".")) > 3 and room(module) == "models" and module.split(".")[2] not in ("runtime", "shared")
        for node in ast.parse(path.read_text()).body:
            face = room(module) == "benchmark" and node.name in plumbline.__all__ if isinstance(node, ast.ClassDef) else True
            if not face and not family:
                places.setdefault(node.name, set()).add(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_scripts_and_benchmarks_import_what_is_there():
    """Most of them run in no test, so that a name that has moved would be missed."""
    files = [path for folder in ("benchmarks", "bin", "assets", "docs") for path in (ROOT / folder).glob("*.py")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in MODULES:
                known = top_level_names(MODULES[node.module])
                lost = [a.name for a in node.names if a.name not in known and f"{node.module}.{a.name}" not in MODULES]
                assert not lost, f"{path.relative_to(ROOT)} imports {lost} from {node.module}"


def top_level_names(path: Path) -> set[str]:
    """What a file defines or imports at its top level."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found
