"""Nextflow runs for real here, through the launcher a user calls. One run serves many assertions."""

import csv
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.parameters import ENGINES

ROOT = Path(__file__).resolve().parents[2]
SHEET_COLUMNS = "name,path,perturbation_column,control_label,batch_column,organism,x_kind,min_counts,perturbation_type"


@dataclass
class Run:
    """One finished run of the pipeline: exit code, everything it printed, its folder and its results."""

    code: int
    output: str
    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def info(self, name: str, ending: str) -> Path:
        """The newest file of this kind in pipeline_info; each start writes its own."""
        return max((self.results / "pipeline_info").glob(f"{name}_20*.{ending}"))

    def tasks(self) -> dict[str, str]:
        """Task name, such as 'PLUMBLINE:EVALUATE (kang.pca.42.recall)' -> COMPLETED, CACHED or FAILED."""
        with open(self.info("trace", "txt")) as stream:
            return {row["name"].removeprefix("PLUMBLINE:"): row["status"] for row in csv.DictReader(stream, delimiter="\t")}


def plumb_run(folder: Path, *arguments: object, repo: Path = ROOT, timeout: int = 1200) -> Run:
    """``./plumb run`` with ``folder`` as the current one: results, work and history of the run lie there."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [repo / "plumb", "run", "--outdir", "results", *arguments, *environments(arguments)]
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | {"NXF_ANSI_LOG": "false"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Run(done.returncode, done.stdout + done.stderr, folder)


def environments(arguments: tuple[object, ...]) -> list[str]:
    """The folder that `plumb test` made, so that plumb has nothing to look up; not where an engine runs the tasks."""
    words, folder = [str(word) for word in arguments], os.environ.get("PLUMBLINE_ENV_DIR")
    profiles = words[words.index("-profile") + 1].split(",") if "-profile" in words else []
    return ["--env_dir", folder] if folder and "--help" not in words and not set(profiles) & set(ENGINES) else []


def write_sheet(path: Path, *rows: str) -> Path:
    """A sheet of data sets with the usual columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([SHEET_COLUMNS, *rows]) + "\n")
    return path


def copy_of_repo(target: Path) -> Path:
    """A copy of the tracked files as they are now, for tests that edit the pipeline."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    return target


@pytest.fixture(scope="session")
def environment_python() -> Path:
    """The interpreter of the base environment; `plumb test` says where the environments are."""
    folder = os.environ.get("PLUMBLINE_ENV_DIR")
    if not folder:
        pytest.skip("needs the pipeline's environments: run ./plumb test")
    return Path(folder) / "base" / "bin" / "python"


@pytest.fixture(scope="session")
def simulate(environment_python: Path, tmp_path_factory: pytest.TempPathFactory):
    """A function that makes a simulated screen with the project's own simulator: simulate(name, *options) -> path."""

    def make(name: str, *options: str) -> Path:
        path = tmp_path_factory.mktemp("screens") / f"{name}.h5ad"
        subprocess.run([environment_python, ROOT / "bin" / "simulate_screen.py", *options, "--output", path], check=True)
        return path

    return make


@pytest.fixture(scope="session")
def tiny_screen(simulate) -> Path:
    """60 perturbations x 12 cells, 6 batches, 400 genes: seconds for any task."""
    options = "--n-perturbations 60 --n-batches 6 --cells-per-perturbation 12 --n-genes 400 --seed 7"
    return simulate("tiny", *options.split())


@pytest.fixture(scope="session")
def tiny_sheet(tiny_screen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sheet with the tiny screen alone."""
    row = f"tiny,{tiny_screen},perturbation,non-targeting,batch,human,counts,0,crispri"
    return write_sheet(tmp_path_factory.mktemp("sheets") / "sheet.csv", row)
