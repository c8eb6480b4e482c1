"""Time and memory of the steps by the work they do: fitted to what a run recorded, estimated for a new run.

A step costs base + rate x work (work.py).
"""

import numpy as np
import pandas as pd
from scipy.optimize import least_squares, nnls

from plumbline.experiments.work import SCALES, USUAL, work

# steps that the steps.tsv of a run may lack: they are small, and not priced then
UNRECORDED = ("START", "EXPERIMENT", "REPORT")
FAR = 10  # times the largest number of cells that was measured


def fit_costs(steps: pd.DataFrame) -> pd.DataFrame:
    """Time and memory per step and name as base + rate x work, both positive.

    Fitted by least squares on the logarithms, every power of ten of work counting alike, however many tasks did it. Where all
    tasks do the same work, all time but 1 s of start-up is taken as proportional to it, which overestimates larger runs.

    Parameters
    ----------
    steps
        Columns step, name, n_cells, those of SCALES, and as far as known those of USUAL and n_perturbations (summary/steps.py).

    Returns
    -------
    pandas.DataFrame
        One row per step and name: ``<scale>_base`` and ``<scale>_rate`` of every scale, n_tasks, n_sizes (distinct numbers of
        cells), largest, error (median relative error of seconds), and the median of each column of USUAL.
    """
    rows = []
    for (step, name), part in steps.groupby(["step", "name"], sort=True):
        row = {"step": step, "name": name, "n_tasks": len(part), "n_sizes": part["n_cells"].nunique()}
        row |= {"largest": part["n_cells"].max()}
        row |= {
            column: part[column].median() if column in part and part[column].any() else usual for column, usual in USUAL.items()
        }
        for scale in SCALES:
            value, done = part[scale].to_numpy(dtype=float), work(step, name, part, scale)
            fit = _line(done[np.isfinite(value)], value[np.isfinite(value)], 1.0 if scale != "peak_memory_bytes" else 1e8)
            row |= dict(zip((f"{scale}_base", f"{scale}_rate"), fit, strict=True))
        predicted = row["seconds_base"] + row["seconds_rate"] * work(step, name, part, "seconds")
        row["error"] = float(np.median(np.abs(predicted / part["seconds"].to_numpy(dtype=float) - 1)))
        rows.append(row)
    return pd.DataFrame(rows)


def _line(done: np.ndarray, value: np.ndarray, start: float) -> tuple[float, float]:
    """(base, rate) of value = base + rate x done; ``start``: base where all have done the same."""
    if not len(value):
        return float("nan"), float("nan")
    value = np.maximum(value, 1e-3)
    if done.max() < 1.01 * done.min():
        base = min(start, value.mean() / 2)
        return float(base), float((value.mean() - base) / done.mean())
    first, _ = nnls(np.column_stack([1 / value, done / value]), np.ones(len(value)))
    at = np.log(np.maximum(first, [1e-3 * value.min(), 1e-3 * (value / done).min()]))
    _, group, size = np.unique(np.round(np.log10(done)), return_inverse=True, return_counts=True)
    weight = size[group] ** -0.5
    found = least_squares(lambda x: weight * (np.logaddexp(x[0], x[1] + np.log(done)) - np.log(value)), at)
    base, rate = np.exp(found.x)
    return float(base), float(rate)


def estimate(fits: pd.DataFrame, planned: pd.DataFrame, module: dict[str, str] | None = None) -> pd.DataFrame:
    """Estimated time and memory of planned tasks.

    Parameters
    ----------
    fits
        What ``fit_costs`` returned.
    planned
        Columns step, name, n_tasks, n_cells, and as far as known those of USUAL and n_perturbations.
    module
        name -> module, as far as names are variants of a model.

    Returns
    -------
    pandas.DataFrame
        ``planned`` with seconds and cpu_seconds (all tasks), peak_memory_bytes (one task) and known: whether timings are
        available. Without them a variant is assumed as slow as the slowest of the same module, or else of its step.
    """
    planned = planned.reset_index(drop=True)
    results = [_priced(fits, planned.iloc[[at]], module or {}) for at in planned.index]
    return pd.concat([planned, pd.DataFrame(results)], axis=1)


def _priced(fits: pd.DataFrame, task: pd.DataFrame, module: dict[str, str]) -> dict:
    """The scales and ``known`` of one row of the plan: the largest of what the fits that stand for it say."""
    step, name, n_tasks = task[["step", "name", "n_tasks"]].iloc[0]
    same = fits[fits["step"] == step]
    kin = same[same["name"].map(module) == module.get(name, "")]
    own = same[same["name"] == name]
    if step in UNRECORDED and same.empty:
        return {"known": True, **dict.fromkeys(SCALES, 0.0)}
    others = next((fits for fits in (kin, own) if len(fits)), same)
    used = own if len(own) else others
    reaching = _reaching(used, others, task["n_cells"].iloc[0])
    found: dict[str, bool | float] = {"known": len(own) > 0}
    for scale in SCALES:
        standing = reaching if scale == "peak_memory_bytes" else used
        ends = [_at(row, step, task, scale) for row in standing.to_dict("records")]
        found[scale] = (max(ends) if ends else np.nan) * (1 if scale == "peak_memory_bytes" else n_tasks)
    return found


def _reaching(used: pd.DataFrame, others: pd.DataFrame, n_cells: float) -> pd.DataFrame:
    """Of ``used``, else of ``others``, the fits measured near so many cells, else those measured at the most: on a few hundred
    cells memory grows by what is loaded, and that slope would come to terabytes at millions."""
    for enough in (n_cells / FAR, others["largest"].max() / 2):
        for fits in (used, others):
            if (fits["largest"] >= enough).any():
                return fits[fits["largest"] >= enough]
    return others


def _at(fit: dict, step: str, task: pd.DataFrame, scale: str) -> float:
    """A fit at the sizes of a planned task; what the plan does not know is as it was where the fit was measured."""
    unknown = {name: fit[name] for name in USUAL if name not in task or task[name].isna().any()}
    return fit[f"{scale}_base"] + fit[f"{scale}_rate"] * float(work(step, fit["name"], task.assign(**unknown), scale)[0])


def at_cells(fit: pd.Series, n_cells: np.ndarray, scale: str = "seconds") -> np.ndarray:
    """A fit by the number of cells (n,), all else as it was where it was measured."""
    rows = pd.DataFrame({name: fit[name] for name in USUAL}, index=range(len(n_cells)))
    share = fit["n_fit_cells"] / fit["n_cells"] if fit["n_cells"] else 0.0
    rows = rows.assign(n_cells=n_cells, n_fit_cells=share * np.asarray(n_cells))
    return fit[f"{scale}_base"] + fit[f"{scale}_rate"] * work(fit["step"], fit["name"], rows, scale)


def pareto_front(cost: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Pareto front of low cost and high quality.

    Parameters
    ----------
    cost, quality
        Coordinates of the points, (n,).

    Returns
    -------
    numpy.ndarray
        Mask (n,): no other point is better at the same or lower cost, or as good at lower cost.
    """
    order = np.lexsort((-quality, cost))
    best, front = -np.inf, np.zeros(len(cost), dtype=bool)
    for index in order:
        if quality[index] > best:
            best, front[index] = quality[index], True
    return front
