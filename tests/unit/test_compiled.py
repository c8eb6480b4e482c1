"""Compiled loops: made at the first call, kept on disk, and made again where that file is damaged."""

import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(__file__).resolve().parents[2] / "bin"
LOOPS = """
from plumbline.common.compiled import compiled

@compiled(inline="always")
def twice(x):
    return 2 * x

@compiled(nogil=True)
def total(values):
    s = 0.0
    for value in values:
        s += twice(value)
    return s
"""
SCRIPT = """
import sys
import loops
assert "numba" not in sys.modules
import numpy
assert loops.total(numpy.arange(4.0)) == 12.0
print(sum(loops.total.dispatcher.stats.cache_hits.values()))
"""


FOREIGN = """
import sys
import numba
from plumbline.common.compiled import keep

@numba.njit
def half(x):
    return x / 2

if sys.argv[1] == "kept":
    keep([half])
assert half(3.0) == 1.5
print(sum(half.stats.cache_hits.values()))
"""


@pytest.fixture
def call(tmp_path):
    """Run the loops in a new process; returns how many compiled functions came from the disk."""
    (tmp_path / "loops.py").write_text(LOOPS)

    def run() -> int:
        variables = {"PYTHONPATH": f"{tmp_path}:{BIN}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=variables)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    return run


def test_a_damaged_cache_is_made_again(call, tmp_path):
    assert call() == 0
    assert call() == 1
    for ending in ("nbc", "nbi"):
        for path in (tmp_path / "__pycache__").glob(f"loops.total*.{ending}"):
            path.write_bytes(path.read_bytes()[:40])
        assert call() == 0, ending
        assert call() == 1, ending


def test_loops_of_another_package_can_be_kept(tmp_path):
    (tmp_path / "foreign.py").write_text(FOREIGN)

    def hits(how: str) -> str:
        words = [sys.executable, tmp_path / "foreign.py", how]
        return subprocess.run(words, stdout=-1, text=True, check=True, env={"PYTHONPATH": str(BIN)}).stdout.strip()

    assert [hits("as it is"), hits("as it is"), hits("kept"), hits("kept")] == ["0", "0", "0", "1"]
