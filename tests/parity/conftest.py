"""Views of the paper's synthetic cells (../shared/fixtures/metrics), under each post-processing."""

import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from plumbline.data.splits import Split
from plumbline.scoring.postprocess import postprocess
from plumbline.scoring.screen import Screen, View

METHODS = {"raw": "none", "centered": "center", "center_scaled": "center_scale", "tvn": "tvn"}


@pytest.fixture(scope="session")
def paper_view(shared) -> Callable[[str], tuple[View, dict]]:
    """Make (view, expected values) for one of the fixture's post-processings; `paper` protocol, all 3,000 cells."""
    folder = shared / "fixtures/metrics"
    expected = json.loads((folder / "expected.json").read_text())
    arrays, obs = np.load(folder / "inputs.npz"), pd.read_csv(folder / "obs.csv", dtype=str)
    control = obs["is_control"].to_numpy() == "True"
    genes = pd.DataFrame({"symbol": arrays["pert_gene"].astype(str), "mean_count": arrays["pert_mean_expression"]})
    genes = genes.assign(ensembl_id="", gene_id=genes["symbol"])
    facts = {"unexpressed_scale": "mean_count", "unexpressed_threshold": 0.15, "n_perturbations": 60, "has_controls": True}
    columns = (obs[name].to_numpy(dtype=str) for name in ("cell_id", "gene_name"))
    screen = Screen(*columns, control, obs["dataset_batch_num"].to_numpy(dtype=str), genes, facts)
    split = Split(42, "batch", *np.zeros((4, len(obs)), dtype=bool))

    def make(method: str) -> tuple[View, dict]:
        embedding, _ = postprocess(arrays["embedding"], control, screen.batch, METHODS[method])
        return View(embedding, screen, split, np.arange(len(obs)), "paper", 42), expected

    return make
