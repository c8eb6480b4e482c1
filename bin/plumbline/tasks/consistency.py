"""Consistency: do the cells of a perturbation point the same way in the embedding? (protocol, task 3)

The mean pairwise cosine of a perturbation's cells. `paper`: ranked among the perturbations of unexpressed genes.
`corrected`: against relabellings of the cells of the same batches, with Benjamini-Hochberg.
"""

import numpy as np

from plumbline.metrics.cosine import matched_null, mean_cosine
from plumbline.metrics.groups import MIN_RELABELLINGS, group_by
from plumbline.metrics.ranks import (
    draw_p_value,
    ended_early,
    may_end_early,
    null_too_small,
    paper_p_value,
    significance,
    unexpressed_null,
)
from plumbline.scoring.records import Metric, Task, too_narrow
from plumbline.scoring.scores import Score, counted
from plumbline.scoring.screen import View

PERCENT = {"unit": "%", "highest": 100, "compares_controls": True}
NARROW = too_narrow("90 to 93")
METRICS = (
    Metric(name="consistency_pct", title="percent of perturbations, p ≤ 0.05", chance=5.0, **PERCENT),
    Metric(name="consistency_fdr_pct", title="percent of perturbations, q ≤ 0.05", chance=0.0, uncalibrated=NARROW, **PERCENT),
)


def not_applicable(facts: dict) -> str:
    """Why the task does not apply to this data set; '' if it does."""
    if facts["n_perturbations"] < 1:
        return "the data set has no perturbation"
    return ""


def run(view: View) -> list[Score]:
    """Share of perturbations (percent) that are more consistent than chance, at p <= 0.05 and (corrected) at q <= 0.05."""
    return _paper(view) if view.protocol == "paper" else _corrected(view)


def _paper(view: View) -> list[Score]:
    perturbed = np.flatnonzero(~view.screen.is_control)
    groups = group_by(view.screen.perturbation[perturbed])
    value = mean_cosine(view.embedding.take(perturbed), groups)
    null, reason = unexpressed_null(groups.names, view.screen)
    scored = np.isfinite(value) & ~null
    pool = value[null & np.isfinite(value)]
    reason = reason or null_too_small(len(pool), "with two cells or more")
    if reason:
        return TASK.absent(reason)
    p = paper_p_value(value[scored], pool, "left")
    reason = f"null: {len(pool)} perturbations of unexpressed genes"
    score = significance("consistency_pct", groups.names[scored], p, value[scored], groups.sizes[scored], reason)
    return [score, Score.absent("consistency_fdr_pct", "the paper's p values are not corrected for multiple testing")]


def _corrected(view: View) -> list[Score]:
    screen = view.screen
    groups = group_by(np.where(screen.is_control, "", screen.perturbation))
    names = groups.names[groups.names != ""]
    arrays = view.embedding, screen.cell_id, screen.perturbation, screen.batch
    observed, null, _ = matched_null(*arrays, names, view.n_draws, view.seed, view.threads, may_end_early(view), view.device)
    scored = np.isfinite(observed)
    value, size = (array[groups.names != ""][scored] for array in (mean_cosine(view.embedding, groups), groups.sizes))
    reason = f"{counted((~scored).sum(), 'perturbation')} with fewer than 2 cells beside other cells of the batch, "
    reason += f"or fewer than {MIN_RELABELLINGS} relabellings, not scored"
    p = draw_p_value(observed[scored], null[scored])
    reason = "; ".join(filter(None, ("" if scored.all() else reason, ended_early(null[scored]))))
    parts = names[scored], p, value, size, reason
    return [significance("consistency_pct", *parts), significance("consistency_fdr_pct", *parts, fdr=True)]


TASK = Task(
    name="consistency",
    # 2: the null relabels cells within batches; what too few relabellings could tell is not scored; 3: all digits near 1
    version="3",
    title="Consistency",
    question="Whether the cells of one perturbation agree more than chance.",
    order=40,
    metrics=METRICS,
    main_metric="consistency_pct",
    not_applicable=not_applicable,
    run=run,
    uses_device=True,
)
