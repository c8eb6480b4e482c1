"""The notebooks of docs/notebooks run from their first to their last cell, and hold no outputs."""

import ast
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def cells_of(name: str) -> list[dict]:
    return json.loads((FOLDER / name).read_text())["cells"]


def run(name: str) -> tuple[dict, list]:
    """The variables after the last cell, and the value of each code cell's last expression, which a notebook shows."""
    found, shown = {"__name__": "__main__"}, []
    for number, cell in enumerate(one for one in cells_of(name) if one["cell_type"] == "code"):
        tree = ast.parse("".join(cell["source"]), f"{name}, code cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{name}, code cell {number}", "exec"), found)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), f"{name}, code cell {number}", "eval"), found))
    return found, shown


@pytest.fixture(autouse=True)
def beside_the_notebooks(monkeypatch):
    monkeypatch.chdir(FOLDER)
    mpl.use("Agg")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_linked_and_holds_no_outputs(name):
    assert f"notebooks/{name}" in (ROOT / "docs/README.md").read_text()
    assert not any(cell.get("outputs") for cell in cells_of(name))


def test_evaluate_my_embedding():
    found, shown = run("evaluate_my_embedding.ipynb")
    summary = shown[1]
    assert summary["X_mine/consistency_pct"] > summary["X_noise/consistency_pct"]  # the components see what was planted
    assert set(shown[2]["variant"]) == {"X_mine", "X_noise"}
    assert shown[3] == ["X_mine", "X_noise"]
    assert (found["saved"] / "X_mine/manifest.json").is_file()


def test_use_in_a_training_loop():
    _, shown = run("use_in_a_training_loop.ipynb")
    assert [step for step, _ in shown[1]] == [5, 10]
    assert shown[2]["step"] == 10


def test_read_a_runs_items():
    found, shown = run("read_a_runs_items.ipynb")
    assert shown[1]["mean"].is_monotonic_decreasing
    table = found["table"]
    assert len(table) > 20
    np.testing.assert_allclose(table["from_items"], table["value"], rtol=1e-6)
