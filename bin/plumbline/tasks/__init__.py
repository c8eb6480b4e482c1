"""One task a file. A task module has

NAME, VERSION (strings; a change of meaning is a new version), MAIN_METRIC (the metric that selects a post-processing),
METRICS: {metric: +1 if higher is better else -1}, BOUNDS: {metric: (lowest, highest value it can have)}, USES_SPLIT (it scores
test cells, rather than all cells), NEEDS_COUNTS (it streams counts.h5ad), COMPARES_CONTROLS (the controls' own embeddings
enter its score, so that `corrected` fits the post-processing on other controls), ``not_applicable(facts) -> str`` (a reason,
or '') and ``run(view: View) -> list[Score]``: one Score per metric of METRICS, always.
"""

import importlib
import pkgutil
from types import ModuleType

from plumbline.common.errors import UserError, did_you_mean


def names() -> list[str]:
    """Every task in this folder, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The module of one task. Raises UserError with a hint for an unknown name."""
    if name not in names():
        raise UserError(f"unknown task {name!r}.{did_you_mean(name, names())}")
    return importlib.import_module(f"plumbline.tasks.{name}")
