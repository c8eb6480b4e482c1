"""Scores of one embedding with fewer cells per perturbation, and what they would be with more.

The embedding stays as it is: cells are left out when it is scored. The cells of each perturbation are parted into four
quarters, batch by batch, and each quarter, each half (two quarters) and all of them are scored: the draws of one depth are
disjoint, and together they use every cell once. Controls stay, and so does the post-processing that was chosen with all
cells. A depth's score is the mean over its draws on the units that all depths have.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import pandas as pd

from plumbline.common.errors import NotApplicable
from plumbline.common.random import hashes, normal
from plumbline.data.splits import Split
from plumbline.experiments.plateau import Plateau, plateau
from plumbline.scoring.evaluation import evaluate, score_under
from plumbline.scoring.protocol import CHOSEN, POSTPROCESSINGS
from plumbline.scoring.records import Task
from plumbline.scoring.scores import Items, Score, counted
from plumbline.scoring.screen import Screen, Subject
from plumbline.scoring.stats import draws, interval, narrowed
from plumbline.scoring.units import canonical, counted_twice, n_units, pool, shared

SHARES = (0.25, 0.5, 1.0)
HALVES = ((0, 2), (1, 3))  # two cells of a batch, dealt out one after the other, are in different halves
MIN_CELLS = 16  # of a perturbation: with four in a quarter, tasks still have cells of several batches
MIN_PERTURBATIONS = 8
COLUMNS = [*("dataset", "model", "variant", "fit_on", "task", "metric", "postprocess", "share", "cells", "n_draws", "value"),
           *("ci_low", "ci_high", "n_units", "floor", "attained", "attained_low", "attained_high", "cells_needed"),
           *("cells_needed_low", "cells_needed_high", "verdict", "status", "reason")]  # fmt: skip
_NOISE_DIMENSIONS = 16


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Score of one task by depth. items: one per share of SHARES, on the same units. cells: per perturbation, by share."""

    task: Task
    metric: str
    method: str
    items: tuple[Items, ...]
    cells: tuple[float, ...]
    floor: float


def _not_applicable(task: Task, facts: dict) -> str:
    """Why a task has no such curve on a data set; '' if it has one."""
    if task.describes or task.metric(task.main(facts)).noise_scores_best:
        return "does not measure what cells of a perturbation have in common"
    return task.not_applicable(facts)


def quarters(screen: Screen, seed: int) -> np.ndarray:
    """Quarter 0..3 of each cell; -1: a control, -2: of a perturbation with fewer than MIN_CELLS cells. (n_cells,).

    Cells of a perturbation are dealt out batch by batch, in an order of the batches and of the cells' ids that the seed
    shuffles, beginning with any quarter, so that no quarter stands for some of the batches.
    """
    code, names = pd.factorize(screen.perturbation)
    sizes = np.bincount(code[~screen.is_control], minlength=len(names))
    place, places = pd.factorize(screen.perturbation.astype(object) + "\t" + screen.batch.astype(object))
    keys = hashes(screen.cell_id, f"quarter {seed}"), hashes(places, f"batch {seed}")[place], code
    order = np.lexsort(keys)
    first = np.flatnonzero(np.r_[True, np.diff(code[order]) != 0])
    rank = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
    begin = (hashes(names, f"first {seed}") % np.uint64(4)).astype(np.int64)
    quarter = np.empty(len(order), dtype=np.int64)
    quarter[order] = (rank + begin[code[order]]) % 4
    return np.where(screen.is_control, -1, np.where(sizes[code] < MIN_CELLS, -2, quarter))


def curve(subject: Subject, task: Task, split: Split) -> Curve:
    """The curve of a task's main metric under the protocol `corrected`.

    Parameters
    ----------
    subject
        The embedding, not yet post-processed.
    task
        A task.
    split
        Of the subject's cells; it stays, so that fewer cells per perturbation are fewer to train and to score on.

    Returns
    -------
    Curve

    Raises
    ------
    NotApplicable
        If the task has no such curve, there are too few perturbations with enough cells, or a depth cannot be scored.
    """
    if reason := _not_applicable(task, subject.screen.facts):
        raise NotApplicable(reason)
    quarter = quarters(subject.screen, split.seed)
    names, sizes = np.unique(subject.screen.perturbation[quarter >= 0], return_counts=True)
    if len(names) < MIN_PERTURBATIONS:
        have = f"{counted(len(names), 'perturbation')} with {MIN_CELLS} cells or more"
        raise NotApplicable(f"{have}; {MIN_PERTURBATIONS} are needed")
    subject, split = _taken(subject, split, quarter >= -1)
    quarter, metric = quarter[quarter >= -1], task.main(subject.screen.facts)
    method, whole = _with_all(subject, task, split, metric)
    depths = [[_drawn(subject, task, split, quarter, part, metric, method) for part in parts] for parts in (range(4), HALVES)]
    items = _on_common_units([[_items(score, metric) for score in scores] for scores in (*depths, [whole])])
    cells = tuple(float(np.median(sizes)) * share for share in SHARES)
    floor = task.metric(metric).chance
    floor = _noise(subject, task, split, metric) if np.isnan(floor) else floor
    return Curve(task=task, metric=metric, method=method, items=items, cells=cells, floor=floor)


