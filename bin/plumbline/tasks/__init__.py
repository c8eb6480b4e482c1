"""One task a file. A task module has

NAME, VERSION (strings; a change of meaning is a new version), MAIN_METRIC (the metric that selects a post-processing),
METRICS: {metric: +1 if higher is better else -1}, BOUNDS: {metric: (lowest, highest value it can have)}, USES_SPLIT (it scores
test cells, rather than all cells), NEEDS_COUNTS (it streams counts.h5ad), COMPARES_CONTROLS (the metrics to which the
controls' own embeddings matter, so that `corrected` fits the post-processing on other controls; if they are only some of
METRICS, ``run`` takes the cells for these from ``view.compared()``), optionally SCORES_CONTROLS (controls are among the
scored cells) and CHOOSES_ON_TRAIN (the post-processing is chosen on train cells in place of test1),
``not_applicable(facts) -> str`` (a reason, or '') and ``run(view: View) -> list[Score]``: one Score per metric of METRICS,
always.
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
