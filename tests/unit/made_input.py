"""Screens as users have them, and PREPARE run on them."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import prepare_dataset
from plumbline.common.errors import UserError

ROW = {
    "name": "tiny",
    "perturbation_column": "gene",
    "control_label": "non-targeting",
    "batch_column": "batch",
    "min_counts": 50,
}
SYMBOLS = ["TP53", "MYC", "EGFR", "KRAS", "BRCA1", "RPL3", "RPS6", "POLR2A"]


def screen(n_cells: int = 120, n_genes: int = 40, seed: int = 0) -> ad.AnnData:
    """Counts with depth that varies, three batches, four perturbations."""
    rng = np.random.default_rng(seed)
    depth = rng.lognormal(0.5, 0.6, n_cells)[:, None]
    counts = rng.poisson(depth * rng.lognormal(0, 1, n_genes)).astype(np.float32)
    obs = pd.DataFrame(
        {
            "gene": pd.Categorical(rng.choice(["non-targeting", "TP53", "MYC", "EGFR", "KRAS"], n_cells)),
            "batch": pd.Categorical(rng.choice(["b1", "b2", "b3"], n_cells)),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    names = [f"ENSG{i:011d}.{i % 3 + 1}" for i in range(n_genes)]
    symbols = (SYMBOLS + [f"SYM{i}" for i in range(n_genes)])[:n_genes]
    return ad.AnnData(sp.csr_matrix(counts), obs, pd.DataFrame({"symbol": symbols}, index=names))


@pytest.fixture(name="run")
def prepare_run(tmp_path, monkeypatch):
    """Run the script on an AnnData or a file; return the output folder."""

    def run(data: ad.AnnData | Path, extra: tuple[str, ...] = (), **row) -> Path:
        path = data if isinstance(data, Path) else tmp_path / "input.h5ad"
        if not isinstance(data, Path):
            data.write_h5ad(path)
        (tmp_path / "row.json").write_text(json.dumps(ROW | row))
        out = tmp_path / "out"
        command = ["--row", tmp_path / "row.json", "--input", path, "--outdir", out, *extra]
        monkeypatch.setattr("sys.argv", ["prepare_dataset.py", *map(str, command)])
        prepare_dataset.main()
        return out

    run.out = tmp_path / "out"
    return run


def refused(run, data, message: str, **row) -> str:
    with pytest.raises(UserError, match=message) as caught:
        run(data, **row)
    assert not list(run.out.glob("*")), "something half-written remains"
    assert not list(run.out.glob(".*")), "a scratch folder remains"
    return str(caught.value)


def tables(out: Path) -> tuple[dict, dict, pd.DataFrame, pd.DataFrame]:
    """(facts, data report, cells, genes) of a prepared data set."""
    texts = [json.loads((out / f"tables/{name}.json").read_text()) for name in ("dataset", "data_report")]
    return *texts, *(pd.read_parquet(out / f"tables/{name}.parquet") for name in ("cells", "genes"))
