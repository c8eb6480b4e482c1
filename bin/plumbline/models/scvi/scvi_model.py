"""scVI (Lopez et al. 2018, doi:10.1038/s41592-018-0229-2) by scvi-tools, trained on the user's cells.

Architecture of the paper under test (arXiv:2410.13956): latent 256, one hidden layer of 512, no dropout, 8,000 highly
variable genes. The batch is the decoder's covariate, as scVI is commonly used; the encoder does not see it
(``encode_covariates`` False), so cells of batches that were not trained on are embedded by the same function as all others.
Memory: one copy of the fitting cells' highly variable genes as CSR (training_matrix.py); the embedding itself is streamed.
"""

import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from plumbline.common.devices import is_gpu
from plumbline.common.errors import OUT_OF_MEMORY, NotApplicable, UserError
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.runtime.devices import pick_device
from plumbline.models.scvi.training_matrix import stacked
from plumbline.models.shared.fitting import Fitting, at_least, choice, counts_share, fitting_part, transform, x_kind
from plumbline.models.shared.variable_genes import select_genes

if TYPE_CHECKING:
    from anndata import AnnData

LIKELIHOODS = ("zinb", "nb", "poisson")
INPUTS = ("counts", "lognorm")
MIN_CELLS = 10
BATCH_SIZE = 128  # scvi-tools' default
MAX_LOADERS = 8


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained: genes (column numbers), the fitting cells, their batch, and the settings."""

    genes: np.ndarray
    part: Fitting
    batch: np.ndarray
    likelihood: str
    values: str
    n_latent: int
    n_hidden: int
    n_layers: int
    max_epochs: int


def embed(counts: Counts, options: Options) -> Result:
    """The mean of q(z | x) of every cell, (n_cells, n_latent). Raises NotApplicable for input that holds no counts."""
    plan = make_plan(counts, options)
    device = pick_device(options.device)
    model, about = train(plan, options, device)
    values = encode(counts, plan, model, device)
    share = counts_share(counts, plan.genes)
    return Result(
        values=values,
        genes_used=len(plan.genes),
        genes_total=counts.shape[1],
        counts_used=share,
        unembedded=0,
        extra={"device": device, **about, **provenance(plan)},
    )


def heuristic_epochs(n_cells: int) -> int:
    """scvi-tools' default: 400 epochs up to 20,000 cells, then as many as keep the number of updates."""
    return max(1, min(400, round(400 * 20_000 / n_cells)))


def make_plan(counts: Counts, options: Options) -> TrainingPlan:
    """What the settings mean for these cells. Raises NotApplicable for values that are no counts, and for too few cells."""
    kind = x_kind(options)
    if kind != "counts":
        raise NotApplicable(f"scVI is a model of counts; this data set holds {kind} values.")
    part = fitting_part(counts, options)
    if len(part.rows) < MIN_CELLS:
        raise NotApplicable(f"scVI is not trained on fewer than {MIN_CELLS} cells; the fitting part has {len(part.rows)}.")
    genes = select_genes(part.counts, part.rows, "counts", at_least(options, "n_hvg", 8000, 1))
    if not len(genes):
        raise NotApplicable("no gene varies over the fitting cells.")
    likelihood, values = choice(options, "gene_likelihood", LIKELIHOODS), choice(options, "input", INPUTS)
    sizes = (at_least(options, name, default, 1) for name, default in (("n_latent", 256), ("n_hidden", 512), ("n_layers", 1)))
    return TrainingPlan(genes, part, part.batch, likelihood, values, *sizes, at_least(options, "max_epochs", 0, 0))


def training_data(plan: TrainingPlan, **columns: np.ndarray) -> "AnnData":
    """The fitting cells that have counts, as scvi-tools wants them; ``columns`` (one value a fitting cell) go into obs."""
    from anndata import AnnData

    apply = reader(plan)
    blocks = (apply(block) for _, block in plan.part.counts.blocks(plan.part.rows))
    matrix, filled = stacked(blocks, len(plan.genes), whole=plan.values == "counts")
    obs = {name: values[filled] for name, values in {"batch": plan.batch, **columns}.items()}
    return AnnData(matrix, obs=pd.DataFrame(obs, index=[str(i) for i in filled]))


def train(plan: TrainingPlan, options: Options, device: str, **columns: np.ndarray) -> tuple:
    """The trained (or, with untrained=true, freshly initialised) scvi-tools model, and facts about the training."""
    scvi, torch = libraries(options)
    data = training_data(plan, **columns)
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
        about |= fit(model, plan.max_epochs or heuristic_epochs(data.n_obs), options, device)
    return model, about


def fit(model, epochs: int, options: Options, device: str, **arguments) -> dict:
    """Train a model of scvi-tools for at most ``epochs``, stopped early; ``arguments`` are of its own ``train``."""
    import scvi
    import torch

    gpu, number = is_gpu(device), device.partition(":")[2]
    scvi.settings.dl_num_workers = n_loaders(device, options.threads)
    scvi.settings.dl_persistent_workers = scvi.settings.dl_num_workers > 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.train(
                max_epochs=epochs,
                accelerator="gpu" if gpu else "cpu",
                devices=[int(number or 0)] if gpu else 1,
                batch_size=options.batch_size or BATCH_SIZE,
                early_stopping=True,
                enable_progress_bar=False,
                callbacks=[_progress(epochs)],
                **arguments,
            )
    except torch.OutOfMemoryError as error:
        print(f"ERROR: scVI ran out of GPU memory at batch size {options.batch_size or BATCH_SIZE}: {error}", file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)
    history = {name: float(frame.iloc[-1, 0]) for name, frame in model.history.items() if name.startswith(("elbo", "recon"))}
    if not np.isfinite(list(history.values())).all():
        raise UserError(f"scVI's training diverged ({history}). Try another gene_likelihood or seed.")
    return {"epochs": len(model.history["elbo_train"]), "max_epochs": epochs, "early_stopping": True, "final": history}


def n_loaders(device: str, threads: int) -> int:
    """Processes that prepare batches while a GPU trains, which waits for them otherwise; on a CPU they would take its cores."""
    return min(MAX_LOADERS, threads - 1) if is_gpu(device) else 0


def encode(counts: Counts, plan: TrainingPlan, model, device: str, encoders: tuple[str, ...] = ("z_encoder",)) -> np.ndarray:
    """The mean of q(z | x) of each encoder, side by side, streamed. Needs no batch: the encoders have no covariates."""
    import torch

    module, apply = model.module.to(device).eval(), reader(plan)
    values = np.empty((0, 0), dtype=np.float32)
    with torch.inference_mode():
        for rows, block in counts.blocks():
            x = torch.log1p(torch.from_numpy(apply(block).toarray()).to(device))
            found = [getattr(module, name)(x)[0] for name in encoders]  # a distribution, or its mean
            means = torch.cat([getattr(mean, "loc", mean) for mean in found], dim=1).cpu().numpy()
            values = values if values.size else np.empty((counts.shape[0], means.shape[1]), dtype=np.float32)
            values[rows] = means
    return values


def reader(plan: TrainingPlan) -> Callable[[sp.csr_matrix], sp.csr_matrix]:
    """From a block of X to the values the model reads."""
    return transform("counts", "lognorm" if plan.values == "lognorm" else "raw", plan.genes)


def libraries(options: Options) -> tuple[ModuleType, ModuleType]:
    """(scvi, torch), quiet and seeded."""
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


def provenance(plan: TrainingPlan) -> dict:
    """What the plan says, for the provenance."""
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
        "n_fit_cells": len(plan.part.rows),
        "n_fit_batches": len(np.unique(plan.batch)),
    }
