"""Magnitude: how far does a perturbation move cells away from the controls? (protocol, task 4)

The energy distance of a perturbation's cells to control cells. `paper`: to at most 1,000 controls, ranked among the
perturbations of unexpressed genes. `corrected`: to controls of the same batches, with a permutation test within batches.
"""

import numpy as np

from plumbline.metrics.energy import MIN_CELLS, energy_distances, matched_test
from plumbline.metrics.groups import MIN_RELABELLINGS, group_by, seed_of
from plumbline.metrics.ranks import draw_p_value, null_too_small, paper_p_value, significance, unexpressed_null
from plumbline.scoring.scores import Score, counted
from plumbline.scoring.screen import View

NAME = "magnitude"
VERSION = "2"  # 2: a perturbation that no relabelling can show at p <= 0.05 is not scored
MAIN_METRIC = "magnitude_pct"
METRICS = {"magnitude_pct": 1, "magnitude_fdr_pct": 1}
BOUNDS = dict.fromkeys(METRICS, (0, 100))
USES_SPLIT = False
NEEDS_COUNTS = False
COMPARES_CONTROLS = tuple(METRICS)
PAPER_CONTROLS = 1000


def not_applicable(facts: dict) -> str:
    """A reason why the question cannot be asked of this data set, or ''."""
    if facts["n_perturbations"] < 1:
        return "the data set has no perturbation"
    if not facts["has_controls"]:
        return "the distance is to control cells, and the data set has none"
    return ""


def run(view: View) -> list[Score]:
    """Share of perturbations (percent) that move cells more than chance, at p <= 0.05 and (corrected) at q <= 0.05."""
    if view.predictor:
        return [Score.absent(metric, f"{view.predictor} predicts expression; it is no embedding") for metric in METRICS]
    if not view.screen.is_control.any():
        return [Score.absent(metric, "no control cell is among the scored cells") for metric in METRICS]
    return _paper(view) if view.protocol == "paper" else _corrected(view)


def _paper(view: View) -> list[Score]:
    screen = view.screen
    perturbed = np.flatnonzero(~screen.is_control)
    groups = group_by(screen.perturbation[perturbed])
    value = energy_distances(view.embedding[perturbed], groups, view.embedding[_paper_controls(view)])
    null, reason = unexpressed_null(groups.names, screen)
    scored = np.isfinite(value) & ~null
    pool = value[null & np.isfinite(value)]
    reason = reason or null_too_small(len(pool), f"with {MIN_CELLS} cells or more")
    if reason:
        return [Score.absent(metric, reason) for metric in METRICS]
    p = paper_p_value(value[scored], pool, "right")
    reason = f"null: {len(pool)} perturbations of unexpressed genes"
    score = significance("magnitude_pct", groups.names[scored], p, value[scored], groups.sizes[scored], reason)
    return [score, Score.absent("magnitude_fdr_pct", "the paper's p values are not corrected for multiple testing")]


def _paper_controls(view: View) -> np.ndarray:
    """Rows of at most 1,000 controls, drawn with the view's seed from the controls in the order of their ids."""
    rows = np.flatnonzero(view.screen.is_control)
    rows = rows[np.argsort(view.screen.cell_id[rows])]
    if len(rows) <= PAPER_CONTROLS:
        return rows
    return np.random.default_rng(seed_of(view.seed, "controls")).choice(rows, PAPER_CONTROLS, replace=False)


def _corrected(view: View) -> list[Score]:
    screen = view.screen
    names = np.unique(screen.perturbation[~screen.is_control])
    arrays = view.embedding, screen.cell_id, screen.perturbation, screen.is_control, screen.batch
    result = matched_test(*arrays, names, view.n_draws, view.seed, view.threads)
    scored = np.isfinite(result.observed)
    reason = f"{counted((~scored).sum(), 'perturbation')} with fewer than {MIN_CELLS} cells in batches with controls, "
    reason += f"or fewer than {MIN_RELABELLINGS} relabellings, not scored"
    p = draw_p_value(result.observed[scored], result.null[scored])
    parts = names[scored], p, result.observed[scored], result.n_cells[scored], reason if not scored.all() else ""
    return [significance("magnitude_pct", *parts), significance("magnitude_fdr_pct", *parts, fdr=True)]
