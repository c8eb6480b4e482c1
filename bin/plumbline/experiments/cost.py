"""Time and memory of the steps as lines in the number of cells, fitted to what a run recorded; what a new run would need."""

import numpy as np
import pandas as pd
from scipy.optimize import nnls

SCALES = ("seconds", "cpu_seconds", "peak_memory_bytes")


def fit_costs(steps: pd.DataFrame) -> pd.DataFrame:
    """A row for every step and name: ``<scale>_base`` + ``<scale>_per_cell`` * n_cells, neither negative.

    steps: the columns step, name, n_cells and those of SCALES (summary/steps.py). The fit weighs relative errors (each
    row divided by its own value). error: median relative error of seconds; n_sizes: different numbers of cells it saw.
    From one size alone everything counts as per cell but 2 s of starting, which overestimates larger runs.
    """
    rows = []
    for (step, name), part in steps.groupby(["step", "name"], sort=True):
        cells = part["n_cells"].to_numpy(dtype=float)
        found = {"step": step, "name": name, "n_tasks": len(part), "n_sizes": len(set(cells)), "largest": cells.max()}
        for scale in SCALES:
            value = part[scale].to_numpy(dtype=float)
            base, per_cell = _line(cells[np.isfinite(value)], value[np.isfinite(value)])
            found |= {f"{scale}_base": base, f"{scale}_per_cell": per_cell}
        predicted = found["seconds_base"] + found["seconds_per_cell"] * cells
        found["error"] = float(np.median(np.abs(predicted / part["seconds"].to_numpy(dtype=float) - 1)))
        rows.append(found)
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
    """``work`` (step, name, n_cells, n_tasks) with the columns seconds and cpu_seconds (all tasks), peak_memory_bytes (one).

    known: whether the step was measured; one that was not (a model never run) is taken as the most expensive measured one of
    the same module, or of its step where its module was never measured. module: name -> module.
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
    """Mask (n,) of the points that no other beats in both: none is at most as dear and better, or cheaper and as good."""
    order = np.lexsort((-quality, cost))
    best, front = -np.inf, np.zeros(len(cost), dtype=bool)
    for index in order:
        if quality[index] > best:
            best, front[index] = quality[index], True
    return front
