"""Threads follow the task: every pool of a step has the size it was given, whenever its library is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from plumbline.common.threads import side_by_side

BIN = Path(__file__).resolve().parents[2] / "bin"
POOLS = "import numpy, scipy.linalg, threadpoolctl as t; print(*{pool['num_threads'] for pool in t.threadpool_info()})"
EVALUATE = ["--embedding", "e.npz", "--tables", "t", "--task", "recall", "--seeds", "1", "--output", "o"]

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor: there is no second thread to leave out")


def pools(code: str) -> str:
    """The sizes of the thread pools that a fresh interpreter prints."""
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    run = subprocess.run([sys.executable, "-c", code], env=free | {"PYTHONPATH": str(BIN)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_a_machine_offers_more():
    assert pools(POOLS) != "1"


@pytest.mark.parametrize("before", ["", "import numpy\n", "import numpy, numba, torch\n"], ids=["none", "numpy", "all"])
def test_libraries_loaded_before_and_after(before):
    assert pools(f"{before}from plumbline.common.threads import limit_threads\nlimit_threads(1)\n{POOLS}") == "1"


def test_evaluation_is_limited_before_numpy_is_loaded():
    script = f"""
import sys, evaluate_embedding
sys.argv = ["evaluate_embedding.py", "--threads", "1", *{EVALUATE!r}]
evaluate_embedding.rows_of = lambda args, task: []
def write_tables(*_):
    {POOLS}
evaluate_embedding.write_tables = write_tables
evaluate_embedding.main()
"""
    assert pools(script) == "1"


def test_a_training_gets_the_threads_of_torch_back():
    """Numba may share torch's OpenMP: the start of its own threads must not be taken for what the training had."""
    code = """
import os
os.environ["OMP_NUM_THREADS"] = "1"
import numba, torch
from plumbline.common.threads import limited_threads
with limited_threads(1):
    assert numba.get_num_threads() == 1
print(torch.get_num_threads(), numba.get_num_threads() > 1)
"""
    assert pools(code) == "1 True"


def test_threads_side_by_side_do_not_share_those_of_blas():
    """Two callers of OpenBLAS that each had two threads waited for one another: magnitude took six times as long with two."""

    def of_blas() -> set[int]:
        (np.eye(8) @ np.eye(8)).sum()
        return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}

    with threadpoolctl.threadpool_limits(2):
        assert of_blas() == {2}
        with side_by_side(2) as pool:
            assert list(pool.map(lambda _: of_blas(), range(2))) == [{1}, {1}]
        assert of_blas() == {2}
