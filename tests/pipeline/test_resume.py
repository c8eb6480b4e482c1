"""-resume is neither wasteful nor stale: nothing runs twice, and an edit re-runs exactly the stages that import it."""

import os
import subprocess
from modulefinder import ModuleFinder
from pathlib import Path

import pandas as pd
import pytest

from .conftest import ROOT, copy_of_repo, plumb_run

pytestmark = pytest.mark.pipeline
OPTIONS = ["--models", "pca,random", "--tasks", "consistency,recall", "--seeds", "42", "--n_draws", 50, "--n_boot", 50]
OPTIONS += ["--skip_maps", "false"]


@pytest.fixture(scope="module")
def first(tiny_sheet, tmp_path_factory):
    """A finished run of a copy of the repository."""
    repo = copy_of_repo(tmp_path_factory.mktemp("repo"))
    run = plumb_run(tmp_path_factory.mktemp("resume"), "--input", tiny_sheet, *OPTIONS, "-profile", "test", repo=repo)
    assert run.code == 0, run.output
    return repo, run


def again(first, tiny_sheet) -> dict[str, str]:
    repo, run = first
    done = plumb_run(run.folder, "--input", tiny_sheet, *OPTIONS, "-profile", "test", "-resume", repo=repo)
    assert done.code == 0, done.output
    return done.tasks()


def damage(results: Path) -> dict[Path, bytes]:
    """What an interrupted copy, or a run with other settings, leaves of some results, and what was there before."""
    paths = [
        next(results.glob(pattern)) for pattern in ("embeddings/*.pca.*.npz", "scores.parquet", "data/*/tables/cells.parquet")
    ]
    gone = [results / "about.json", next(results.glob("data/*/tables/splits.parquet"))]
    before = {path: path.read_bytes() for path in (*paths, *gone)}
    for path in paths[:2]:
        path.write_bytes(before[path][:-20])
    paths[2].write_bytes(before[paths[2]][:-20] + bytes(20))  # another run's results may be of the same size
    for path in gone:
        path.unlink()
    return before


def test_a_second_run_repeats_nothing_and_restores_what_it_published(first, tiny_sheet):
    before, files = first[1].tasks(), {kind: first[1].info(*kind) for kind in (("trace", "txt"), ("params", "json"))}
    assert set(before.values()) == {"COMPLETED"}
    published = damage(first[1].results)
    assert again(first, tiny_sheet) == dict.fromkeys(before, "CACHED")
    assert {path: path.read_bytes() for path in published} == published
    for kind, file in files.items():
        assert file.exists(), "the first run's stays"
        assert first[1].info(*kind) != file, "and the second has its own"


def test_a_further_seed_repeats_nothing_of_the_seeds_before(first, tiny_sheet):
    repo, run = first
    options = [{"42": "42,43"}.get(word, word) for word in OPTIONS]
    done = plumb_run(run.folder, "--input", tiny_sheet, *options, "-profile", "test", "-resume", repo=repo)
    assert done.code == 0, done.output
    status = done.tasks()
    kept = {name for name, how in status.items() if how == "CACHED"}
    assert {"PREPARE (tiny)", "EMBED:EMBED_CPU (tiny.pca.42)", "EMBED:EMBED_CPU (tiny.random)"} <= kept
    assert "EVALUATE:EVALUATE_TOGETHER (tiny.pca.42)" in kept
    # few cells: all seeds of an embedding that is not refitted are one task
    new = {f"EVALUATE:EVALUATE_TOGETHER ({name})" for name in ("tiny.pca.43", "tiny.random")}
    assert {name for name in status if name.startswith("EVALUATE")} - kept == new


def test_the_models_of_a_data_set_are_mapped_and_shown(first):
    run = first[1]
    assert [name for name in run.tasks() if name.startswith("MAP")] == ["MAP (tiny)"]
    cells = pd.read_parquet(run.results / "maps" / "tiny.cells.parquet")
    assert set(cells["variant"]) == {"pca"}, "a floor is not mapped"
    assert cells[["x", "y"]].notna().all(axis=None)
    page = (run.results / "multiqc_report.html").read_text()
    assert 'data-pl-kind="maps"' in page
    assert 'data-pl-kind="genes"' in page


@pytest.mark.parametrize(
    ("edited", "repeated"),
    [
        (
            "bin/plumbline/tasks/consistency.py",
            [
                *("EVALUATE:EVALUATE_TOGETHER (tiny.pca.42)", "EVALUATE:EVALUATE_TOGETHER (tiny.random)"),
                *("PLAN (tiny)", "ESTIMATE (1)"),  # which tasks apply
            ],
        ),
        ("bin/plumbline/models/pca/pca.py", ["EMBED:EMBED_CPU (tiny.pca.42)"]),
        ("bin/plumbline/report/page.js", ["REPORT (1)"]),
        ("bin/plumbline/metrics/layout.py", ["MAP (tiny)"]),
        ("bin/plumbline/summary/scores.schema.json", ["SUMMARISE (1)"]),
        ("bin/plumbline/embedding/models.csv", ["SUMMARISE (1)", "ESTIMATE (1)"]),
    ],
)
def test_an_edit_repeats_exactly_the_stages_that_import_the_file(first, tiny_sheet, edited, repeated):
    """Stages fed by a repeated one may repeat too; those that neither import the file nor depend on it may not."""
    edit(first[0] / edited)
    status = again(first, tiny_sheet)
    for name in repeated:
        assert status[name] == "COMPLETED"
    # the references import PCA as well, for the scrambled one
    downstream = ("tiny.pca.42", "tiny.random", "MAP (tiny)") if edited.endswith("pca/pca.py") else ()
    for name in status:
        if name not in repeated and not name.startswith(("SUMMARISE", "REPORT", "MULTIQC")):
            assert status[name] == "CACHED" or any(part in name for part in downstream), name


def edit(path: Path) -> None:
    """A change of a file that changes no score: a comment, a title, a blank line."""
    text = path.read_text()
    if path.name == "models.csv":  # the title of one variant
        changed = text.replace(",Random Gaussian,", ",Random numbers,")
        assert changed != text
    else:
        changed = text + ("\n# a comment\n" if path.suffix == ".py" else "\n")
    path.write_text(changed)


@pytest.mark.parametrize("roots", ["evaluate_embedding.py,plumbline/tasks/recall.py", "plan_evaluation.py", "embed_scgpt.py"])
def test_the_digest_sees_every_file_that_python_would_import(roots, tmp_path):
    """The digest follows import lines by pattern: checked against Python's own module finder."""
    command = [os.environ["PLUMBLINE_NEXTFLOW"], "run", ROOT / "tests" / "pipeline" / "digest.nf", "--roots", roots]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    seen = {Path(line.removeprefix("FILE ")).resolve() for line in shown.splitlines() if line.startswith("FILE ")}
    assert seen == imported([ROOT / "bin" / root for root in roots.split(",")])


def imported(roots: list[Path]) -> set[Path]:
    """Files of bin/ that Python's own module finder reaches from the roots, imports inside functions included."""
    found = set(roots)
    for root in roots:
        finder = ModuleFinder(path=[str(ROOT / "bin")])
        finder.run_script(str(root))
        found |= {Path(module.__file__) for module in finder.modules.values() if module.__file__}
    return found
