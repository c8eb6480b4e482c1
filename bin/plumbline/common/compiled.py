"""Loops compiled by numba, kept on disk: a pipeline starts hundreds of processes that would compile the same ones again."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """A decorator: ``numba.njit`` with these options, cached on disk where a cache folder is writable (NUMBA_CACHE_DIR, or
    beside the source; in a read-only container there may be none)."""

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(**options)(function)

    return decorate
