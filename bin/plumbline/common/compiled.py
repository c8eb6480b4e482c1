"""Loops compiled by numba at their first call and kept on disk: a pipeline starts hundreds of processes that need the same."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property, update_wrapper
from typing import Any


def compiled(**options: Any) -> Callable[[Callable], "Compiled"]:
    """A decorator: ``numba.njit`` with these options, cached on disk where a cache folder is writable (beside the source, or
    NUMBA_CACHE_DIR; in a read-only container there may be none). numba is imported at the first call."""
    return lambda function: Compiled(function, options)


class Compiled:
    """A function that is compiled when it is first called. Compiled functions may call each other."""

    def __init__(self, function: Callable, options: dict[str, Any]) -> None:
        update_wrapper(self, function)
        self.function, self.options = function, options

    def __call__(self, *arguments: Any) -> Any:
        """The function's result."""
        return self.dispatcher(*arguments)

    @cached_property
    def dispatcher(self) -> Callable:
        """What numba makes of the function. It must find what the function calls as dispatchers, not as this class."""
        import numba

        names = self.function.__globals__
        for name in self.function.__code__.co_names:
            called = names.get(name)
            if isinstance(called, Compiled):
                names[name] = called.dispatcher
        made = numba.njit(**self.options)(self.function)
        keep([made])
        return made


def keep(dispatchers: Iterable[Any]) -> None:
    """Keep on disk what these dispatchers of numba, of this package or of another, compile from now on."""
    for dispatcher in dispatchers:
        with suppress(RuntimeError):  # no folder can be written
            dispatcher._cache = _tolerant_cache(dispatcher.py_func)


def _tolerant_cache(function: Callable) -> Any:
    """numba's cache on disk of one function; what cannot be read or written there is compiled again.

    numba itself ends with an error at a file that was cut short, in this task and in every later one.
    """
    from numba.core.caching import FunctionCache

    class Tolerant(FunctionCache):
        def load_overload(self, sig, target_context):
            try:
                return super().load_overload(sig, target_context)
            except Exception:
                self._forget()
                return None

        def save_overload(self, sig, data):
            try:
                super().save_overload(sig, data)
            except Exception:
                self._forget()

        def _forget(self):
            try:
                self.flush()
            except OSError:
                self.disable()

    return Tolerant(function)
