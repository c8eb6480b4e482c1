"""Geometry: what an embedding looks like, without a question to it (protocol, task 9). It explains other scores.

Few dimensions or cells that all point one way make cosines and linear probes fail; a large systematic share makes every
perturbation look alike.
"""

import numpy as np
import pandas as pd

from plumbline.common.random import seed_of, uniform_by_id
from plumbline.metrics.divisions import by_cell, labels_of
from plumbline.metrics.geometry import effective_rank, mean_cosine, participation_ratio, spectrum, systematic_terms
from plumbline.metrics.repeats import effects_in
from plumbline.scoring.records import Metric, Task
from plumbline.scoring.scores import Items, Score
from plumbline.scoring.screen import View

METRICS = (
    Metric(name="effective_rank", title="effective rank (dimensions)", lowest=1, highest=np.inf),
    Metric(name="participation_ratio", title="participation ratio (dimensions)", lowest=1, highest=np.inf),
    Metric(name="mean_cosine", title="mean cosine of two cells", lowest=-1),
    Metric(name="systematic_share", title="systematic share of the effects", lowest=-np.inf, highest=np.inf),
)
MAX_CELLS, WIDE, MAX_CELLS_WIDE = 20_000, 2048, 2000  # cells that are looked at: fewer of an embedding with many columns
N_SPLITS, MIN_PERTURBATIONS, MIN_ERRORS = 8, 8, 3  # halvings; standard errors that effects must have


def not_applicable(facts: dict) -> str:
    """Why the task does not apply to this data set; '' if it does."""
    return "" if facts["n_cells"] > 1 else "the data set has one cell"


def run(view: View) -> list[Score]:
    """Dimensions in use (effective rank, participation ratio), mean cosine of two cells, systematic share of the effects."""
    if view.protocol == "paper":
        return TASK.absent("not part of the paper's protocol")
    if view.embedding.shape[1] == 0:
        return TASK.absent("the model gives no embedding")
    cells = view.embedding[_some(view)]
    variances, note = spectrum(cells), f"{len(cells)} of {len(view.rows)} cells" if len(cells) < len(view.rows) else ""
    if not variances.sum():
        return TASK.absent("all cells have the same embedding")
    values = effective_rank(variances), participation_ratio(variances), mean_cosine(cells)
    return [
        *(Score(metric.name, value, len(cells), reason=note) for metric, value in zip(METRICS, values, strict=False)),
        _systematic_share(view),
    ]


def _some(view: View) -> np.ndarray:
    """Rows of the cells that are looked at: all, or a random choice by their ids."""
    most = MAX_CELLS if view.embedding.shape[1] <= WIDE else MAX_CELLS_WIDE
    if len(view.rows) <= most:
        return np.arange(len(view.rows))
    return np.sort(np.argsort(uniform_by_id(view.screen.cell_id, seed_of(view.seed, "geometry")))[:most])


def _systematic_share(view: View) -> Score:
    """|mean effect|^2 over the mean |effect|^2. Items: perturbations."""
    metric, labels, parts = "systematic_share", labels_of(view.screen), []
    divisions = [by_cell(labels, 2, seed_of(view.seed, f"halves {split}")) for split in range(N_SPLITS)]
    for found in effects_in(view.embedding, labels, divisions):
        names, first, second = found.halves()
        if len(names) >= MIN_PERTURBATIONS:
            with_mean, with_itself = systematic_terms(first, second)
            parts.append(pd.DataFrame({"name": names, "mean": with_mean, "itself": with_itself}))
    if not parts:
        return Score.absent(metric, f"fewer than {MIN_PERTURBATIONS} perturbations have cells and controls in both halves")
    table = pd.concat(parts).groupby("name", as_index=False).mean()
    if table["itself"].mean() < MIN_ERRORS * _standard_error(table["itself"], [part["itself"].mean() for part in parts]):
        return Score.absent(metric, "the effects are not larger than their noise")
    names, numerator = table["name"].to_numpy(dtype=str), table["mean"].to_numpy()
    return Score.of(metric, Items("perturbation", names, numerator, table["itself"].to_numpy()))


def _standard_error(lengths: pd.Series, of_splits: list[float]) -> float:
    """Of the mean squared length of the effects: of perturbations, and of the controls, which all of them share.

    The product of two halves' control means is |c|^2 - |d|^2, c being the mean and d half the difference of the two. Both
    terms vary alike, and halving the controls once more draws another d.
    """
    controls = 2 * np.var(of_splits, ddof=1) if len(of_splits) > 1 else np.inf
    return float(np.sqrt(lengths.var(ddof=1) / len(lengths) + controls))


TASK = Task(
    name="geometry",
    version="1",
    title="Geometry",
    question="How many dimensions an embedding uses, and how much of it all cells or all effects have in common. Neither more "
    "nor less is better.",
    order=65,
    metrics=METRICS,
    main_metric="effective_rank",
    not_applicable=not_applicable,
    run=run,
    describes=True,
)
