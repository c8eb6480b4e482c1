"""How many threads a step may use: what Nextflow gave its task, not what the machine has."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


def limit_threads(threads: int) -> None:
    """Hold BLAS, OpenMP, numba and torch to ``threads``, those already loaded and those that will be.

    A library reads its variables when it is loaded and never again; threadpoolctl reaches what is loaded and nothing else.
    A pool of more threads than the task has waits busily: on two processors that doubled the time of a small step.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    if "numba" in sys.modules:  # it refuses another value in the environment once its threads run
        numba = sys.modules["numba"]
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    else:
        os.environ["NUMBA_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "numpy" in sys.modules:
        import threadpoolctl

        threadpoolctl.threadpool_limits(threads)


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Hold BLAS, OpenMP, numba and torch to ``threads`` within a block, and give them back afterwards.

    For a process that is not a step of its own, such as somebody's training.
    """
    import threadpoolctl

    numba, torch = sys.modules.get("numba"), sys.modules.get("torch")  # not imported: environments of models lack numba
    of_torch = torch.get_num_threads() if torch else 0  # before numba starts its threads: they can share torch's OpenMP
    with threadpoolctl.threadpool_limits(threads):
        of_numba = numba.get_num_threads() if numba else 0
        if numba:
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        if torch:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            if numba:
                numba.set_num_threads(of_numba)
            if torch:
                torch.set_num_threads(of_torch)


@contextmanager
def side_by_side(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of ``threads`` whose products of matrices are made by one thread each.

    OpenBLAS has one set of threads: two callers that each ask for two wait busily for one another, and took six times as long.
    """
    import threadpoolctl

    with threadpoolctl.threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        yield pool
