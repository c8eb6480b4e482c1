"""Magnitude: how far does a perturbation move cells away from the controls? (protocol, task 4)

The energy distance of a perturbation's cells to control cells. `paper`: to at most 1,000 controls, ranked among the
perturbations of unexpressed genes. `corrected`: to controls of the same batches, with a permutation test within batches.
"""

from functools import partial

import numpy as np

from plumbline.common.random import seed_of
from plumbline.metrics.energy import MIN_CELLS, energy_distances, matched_test
from plumbline.metrics.groups import MIN_RELABELLINGS, group_by
from plumbline.metrics.influence import influence_on_share
from plumbline.metrics.ranks import (
    draw_p_value,
    ended_early,
    may_end_early,
    null_too_small,
    paper_p_value,
    significance,
    unexpressed_null,
)
from plumbline.scoring.parts import FEW_PERTURBATIONS
from plumbline.scoring.records import Metric, Task
from plumbline.scoring.scores import Score, counted
from plumbline.scoring.screen import View

PERCENT = {"unit": "%", "highest": 100, "compares_controls": True}
METRICS = (
    Metric(name="magnitude_pct", title="percent of perturbations, p ≤ 0.05", chance=5.0, **PERCENT),
    Metric(name="magnitude_fdr_pct", title="percent of perturbations, q ≤ 0.05", chance=0.0, **PERCENT),
    Metric(
        name="magnitude_effect",
        title="energy distance / spread of controls",
        lowest=-np.inf,
        highest=np.inf,
        chance=0.0,
        compares_controls=True,
    ),
)
SHARES = ("magnitude_pct", "magnitude_fdr_pct")
PAPER_CONTROLS = 1000


def not_applicable(facts: dict) -> str:
    """Why the task does not apply to this data set; '' if it does."""
    if facts["n_perturbations"] < 1:
        return "the data set has no perturbation"
    if not facts["has_controls"]:
        return "the distance is to control cells, and the data set has none"
    return ""


def main_metric(facts: dict) -> str:
    """magnitude_pct, or magnitude_effect where there are too few perturbations for a percentage."""
    return "magnitude_pct" if facts["n_perturbations"] >= FEW_PERTURBATIONS else "magnitude_effect"


def run(view: View) -> list[Score]:
    """Share of perturbations (percent) that move cells more than chance, at p <= 0.05 and (corrected) at q <= 0.05.

    magnitude_effect (`corrected`): how far they move, within batches, in units of the controls' mean distance.
    """
    if not view.screen.is_control.any():
        return TASK.absent("no control cell is among the scored cells")
    return _paper(view) if view.protocol == "paper" else _corrected(view)


def _paper(view: View) -> list[Score]:
    screen = view.screen
    perturbed = np.flatnonzero(~screen.is_control)
    groups = group_by(screen.perturbation[perturbed])
    controls = view.embedding[_paper_controls(view)]
    value = energy_distances(view.embedding.take(perturbed), groups, controls, _precision(view), view.device)
    null, reason = unexpressed_null(groups.names, screen)
    scored = np.isfinite(value) & ~null
    pool = value[null & np.isfinite(value)]
    reason = reason or null_too_small(len(pool), f"with {MIN_CELLS} cells or more")
    if reason:
        return TASK.absent(reason)
    p = paper_p_value(value[scored], pool, "right")
    reason = "; ".join(filter(None, (f"null: {len(pool)} perturbations of unexpressed genes", _rounding(view))))
    score = significance("magnitude_pct", groups.names[scored], p, value[scored], groups.sizes[scored], reason)
    absent = {"magnitude_fdr_pct": "the paper's p values are not corrected for multiple testing",
              "magnitude_effect": "not part of the paper's protocol"}  # fmt: skip
    return [score, *(Score.absent(metric, why) for metric, why in absent.items())]


def _paper_controls(view: View) -> np.ndarray:
    """Rows of at most 1,000 controls, drawn with the view's seed from the controls in the order of their ids."""
    rows = np.flatnonzero(view.screen.is_control)
    rows = rows[np.argsort(view.screen.cell_id[rows])]
    if len(rows) <= PAPER_CONTROLS:
        return rows
    return np.random.default_rng(seed_of(view.seed, "controls")).choice(rows, PAPER_CONTROLS, replace=False)


def _corrected(view: View) -> list[Score]:
    screen = view.screen
    names = group_by(screen.perturbation[~screen.is_control]).names
    arrays = view.embedding, screen.cell_id, screen.perturbation, screen.is_control, screen.batch
    how = {"curtailed": may_end_early(view), "precision": _precision(view), "device": view.device}
    result = matched_test(*arrays, names, view.n_draws, view.seed, view.threads, **how)
    scored = np.isfinite(result.observed)
    reason = f"{counted((~scored).sum(), 'perturbation')} with fewer than {MIN_CELLS} cells in batches with controls, "
    reason += f"or fewer than {MIN_RELABELLINGS} relabellings, not scored"
    p = draw_p_value(result.observed[scored], result.null[scored])
    reason = "; ".join(filter(None, ("" if scored.all() else reason, ended_early(result.null[scored]), _rounding(view))))
    parts = names[scored], p, result.observed[scored], result.n_cells[scored], reason
    influence = partial(influence_on_share, result.observed[scored], result.null[scored], result.pull[scored])
    shares = [significance(metric, *parts, fdr="fdr" in metric, influence=influence) for metric in SHARES]
    within = f"within {counted(len(np.unique(result.sizes.batch)), 'batch')}"
    within = "; ".join(filter(None, (within, _rounding(view))))
    return [*shares, Score.of("magnitude_effect", result.sizes.items(), reason=within)]


def _precision(view: View) -> type:
    """Of the distance between two cells: float32 on large data, unless exact results are asked for."""
    return np.float32 if may_end_early(view) else np.float64


def _rounding(view: View) -> str:
    """That distances are in float32, or ''."""
    return "distances in float32" if _precision(view) is np.float32 else ""


TASK = Task(
    name="magnitude",
    version="3",  # 3: effect sizes, which rank models where there are fewer than eight perturbations
    title="Effect magnitude",
    question="How many perturbations move away from the controls.",
    order=50,
    metrics=METRICS,
    main_metric="magnitude_pct",
    choose_main=main_metric,
    paper_metric="magnitude_pct",
    not_applicable=not_applicable,
    run=run,
    uses_device=True,
    whole_if_few=True,
)
