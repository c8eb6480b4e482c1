"""A task that fails loses its own result alone, and what it said reaches table, report and console."""

import numpy as np
import pandas as pd
import pytest

from .conftest import plumb_run

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def lost(tiny_sheet, tmp_path_factory):
    """A run in which one of two embeddings has the rows of other cells."""
    folder = tmp_path_factory.mktemp("lost")
    np.savez(folder / "mine.npz", cell_id=np.array(["nobody"]), embedding=np.ones((1, 2), np.float32))
    (folder / "embeddings.csv").write_text(f"name,dataset,path\nmine,tiny,{folder / 'mine.npz'}\n")
    options = ["--models", "pca", "--tasks", "consistency", "--seeds", "42", "--n_draws", 50, "--n_boot", 50]
    sheets = ["--input", tiny_sheet, "--embeddings", folder / "embeddings.csv"]
    return plumb_run(folder, *sheets, *options, "-profile", "test")


def test_the_run_ends_with_its_report_and_an_exit_code(lost):
    assert lost.code != 0
    assert (lost.results / "multiqc_report.html").is_file()


def test_the_reason_stands_in_the_row_with_the_folder_of_the_task(lost):
    scores = pd.read_parquet(lost.results / "scores.parquet")
    assert set(scores[scores["variant"] == "pca"]["status"]) <= {"ok", "not_applicable"}
    rows = scores[scores["variant"] == "mine"]
    assert set(rows["status"]) == {"failed"}
    reason = rows["reason"].unique().item()
    assert reason.startswith("EMBED failed: mine.npz")
    assert "(exit status 1)" in reason
    folder = reason.rpartition("its folder: ")[2]
    assert (lost.folder / folder / ".command.err").is_file()


def test_the_reason_is_said_on_the_console_and_in_the_report(lost):
    assert "EMBED_CPU (tiny.mine) failed: mine.npz" in lost.output
    assert "EMBED failed: mine.npz" in (lost.results / "multiqc_report.html").read_text()
