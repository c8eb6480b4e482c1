"""The output folder of a run: it can be written to, and no other run writes into it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from plumbline.common.errors import UserError

LOCK = "pipeline_info/.running"  # holds the process id of the run


@contextmanager
def claimed(outdir: str) -> Iterator[tuple[int, ...]]:
    """Keep other runs out: two that write into one folder leave files of both. Raises UserError if one is there already.

    Yields the file descriptors that a child must inherit: the folder is claimed as long as one process has them open, so that
    a run whose plumb was killed still keeps it. Nothing is claimed where files cannot be locked, and of a folder at a URL.
    """
    if "://" in outdir:
        yield ()
        return
    with _opened(Path(outdir).absolute()) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise UserError(
                f"Another run writes into {outdir} (plumb has the process id {lock.read().strip()}). Wait for it, end it "
                "(`ps -ef | grep nextflow` shows what runs), or name another --outdir."
            ) from error
        except OSError:  # some network file systems have no locks
            yield ()
            return
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield (lock.fileno(),)


def _opened(outdir: Path) -> TextIO:
    try:
        (outdir / LOCK).parent.mkdir(parents=True, exist_ok=True)
        return (outdir / LOCK).open("a+")
    except OSError as error:
        raise UserError(f"--outdir {outdir} cannot be written to ({error.strerror}). Name another folder.") from error
