"""The synthetic cells of ../shared/fixtures/metrics and what the code of arXiv 2410.13956 makes of them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class PaperCells:
    """Columns of obs.csv (n_cells,), the arrays of inputs.npz and expected.npz, and expected.json."""

    cell_id: np.ndarray
    perturbation: np.ndarray
    batch: np.ndarray
    is_control: np.ndarray
    inputs: dict
    arrays: dict
    expected: dict


def read_paper_cells(shared: Path) -> PaperCells:
    folder = shared / "fixtures" / "metrics"
    obs = pd.read_csv(folder / "obs.csv", dtype=str)
    columns = (obs[name].to_numpy(dtype=str) for name in ("cell_id", "gene_name", "dataset_batch_num"))
    inputs, arrays = (dict(np.load(folder / name)) for name in ("inputs.npz", "expected.npz"))
    expected = json.loads((folder / "expected.json").read_text())
    return PaperCells(*columns, (obs["is_control"] == "True").to_numpy(), inputs, arrays, expected)
