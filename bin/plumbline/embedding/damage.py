"""Damaged checkpoint files: whatever goes wrong in reading one is one message, and what could go unnoticed is looked for."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbline.common.errors import NotApplicable, UserError
from plumbline.embedding.checkpoints import fetch_hint

_BLOCK = 1 << 24


@contextmanager
def understood(path: Path, verdict: str, variant: str) -> Iterator[None]:
    """Turn whatever goes wrong in the block into a UserError that says of ``path``: it ``verdict`` ('is no vocabulary').

    For the lines that take the content of a file apart: a damaged one fails there in a dozen ways, each meaning the same.
    """
    try:
        yield
    except NotApplicable:
        raise
    except UserError as error:  # of a reader that does not know which checkpoint this is
        hint = fetch_hint(variant)
        raise UserError(str(error) if hint in str(error) else f"{error} {hint}") from error
    except Exception as error:
        said = str(error).strip().splitlines()
        reason = f"no {said[0]}" if isinstance(error, KeyError) and said else said[0] if said else type(error).__name__
        raise UserError(f"{path} {verdict} ({reason}). {fetch_hint(variant)}") from error


def check_members(path: Path, variant: str) -> None:
    """Raises UserError if the content of a torch.save file contradicts the checksums that the file holds, which torch skips.

    Files written with ``torch.serialization.set_crc32_options(False)`` hold none that fits: nothing can be said of them.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        damaged = [name for name in names if not _is_whole(archive, name)]
    if damaged and len(damaged) < len(names):
        raise UserError(f"{path} is damaged: {damaged[0]} is not what was written. {fetch_hint(variant)}")


def _is_whole(archive: zipfile.ZipFile, name: str) -> bool:
    try:
        with archive.open(name) as stream:
            while stream.read(_BLOCK):
                pass
    except zipfile.BadZipFile:
        return False
    return True
