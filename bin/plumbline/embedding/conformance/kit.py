"""How the conformance kit runs a script and compares its embeddings."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from plumbline.embedding.conformance.cells import Sample
from plumbline.embedding.contract import Embedding, read_embedding


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check."""

    status: str
    detail: str = ""


@dataclass(frozen=True)
class Trial:
    """One run of a script: exit code, stderr, and the embedding if it wrote one."""

    code: int
    stderr: str
    embedding: Embedding | None

    @property
    def refused(self) -> bool:
        """Whether it ended with a clear message, no traceback and no file."""
        return self.code != 0 and "ERROR:" in self.stderr and "Traceback" not in self.stderr and self.embedding is None

    @property
    def not_applicable(self) -> bool:
        """Whether it recorded that the model cannot take the file."""
        return self.code == 0 and self.embedding is not None and self.embedding.provenance["status"] == "not_applicable"

    @property
    def reason(self) -> str:
        """Why it is not applicable; '' if it is."""
        return self.embedding.provenance["reason"] if self.embedding is not None and self.not_applicable else ""


class Broken(Exception):
    """A run that had to work did not."""


def launch(command: list[str]) -> tuple[int, str]:
    """(exit code, stderr) of a script in a process of its own, which finds plumbline wherever the script lies."""
    folders = [str(Path(__file__).resolve().parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=variables)
    return done.returncode, done.stderr


@dataclass
class Kit:
    """A script under test. arguments: what every run gets (--variant, --weights, --set ...). fitted: on the file's cells."""

    script: Path
    arguments: list[str]
    cells: Sample
    folder: Path
    fitted: bool = False
    tolerance: float = 1e-4
    memory_cells: int = 512
    launch: Callable[[list[str]], tuple[int, str]] = launch
    runs: dict[str, Trial] = field(default_factory=dict)

    def try_run(self, name: str, cells: Sample, *more: str) -> Trial:
        """Run the script on ``cells`` (once per name)."""
        if name not in self.runs:
            place = self.folder / name
            cells.write(place)
            files = ["--counts", place / "counts.h5ad", "--tables", place / "tables", "--output", place / "embedding.npz"]
            code, stderr = self.launch([str(part) for part in (self.script, *files, *self.arguments, *more)])
            written = (place / "embedding.npz").exists()
            self.runs[name] = Trial(code, stderr, read_embedding(place / "embedding.npz") if written else None)
        return self.runs[name]

    def run(self, name: str, cells: Sample, *more: str) -> Embedding:
        """The embedding of a run that has to work. Raises Broken if it does not."""
        run = self.try_run(name, cells, *more)
        if run.code or run.embedding is None or run.not_applicable:
            last = run.stderr.strip().splitlines()[-1:] or ["no message"]
            raise Broken(f"{name}: exit code {run.code}: {last[0]}")
        return run.embedding

    @property
    def base(self) -> Embedding:
        """The embedding of the cells as they are."""
        return self.run("base", self.cells)

    @property
    def neighbours(self) -> str:
        """Why other cells may change a cell's embedding; '' if they may not."""
        if self.fitted:
            return "it is fitted on the cells of the file"
        return "its cells attend to each other" if self.base.provenance.get("attends_across_cells") else ""

    def compare(self, other: Embedding, excuse: str) -> Verdict:
        """The cells both embeddings hold: equal within the tolerance, or different and excused, or different."""
        shared = [cell for cell in self.base.cell_id if cell in set(other.cell_id)]
        difference = distance(pick(self.base, shared), pick(other, shared))
        if difference <= self.tolerance:
            return Verdict("pass", f"largest difference {difference:.1e}")
        text = f"differs by up to {difference:.1e}"
        return Verdict("recorded", f"{text}: {excuse}") if excuse else Verdict("FAIL", text)


def pick(embedding: Embedding, cells: list[str]) -> np.ndarray:
    """The rows of ``cells``."""
    row = {cell: number for number, cell in enumerate(embedding.cell_id)}
    return embedding.values[[row[cell] for cell in cells]]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference relative to the largest value (at least 1); infinite if shapes or NaN differ."""
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    scale = max(1.0, float(np.nanmax(np.abs(a), initial=0.0)))
    return float(np.nanmax(np.abs(a - b), initial=0.0)) / scale
