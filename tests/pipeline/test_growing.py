"""Growing is cheap: a task and a model, added as the docs say, run through Nextflow and look finished in the report."""

import csv
import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from .conftest import ROOT, copy_of_repo, plumb_run

pytestmark = pytest.mark.pipeline
TABLE = "bin/plumbline/embedding/models.csv"


def code_blocks(page: str) -> list[str]:
    """The Python of a page of docs/, a block each."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.M | re.S)


def add_tasks(repo: Path) -> None:
    """The task of docs/adding_a_task.md as written, and once more as a task that needs counts."""
    text = code_blocks("adding_a_task.md")[0]
    folder = repo / "bin" / "plumbline" / "tasks"
    (folder / "isotropy.py").write_text(text)
    counted = text.replace('"isotropy"', '"counted"').replace('"effective_dimensions"', '"dimensions_counted"')
    counted = counted.replace('title="Isotropy"', 'title="Isotropy, with counts"').replace("order=70", "order=80")
    counted = counted.replace("    run=run,\n", "    run=run,\n    needs_counts=True,\n")
    body = "    batches = np.unique(view.screen.batch)\n"
    assert body in counted
    counted = counted.replace(body, f"    assert open_counts(view.counts).shape[0] >= len(view.rows)\n{body}")
    counted = counted.replace("\n\nfrom", "\n\nfrom plumbline.counts.reading import open_counts\nfrom", 1)
    (folder / "counted.py").write_text(counted)


def add_model(repo: Path) -> None:
    """The model of docs/adding_a_model.md: its two files as written, and its row."""
    forward, script = code_blocks("adding_a_model.md")[:2]
    (repo / "bin/plumbline/models/library_size.py").write_text(forward)
    (repo / "bin/embed_library_size.py").write_text(script)
    (repo / "bin/embed_library_size.py").chmod(0o755)
    text = re.search(r"## 3\. The row\n\n```\n(.*?)```", (ROOT / "docs/adding_a_model.md").read_text(), re.S)[1]
    row = {line.split()[0]: re.split(r" {2,}", line + "  ")[1] for line in text.splitlines()}
    with open(repo / TABLE, newline="") as stream:
        columns = next(csv.reader(stream))
    assert set(row) <= set(columns)
    with open(repo / TABLE, "a", newline="") as stream:
        csv.DictWriter(stream, columns, restval="").writerow(row)


@pytest.fixture(scope="module")
def grown(tiny_sheet, tmp_path_factory):
    """(the repository with two tasks and a model more, a run of them)."""
    repo = copy_of_repo(tmp_path_factory.mktemp("grown"))
    for command in ("init -q", "add -A", "-c user.name=a -c user.email=a@b.c commit -q -m before"):
        subprocess.run(["git", *command.split()], cwd=repo, check=True)
    add_tasks(repo)
    add_model(repo)
    options = ["--models", "pca,library_size", "--tasks", "isotropy,counted", "--seeds", "42", "--n_draws", 50, "--n_boot", 50]
    run = plumb_run(tmp_path_factory.mktemp("growing"), "--input", tiny_sheet, *options, "-profile", "test", repo=repo)
    assert run.code == 0, run.output
    return repo, run


def test_a_model_with_its_test_is_at_most_five_files(grown):
    shown = ["git", "status", "--porcelain", "--untracked-files=all"]
    changed = subprocess.run(shown, cwd=grown[0], capture_output=True, text=True, check=True).stdout.splitlines()
    of_model = [line[3:] for line in changed if "library_size" in line or TABLE in line]
    assert sorted(of_model) == ["bin/embed_library_size.py", TABLE, "bin/plumbline/models/library_size.py"]
    assert len(of_model) + 1 <= 5  # and its test
    assert sorted(line[3:] for line in changed if line[3:] not in of_model) == [
        "bin/plumbline/tasks/counted.py",
        "bin/plumbline/tasks/isotropy.py",
    ]


def test_both_are_scored(grown):
    scores = pd.read_parquet(grown[1].results / "scores.parquet")
    assert set(scores["variant"]) == {"pca", "library_size"}
    assert set(scores["task"]) == {"isotropy", "counted"}
    assert (scores["status"] == "ok").all(), scores["reason"].unique()
    assert scores["value"].between(0, 1).all()


def test_the_summary_draws_as_often_as_was_asked_and_from_the_first_seed(grown):
    about = json.loads((grown[1].results / "about.json").read_text())
    assert about["n_boot"] == about["n_draws"] == 50
    scripts = [path.read_text() for path in (grown[1].folder / "work").glob("*/*/.command.sh")]
    summarise = next(text for text in scripts if "summarise_scores.py" in text)
    assert '"--seed=42"' in summarise
    assert '"--n-boot=50"' in summarise


def test_they_look_finished_in_the_report(grown):
    page = (grown[1].results / "multiqc_report.html").read_text()
    question, metric = "Whether the embedding uses its dimensions evenly", "effective dimensions, share of all"
    for words in ("Isotropy, with counts", question, metric, "Library size"):
        assert words in page, words
    assert page.index("plumbline_task_isotropy") < page.index("plumbline_task_counted") < page.index("plumbline_methods")
