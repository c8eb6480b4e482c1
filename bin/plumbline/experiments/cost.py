"""Time and memory of the steps as linear functions of the number of cells, fitted to a run; estimates for a new run."""

import numpy as np
import pandas as pd
from scipy.optimize import nnls

SCALES = ("seconds", "cpu_seconds", "peak_memory_bytes")


def fit_costs(steps: pd.DataFrame) -> pd.DataFrame:
    """Time and memory per step and name as base + rate x cells.

    The lines are fitted by least squares on the relative error; neither coefficient is negative. With one size alone, all
    time but 2 s of start-up is taken as proportional to the cells, which overestimates larger runs.

    Parameters
    ----------
    steps
        Columns step, name, n_cells and those of SCALES (summary/steps.py).

    Returns
    -------
    pandas.DataFrame
        One row per step and name: ``<scale>_base`` and ``<scale>_per_cell`` of every scale, n_tasks, n_sizes (distinct
        numbers of cells), largest, and error (median relative error of seconds).
    """
    rows = []
    for (step, name), part in steps.groupby(["step", "name"], sort=True):
        cells = part["n_cells"].to_numpy(dtype=float)
        row = {"step": step, "name": name, "n_tasks": len(part), "n_sizes": len(set(cells)), "largest": cells.max()}
        for scale in SCALES:
            value = part[scale].to_numpy(dtype=float)
            base, per_cell = _line(cells[np.isfinite(value)], value[np.isfinite(value)])
            row |= {f"{scale}_base": base, f"{scale}_per_cell": per_cell}
        predicted = row["seconds_base"] + row["seconds_per_cell"] * cells
        row["error"] = float(np.median(np.abs(predicted / part["seconds"].to_numpy(dtype=float) - 1)))
        rows.append(row)
    return pd.DataFrame(rows)


def _line(cells: np.ndarray, value: np.ndarray) -> tuple[float, float]:
    if not len(value):
        return float("nan"), float("nan")
    if len(set(cells)) == 1:
        base = min(2.0, float(value.mean()) / 2) if value.max() < 1e6 else float(value.mean()) / 2
        return base, (float(value.mean()) - base) / cells[0]
    scale = np.maximum(value, 1e-9)
    (base, per_cell), _ = nnls(np.column_stack([1 / scale, cells / scale]), np.ones(len(value)))
    return float(base), float(per_cell)


def estimate(fits: pd.DataFrame, work: pd.DataFrame, module: dict[str, str] | None = None) -> pd.DataFrame:
    """Estimated time and memory of planned tasks.

    Parameters
    ----------
    fits
        What ``fit_costs`` returned.
    work
        Columns step, name, n_cells, n_tasks.
    module
        name -> module, as far as names are variants of a model.

    Returns
    -------
    pandas.DataFrame
        ``work`` with seconds and cpu_seconds (all tasks), peak_memory_bytes (one task) and known: whether timings are
        available. Without them a variant is assumed as slow as the slowest of the same module, or else of its step.
    """
    kin = fits.assign(module=fits["name"].map(module or {}))
    joined = work.merge(fits.drop(columns="n_tasks"), on=["step", "name"], how="left")
    joined["known"] = joined["seconds_base"].notna()
    own = pd.MultiIndex.from_arrays([joined["step"], joined["name"].map(module or {})])
    for scale in SCALES:
        for part in ("base", "per_cell"):
            column = f"{scale}_{part}"
            alike = kin.groupby(["step", "module"])[column].max().reindex(own).to_numpy()
            joined[column] = joined[column].fillna(pd.Series(alike, index=joined.index))
            joined[column] = joined[column].fillna(joined["step"].map(fits.groupby("step")[column].max()))
        one = joined[f"{scale}_base"] + joined[f"{scale}_per_cell"] * joined["n_cells"]
        joined[scale] = one * (1 if scale == "peak_memory_bytes" else joined["n_tasks"])
    return joined[[*work.columns, *SCALES, "known"]]


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
