"""The work of the steps, as formulas in sizes known before a run: cells, genes, dimensions, perturbations, draws, seeds."""

from collections.abc import Callable

import numpy as np
import pandas as pd

SCALES = ("seconds", "cpu_seconds", "peak_memory_bytes")
# where a table does not say
USUAL = {"n_cells": 0, "n_fit_cells": 0, "n_genes": 2000, "n_dimensions": 64, "n_seeds": 1, "n_draws": 1000, "n_scores": 0,
         "n_items": 0}  # fmt: skip
CELLS_EACH = 100  # per perturbation, where their number is not known
EXPRESSED = 8000  # genes: beyond, a cell expresses hardly more of them, and models read no more
SEARCHED = 20_000  # cells: beyond, neighbours are searched for a sample of this size
HELD = 7e6  # values: beyond, an embedding is read in blocks of rows
DRAWN = 2.5e8  # values that the draws of consistency hold (HELD_BYTES, metrics/relabelling.py)
PROBED = 3e10  # values x classes: beyond, the budget of a probe ends it (metrics/probe_budget.py)


def _values(rows: pd.DataFrame) -> pd.Series:
    return rows["n_cells"] * rows["n_dimensions"]


def _expression(rows: pd.DataFrame) -> pd.Series:
    return (rows["n_cells"] + rows["n_fit_cells"]) * rows["n_genes"].clip(upper=EXPRESSED)


def _fitted(rows: pd.DataFrame) -> pd.Series:
    return _expression(rows) * (rows["n_dimensions"] + 16)


def _seeded(rows: pd.DataFrame) -> pd.Series:
    """A cell costs something beside its values: its labels, its place in a group, its distances beside their products."""
    return rows["n_cells"] * (rows["n_dimensions"] + 64) * rows["n_seeds"]


def _neighbours(rows: pd.DataFrame) -> pd.Series:
    return _seeded(rows) * (1 + rows["n_cells"].clip(upper=SEARCHED) / 1000)


def _probes(rows: pd.DataFrame) -> pd.Series:
    """Of separability, in the operations of _neighbours: a weight for each value and class, up to a budget."""
    weights = (_values(rows) * rows["n_perturbations"]).clip(upper=PROBED) * rows["n_seeds"]
    return (_neighbours(rows) + 0.12 * weights).where(rows["n_perturbations"] > 1, _seeded(rows))


def _pairs(each: float) -> Callable[[pd.DataFrame], pd.Series]:
    """Values and, at ``each`` times their price, the pairs of perturbations."""
    return lambda rows: _seeded(rows) + each * rows["n_perturbations"] ** 2 * rows["n_seeds"]


def _held(rows: pd.DataFrame) -> pd.Series:
    """Memory: small embeddings whole, of large ones some rows at a time; and what is known of each cell."""
    return _values(rows).clip(upper=HELD) + 12 * rows["n_cells"]


def _relabelled(rows: pd.DataFrame) -> pd.Series:
    """Each draw of consistency sums the vectors of as many cells."""
    return _seeded(rows) * rows["n_draws"] / 1000


def _distances(rows: pd.DataFrame) -> pd.Series:
    """Energy distances of magnitude, and the draws of each perturbation."""
    return _seeded(rows) + 36 * rows["n_perturbations"] * rows["n_draws"] * rows["n_seeds"]


def item_rows(task: str, n_perturbations: float) -> float:
    """Rows of the item table of a task and seed, about: of 9,866 perturbations recall has 3.5 million, another 0.2 million.

    Those of recall are known pairs: each under six post-processings, in a recall, a precision and the recall at 10 %.
    """
    return 100 * n_perturbations + 0.027 * n_perturbations**2 if task == "recall" else 20 * n_perturbations


def _summed(rows_each: float) -> Callable[[pd.DataFrame], pd.Series]:
    """Scores, each at the price of so many rows of item tables, and these rows."""
    return lambda rows: rows["n_scores"] + rows["n_items"] / rows_each


def _once(rows: pd.DataFrame) -> pd.Series:
    return pd.Series(1.0, rows.index)


# work by step, or by step and name
TIME: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "PREPARE": lambda rows: rows["n_cells"] * rows["n_genes"].clip(upper=EXPRESSED),
    "EMBED": _fitted,
    "START": _once,
    "EVALUATE": _seeded,
    "EVALUATE separability": _probes,
    "EVALUATE batch_effect": _neighbours,
    "EVALUATE recall": _pairs(33.0),
    "EVALUATE retrieval": _pairs(5.0),
    "EVALUATE map": _pairs(2.0),
    "EVALUATE consistency": _relabelled,
    "EVALUATE magnitude": _distances,
    "EVALUATE reconstruction": lambda rows: (_expression(rows) + 50 * _values(rows)) * rows["n_seeds"],
    "EXPERIMENT": _expression,
    "EXPERIMENT SCORE_FEWER_CELLS": _probes,
    "EXPERIMENT COMPARE_CONTEXTS": _values,
    "REPORT": _summed(8e4),
    "REPORT MULTIQC": lambda rows: rows["n_scores"],
    "REPORT MAP": _values,
}
MEMORY: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "PREPARE": lambda rows: rows["n_cells"],
    "EMBED": _expression,
    "START": _once,
    "EVALUATE": _held,
    "EVALUATE recall": lambda rows: _held(rows) + 0.5 * rows["n_perturbations"] ** 2,
    "EVALUATE consistency": lambda rows: _held(rows) + 0.15 * _values(rows).clip(upper=DRAWN),
    "EVALUATE reconstruction": lambda rows: _expression(rows) + _values(rows),
    "EXPERIMENT": _expression,
    "EXPERIMENT SCORE_FEWER_CELLS": _held,
    "EXPERIMENT COMPARE_CONTEXTS": _values,
    "REPORT": _summed(8e4),
    "REPORT MULTIQC": lambda rows: rows["n_scores"],
    "REPORT MAP": _held,
}


def work(step: str, name: str, rows: pd.DataFrame, scale: str) -> np.ndarray:
    """The work (n,) of tasks of one step and name; ``rows`` as for ``fit_costs``, columns that are missing being USUAL."""
    formulas = MEMORY if scale == "peak_memory_bytes" else TIME
    known = {column: rows[column] if column in rows else pd.Series(usual, rows.index) for column, usual in USUAL.items()}
    filled = pd.DataFrame(known).astype(float).fillna(USUAL)
    asked = rows["n_perturbations"].astype(float) if "n_perturbations" in rows else pd.Series(np.nan, rows.index)
    filled["n_perturbations"] = asked.fillna(filled["n_cells"] / CELLS_EACH)
    return np.maximum(formulas.get(f"{step} {name}", formulas[step])(filled).to_numpy(dtype=float), 1.0)
