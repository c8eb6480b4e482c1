"""A task that fails loses its own result alone, and what it said reaches table, report and console."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from .conftest import ROOT, copy_of_repo, plumb_run

pytestmark = pytest.mark.pipeline
# two tasks: one that has a fault, and one that is killed where others run beside it, as for want of memory
ENDS = {
    "faulty": 'raise ValueError("a fault of mine")',
    "crowded": "multiprocessing.parent_process() and os.kill(os.getpid(), 9)",
}


@pytest.fixture(scope="module")
def lost(tiny_sheet, tmp_path_factory):
    """(a run in which an embedding has the rows of other cells and two of three tasks end badly, its tasks, those resumed)."""
    repo, folder = copy_of_repo(tmp_path_factory.mktemp("faulty")), tmp_path_factory.mktemp("lost")
    for name, line in ENDS.items():
        add_task(repo / "bin/plumbline/tasks", name, line)
    np.savez(folder / "mine.npz", cell_id=np.array(["nobody"]), embedding=np.ones((1, 2), np.float32))
    (folder / "embeddings.csv").write_text(f"name,dataset,path\nmine,tiny,{folder / 'mine.npz'}\n")
    options = ["--models", "pca", "--tasks", "consistency,faulty,crowded", "--seeds", "42", "--n_draws", 50, "--n_boot", 50]
    options += ["--input", tiny_sheet, "--embeddings", folder / "embeddings.csv", "-profile", "test"]
    first = plumb_run(folder, *options, repo=repo)
    shutil.copytree(first.results, folder / "first")
    tasks = first.tasks()
    return first, tasks, plumb_run(folder, *options, "-resume", repo=repo).tasks()


def add_task(folder, name: str, line: str) -> None:
    """The task of docs/adding_a_task.md with a first line that ends it."""
    text = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/adding_a_task.md").read_text(), re.M | re.S)[0]
    text = text.replace('"isotropy"', f'"{name}"').replace('"effective_dimensions"', f'"dimensions_{name}"')
    text = text.replace("import numpy as np", "import multiprocessing\nimport os\n\nimport numpy as np", 1)
    body = "    batches = np.unique(view.screen.batch)\n"
    assert body in text
    (folder / f"{name}.py").write_text(text.replace(body, f"    {line}\n{body}"))


@pytest.fixture(scope="module")
def scores(lost):
    return pd.read_parquet(lost[0].folder / "first" / "scores.parquet")


def test_the_run_ends_with_its_report_and_an_exit_code(lost):
    assert lost[0].code != 0
    assert (lost[0].results / "multiqc_report.html").is_file()


def test_tasks_that_share_a_process_fail_alone(lost, scores):
    """What ended badly in company is tried once more on its own."""
    by_task = {task: set(part["status"]) for task, part in scores[scores["variant"] == "pca"].groupby("task")}
    assert by_task["crowded"] == {"ok"}
    assert "ok" in by_task["consistency"]
    assert by_task["faulty"] == {"failed"}
    scoring = {name.partition(":")[2]: how for name, how in lost[1].items() if name.startswith("EVALUATE")}
    assert scoring == {
        "EVALUATE_TOGETHER (tiny.pca.42)": "COMPLETED",
        "EVALUATE_CPU (tiny.pca.42.crowded)": "COMPLETED",
        "EVALUATE_CPU (tiny.pca.42.faulty)": "FAILED",
    }


def test_the_reason_stands_in_the_row_with_the_folder_of_the_task(lost, scores):
    said = {"mine": "EMBED failed: mine.npz", "pca": "EVALUATE failed: ValueError: a fault of mine (exit status 1)"}
    for variant, start in said.items():
        rows = scores[(scores["variant"] == variant) & (scores["status"] == "failed")]
        for reason in rows["reason"].unique():
            assert reason.startswith(start)
            assert "(exit status 1)" in reason
            assert (lost[0].folder / reason.rpartition("its folder: ")[2] / ".command.err").is_file()
        assert len(rows)
    assert set(scores.loc[scores["variant"] == "mine", "status"]) == {"failed"}


def test_the_reason_is_said_on_the_console_and_in_the_report(lost):
    assert "EMBED_CPU (tiny.mine) failed: mine.npz" in lost[0].output
    page = (lost[0].results / "multiqc_report.html").read_text()
    assert "EMBED failed: mine.npz" in page
    assert "ValueError: a fault of mine" in page


def test_a_resumed_run_repeats_what_failed_and_nothing_else(lost):
    again = {name for name, how in lost[2].items() if how != "CACHED" and name.startswith(("PREPARE", "EMBED", "EVALUATE"))}
    assert again == {"EMBED:EMBED_CPU (tiny.mine)", "EVALUATE:EVALUATE_CPU (tiny.pca.42.faulty)"}
