"""Several works of one process, each in a child of its own: what was imported before is shared, what goes wrong is not."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait

from plumbline.common.errors import run_script


def run_children(works: Sequence[Callable[[], None]], at_once: int, seconds: int) -> list[int]:
    """Run every function in a forked child, ``at_once`` at a time, in their order.

    An exception, a kill, lack of memory or the end of ``seconds`` (wall time of one) ends one child and leaves the others. Its
    memory is given back when it ends.

    Parameters
    ----------
    works
        Functions without arguments. They inherit all that is loaded; no thread may have been started before.
    at_once
        Children at a time.
    seconds
        A child that takes longer is killed; 0 for no limit.

    Returns
    -------
    list of int
        Exit code of each: 0, that of ``run_script``, or the negative number of a signal.
    """
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_run, args=(work, seconds)) for work in works]
    running: dict[int, multiprocessing.process.BaseProcess] = {}
    for child in children:
        if len(running) == at_once:
            _join_one(running)
        child.start()
        running[child.sentinel] = child
    while running:
        _join_one(running)
    return [child.exitcode or 0 for child in children]  # None would be one that has not ended


def _join_one(running: dict) -> None:
    """Wait until at least one has ended; those are taken out."""
    for sentinel in wait(list(running)):
        running.pop(sentinel).join()


def _run(work: Callable[[], None], seconds: int) -> None:
    signal.alarm(seconds)  # its default ends the process, inside compiled code as well
    run_script(work)
