"""The sections of the experiments, in the order of docs/experiments.md; each is a module with ``sections(run, folder)``."""

from pathlib import Path

from plumbline.report.experiments import (
    cells_per_perturbation,
    cost,
    count_distribution,
    cross_context,
    gene_recall,
    generality,
    integrity,
    minimal_data,
    objectives,
    robustness,
    transfer,
)
from plumbline.report.run import Run

MODULES = (
    count_distribution,
    minimal_data,
    cells_per_perturbation,
    transfer,
    cross_context,
    robustness,
    objectives,
    gene_recall,
    integrity,
    generality,
    cost,
)


def experiment_sections(run: Run, folder: Path | None) -> list[dict]:
    """Sections of every requested experiment. folder: files of the experiments (None: there are none)."""
    requested = run.about.get("experiments", [])
    parts: list[dict] = []
    for module in MODULES:
        if module.__name__.rpartition(".")[2] in requested:
            parts += module.sections(run, folder or Path())
    return parts
