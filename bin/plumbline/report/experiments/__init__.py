"""The sections of the experiments, in the order they are documented in; each is a module with ``sections(run, folder)``."""

from pathlib import Path

from plumbline.report.experiments import cost, count_distribution, generality, integrity, minimal_data, objectives, transfer
from plumbline.report.run import Run

MODULES = (count_distribution, minimal_data, transfer, objectives, integrity, generality, cost)


def experiment_sections(run: Run, folder: Path | None) -> list[dict]:
    """The sections of every experiment that was asked for. folder: the experiments' own files (None: there are none)."""
    asked = run.about.get("experiments", [])
    found = []
    for module in MODULES:
        if module.__name__.rpartition(".")[2] in asked:
            found += module.sections(run, folder or Path())
    return found
