"""The evaluation of one embedding on one task: seeds x protocols x post-processings, with intervals.

`paper` scores all four post-processings on everything and calls the best of them `best`, as the paper does. `corrected`
chooses a post-processing on the validation part and reports it, as `selected`, on the rest; where a metric compares
cells with controls, the controls that fitted the post-processing are not those compared with; and cells are in the order of
their ids, so that what a seed draws does not depend on the order of the file (docs/protocol.md).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from plumbline.common.errors import NotApplicable
from plumbline.data.splits import Split
from plumbline.scoring.center_perturbed import center_perturbed
from plumbline.scoring.choice import NAMED_BY, best_of, chances, name_of_choice, with_choice
from plumbline.scoring.parts import Parts, fitting_controls, whole_split
from plumbline.scoring.postprocess import postprocess
from plumbline.scoring.protocol import CENTER_PERTURBED, CHOSEN, POSTPROCESSINGS
from plumbline.scoring.records import Metric, Task
from plumbline.scoring.scores import SHARED, Score
from plumbline.scoring.screen import Subject, View
from plumbline.scoring.stats import interval
from plumbline.scoring.units import averaged
from plumbline.scoring.vectors import Vectors

FLOOR_DRAWS = 5  # draws of noise that a floor is the mean of, up to so many perturbations and cells
FLOOR_PERTURBATIONS, FLOOR_CELLS = 50, 20_000
NO_CHOICE = "no validation part to choose a post-processing on"
WHOLE = "all of the few batches are scored, and nothing is chosen"


@dataclass(frozen=True)
class Row:
    """One score under one seed, protocol and post-processing."""

    seed: int
    protocol: str
    postprocess: str
    score: Score


def absent_rows(task: Task, seeds: list[int], protocols: list[str], reason: str) -> list[Row]:
    """What is reported where a task or a model does not apply: every metric, with the reason."""
    return [
        Row(seed, protocol, CHOSEN[protocol], score)
        for seed in seeds
        for protocol in protocols
        for score in task.absent(reason)
    ]


def evaluate(subject: Subject, task: Task, splits: list[Split], protocols: list[str]) -> list[Row]:
    """All rows of one embedding (``subject.embedding``, not yet post-processed) on one task."""
    reason = task.not_applicable(subject.screen.facts) or _no_embedding(subject, task)
    if reason:
        return absent_rows(task, [split.seed for split in splits], protocols, reason)
    rows: list[Row] = []
    for protocol in protocols:
        if protocol == "corrected" and _draws_again(subject, task):
            rows += _mean_of_draws(subject, task, splits)
            continue
        # without a split the paper's protocol has nothing that depends on the seed
        needed = splits if (task.uses_split or protocol == "corrected") and not task.describes else splits[:1]
        for split in needed:
            rows += _one_split(subject.view(split, protocol), task)
    return rows


def _draws_again(subject: Subject, task: Task) -> bool:
    """Whether it is a floor of a size and a task for which one draw of noise does not tell the level of chance."""
    if not subject.chance or task.describes or len(subject.rows) > FLOOR_CELLS:
        return False
    metric = task.metric(task.main(subject.screen.facts))
    known = math.isfinite(metric.chance) or metric.noise_scores_best
    return not known and subject.screen.facts["n_perturbations"] <= FLOOR_PERTURBATIONS


def _mean_of_draws(subject: Subject, task: Task, splits: list[Split]) -> list[Row]:
    """The rows of a floor whose chance level no theory gives: a single draw of few perturbations may lie far from it."""
    rows: list[Row] = []
    for split in splits:
        draws = [subject, *(subject.redrawn(split.seed + number) for number in range(1, FLOOR_DRAWS))]
        found = [_one_split(draw.view(split, "corrected"), task) for draw in draws]
        rows += [replace(same[0], score=averaged([row.score for row in same])) for same in zip(*found, strict=True)]
    return rows


def _no_embedding(subject: Subject, task: Task) -> str:
    if subject.predictor and not task.scores_predictors:
        return f"{subject.predictor} predicts expression; it is not an embedding"
    return ""


def score_under(base: View, task: Task, method: str) -> list[Score]:
    """Scores under one given post-processing, of the cells that `corrected` reports on.

    base: a view under the protocol `corrected`, its vectors not yet post-processed. Raises NotApplicable if the method does not
    apply to them.
    """
    base, whole = _with_all_batches(base.take(np.argsort(base.screen.cell_id)), task)
    cells, refused = _parts(base, task, (method,))
    if refused:
        raise NotApplicable(refused[method])
    return cells.run(method, "report" if cells.can_choose and not task.describes and not whole else "all")


def _with_all_batches(base: View, task: Task) -> tuple[View, bool]:
    """The view in which all batches are scored, where there are few of them (``whole_split``), and whether that is so."""
    whole = whole_split(base.screen, base.split, task) if base.protocol == "corrected" else None
    return (replace(base, split=whole), True) if whole else (base, False)


def _postprocessed(view: View, fit: np.ndarray, methods: tuple[str, ...]) -> tuple[dict[str, Vectors], dict[str, str]]:
    """The embedding under the post-processings, and why some cannot be had."""
    processed, refused = {}, {}
    for method in methods if view.embedding.shape[1] else ("none",):
        try:
            if method == CENTER_PERTURBED:
                processed[method] = center_perturbed(view, fit)
            else:
                processed[method], _ = postprocess(view.embedding, fit, view.screen.batch, method)
        except NotApplicable as why:
            refused[method] = str(why)
    return processed, refused


def _one_split(base: View, task: Task) -> list[Row]:
    split, protocol, metric = base.split, base.protocol, task.main(base.screen.facts, base.protocol)
    if protocol == "corrected":
        base = base.take(np.argsort(base.screen.cell_id))
    base, whole = _with_all_batches(base, task)
    more = (CENTER_PERTURBED,) if task.centers_perturbed and protocol == "corrected" else ()
    cells, refused = _parts(base, task, (*POSTPROCESSINGS, *more))
    processed = cells.processed
    selects = protocol == "corrected" and len(processed) > 1 and cells.can_choose and not task.describes and not whole
    chosen, why, chance = _select(cells) if selects else ("none", WHOLE if whole else NO_CHOICE, {})
    reported = {m: cells.run(m, "report" if selects else "all") for m in processed}
    if protocol == "paper" and len(processed) > 1:
        chosen, why = _best(reported, task.metric(metric)), "best of the four on the scored cells themselves"
        why = why if np.isfinite(_value(reported[chosen], metric)) else f"{metric}, by which to choose, cannot be scored"
    elif len(processed) == 1 or task.describes:
        why = ""
    found = [Row(split.seed, protocol, m, score) for m, scores in reported.items() for score in scores]
    stand = with_choice(reported[chosen], reported, chance, name_of_choice(base.embedding[:NAMED_BY], split.seed))
    found += [Row(split.seed, protocol, CHOSEN[protocol], _because(score, chosen, why)) for score in stand]
    return found + [Row(split.seed, protocol, m, Score.absent(metric, why)) for m, why in refused.items()]


def _parts(base: View, task: Task, methods: tuple[str, ...]) -> tuple[Parts, dict[str, str]]:
    """The cells under the post-processings, and why some of these cannot be had."""
    compares = [base.protocol == "corrected" and metric.compares_controls for metric in task.metrics]
    fit = fitting_controls(base.screen, base.split.seed) if any(compares) else base.screen.is_control
    processed, refused = _postprocessed(base, fit if all(compares) else base.screen.is_control, methods)
    parts = Parts(base=base, task=task, fit=fit, spares=any(compares), whole=all(compares), processed=processed)
    return parts, refused


def _select(cells: Parts) -> tuple[str, str, dict[str, float]]:
    """The method, why, and the chance of each method to be chosen."""
    task, facts = cells.task, cells.base.screen.facts
    where = "train cells" if task.chooses_on_train else "validation part"
    scores = {m: cells.run(m, "validation") for m in cells.processed if m in POSTPROCESSINGS}
    metric = task.main(facts)
    if all(np.isnan(_value(found, metric)) for found in scores.values()):
        return "none", f"{metric} cannot be scored on the {where}", {}
    main = {m: score for m, found in scores.items() for score in found if score.metric == metric}
    chance = chances(main, task.metric(metric).direction, cells.base.seed)
    return _best(scores, task.metric(metric)), f"chosen by {metric} on the {where}", chance


def _best(scores: dict[str, list[Score]], metric: Metric) -> str:
    worth = {m: metric.direction * _value(found, metric.name) for m, found in scores.items()}
    known = {m: value for m, value in worth.items() if not np.isnan(value)}
    return list(known)[best_of(np.array([[*known.values()]]))[0]] if known else "none"


def _value(scores: list[Score], metric: str) -> float:
    return next((score.value for score in scores if score.metric == metric), float("nan"))


def _because(score: Score, chosen: str, why: str) -> Score:
    """The score with the choice of its post-processing as the first part of its reason; an absent one has only its own."""
    if score.status != "ok" or not why:
        return score
    return replace(score, reason="; ".join(part for part in (f"{chosen}: {why}", score.reason) if part))


def score_rows(rows: list[Row], task: Task, n_boot: int) -> Iterator[dict]:
    """The rows of the score table, each with its 95 % interval, clipped to the metric's range."""
    for row in rows:
        score = row.score
        ends = interval(score.items, n_boot=n_boot, seed=row.seed) if score.items else (np.nan, np.nan)
        low, high = np.clip(ends, *task.metric(score.metric).bounds)
        yield {"seed": row.seed, "protocol": row.protocol, "postprocess": row.postprocess, "metric": score.metric,
               "value": score.value, "ci_low": low, "ci_high": high, "n": score.n, "status": score.status,
               "reason": score.reason}  # fmt: skip


def item_frames(rows: list[Row]) -> Iterator[pd.DataFrame]:
    """The rows of the item table: what each score is made of, and (unit_kind 'shared') what units share."""
    for row in rows:
        items = row.score.items
        if items is None:
            continue
        about = {"seed": row.seed, "protocol": row.protocol, "postprocess": row.postprocess, "metric": row.score.metric}
        about |= {"unit_kind": items.kind, "offset": items.offset, "scale": items.scale}
        columns = {"unit": items.unit, "unit2": "" if items.unit2 is None else items.unit2}
        columns |= {"numerator": items.numerator, "denominator": items.denominator, **items.extra}
        yield pd.DataFrame(columns).assign(**about)
        if items.influence:
            shared = {"unit": list(items.influence), "influence": list(items.influence.values()), "unit2": ""}
            yield pd.DataFrame(shared).assign(**about | {"unit_kind": SHARED, "numerator": 0.0, "denominator": 0.0})
