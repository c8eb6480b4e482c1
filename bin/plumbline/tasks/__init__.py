"""One task per file. A module of this folder holds ``TASK``, a ``plumbline.scoring.records.Task``; no list names it."""

import importlib
import pkgutil
from functools import cache

from plumbline.common.errors import UserError, did_you_mean
from plumbline.scoring.records import Metric, Task


def names() -> list[str]:
    """Every task in this folder, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Task:
    """The record of one task. Raises UserError with a hint for an unknown name."""
    if name not in names():
        raise UserError(f"unknown task {name!r}.{did_you_mean(name, names())}")
    return importlib.import_module(f"plumbline.tasks.{name}").TASK


@cache
def records() -> dict[str, Task]:
    """name -> record of every task, in the order of the report."""
    loaded = [load(name) for name in names()]  # here ``map`` is a task
    return {task.name: task for task in sorted(loaded, key=lambda task: (task.order, task.name))}


def not_applicable(facts: dict) -> dict[str, str]:
    """task -> why it does not apply to a data set with these facts (dataset.json), for those that do not."""
    reasons = {name: task.not_applicable(facts) for name, task in records().items()}
    return {name: reason for name, reason in reasons.items() if reason}


def metrics() -> dict[str, Metric]:
    """name -> record of every metric, in the order of the report."""
    return {metric.name: metric for task in records().values() for metric in task.metrics}
