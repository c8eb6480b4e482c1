"""scVI (Lopez et al. 2018, doi:10.1038/s41592-018-0229-2) by scvi-tools, trained on the user's cells.

Architecture of the paper under test (arXiv:2410.13956): latent 256, one hidden layer of 512, no dropout, 8,000 highly
variable genes. The batch is the decoder's covariate, as scVI is commonly used; the encoder does not see it
(``encode_covariates`` False), so cells of batches that were not trained on are embedded by the same function as all others.
Memory: the fitting cells' highly variable genes as CSR; the embedding itself is streamed.
"""

import os
import sys
import time
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from plumbline.counts import Counts
from plumbline.embedding_cli import Options, Result
from plumbline.errors import OUT_OF_MEMORY, NotApplicable, UserError
from plumbline.models.devices import pick_device
from plumbline.models.fitting import at_least, choice, counts_share, fitting_rows, transform, x_kind
from plumbline.models.variable_genes import select_genes

LIKELIHOODS = ("zinb", "nb", "poisson")
INPUTS = ("counts", "lognorm")
MIN_CELLS = 10
BATCH_SIZE = 128  # scvi-tools' default


@dataclass(frozen=True)
class Plan:
    """What is trained: genes (column numbers), rows (of the fitting cells), their batch, and the settings."""

    genes: np.ndarray
    rows: np.ndarray
    batch: np.ndarray
    likelihood: str
    values: str
    n_latent: int
    n_hidden: int
    n_layers: int
    max_epochs: int


def embed(counts: Counts, options: Options) -> Result:
    """The mean of q(z | x) of every cell, (n_cells, n_latent). Raises NotApplicable for input that holds no counts."""
    kind = x_kind(options)
    if kind != "counts":
        raise NotApplicable(f"scVI is a model of counts; this data set holds {kind} values.")
    plan = _plan(counts, options)
    device = pick_device(options.device)
    model, about = _train(counts, plan, options, device)
    values = _encode(counts, plan, model, device)
    share = counts_share(counts, plan.genes)
    return Result(values, len(plan.genes), counts.shape[1], share, 0, {"device": device, **about, **_provenance(plan)})


