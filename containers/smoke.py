"""smoke.py ENV: run inside an image. Is every pin there, does it import, do the scripts of its models start, is a GPU seen?"""

import csv
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "containers"))

from without_cuda import OF_CUDA  # noqa: E402

# packages that import under another name
MODULES = {"faiss-cpu": "faiss", "pyyaml": "yaml", "scikit-learn": "sklearn", "scvi-tools": "scvi", "umap-learn": "umap"}


def main(name: str) -> None:
    """Every check prints a line; the first that fails ends the script with its message."""
    pins = re.findall(
        r"^([\w.-]+)==([^\s;]+)(?: --hash\S*)? *\\?$", (REPO / f"containers/{name}/requirements.txt").read_text(), re.M
    )
    if (_version("torch") or "").endswith("+cpu"):  # the image for CPUs
        pins = [(package, version) for package, version in pins if not OF_CUDA.match(f"{package}==")] + [
            (package, f"{version}+cpu") for package, version in pins if package == "torch"
        ]
    wrong = [f"{package} is not {version}" for package, version in pins if _version(package) != version]
    _check(f"{len(pins)} pinned packages", not wrong, "; ".join(wrong))
    modules = sorted(
        module(package) for package, reason in asked(REPO / f"containers/{name}/requirements.in").items() if not reason
    )
    for imported in modules:
        __import__(imported)
    _check(f"imports: {', '.join(modules)}")
    for script in scripts(name):
        run = subprocess.run([sys.executable, REPO / "bin" / script, "--help"], capture_output=True, text=True)
        _check(f"{script} --help", run.returncode == 0, run.stderr)
    _check("ps is there (Nextflow measures tasks with it)", shutil.which("ps") is not None)
    _check("does not run as root", os.geteuid() != 0)
    if "torch" in sys.modules:
        print(f"  GPU visible: {sys.modules['torch'].cuda.is_available()}")


def asked(path: Path, included: bool = True) -> dict[str, str]:
    """What a requirements.in asks for.

    Parameters
    ----------
    path
        The file.
    included
        Whether what it includes (``-r``) counts as well.

    Returns
    -------
    dict
        {package: why it is here though nothing imports it; "" if something does}
    """
    found = {}
    for line in path.read_text().splitlines():
        entry, _, comment = line.partition("#")
        if entry.startswith("-r "):
            found |= asked(path.parent / entry.removeprefix("-r ").strip()) if included else {}
        elif entry.strip():
            reason = re.match(r"\s*not imported: (.+)", comment)
            found[re.match(r"[\w.-]+", entry)[0]] = reason[1] if reason else ""
    return found


def module(package: str) -> str:
    """The name a package is imported under."""
    return MODULES.get(package, package.replace("-", "_"))


def scripts(name: str) -> list[str]:
    """The embedding scripts of the models that run in an environment."""
    with (REPO / "assets/models.csv").open(newline="") as table:
        return sorted({f"embed_{row['model']}.py" for row in csv.DictReader(table) if row["env"] == name})


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check(what: str, passed: bool = True, problem: str = "") -> None:
    if not passed:
        sys.exit(f"  FAILED {what}: {problem}")
    print(f"  ok {what}")


if __name__ == "__main__":
    main(sys.argv[1])
