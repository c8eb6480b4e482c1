"""Bad input ends at once with a message that helps, a non-zero exit code and no half-written results."""

import pytest

from .conftest import plumb_run, write_sheet

pytestmark = pytest.mark.pipeline


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "pca,scpgt"], ["Unknown model: scpgt", "scgpt"]),
        (["--tasks", "recal"], ["Unknown task: recal", "recall"]),
        (["--seeds", "fortytwo"], ["seeds are whole numbers"]),
        (["--models", "random"], ["baseline"]),
        (["--models", "pca,geneformer_v1"], ["--weights", "plumb fetch geneformer_v1"]),
        (["--experiments", "transfers"], ["Unknown experiment: transfers", "transfer"]),
        (["--experiments", "minimal_data", "--shares", "0.5,5"], ["5 is no share", "at most 1"]),
        (["--experiments", "transfer", "--experiment_tasks", "recal"], ["Unknown task in --experiment_tasks: recal"]),
        (["--n_boot", "3"], ["--n_boot: 3 is below the minimum 20"]),
    ],
)
def test_a_wrong_request_is_refused_before_anything_runs(arguments, words, tiny_sheet, tmp_path):
    run = plumb_run(tmp_path, "--input", tiny_sheet, *arguments)
    assert run.code != 0
    for word in words:
        assert word in run.output
    assert not list((tmp_path / "work").glob("*/*"))  # the work folder of no task


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("gone,/no/such/file.h5ad,perturbation,control,batch,human,counts,0,crispri", ["gone", "/no/such/file.h5ad"]),
        ("mystery,,perturbation,control,batch,human,counts,0,crispri", ["mystery", "not in the catalogue"]),
        ("odd name!,x.h5ad,perturbation,control,batch,human,counts,0,crispri", ["odd name!"]),
        ("bad,x.h5ad,perturbation,control,batch,human,logg,0,crispri", ["logg"]),
    ],
)
def test_a_wrong_sheet_is_refused_before_anything_runs(row, words, tmp_path):
    run = plumb_run(tmp_path, "--input", write_sheet(tmp_path / "sheet.csv", row))
    assert run.code != 0
    for word in words:
        assert word in run.output
    assert not list((tmp_path / "work").glob("*/*"))  # the work folder of no task


def test_a_wrong_column_stops_the_run_with_a_hint(tiny_screen, tmp_path):
    sheet = write_sheet(tmp_path / "sheet.csv", f"tiny,{tiny_screen},pertubation,non-targeting,batch,human,counts,0,crispri")
    run = plumb_run(tmp_path, "--input", sheet, "-profile", "test", "--models", "pca")
    assert run.code != 0
    assert "Did you mean 'perturbation'" in run.output
    assert not (tmp_path / "results" / "multiqc_report.html").exists()
    assert not list((tmp_path / "results").rglob("counts.h5ad"))


def test_a_sheet_from_a_spreadsheet_is_accepted(tiny_sheet, tmp_path):
    """A byte-order mark, Windows line ends, quotes and spaces."""
    text = tiny_sheet.read_text().replace("crispri", '"crispri"').replace("\n", "\r\n")
    (tmp_path / "sheet.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    run = plumb_run(tmp_path, "--input", tmp_path / "sheet.csv", "-profile", "test", "--models", "pca", "--tasks", "recall")
    assert run.code == 0, run.output
    assert (tmp_path / "results" / "multiqc_report.html").exists()


def test_a_task_that_fails_is_a_row_that_says_so_and_the_report_is_made(tiny_sheet, tmp_path):
    """An embedding that misses cells fails alone: the rest of the table stands, and the exit code is not 0."""
    import numpy as np

    np.savez(tmp_path / "short.npz", cell_id=np.array(["nobody"]), embedding=np.zeros((1, 2), dtype=np.float32))
    (tmp_path / "mine.csv").write_text(f"dataset,name,path\ntiny,short,{tmp_path / 'short.npz'}\n")
    options = ["--embeddings", tmp_path / "mine.csv", "--models", "pca", "--tasks", "recall", "--seeds", "42"]
    run = plumb_run(tmp_path, "--input", tiny_sheet, "-profile", "test", *options)
    assert run.code != 0
    table = (run.results / "scores.tsv").read_text()
    assert "failed" in table
    assert (run.results / "multiqc_report.html").exists()
