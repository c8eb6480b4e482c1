"""Small simulated screens with a known answer, as a task sees them."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from plumbline.data.splits import Split
from plumbline.scoring.screen import Screen, Subject, View

SEED = 42


def view_of(
    embedding: np.ndarray,
    perturbation: np.ndarray,
    batch: np.ndarray,
    control: str = "ctrl",
    protocol: str = "corrected",
    genes: pd.DataFrame | None = None,
    **facts: object,
) -> View:
    """A view over all cells of an embedding, without counts or a split."""
    n = len(embedding)
    ids, is_control = np.array([f"cell{i:06d}" for i in range(n)]), perturbation == control
    genes = pd.DataFrame({"gene_id": [], "symbol": [], "ensembl_id": []}, dtype=str) if genes is None else genes
    known = {"n_perturbations": len(np.unique(perturbation[~is_control])), "has_controls": bool(is_control.any()), **facts}
    screen = Screen(ids, perturbation.astype(str), is_control, batch.astype(str), genes, known)
    split = Split(SEED, "batch", *np.zeros((4, n), dtype=bool))
    return View(embedding.astype(np.float32), screen, split, np.arange(n), protocol, SEED, n_draws=199)


def counts_view(
    folder: Path, n_cells: int = 1200, n_genes: int = 60, effect: float = 1.0, seed: int = 0, shuffle: bool = False
) -> tuple[View, np.ndarray]:
    """(view, log-normalised expression (n, genes)) of 20 perturbations in 6 batches, written as counts.h5ad in ``folder``.

    Train: batches 0-3 and perturbations 0-13; test2: batches 4, 5 and the other perturbations; a fifth are controls.
    """
    rng = np.random.default_rng(seed)
    which, batch = rng.integers(0, 25, n_cells), rng.integers(0, 6, n_cells)
    control = which >= 20
    shift = effect * rng.normal(size=(25, n_genes)) * (rng.random((25, n_genes)) < 0.3)
    shift[20:] = 0
    rate = np.exp(rng.normal(1.5, 1, n_genes) + shift[which] + 0.3 * rng.normal(size=(6, n_genes))[batch])
    counts = rng.poisson(rate * rng.lognormal(0, 0.3, n_cells)[:, None]).astype(np.float32)
    names = np.where(control, "ctrl", np.char.add("P", np.char.zfill(which.astype(str), 2)))
    rows = rng.permutation(n_cells) if shuffle else np.arange(n_cells)
    genes = pd.DataFrame({"gene_id": [f"g{i}" for i in range(n_genes)], "ensembl_id": "", "symbol": ""})
    base = view_of(np.zeros((n_cells, 0)), names, batch, genes=genes, x_kind="counts")
    table = ad.AnnData(sp.csr_matrix(counts), obs=pd.DataFrame(index=base.screen.cell_id), var=genes.set_index("gene_id"))
    table.write_h5ad(folder / "counts.h5ad")
    held_out = (which >= 14) & ~control
    masks = (batch < 4) & ~held_out, (batch >= 4) & ~held_out, (batch >= 4) & (held_out | control), np.zeros(n_cells, bool)
    expression = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    view = View(
        base.embedding, base.screen, Split(42, "batch", *masks), np.arange(n_cells), "corrected", 42, folder / "counts.h5ad"
    )
    return view.take(rows), expression[rows]


def subject_of(view: View) -> Subject:
    """What a view is made from: its cells before any split."""
    return Subject(**{name: getattr(view, name) for name in Subject.__dataclass_fields__ if hasattr(view, name)})
