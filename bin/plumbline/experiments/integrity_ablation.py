"""Structural integrity under test: does it fall as a prediction gets worse, and stay where the prediction is as good?

The test2 cells of a split are predicted well (integrity_damages), the prediction is damaged by a known amount, and structural
integrity is measured, as are mean squared error, Spearman correlation per gene, the two measures of mean effects and the
energy distance of predicted to true cells. Repeated on random halves of the perturbations: over replicates, the standard
deviation of a value on halves drawn without replacement is the standard error of the value on all (McCarthy 1969, half-sample
replication), so that replicates carry the uncertainty.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.errors import NotApplicable
from plumbline.common.labels import among
from plumbline.common.random import seed_of
from plumbline.counts.expression import read_expression
from plumbline.data.splits import read_split
from plumbline.experiments.integrity_damages import INDIFFERENT, KEPT, SENSITIVE, Case, levels_of, take_apart, undamaged
from plumbline.metrics.correlation import pearson_rows
from plumbline.metrics.distances import mean_distance, mean_distance_within
from plumbline.metrics.effects import ControlMean, mean_of_groups
from plumbline.metrics.energy import MIN_CELLS
from plumbline.metrics.integrity import Reconstruction
from plumbline.scoring.screen import read_screen
from plumbline.tasks import reconstruction

# metric -> 1 if higher is better
METRICS = {"structural_integrity": 1, "si_effect": 1, "effect_pearson": 1, "effect_integrity": 1, "spearman": 1, "mse": -1,
           "energy_distance": -1}  # fmt: skip
COLUMNS = ["kind", "damage", "level", "replicate", "metric", "value", "n_cells", "n_batches"]
REPLICATES = 8
MAX_CELLS, MAX_EACH, MAX_CONTROLS, MAX_GENES = 1500, 100, 600, 500  # upper limits; a random sample is drawn beyond
FEW_PERTURBATIONS = 6  # below, halves of each perturbation's cells are drawn instead of halves of the perturbations


def ablate(counts: Path, tables: Path, seed: int, replicates: int = REPLICATES) -> tuple[pd.DataFrame, dict]:
    """Metrics of damaged predictions.

    Parameters
    ----------
    counts, tables
        The prepared data set.
    seed
        Split seed; also seeds every draw.
    replicates
        Number of half-sample replicates.

    Returns
    -------
    pandas.DataFrame
        The long table (COLUMNS); empty where there is nothing to predict.
    dict
        JSON-able summary; ``status`` and, if not applicable, ``reason``.

    Notes
    -----
    Memory: MAX_CELLS + MAX_CONTROLS cells x MAX_GENES genes, a few times.
    """
    try:
        case, about = read_case(counts, tables, seed)
    except NotApplicable as reason:
        return pd.DataFrame(columns=COLUMNS), {"status": "not_applicable", "reason": str(reason)}
    rows = [row for number in range(replicates) for row in replicate_rows(half_of(case, seed, number), seed, number)]
    return pd.DataFrame(rows, columns=COLUMNS), about | {"status": "ok", "seed": seed, "replicates": replicates, "kept": KEPT}


def read_case(counts: Path, tables: Path, seed: int) -> tuple[Case, dict]:
    """The cells used, and their numbers. Raises NotApplicable if there is nothing to predict."""
    screen, split = read_screen(tables), read_split(tables, seed)
    if reason := reconstruction.not_applicable(screen.facts):
        raise NotApplicable(reason)
    test = np.flatnonzero(split.test2)
    with_controls = among(screen.batch[test], set(screen.batch[test][screen.is_control[test]]))
    test, left_out = test[with_controls], int((~with_controls).sum())
    chosen = _choose(screen.take(test), seed)
    rows = test[chosen]
    if screen.is_control[rows].all():
        raise NotApplicable("no perturbed cell is in a held-out batch with controls")
    rows = rows[np.lexsort((screen.cell_id[rows], screen.batch[rows]))]
    genes = np.sort(np.argsort(-screen.genes["mean_lognorm"].to_numpy(), kind="stable")[:MAX_GENES])
    truth = np.ascontiguousarray(read_expression(counts, rows, screen.facts["x_kind"])[:, genes].T.toarray())
    taken = screen.take(rows)
    labels = {"batch": taken.batch, "perturbation": taken.perturbation, "is_control": taken.is_control}
    case = Case(**labels, truth=truth, prediction=truth)
    perturbed = taken.perturbation[~taken.is_control]
    by_cells = len(np.unique(perturbed)) < FEW_PERTURBATIONS
    return case, {
        "n_cells": len(perturbed),
        "n_cells_test": int((~screen.is_control[test]).sum()),
        "n_controls": int(taken.is_control.sum()),
        "n_controls_test": int(screen.is_control[test].sum()),
        "n_cells_without_controls": left_out,
        "n_perturbations": len(np.unique(perturbed)),
        "cells_median": float(np.median(np.unique(perturbed, return_counts=True)[1])),
        "n_batches": len(np.unique(taken.batch)),
        "n_genes": len(genes),
        "n_genes_total": len(screen.genes),
        "halves_of": "cells" if by_cells else "perturbations",
    }


def _choose(screen, seed: int) -> np.ndarray:
    """Row numbers: whole perturbations in random order (up to MAX_EACH cells of each) until MAX_CELLS, up to MAX_CONTROLS."""
    order = np.argsort(screen.cell_id)
    order = order[np.random.default_rng(seed_of(seed, "cells")).permutation(len(order))]  # the same in any order of the cells
    names = np.random.default_rng(seed_of(seed, "perturbations")).permutation(
        np.unique(screen.perturbation[~screen.is_control])
    )
    kept, n = [order[screen.is_control[order]][:MAX_CONTROLS]], 0
    for name in names:
        own = order[(screen.perturbation[order] == name) & ~screen.is_control[order]][:MAX_EACH]
        if n and n + len(own) > MAX_CELLS:
            break
        kept.append(own)
        n += len(own)
    return np.concatenate(kept)


def half_of(case: Case, seed: int, number: int) -> Case:
    """Replicate ``number``: the cells of a random half of the perturbations (or half of each one's cells), all controls."""
    rng = np.random.default_rng(seed_of(seed, f"half {number}"))
    perturbed = ~case.is_control
    names = np.unique(case.perturbation[perturbed])
    if len(names) >= FEW_PERTURBATIONS:
        perturbed &= among(case.perturbation, rng.permutation(names)[: len(names) // 2])
    else:
        for name in names:
            rows = rng.permutation(np.flatnonzero(perturbed & (case.perturbation == name)))
            perturbed[rows[max(1, len(rows) // 2) :]] = False
    return case.take(np.flatnonzero(perturbed | case.is_control))


def replicate_rows(case: Case, seed: int, number: int) -> list[tuple]:
    """Rows of the long table for one replicate: the references, then every damage at every level."""
    parts = take_apart(case)
    good = undamaged(case, parts)
    references = {"undamaged": good.prediction, "no_effect": parts.centre, "perfect": good.truth}
    cases = [("reference", name, 0.0, replace(good, prediction=values)) for name, values in references.items()]
    n_batches = len(np.unique(case.batch))
    n_perturbations = len(np.unique(case.perturbation[~case.is_control]))
    for kind, damages in (("sensitive", SENSITIVE), ("indifferent", INDIFFERENT)):
        for name, (damage, _, _) in damages.items():
            for level in levels_of(name, n_batches, n_perturbations):
                rng = np.random.default_rng(seed_of(seed, f"{name} {number}"))  # the same draws at every level
                cases.append((kind, name, level, damage(good, parts, level, rng)))
    return [
        (kind, name, level, number, metric, value, len(damaged.batch), len(np.unique(damaged.batch)))
        for kind, name, level, damaged in cases
        for metric, value in measure(damaged).items()
    ]


def measure(case: Case) -> dict[str, float]:
    """Every metric of METRICS."""
    sums = Reconstruction(case.batch, case.is_control)
    sums.add(case.truth, case.prediction)
    spearman = sums.correlation("spearman", np.arange(len(case.truth)).astype(str)).value
    values = sums.integrity().value, sums.integrity(effect=True).value, *mean_effects(case), spearman
    return dict(zip(METRICS, (*values, sums.errors().value, energy_distance(case)), strict=True))


def mean_effects(case: Case) -> tuple[float, float]:
    """Pearson correlation over genes (mean over perturbations) and structural integrity of mean effects, predicted and true.

    Both effects are relative to the true control mean of each cell's batch, and of all cells: the task's halves would stand
    against each other here, because the prediction is made of the mean of both. Cells of batches without controls are left
    out. 0 where no effect is predicted, NaN if no cell is left.

    References
    ----------
    'Pearson delta' of Roohani et al. 2024 (GEARS), Nature Biotechnology 42:927.
    """
    used = np.flatnonzero(among(case.batch, set(case.batch[case.is_control])))
    part = case.take(used)
    centre = ControlMean(part.batch, part.is_control).predict(part.truth)
    perturbed = np.flatnonzero(~part.is_control)
    names, code = np.unique(part.perturbation[perturbed], return_inverse=True)
    means = mean_of_groups(code, np.arange(len(perturbed)), len(names), len(perturbed))
    true, predicted = (means @ (x - centre)[:, perturbed].T for x in (part.truth, part.prediction))
    values = pearson_rows(true, predicted)
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    apart, size = (float(np.linalg.norm(x, axis=1).sum()) for x in (predicted - true, true))
    return float(values.mean()), 1 - apart / size


def energy_distance(case: Case) -> float:
    """Mean over perturbations (>= MIN_CELLS cells) of the energy distance of predicted to true cells, >= 0; NaN if none."""
    perturbed = np.flatnonzero(~case.is_control)
    values = []
    for name in np.unique(case.perturbation[perturbed]):
        rows = perturbed[case.perturbation[perturbed] == name]
        if len(rows) >= MIN_CELLS:
            p, t = case.prediction[:, rows].T, case.truth[:, rows].T
            values.append(2 * mean_distance(p, t) - mean_distance_within(p) - mean_distance_within(t))
    return float(np.mean(values)) if values else float("nan")
