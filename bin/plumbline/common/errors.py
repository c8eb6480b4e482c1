"""The two ways a step may end other than by success, and how a script turns them into an exit code."""

import errno
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to do next."""


class NotApplicable(Exception):
    """The question does not apply to this input (a result with a reason, not a crash)."""


DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),  # full, read-only, or not ours to write on
    *(errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),  # a folder in the place of a file, or the reverse
)
PACKAGES = (
    "Packages come with an image (nextflow run ... -profile docker, singularity, ...) or with an environment: ./plumb run makes"
    " those of its models; -profile uv --env_dir DIR takes a folder that ./plumb setup made."
)
OUT_OF_MEMORY = 66  # exit code of a step that ran out of GPU memory: it is repeated with smaller batches, or on the CPU


def run_script(main: Callable[[], None]) -> None:
    """Run ``main``; a UserError, a disk that takes nothing, or a missing package becomes one clear message on stderr and exit
    code 1, lack of GPU memory OUT_OF_MEMORY; Ctrl-C and a reader that has gone end it without a word."""
    try:
        main()
        sys.stdout.flush()  # here, where a closed pipe is caught
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        stop_writing()
        sys.exit(141)
    except OSError as error:
        if error.errno not in DISK:
            raise
        print(f"ERROR: {disk_text(error)}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "plumbline":
            raise
        print(f"ERROR: {sys.executable} has no package {error.name!r}. {PACKAGES}", file=sys.stderr)
        sys.exit(1)
    except RuntimeError as error:  # torch's OutOfMemoryError is one; torch itself is not imported here
        if type(error).__name__ != "OutOfMemoryError":
            raise
        print(f"ERROR: out of GPU memory: {error}", file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)


def disk_text(error: OSError) -> str:
    """What a disk refused (an error of DISK), where, and what to do next."""
    path = error.filename2 or error.filename
    where = f" ({path})" if path else ""
    return f"{error.strerror}{where}. Make room or allow access there, or name another path."


def stop_writing() -> None:
    """Whoever read our output has gone (``| head``): what is still to be written at the end of Python goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def did_you_mean(word: str, known: list[str]) -> str:
    """A hint for a mistyped name: ' Did you mean ...?' or the list of known names."""
    import difflib

    plain = {name.casefold(): name for name in reversed(known)}  # 'PCA' is 'pca', which share no letter
    close = difflib.get_close_matches(word.casefold(), list(plain), n=3, cutoff=0.5)
    if close:
        return f" Did you mean {' or '.join(repr(plain[name]) for name in close)}?"
    if not known:
        return " There is none."
    return f" Known: {', '.join(known[:30])}{' ...' if len(known) > 30 else ''}."
