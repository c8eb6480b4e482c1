"""The evaluation of one embedding on one task: seeds x protocols x post-processings, with intervals.

`paper` scores all four post-processings on everything and calls the best of them `best`, as the paper does. `corrected`
chooses a post-processing on the validation part and reports it, as `selected`, on the rest; where a metric compares
cells with controls, the controls that fitted the post-processing are not those compared with; and cells are in the order of
their ids, so that what a seed draws does not depend on the order of the file (docs/protocol.md).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import pandas as pd

from plumbline.common.errors import NotApplicable
from plumbline.data.splits import Split
from plumbline.scoring.parts import Parts, fitting_controls
from plumbline.scoring.postprocess import METHODS, postprocess
from plumbline.scoring.scores import Score
from plumbline.scoring.screen import Screen, View
from plumbline.scoring.stats import interval

CHOSEN = {"paper": "best", "corrected": "selected"}


@dataclass(frozen=True)
class Row:
    """One score under one seed, protocol and post-processing."""

    seed: int
    protocol: str
    postprocess: str
    score: Score


def main_metric(task: ModuleType, facts: dict) -> str:
    """The metric that ranks post-processings and models on this data set."""
    choose: Callable[[dict], str] | None = getattr(task, "main_metric", None)
    return choose(facts) if choose else task.MAIN_METRIC


def absent_rows(task: ModuleType, seeds: list[int], protocols: list[str], reason: str) -> list[Row]:
    """What is reported where a task or a model does not apply: every metric, with the reason."""
    scores = [Score.absent(metric, reason) for metric in task.METRICS]
    return [Row(seed, protocol, CHOSEN[protocol], score) for seed in seeds for protocol in protocols for score in scores]


def evaluate(view: View, task: ModuleType, splits: list[Split], protocols: list[str]) -> list[Row]:
    """All rows of one embedding (``view.embedding``, not yet post-processed) on one task."""
    reason = task.not_applicable(view.screen.facts)
    if reason:
        return absent_rows(task, [split.seed for split in splits], protocols, reason)
    rows: list[Row] = []
    for protocol in protocols:
        # without a split the paper's protocol has nothing that depends on the seed
        needed = splits if task.USES_SPLIT or protocol == "corrected" else splits[:1]
        for split in needed:
            rows += _one_split(replace(view, split=split, protocol=protocol, seed=split.seed), task)
    return rows


def _postprocessed(view: View, fit: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The embedding under every post-processing, and why some cannot be had."""
    processed, refused = {}, {}
    for method in METHODS if view.embedding.shape[1] else ("none",):
        try:
            processed[method], _ = postprocess(view.embedding, fit, view.screen.batch, method)
        except NotApplicable as why:
            refused[method] = str(why)
    return processed, refused


def _one_split(base: View, task: ModuleType) -> list[Row]:
    split, protocol, metric = base.split, base.protocol, main_metric(task, base.screen.facts)
    fit = None
    if protocol == "corrected":
        base = base.take(np.argsort(base.screen.cell_id))
        fit = fitting_controls(base.screen, split.seed) if task.COMPARES_CONTROLS else None
    whole = fit is not None and set(task.COMPARES_CONTROLS) == set(task.METRICS)
    processed, refused = _postprocessed(base, fit if whole else base.screen.is_control)
    cells = Parts(base=base, task=task, fit=fit, whole=whole, processed=processed)
    selects = protocol == "corrected" and len(processed) > 1 and cells.can_choose
    chosen, why = _select(cells) if selects else ("none", "no validation part to choose a post-processing on")
    reported = {m: cells.run(m, "report" if selects else "all") for m in processed}
    if protocol == "paper" and len(processed) > 1:
        chosen, why = _best(reported, task, base.screen.facts), "best of the four on the scored cells themselves"
        why = why if np.isfinite(_value(reported[chosen], metric)) else f"{metric}, by which to choose, cannot be scored"
    elif len(processed) == 1:
        why = ""
    found = [Row(split.seed, protocol, m, score) for m, scores in reported.items() for score in scores]
    found += [Row(split.seed, protocol, CHOSEN[protocol], _because(score, chosen, why)) for score in reported[chosen]]
    return found + [Row(split.seed, protocol, m, Score.absent(metric, why)) for m, why in refused.items()]


def _select(cells: Parts) -> tuple[str, str]:
    task, facts = cells.task, cells.base.screen.facts
    where = "train cells" if cells.chooses_on_train else "validation part"
    scores = {m: cells.run(m, "validation") for m in cells.processed}
    metric = main_metric(task, facts)
    if all(np.isnan(_value(found, metric)) for found in scores.values()):
        return "none", f"{metric} cannot be scored on the {where}"
    return _best(scores, task, facts), f"chosen by {metric} on the {where}"


def _best(scores: dict[str, list[Score]], task: ModuleType, facts: dict) -> str:
    metric = main_metric(task, facts)
    worth = {m: task.METRICS[metric] * _value(found, metric) for m, found in scores.items()}
    known = {m: value for m, value in worth.items() if not np.isnan(value)}
    return max(known, key=lambda m: known[m]) if known else "none"  # ties go to the simpler method, which comes first


def _value(scores: list[Score], metric: str) -> float:
    return next((score.value for score in scores if score.metric == metric), float("nan"))


def _because(score: Score, chosen: str, why: str) -> Score:
    """The score with the choice of its post-processing as the first part of its reason; an absent one has only its own."""
    if score.status != "ok" or not why:
        return score
    return replace(score, reason="; ".join(part for part in (f"{chosen}: {why}", score.reason) if part))


def score_rows(rows: list[Row], n_boot: int, bounds: dict[str, tuple[float, float]]) -> Iterator[dict]:
    """The rows of the score table, each with its 95 % interval, which ends where ``bounds`` of its metric does."""
    for row in rows:
        score = row.score
        found = interval(score.items, n_boot=n_boot, seed=row.seed) if score.items else (np.nan, np.nan)
        low, high = np.clip(found, *bounds[score.metric])
        yield {"seed": row.seed, "protocol": row.protocol, "postprocess": row.postprocess, "metric": score.metric,
               "value": score.value, "ci_low": low, "ci_high": high, "n": score.n, "status": score.status,
               "reason": score.reason}  # fmt: skip


def item_frames(rows: list[Row]) -> Iterator[pd.DataFrame]:
    """The rows of the item table: what each score is made of."""
    for row in rows:
        items = row.score.items
        if items is None:
            continue
        about = {"seed": row.seed, "protocol": row.protocol, "postprocess": row.postprocess, "metric": row.score.metric}
        about |= {"unit_kind": items.kind, "offset": items.offset, "scale": items.scale}
        columns = {"unit": items.unit, "unit2": "" if items.unit2 is None else items.unit2}
        columns |= {"numerator": items.numerator, "denominator": items.denominator, **items.extra}
        yield pd.DataFrame(columns).assign(**about)


def embedded_part(view_of: Callable[[Screen, np.ndarray, np.ndarray], View], screen: Screen, values: np.ndarray) -> View:
    """The view of the cells that the model could embed: rows that are not NaN."""
    rows = np.flatnonzero(np.isfinite(values).all(axis=1))
    return view_of(screen.take(rows), values[rows], rows)
