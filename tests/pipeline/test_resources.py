"""What tasks ask of a scheduler follows from the sizes of the data."""

import os
import subprocess

import pytest

from .conftest import ROOT

pytestmark = pytest.mark.pipeline
SIZES = {"h5ad": 20 * 10**9, "tar": 10**9}


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> list[str]:
    """What tests/pipeline/resources.nf prints."""
    folder = tmp_path_factory.mktemp("resources")
    for name, size in SIZES.items():
        with open(folder / f"a.{name}", "wb") as stream:
            stream.truncate(size)  # nothing is written
    files = [word for name in SIZES for word in (f"--{name}", folder / f"a.{name}")]
    command = [
        os.environ["PLUMBLINE_NEXTFLOW"],
        "-q",
        "run",
        ROOT / "tests/pipeline/resources.nf",
        *files,
        "--n_cells",
        "60000",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module")
def requested(shown) -> dict[str, int]:
    """name -> MB, or minutes."""
    return {name: int(value) for name, _, value in (line.partition("=") for line in shown) if value}


def test_tasks_of_a_small_embedding_share_a_process(shown):
    """Up to --max_together (10) million values, here 1,000 cells x 64 dimensions x 2 seeds; each task has its own digest."""
    assert {line for line in shown if line.startswith("SMALL")} == {
        "SMALL 10 d.random 42,43 paper,corrected d.random.recall:ab12 d.random.map:cd34",
        "SMALL 0 d.random.recall 42,43 paper,corrected d.random.recall:ab12",
        "SMALL 0 d.random.map 42,43 paper,corrected d.random.map:cd34",
    }


def test_many_cells_are_scored_seed_by_seed(shown):
    """Without a split, `paper` has nothing that depends on the seed."""
    assert {line for line in shown if line.startswith("EVALUATE")} == {
        "EVALUATE all d.random.recall.42 42 paper,corrected",
        "EVALUATE all d.random.recall.43 43 corrected",
        "EVALUATE split d.random.recall.42 42 paper,corrected",
        "EVALUATE split d.random.recall.43 43 paper,corrected",
    }


def test_an_evaluation_asks_by_cells_dimensions_and_seeds(requested):
    assert requested["stub"] == 3 * 1024
    assert requested["wide"] - requested["stub"] == pytest.approx(5 * (requested["large"] - requested["stub"]), abs=5)
    assert requested["large"] < 5 * 1024
    assert requested["with_counts"] - requested["large"] == pytest.approx(0.3 * 2e6 * 8000 / 2**20, abs=2)
    assert requested["minutes_of_two_seeds"] - 120 == pytest.approx(2 * (requested["minutes"] - 120), abs=1)


def test_preparing_and_embedding_ask_by_the_size_of_their_files(requested):
    assert requested["h5ad"] == pytest.approx(4 * 1024 + 0.05 * 20e9 / 2**20, abs=1)
    assert requested["mtx"] == pytest.approx(4 * 1024 + 8e9 / 2**20, abs=1)
    assert requested["gpu"] == pytest.approx(16 * 1024 + 1.5 * 20e9 / 2**20, abs=1)


def test_summaries_ask_by_the_size_of_the_item_tables(requested):
    """Measured: 1.1 GB and 206 CPU seconds for the 2 GB of ten models and five seeds (benchmarks/summary.md)."""
    assert requested["no_items"] == 2 * 1024
    assert requested["items"] == pytest.approx(2 * 1024 + 0.6 * 2e9 / 2**20, abs=1)
    assert requested["one_item_table"] == pytest.approx(2 * 1024 + 0.6 * 1e9 / 2**20, abs=1)
    assert requested["minutes_of_items"] == pytest.approx(120 + 2e9 / 1e6 / 60, abs=1)
