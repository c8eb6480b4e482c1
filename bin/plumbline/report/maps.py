"""Maps: UMAP of the same cells in every embedding."""

from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.report.page import embedded
from plumbline.report.run import Run
from plumbline.report.words import folded, section

NAMED = 8  # perturbations with a colour and a name of their own
STEPS = 999  # positions are whole numbers from 0


def map_section(run: Run, maps: Path | None) -> list[dict]:
    """One section, a part per data set of which there are maps."""
    parts: list[str] = []
    for dataset in run.datasets:
        if data := _payload(run, maps, dataset):
            parts.append(folded(run.title(dataset), embedded("maps", data), large=True, opened=len(parts) < 3))
    about = (
        "UMAP of each embedding before post-processing, the same cells in every panel: some controls, more cells of the "
        "strongest perturbations, others at random. Distances between groups and their sizes mean little in such a map; the "
        "scores of this report are computed in the embedding itself."
    )
    return [section("maps", "Maps", about, "\n".join(parts))] if parts else []


def _payload(run: Run, maps: Path | None, dataset: str) -> dict:
    """What page.js reads: positions per model; perturbation, batch and control of the cells once. {} where there are none."""
    if maps is None or not (maps / f"{dataset}.cells.parquet").exists():
        return {}
    cells = pd.read_parquet(maps / f"{dataset}.cells.parquet")
    labels = run.headline[run.headline["dataset"] == dataset][["variant", "fit_on", "label"]].drop_duplicates()
    cells = cells.merge(labels, on=["variant", "fit_on"]) if len(cells) else pd.DataFrame(columns=["label"])
    models = [label for label in run.models if label in set(cells["label"])]
    if not models:
        return {}
    shown = cells[cells["label"] == models[0]]
    perturbation, perturbations = pd.factorize(shown["perturbation"], sort=True)
    batch, batches = pd.factorize(shown["batch"], sort=True)
    strength = pd.read_parquet(maps / f"{dataset}.perturbations.parquet")
    named = strength[strength["perturbation"].isin(perturbations)].nlargest(NAMED, "strength")["perturbation"]
    places = [cells[cells["label"] == label].set_index("cell_id").loc[shown["cell_id"]] for label in models]
    return {
        "models": models,
        "perturbations": perturbations.tolist(),
        "batches": batches.tolist(),
        "named": named.tolist(),
        "p": perturbation.tolist(),
        "b": batch.tolist(),
        "c": shown["is_control"].astype(int).tolist(),
        "x": [_steps(part["x"]) for part in places],
        "y": [_steps(-part["y"]) for part in places],  # a canvas counts downwards
    }


def _steps(values: pd.Series) -> list[int | None]:
    """Positions as whole numbers, from the 0.5 to the 99.5 percentile of the cells: a far cell does not shrink the others."""
    array = values.to_numpy(dtype=float)
    if not np.isfinite(array).any():
        return [None] * len(array)
    low, high = np.nanpercentile(array, [0.5, 99.5])
    scaled = np.clip((array - low) / max(high - low, 1e-9), 0, 1) * STEPS
    return [None if np.isnan(value) else round(value) for value in scaled.tolist()]