def share_of_batches(batch: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Cells (increasing positions) that make up ``share`` of all: whole batches in a random order, the last one in part.

    batch: (n,) labels. The number of cells is round(share * n), at least one.
    """
    if share >= 1:
        return np.arange(len(batch))
    rng = np.random.default_rng(seed)
    names, codes = np.unique(batch, return_inverse=True)
    rank = rng.permutation(len(names))[codes]
    order = np.lexsort((rng.random(len(batch)), rank))
    return np.sort(order[: max(1, round(share * len(batch)))])


def heuristic_epochs(n_cells: int) -> int:
    """scvi-tools' default: 400 epochs up to 20,000 cells, then as many as keep the number of updates."""
    return max(1, min(400, round(400 * 20_000 / n_cells)))


def _plan(counts: Counts, options: Options) -> Plan:
    rows, share = fitting_rows(counts, options), float(options.get("train_share", 1.0))
    if not 0 < share <= 1:
        raise UserError(f"--set train_share={share}: expected a share above 0 and at most 1.")
    batch = _batches(counts, options)
    rows = rows[share_of_batches(batch[rows], share, options.seed)]
    if len(rows) < MIN_CELLS:
        raise NotApplicable(f"scVI is not trained on fewer than {MIN_CELLS} cells; the fitting part has {len(rows)}.")
    genes = select_genes(counts, rows, "counts", at_least(options, "n_hvg", 8000, 1))
    if not len(genes):
        raise NotApplicable("no gene varies over the fitting cells.")
    likelihood, values = choice(options, "gene_likelihood", LIKELIHOODS), choice(options, "input", INPUTS)
    sizes = (at_least(options, name, default, 1) for name, default in (("n_latent", 256), ("n_hidden", 512), ("n_layers", 1)))
    return Plan(genes, rows, batch[rows], likelihood, values, *sizes, at_least(options, "max_epochs", 0, 0))


def _batches(counts: Counts, options: Options) -> np.ndarray:
    if options.tables is None:
        return np.full(len(counts.cell_id), "all")
    cells = pd.read_parquet(options.tables / "cells.parquet", columns=["cell_id", "batch"]).set_index("cell_id")["batch"]
    batch = cells.reindex(counts.cell_id)
    if batch.isna().any():
        raise UserError(f"cells.parquet does not know {int(batch.isna().sum())} cells of the counts.")
    return batch.to_numpy(dtype=str)


def _train(counts: Counts, plan: Plan, options: Options, device: str):
    """The trained (or, with untrained=true, freshly initialised) scvi-tools model, and facts about the training."""
    scvi, torch = _libraries(options)
    from anndata import AnnData

    apply = _reader(plan)
    matrix = sp.vstack([apply(block) for _, block in counts.blocks(plan.rows)], format="csr")
    filled = np.flatnonzero(matrix.getnnz(axis=1))  # a cell without counts has no library size
    data = AnnData(matrix[filled], obs=pd.DataFrame({"batch": plan.batch[filled]}, index=[str(i) for i in filled]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scvi.model.SCVI.setup_anndata(data, batch_key="batch")
        model = scvi.model.SCVI(
            data,
            n_latent=plan.n_latent,
            n_hidden=plan.n_hidden,
            n_layers=plan.n_layers,
            dropout_rate=0.0,
            gene_likelihood=plan.likelihood,
        )
    about = {"scvi_tools": scvi.__version__, "torch": torch.__version__, "trained": not options.get("untrained", False)}
    if about["trained"]:
        about |= _fit(model, data.n_obs, plan, options, device)
    return model, about


def _fit(model, n_cells: int, plan: Plan, options: Options, device: str) -> dict:
    import torch

    epochs = plan.max_epochs or heuristic_epochs(n_cells)
    accelerator, _, number = device.partition(":")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.train(
                max_epochs=epochs,
                accelerator="gpu" if accelerator == "cuda" else "cpu",
                devices=[int(number or 0)] if accelerator == "cuda" else 1,
                batch_size=options.batch_size or BATCH_SIZE,
                early_stopping=True,
                enable_progress_bar=False,
                callbacks=[_progress(epochs)],
            )
    except torch.OutOfMemoryError as error:
        print(f"ERROR: scVI ran out of GPU memory at batch size {options.batch_size or BATCH_SIZE}: {error}", file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)
    history = {name: float(frame.iloc[-1, 0]) for name, frame in model.history.items() if name.startswith(("elbo", "recon"))}
    if not np.isfinite(list(history.values())).all():
        raise UserError(f"scVI's training diverged ({history}). Try another gene_likelihood or seed.")
    return {"epochs": len(model.history["elbo_train"]), "max_epochs": epochs, "early_stopping": True, "final": history}


def _encode(counts: Counts, plan: Plan, model, device: str) -> np.ndarray:
    """The mean of q(z | x), streamed. Needs no batch: the encoder has no covariates."""
    import torch

    module, apply = model.module.to(device).eval(), _reader(plan)
    values = np.empty((len(counts.cell_id), plan.n_latent), dtype=np.float32)
    with torch.inference_mode():
        for rows, block in counts.blocks():
            x = torch.from_numpy(apply(block).toarray()).to(device)
            posterior, _ = module.z_encoder(torch.log1p(x))
            values[rows] = posterior.loc.cpu().numpy()
    return values


def _reader(plan: Plan):
    return transform("counts", "lognorm" if plan.values == "lognorm" else "raw", plan.genes)


def _libraries(options: Options):
    os.environ.setdefault("TQDM_DISABLE", "1")
    import logging

    import scvi
    import torch

    torch.set_num_threads(options.threads)
    scvi.settings.verbosity = logging.ERROR
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.seed = options.seed
    return scvi, torch


def _progress(epochs: int, every: float = 10.0):
    """A callback that prints a line on stderr every ten seconds."""
    from lightning.pytorch.callbacks import Callback

    class Progress(Callback):
        start = last = time.monotonic()

        def on_train_epoch_end(self, trainer, _module) -> None:
            now, done = time.monotonic(), trainer.current_epoch + 1
            if now - self.last >= every or done == epochs:
                self.last = now
                print(f"scvi: epoch {done}/{epochs}, {done / (now - self.start):.2f} epochs/s", file=sys.stderr, flush=True)

    return Progress()


def _provenance(plan: Plan) -> dict:
    return {
        "gene_likelihood": plan.likelihood,
        "input": plan.values,
        "n_hvg": len(plan.genes),
        "gene_selection": "normalised dispersion (seurat) on the fitting cells",
        "n_latent": plan.n_latent,
        "n_hidden": plan.n_hidden,
        "n_layers": plan.n_layers,
        "dropout_rate": 0.0,
        "batch_covariate": "decoder only (encode_covariates=False)",
        "n_fit_cells": len(plan.rows),
        "n_fit_batches": len(np.unique(plan.batch)),
    }
