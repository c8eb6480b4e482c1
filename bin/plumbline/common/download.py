"""Fetch files over http(s): resumable, checksummed, whole or not at all. For data sets and for model weights."""

import fcntl
import hashlib
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from plumbline.common.errors import UserError

BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte
ATTEMPTS = 5  # in a row without progress


def download(
    url: str, path: Path | str, sha256: str | None = None, md5: str | None = None, size: int | None = None, pause: float = 2.0
) -> Path:
    """Fetch ``url`` to ``path``; return the path.

    A cut transfer is resumed, in this run or in the next, from ``path`` + '.part'. What is known of sha256, md5 and size
    (bytes) is verified before the file appears; a file already there is verified and kept. ``pause`` seconds lie between
    attempts, growing. Raises UserError: no such file (404), no permission, no network, wrong size or checksum.
    """
    path = Path(path)
    if path.exists():
        verify(path, url, sha256, md5, size)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with _locked(part) as stream:
        if path.exists():  # another process fetched it while this one waited
            part.unlink(missing_ok=True)
            return path
        _fetch_all(url, stream, part, path, pause)
        try:
            verify(part, url, sha256, md5, size)
        except UserError:
            part.unlink()
            raise
        part.replace(path)
        _tag_file(part).unlink(missing_ok=True)
    return path


def verify(path: Path, url: str, sha256: str | None = None, md5: str | None = None, size: int | None = None) -> None:
    """Compare a file with what is known of it. Raises UserError that names the difference."""
    found = path.stat().st_size
    if size and found != size:
        raise UserError(f"{path.name} has {found} bytes, expected {size} ({url}). Remove {path} and fetch it again.")
    for kind, expected in (("sha256", sha256), ("md5", md5)):
        if expected and (got := digest(path, kind)) != expected.lower():
            raise UserError(
                f"{path.name} has the {kind} {got}, expected {expected} ({url}). Remove {path} and fetch it again; "
                "if it stays so, the file at the source has changed."
            )


def digest(path: Path | str, kind: str) -> str:
    """Hex digest of a file; kind 'sha256' or 'md5'."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()


@contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """The partial file, open for appending; two processes never write the same one."""
    while True:
        with open(part, "ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if part.exists() and part.stat().st_ino == os.fstat(stream.fileno()).st_ino:
                yield stream
                return


def _fetch_all(url: str, stream: BinaryIO, part: Path, path: Path, pause: float) -> None:
    failures = 0
    while True:
        before = stream.tell()
        try:
            if _fetch_rest(url, stream, _tag_file(part)):
                return
            problem = "the connection was cut"
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 416, 429):
                raise UserError(advice(url, path, problem)) from error
        except (OSError, HTTPException) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        stream.flush()
        failures = 1 if stream.tell() > before else failures + 1
        if failures >= ATTEMPTS:
            raise UserError(advice(url, path, problem))
        time.sleep(pause * failures)


def _fetch_rest(url: str, stream: BinaryIO, tag_file: Path) -> bool:
    """Append what is missing; True once the server says that it is all. A changed or range-less source starts anew."""
    have = stream.tell()
    request = urllib.request.Request(url, headers={"User-Agent": "plumbline", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag_file.exists():
            request.add_header("If-Range", tag_file.read_text())
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return _receive(response, stream, have, tag_file, url)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            return True  # everything was there already
        _empty(stream)
        raise


def _receive(response: HTTPResponse, stream: BinaryIO, have: int, tag_file: Path, url: str) -> bool:
    if response.status != 206:
        _empty(stream)
        have = 0
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        _empty(stream)
        return False
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        tag_file.write_text(tag)
    else:
        tag_file.unlink(missing_ok=True)
    length = response.headers.get("Content-Length")
    total, shown = have + int(length) if length else None, time.monotonic()
    while block := response.read(BLOCK):
        stream.write(block)
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            _show(url, stream.tell(), total)
    stream.flush()
    return total is None or stream.tell() >= total


def _empty(stream: BinaryIO) -> None:
    stream.seek(0)
    stream.truncate()


def _show(url: str, done: int, total: int | None) -> None:
    share = f" of {total / 1e6:.0f} MB ({done / total:.0%})" if total else " MB"
    print(f"{url.rpartition('/')[2] or url}: {done / 1e6:.0f}{share}", file=sys.stderr, flush=True)


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def advice(url: str, path: Path, problem: str) -> str:
    """What to tell a user whose download failed: the cause and what to do next."""
    missing = " The source has moved or removed it." if "404" in problem else ""
    permission = " The source asks for permission or a login." if "401" in problem or "403" in problem else ""
    return (
        f"{url} cannot be fetched ({problem}).{missing}{permission} Run it again to go on where it stopped, or fetch the file "
        f"on a machine that can and put it at {path}."
    )
