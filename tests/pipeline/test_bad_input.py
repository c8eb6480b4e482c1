"""Bad input ends at once with a message that helps, a non-zero exit code and no half-written results."""

import pytest

from .conftest import plumb_run, write_sheet

pytestmark = pytest.mark.pipeline


def refused(folder, *arguments) -> str:
    """What a run that is refused before anything runs says."""
    run = plumb_run(folder, *arguments)
    assert run.code != 0
    assert not list((folder / "work").glob("*/*"))  # the work folder of no task
    return run.output


def test_all_wrong_parameters_are_told_at_once_before_anything_runs(tiny_sheet, tmp_path):
    """Single messages: test_request.py."""
    wrong = ["--n_boot", "20.5", "--seeds", "42,42", "--tasks", "recal", "--modls", "pca", "--models", "pca,", "random"]
    output = refused(tmp_path, "--input", tiny_sheet, *wrong)
    for words in (
        "--n_boot: expected a whole number, got '20.5'",
        "--seeds: 42 is there twice",
        "--tasks: 'recal' is not known. Did you mean 'recall'?",
        "--modls: there is no such parameter. Did you mean '--models'?",
        "random: belongs to no parameter",
    ):
        assert words in output
    assert "--models:" not in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "random"], ["baseline", "pca"]),
        (["--models", "pca,geneformer_v1"], ["--weights", "plumb fetch geneformer_v1"]),
    ],
)
def test_a_request_that_lacks_something_is_refused_before_anything_runs(arguments, words, tiny_sheet, tmp_path):
    output = refused(tmp_path, "--input", tiny_sheet, *arguments)
    for word in words:
        assert word in output


def test_a_wrong_sheet_is_refused_with_row_and_reason_before_anything_runs(tiny_screen, tmp_path):
    rows = [
        f"tiny,{tiny_screen},perturbation,non-targeting,batch,human,counts,0,crispri",
        "gone,/no/such/file.h5ad,perturbation,control,batch,human,counts,0,crispri",
        f"bad,{tiny_screen},perturbation,control,batch,human,logg,0,crispri",
    ]
    output = refused(tmp_path, "--input", write_sheet(tmp_path / "sheet.csv", *rows))
    assert f"{tmp_path / 'sheet.csv'} cannot be used" in output
    assert "line 3 (gone), column 'path': '/no/such/file.h5ad' does not exist" in output
    assert "line 4 (bad), column 'x_kind': 'logg' is not one of counts, log, signed. Did you mean 'log'?" in output
    assert "line 2" not in output


def test_an_embedding_may_not_have_the_name_of_a_model(tiny_sheet, tmp_path):
    (tmp_path / "mine.npz").touch()
    (tmp_path / "mine.csv").write_text(f"dataset,name,path\ntiny,pca,{tmp_path / 'mine.npz'}\n")
    output = refused(tmp_path, "--input", tiny_sheet, "--embeddings", tmp_path / "mine.csv", "--models", "pca")
    assert "the embedding 'pca' of --embeddings has the name of a model of plumbline" in output


def test_a_data_set_without_path_is_one_of_the_catalogue(tmp_path):
    output = refused(tmp_path, "--input", write_sheet(tmp_path / "sheet.csv", "kang_deno,,,,,,,,"))
    assert "data set kang_deno has no path and is not in the catalogue" in output
    assert "'kang_demo'" in output


def test_a_wrong_column_stops_the_run_with_a_hint(tiny_screen, tmp_path):
    sheet = write_sheet(tmp_path / "sheet.csv", f"tiny,{tiny_screen},pertubation,non-targeting,batch,human,counts,0,crispri")
    run = plumb_run(tmp_path, "--input", sheet, "-profile", "test", "--models", "pca")
    assert run.code != 0
    assert "Did you mean 'perturbation'" in run.output
    assert not (tmp_path / "results" / "multiqc_report.html").exists()
    assert not list((tmp_path / "results").rglob("counts.h5ad"))


def test_a_sheet_from_a_spreadsheet_is_accepted(tiny_sheet, tiny_screen, tmp_path):
    """A byte-order mark, Windows line ends, quotes, empty rows and columns; a path as people's disks have them."""
    path = tmp_path / "Zoë screens" / "screen, 2nd (copy) & more; #1.h5ad"
    path.parent.mkdir()
    path.symlink_to(tiny_screen)
    text = tiny_sheet.read_text().replace("crispri", '"crispri"').replace(str(tiny_screen), f'"{path}"')
    rows = [f"{line},," for line in [*text.splitlines(), "," * 8]]
    (tmp_path / "sheet.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    run = plumb_run(tmp_path, "--input", tmp_path / "sheet.csv", "-profile", "test", "--models", "pca", "--tasks", "recall")
    assert run.code == 0, run.output
    assert (tmp_path / "results" / "multiqc_report.html").exists()
