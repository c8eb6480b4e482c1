"""scFoundation's models.ckpt: one file with three models (cell, rde, gene), each with its configuration."""

from dataclasses import dataclass
from pathlib import Path

import torch

from plumbline.common.errors import UserError
from plumbline.embedding.damage import understood
from plumbline.embedding.weights import fetch_hint, fill, load_tensors
from plumbline.models.scfoundation.network import Architecture, Network
from plumbline.models.shared.folders import weights_root

FILE = "models.ckpt"
KEYS = {"ce": "cell", "rde": "rde"}  # setting version -> key: cell embedding, read-depth enhancement
N_OTHERS = 3  # rows of the gene table behind the genes: T, S and padding
UNUSED = ("decoder.", "decoder_embed.", "norm.", "to_final.", "token_emb.emb_mask.", "token_emb.emb_pad.")


@dataclass(frozen=True)
class Part:
    """One model of the file: its architecture, and its tensors without the prefix ``model.``."""

    shape: Architecture
    tensors: dict[str, torch.Tensor]


def find_file(weights: Path | None, variant: str) -> Path:
    """models.ckpt in --weights, or below it as fetched (scfoundation/) or as the authors' code expects it (models/)."""
    root = weights_root(weights, variant)
    folders = (".", "scfoundation", "models", "scfoundation/models")
    found = [root / folder / FILE for folder in folders if (root / folder / FILE).is_file()]
    if not found:
        raise UserError(f"{weights} holds no {FILE}. {fetch_hint(variant)}")
    return found[0]


def read_part(file: Path, key: str, variant: str) -> Part:
    """The model ``key``. Raises UserError if the file lacks it or describes a network that is not implemented here."""
    models = load_tensors(file, variant)
    if not isinstance(models, dict) or key not in models:
        names = ", ".join(map(str, models)) if isinstance(models, dict) else type(models).__name__
        raise UserError(f"{file} has no model {key!r} (found: {names}). {fetch_hint(variant)}")
    with understood(file, f"{key} is not an scFoundation model", variant):
        tensors = {name.removeprefix("model."): tensor for name, tensor in models[key]["state_dict"].items()}
        shape = _architecture(models[key]["config"], tensors)
    return Part(shape, tensors)


def _architecture(config: dict, tensors: dict[str, torch.Tensor]) -> Architecture:
    name = config["model"]
    merged = config["model_config"][name] | config["dataset_config"]["rnaseq"]
    encoder = config["model_config"][name]["encoder"]
    norm_first = bool(encoder.get("norm_first", False))
    if (name, encoder["module_type"], norm_first) != ("mae_autobin", "transformer", False):
        raise ValueError(f"model {name}, encoder {encoder['module_type']}, norm_first {norm_first}")
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ValueError("state_dict holds more than tensors")
    layers = {part.split(".")[2] for part in tensors if part.startswith("encoder.transformer_encoder.")}
    bins, width = tensors["token_emb.emb.weight"].shape
    heads = int(encoder["heads"])
    if heads < 1 or width % heads:
        raise ValueError(f"width {width}, heads {heads}")
    for what, told, held in (
        ("layers", encoder["depth"], len(layers)),
        ("width", encoder["hidden_dim"], width),
        ("bins", merged["bin_num"], bins),
    ):
        if told != held:
            raise ValueError(f"{what}: {told} in its configuration, {held} in its tensors")
    alpha = float(merged["bin_alpha"])
    return Architecture(width=width, heads=heads, layers=len(layers), bins=bins, alpha=alpha)


def load_network(file: Path, key: str, variant: str, n_genes: int) -> Network:
    """The encoder of the model ``key``. n_genes: of the list."""
    part = read_part(file, key, variant)
    with torch.device("meta"):
        network = Network(part.shape, n_genes + N_OTHERS)
    fill(network, part.tensors, file, variant, ignore=UNUSED)
    return network.eval()
