"""Where set-up lives ($PLUMBLINE_HOME), and how a part of it is built: whole or not at all, by one process at a time."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plumbline.common.errors import UserError

REPO = Path(__file__).resolve().parents[1]
FULL = 300 * 2**20  # bytes free on a disk, below which a failure is blamed on it: unpacking one package may take as much


def home() -> Path:
    """The folder of everything that set-up fetches; deleting it undoes set-up."""
    return Path(os.environ.get("PLUMBLINE_HOME") or "~/.cache/plumbline").expanduser().absolute()


def digest(*inputs: str | Path) -> str:
    """12 hex digits of texts and file contents: a part is named by what it was made from, so it is never stale."""
    total = hashlib.sha256()
    for item in inputs:
        total.update(item.read_bytes() if isinstance(item, Path) else item.encode())
        total.update(b"\0")
    return total.hexdigest()[:12]


@dataclass(frozen=True)
class Part:
    """Something set-up provides: a folder that exists only when it is complete."""

    title: str
    path: Path
    build: Callable[[Path], None]  # fills an empty folder, which is then renamed to ``path``


def provide(parts: list[Part]) -> None:
    """Build the parts that are missing, in order, with a line of progress each. Safe to interrupt and to repeat."""
    missing = [part for part in parts if not part.path.exists()]
    for number, part in enumerate(missing, 1):
        say(f"[{number}/{len(missing)}] {part.title} ...", end="")
        start = time.monotonic()
        with _only_one(part.path):
            if not part.path.exists():  # another plumb may have made it while this one waited
                _build(part)
        say(f" {time.monotonic() - start:.0f} s")


def _build(part: Part) -> None:
    _clear_left_overs(part)
    # the process id: what a killed plumb was running may live on for a moment and must not write in here
    unfinished = part.path.with_name(f".unfinished-{part.path.name}-{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        part.build(unfinished)
        unfinished.rename(part.path)
        _clear_left_overs(part)
    except BaseException:
        say(" stopped")
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _clear_left_overs(part: Part) -> None:
    for left_over in part.path.parent.glob(f".unfinished-{part.path.name}-*"):
        shutil.rmtree(left_over, ignore_errors=True)


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(f".lock-{path.name}").open("w")
    except OSError as error:
        what = f"The folder of set-up, {home()}, cannot be written to ({error.strerror})"
        raise UserError(f"{what}. Name another: export PLUMBLINE_HOME=/a/larger/disk") from error
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(" (waiting for another plumb)", end="")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(text: str, end: str = "\n") -> None:
    """Progress goes to stderr: stdout belongs to what the user asked for."""
    print(text, end=end, file=sys.stderr, flush=True)


def command(arguments: list[str | Path], advice: str, **environment: str) -> str:
    """Run a command silently and return its output; a UserError with its last lines and ``advice`` when it fails."""
    result = subprocess.run(
        [str(word) for word in arguments],
        env=_trust() | os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if result.returncode != 0:
        tail = "\n  ".join(result.stdout.strip().splitlines()[-15:])
        advice = "\n".join(filter(None, [_full_disk(), advice]))
        raise UserError(f"{Path(arguments[0]).name} failed (exit code {result.returncode}):\n  {tail}\n{advice}")
    return result.stdout


def _full_disk() -> str:
    """Which disk of set-up has no room, and what to do; '' if all have. Tools say so in many ways, or not at all."""
    for folder, variable in ((home(), "PLUMBLINE_HOME"), (Path(tempfile.gettempdir()), "TMPDIR")):
        there = next(part for part in (folder, *folder.parents) if part.exists())
        free = shutil.disk_usage(there).free
        if free < FULL:
            return (
                f"The disk of {folder} is full ({free / 2**20:.0f} MiB free). Make room, or: export {variable}=/a/larger/disk"
            )
    return ""


def _trust() -> dict[str, str]:
    """Let every tool trust the certificates of the machine, not only those it brings: sites with a proxy need that."""
    bundles = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
    found = next(filter(os.path.exists, bundles), None)
    return dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), found) if found else {}
