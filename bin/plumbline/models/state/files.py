"""STATE's cell embedding, its files: a training checkpoint, config.yaml and protein_embeddings.pt (symbol -> vector)."""

from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from plumbline.common.errors import UserError
from plumbline.embedding.checkpoints import fetch_hint
from plumbline.embedding.damage import understood
from plumbline.embedding.options import Options
from plumbline.embedding.training_checkpoints import load_checkpoint
from plumbline.embedding.weights import find_folder, load_tensors

CHECKPOINTS = {"state_se600m": "se600m_epoch16.ckpt"}
CONFIG, PROTEINS = "config.yaml", "protein_embeddings.pt"
SIZES = {"width": "d_model", "heads": "nhead", "inner": "d_hid", "layers": "nlayers", "output": "output_dim"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What decides an embedding. protein: width of the protein vectors. length: positions with <cls>, without the data set's.

    cls_index: the matched column whose weight upstream gives <cls>. draws: how often upstream draws for the tasks of the
    training (of expressed genes, of others, for a batch), which moves its random numbers. batch: its cells a batch.
    """

    width: int
    heads: int
    inner: int
    layers: int
    output: int
    protein: int
    length: int
    cls_index: int
    n_tokens: int
    draws: tuple[int, int, int]
    batch: int


def find_checkpoint(options: Options) -> Path:
    """Setting model_file, else the variant's, else the only .ckpt: a folder may hold several epochs."""
    folder, variant = find_folder(options.weights, "state", "*.ckpt", options.variant), options.variant
    found = sorted(path.name for path in folder.glob("*.ckpt"))
    name = str(options.get("model_file", "")) or CHECKPOINTS.get(variant, "")
    if name in found or "model_file" in options.settings:
        return folder / name
    if len(found) == 1:
        return folder / found[0]
    raise UserError(f"{folder} holds {', '.join(found)}: say which with --set model_file=NAME. {fetch_hint(variant)}")


def read_checkpoint(file: Path, variant: str) -> tuple[Config, dict]:
    """(sizes, the checkpoint's dictionary). Sizes of the network are its hyper-parameters, all else is in config.yaml."""
    loaded = load_checkpoint(file, variant)
    told = loaded.get("hyper_parameters")
    if not isinstance(told, dict) or not isinstance(loaded.get("state_dict"), dict):
        raise UserError(f"{file} is no STATE checkpoint: it lacks state_dict or hyper_parameters. {fetch_hint(variant)}")
    described = read_yaml(file.with_name(CONFIG), loaded.get("cfg_yaml"), variant)
    with understood(file.parent, "describes no STATE model", variant):
        data, model = described["dataset"], described["model"]
        current = described["embeddings"][described["embeddings"]["current"]]
        config = Config(
            **{ours: int(told[theirs]) for ours, theirs in SIZES.items()},
            protein=int(told["token_dim"]),
            length=int(data["pad_length"]),
            cls_index=int(data["cls_token_idx"]),
            n_tokens=int(current["num"]),
            draws=(int(data["P"]), int(data["N"]), int(data["S"])),
            batch=int(model["batch_size"]),
        )
    return config, loaded


def read_yaml(file: Path, text: object, variant: str) -> dict:
    """config.yaml or, where there is none, the text that newer checkpoints hold."""
    with understood(file, "is no yaml", variant):
        described = yaml.safe_load(file.read_text() if file.is_file() else str(text or ""))
    if not isinstance(described, dict):
        raise UserError(f"{file} does not exist or is empty. {fetch_hint(variant)}")
    return described


def read_proteins(file: Path, loaded: dict, config: Config, variant: str) -> dict[str, torch.Tensor]:
    """Symbol -> protein vector, in the order of their tokens: protein_embeddings.pt, or what newer checkpoints hold.

    Never the tensor pe_embedding of the checkpoint, which upstream does not read either.
    """
    beside = file.with_name(PROTEINS)
    given = loaded.get("protein_embeds_dict")
    proteins = given if isinstance(given, dict) and not beside.is_file() else load_tensors(beside, variant)
    fits = isinstance(proteins, dict) and all(
        isinstance(vector, torch.Tensor) and vector.shape == (config.protein,) for vector in proteins.values()
    )
    if not fits or not proteins:
        raise UserError(f"{beside} does not hold vectors of {config.protein} numbers by symbol. {fetch_hint(variant)}")
    return proteins