def rows_of(found: Curve, n_boot: int, seed: int) -> Iterator[dict]:
    """One row per depth, and one (share: infinity) for the plateau."""
    sign = found.task.metric(found.metric).direction
    drawn = draws(found.items, n_boot, seed)
    values = np.array([part.value for part in found.items])
    drawn = np.column_stack([narrowed(part.value, drawn[:, n], counted_twice(part)) for n, part in enumerate(found.items)])
    units = n_units(found.items[-1])
    about = sign * values, sign * drawn, sign * found.floor, found.cells[-1], units
    ends = plateau(np.array(SHARES), *about, trains=found.task.uses_split)
    about = {"task": found.task.name, "metric": found.metric, "postprocess": found.method, "floor": found.floor,
             "n_units": units, "status": "ok", **_columns(ends)}  # fmt: skip
    low, high = found.task.metric(found.metric).bounds
    for share, cells, part, n in zip(SHARES, found.cells, found.items, (4, 2, 1), strict=True):
        span = np.clip(interval(part, n_boot, seed), low, high)
        yield about | {"share": share, "cells": cells, "n_draws": n, "value": part.value, "ci_low": span[0], "ci_high": span[1]}
    span = np.clip(sorted((sign * ends.value.low, sign * ends.value.high)), low, high)
    value = float(np.clip(sign * ends.value.value, low, high))
    yield about | {"share": np.inf, "cells": np.inf, "n_draws": 0, "value": value, "ci_low": span[0], "ci_high": span[1]}


def _columns(ends: Plateau) -> dict:
    found = {"verdict": ends.verdict, "reason": ends.reason}
    for name in ("attained", "cells"):
        part, title = getattr(ends, name), "cells_needed" if name == "cells" else name
        found |= {title: part.value, f"{title}_low": part.low, f"{title}_high": part.high}
    return found


def _taken(subject: Subject, split: Split, keep: np.ndarray) -> tuple[Subject, Split]:
    rows = np.flatnonzero(keep)
    part = replace(subject, embedding=subject.embedding.take(rows), screen=subject.screen.take(rows), rows=subject.rows[rows])
    return part, split.take(rows)


def _with_all(subject: Subject, task: Task, split: Split, metric: str) -> tuple[str, Score]:
    """The post-processing that is chosen with all cells, and the score under it."""
    rows = [row for row in evaluate(subject, task, [split], ["corrected"]) if row.score.metric == metric]
    chosen = next(row.score for row in rows if row.postprocess == CHOSEN["corrected"])
    method = chosen.reason.partition(":")[0]
    method = method if method in POSTPROCESSINGS else "none"
    return method, next((row.score for row in rows if row.postprocess == method and row.score.status == "ok"), chosen)


def _drawn(subject: Subject, task: Task, split: Split, quarter: np.ndarray, part, metric: str, method: str) -> Score:
    some, its_split = _taken(subject, split, (quarter == -1) | np.isin(quarter, part))
    return next(score for score in score_under(some.view(its_split, "corrected"), task, method) if score.metric == metric)


def _items(score: Score, metric: str) -> Items:
    if score.items is None:
        raise NotApplicable(f"{metric} cannot be scored with fewer cells: {score.reason}")
    return score.items


def _on_common_units(depths: list[list[Items]]) -> tuple[Items, ...]:
    """Per depth the mean over its draws, on the units that all draws have."""
    depths = [[canonical(items) for items in depth] for depth in depths]
    least = reduce(lambda a, b: shared(a, b)[0], [items for depth in depths for items in depth])
    if not len(least.unit):
        raise NotApplicable("no unit is scored at all depths")
    return tuple(pool([shared(items, least)[0] for items in depth]) for depth in depths)


def _noise(subject: Subject, task: Task, split: Split, metric: str) -> float:
    """The floor where theory gives none: the score of an embedding without information, of the same cells."""
    noise = replace(subject, embedding=normal(subject.screen.cell_id, _NOISE_DIMENSIONS, "floor"))
    scores = score_under(noise.view(split, "corrected"), task, "none")
    return next(score.value for score in scores if score.metric == metric)
