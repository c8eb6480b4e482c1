"""The `uv` profile: one Python environment per container, from the very requirements the image is built from."""

import os
import sys
from pathlib import Path

from launcher.home import REPO, Part, command, digest, home, provide
from launcher.nextflow import tool, tools
from plumbline.common.errors import UserError, did_you_mean

PYTHONS = ((3, 11), (3, 12), (3, 13))  # Pythons for which every pinned package has a wheel


def names() -> list[str]:
    """Every environment there is: the containers, and the one of the tests."""
    return [*sorted(path.parent.name for path in REPO.glob("containers/*/requirements.txt")), "tests"]


def requirements(name: str) -> Path:
    """The pinned requirements of an environment. Raises UserError on an unknown name."""
    if name not in names():
        raise UserError(f"There is no environment {name!r}.{did_you_mean(name, names())}")
    return REPO / "tests/requirements.txt" if name == "tests" else REPO / "containers" / name / "requirements.txt"


def environment(name: str) -> Part:
    """A virtual environment, named by its requirements and its Python."""
    python = _python()

    def build(folder: Path) -> None:
        uv = tools().path / "bin/uv"
        cache = {"UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(home() / "uv-cache")}
        advice = f"Nothing was left behind. Check network and disk ({home()}), then run again."
        # relocatable, because the finished folder is renamed to its place
        command([uv, "venv", "--quiet", "--allow-existing", "--relocatable", "--python", python, folder], advice, **cache)
        pip = [uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--python", folder / "bin/python"]
        # tasks never write bytecode: without it, each would spend seconds on compiling what it imports (tests do write it)
        pip += [] if name == "tests" else ["--compile-bytecode"]
        command([*pip, "--requirement", requirements(name)], advice, **cache)

    return Part(f"environment {name}", home() / "envs" / f"{name}-{digest(requirements(name), python)}", build)


def lacking(wanted: list[str]) -> list[str]:
    """Those that are not made yet."""
    return [name for name in wanted if not environment(name).path.exists()]


def _python() -> str:
    """The interpreter for the environments: this one if the pins support it, else one that uv finds or fetches."""
    return os.path.realpath(sys.executable) if sys.version_info[:2] in PYTHONS else "3.11"


def make(wanted: list[str]) -> Path:
    """Provide the wanted environments; returns the folder that holds them under their plain names (params.env_dir)."""
    provide([tools(), *(environment(name) for name in dict.fromkeys(wanted))])
    everything = {name: environment(name).path for name in names()}
    folder = home() / "envs" / f"set-{digest(*(str(path) for path in everything.values()))}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in everything.items():
        link = folder / name
        if path.exists() and not link.is_symlink():
            # made aside and renamed: several plumbs may do this at once
            aside = folder / f".{name}-{os.getpid()}"
            aside.symlink_to(Path("..") / path.name)
            aside.rename(link)
    return folder


def python(name: str) -> Path:
    """The Python of an environment, which is made when it is missing."""
    return make([name]) / name / "bin/python"


def uv() -> Path:
    """The pinned uv, for containers/lock."""
    return tool("uv")
