"""The rules of a task as one digest: scores of two versions of plumbline may be compared where it is the same."""

import hashlib
import json

from plumbline.scoring.protocol import CHOSEN, POSTPROCESSINGS
from plumbline.scoring.records import Task

_FLAGS = (
    "name",
    "version",
    "main_metric",
    "needs_counts",
    "uses_split",
    "scores_controls",
    "chooses_on_train",
    "scores_predictors",
)
_METRIC = ("name", "unit", "higher_is_better", "lowest", "highest", "chance", "noise_scores_best", "compares_controls")


def rules_digest(task: Task) -> str:
    """12 hex digits of what a task states of itself (version, metrics, their ranges) and of how post-processings are chosen.

    Unlike the digest of the code, it stays the same when a function is written anew.
    """
    stated = {name: getattr(task, name) for name in _FLAGS}
    metrics = [{name: repr(getattr(metric, name)) for name in _METRIC} for metric in task.metrics]
    rules = {"task": stated, "metrics": metrics, "chosen": CHOSEN, "postprocessings": POSTPROCESSINGS}
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:12]
