"""Works in children of one process: what goes wrong in one leaves the others, and each has its own accounts."""

import os
import resource
import signal
import time
from functools import partial

import pytest

from plumbline.common.children import run_children
from plumbline.common.errors import OUT_OF_MEMORY, UserError


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


def fail(error: BaseException) -> None:
    raise error


def write(path, text: str = "done") -> None:
    path.write_text(text)


def test_every_end_of_a_child_is_its_own(tmp_path, capfd):
    works = [
        partial(write, tmp_path / "first"),
        partial(fail, UserError("the file is empty. Give another.")),
        partial(fail, ValueError("a bug")),
        partial(fail, OutOfMemoryError("cuda")),
        lambda: os.kill(os.getpid(), signal.SIGKILL),  # as the kernel does when memory runs out
        lambda: time.sleep(60),
        partial(write, tmp_path / "last"),
    ]
    assert run_children(works, at_once=3, seconds=2) == [0, 1, 1, OUT_OF_MEMORY, -signal.SIGKILL, -signal.SIGALRM, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"first", "last"}
    said = capfd.readouterr().err
    assert "ERROR: the file is empty. Give another." in said
    assert "ValueError: a bug" in said


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_more_at_a_time_than_asked(at_once, tmp_path):
    def work(name: str) -> None:
        begun = time.monotonic()
        time.sleep(0.3)
        (tmp_path / name).write_text(f"{begun} {time.monotonic()}")

    assert run_children([partial(work, str(number)) for number in range(4)], at_once, 0) == [0] * 4
    spans = [tuple(map(float, path.read_text().split())) for path in tmp_path.iterdir()]
    together = max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)
    assert together == at_once


def test_memory_is_given_back_and_processor_time_is_the_childs_own(tmp_path):
    def work() -> None:
        held = bytearray(200 * 2**20)
        used = resource.getrusage(resource.RUSAGE_SELF)
        write(tmp_path / "used", f"{used.ru_utime + used.ru_stime} {len(held)}")

    begin = time.process_time()
    while time.process_time() < begin + 0.5:
        pass  # the parent's own time, which no child inherits
    before = resident()
    assert run_children([work, work], 1, 0) == [0, 0]
    assert resident() < before + 50 * 2**20
    assert float((tmp_path / "used").read_text().split()[0]) < 0.4


def resident() -> int:
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize()
