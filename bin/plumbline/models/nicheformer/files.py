"""Nicheformer's files: the checkpoint, the list of genes (model.h5ad) and their means (<technology>_mean_script.npy)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from plumbline.common.errors import UserError
from plumbline.counts.frames import read_index
from plumbline.counts.hdf5 import open_hdf5
from plumbline.embedding.checkpoints import fetch_hint
from plumbline.embedding.damage import understood
from plumbline.embedding.options import Options
from plumbline.embedding.training_checkpoints import load_checkpoint
from plumbline.embedding.weights import find_folder, open_file

CHECKPOINT, GENES = "nicheformer.ckpt", "model.h5ad"
TECHNOLOGIES = ("dissociated", "cosmx", "merfish", "xenium", "iss")
SIZES = {"width": "dim_model", "heads": "nheads", "inner": "dim_feedforward", "layers": "nlayers", "context": "context_length"}
META = ("specie", "assay", "modality")  # tokens in front of the genes, in this order


@dataclass(frozen=True, kw_only=True)
class Config:
    """The hyper-parameters that decide an embedding. meta: which of META the model has."""

    width: int
    heads: int
    inner: int
    layers: int
    context: int
    n_tokens: int
    meta: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Files:
    """checkpoint; genes (model.h5ad); means (an npy), None where no mean is asked for."""

    checkpoint: Path
    genes: Path
    means: Path | None


def find_files(options: Options, technology: str) -> Files:
    """The files below --weights; genes and means may lie in a folder model_means. technology '': no means."""
    folder, variant = find_folder(options.weights, "nicheformer", "*.ckpt", options.variant), options.variant
    name = str(options.get("model_file", ""))
    found = sorted(folder.glob("*.ckpt"))
    named = [path for path in found if path.name == (name or CHECKPOINT)]
    if not named and (name or len(found) != 1):
        names = ", ".join(path.name for path in found)
        raise UserError(f"{folder} holds {names}: say which with --set model_file=NAME. {fetch_hint(variant)}")
    places = (folder, folder / "model_means", folder / "data" / "model_means")
    place = next((place for place in places if (place / GENES).is_file()), places[1])
    means = place / f"{technology}_mean_script.npy" if technology else None
    return Files(checkpoint=(named or found)[0], genes=place / GENES, means=means)


def read_checkpoint(file: Path, variant: str) -> tuple[Config, dict[str, torch.Tensor]]:
    """(hyper-parameters, tensors). Raises UserError where a size is missing, or they describe another model."""
    loaded = load_checkpoint(file, variant)
    with understood(file, "is no Nicheformer checkpoint", variant):
        told, state = loaded["hyper_parameters"], loaded["state_dict"]
        sizes = {ours: int(told[theirs]) for ours, theirs in SIZES.items()}
        meta = tuple(name for name in META if told.get(name, False))
        config = Config(**sizes, n_tokens=int(told["n_tokens"]), meta=meta)
    if not told.get("learnable_pe", True) or not isinstance(state, dict):
        raise UserError(f"{file}: only models with learned positions are known. {fetch_hint(variant)}")
    if not told.get("batch_first", True):  # upstream's attention would then go over the cells of a batch
        raise UserError(f"{file}: only models with batch_first are known. {fetch_hint(variant)}")
    return config, state


def read_genes(file: Path, variant: str) -> list[str]:
    """The Ensembl ids of the model's genes, in the order of their tokens."""
    open_file(file, variant).close()
    with understood(file, "is truncated or no h5ad", variant), open_hdf5(file) as opened:
        ids = read_index(opened["var"]).tolist()
    if not ids or len(set(ids)) < len(ids):
        raise UserError(f"{file} does not name its genes by distinct ids. {fetch_hint(variant)}")
    return ids


def read_means(file: Path, n_genes: int, variant: str) -> np.ndarray:
    """The mean (n_genes,) of every gene over the cells of a technology that express it; NaN where none does."""
    open_file(file, variant).close()
    with understood(file, "is truncated or no array of numbers", variant):
        means = np.load(file, allow_pickle=False).astype(np.float64)
    if means.shape != (n_genes,):
        raise UserError(f"{file} has shape {means.shape} for {n_genes} genes of {GENES}. {fetch_hint(variant)}")
    return means
