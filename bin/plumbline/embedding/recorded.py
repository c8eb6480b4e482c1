"""Hashes of fetched files that no table knows: recorded on the first fetch, verified ever after.

They lie in SHA256SUMS of the model's folder of weights, in the format of ``sha256sum``, which can check them as well.
"""

from pathlib import Path

from plumbline.common.errors import UserError
from plumbline.common.files import sha256, whole_file

SUMS = "SHA256SUMS"
NEXT = "remove the file and fetch it again; if its authors published it anew, remove its line as well"


def record(folder: Path, path: Path) -> str:
    """The sha256 of ``path``, written into ``folder``/SHA256SUMS if it is not there.

    Raises UserError if another one is recorded: the file has changed since it was first fetched.
    """
    found, known = sha256(path), _read(folder / SUMS)
    name = path.relative_to(folder).as_posix()
    if known.setdefault(name, found) != found:
        raise _changed(path, found, known[name], folder)
    with whole_file(folder / SUMS) as temporary:
        temporary.write_text("".join(f"{digest}  {file}\n" for file, digest in sorted(known.items())))
    return found


def check(path: Path, found: str) -> bool:
    """Whether the sha256 ``found`` of ``path`` is recorded in a folder above it. Raises UserError if another one is."""
    for folder in list(Path(path).absolute().parents)[:4]:
        recorded = _read(folder / SUMS).get(Path(path).absolute().relative_to(folder).as_posix())
        if recorded and recorded != found:
            raise _changed(path, found, recorded, folder)
        if recorded:
            return True
    return False


def _changed(path: Path, found: str, recorded: str, folder: Path) -> UserError:
    where = f"{folder / SUMS} recorded when it was first fetched"
    return UserError(f"{path} has the sha256 {found}, but {recorded} is what {where}: {NEXT}.")


def _read(sums: Path) -> dict[str, str]:
    """{file: digest}; {} where there is none."""
    if not sums.is_file():
        return {}
    pairs = (line.split(maxsplit=1) for line in sums.read_text(encoding="utf-8", errors="replace").splitlines())
    return {pair[1].lstrip("*"): pair[0] for pair in pairs if len(pair) == 2}
