"""Tahoe-x1's folder as the authors publish it: vocab.json, model_config.yml, collator_config.yml, model.safetensors.

Older releases hold best-model.pt, a training checkpoint, in place of model.safetensors; it is read if the other is missing.
"""

import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch
import yaml

from plumbline.common.errors import UserError
from plumbline.embedding.damage import understood
from plumbline.embedding.options import Options
from plumbline.embedding.training_checkpoints import load_checkpoint
from plumbline.embedding.weights import fetch_hint, load_tensors, open_file
from plumbline.models.shared.folders import weights_root

FOLDERS = {"tahoe_x1_70m": "70m-model", "tahoe_x1_1b": "1b-model", "tahoe_x1_3b": "3b-model"}
CONFIG, COLLATOR, VOCABULARY = "model_config.yml", "collator_config.yml", "vocab.json"
WEIGHTS, OLD_WEIGHTS = "model.safetensors", "best-model.pt"
ACTIVATIONS = ("relu", "gelu")
LAYERNORMS = ("layernorm", "low_precision_layernorm")  # the same, but for activations in half precision
# what the authors' code takes where a file says nothing; a path leads into a section
DEFAULTS = {
    "norm_scheme": "pre",
    "transformer_activation": "gelu",
    "cell_emb_style": "cls",
    "use_glu": False,
    "norm_config": {"norm_type": "low_precision_layernorm"},
    "norm_config.eps": 1e-5,
    "expression_encoder.input_emb_style": "continuous",
    "expression_encoder.activation": "relu",
    "expression_encoder.max_value": 512,
    "expression_encoder.use_norm": False,
    "gene_encoder": {"use_norm": False},
}
DEFAULTS_COLLATOR = {"do_binning": True, "right_binning": False, "sampling": True, "num_bins": 51, "keep_first_n_tokens": 1}
FIXED = {  # of every released model
    "norm_scheme": "pre",
    "cell_emb_style": "cls",
    "use_glu": False,
    "expression_encoder.input_emb_style": "continuous",
    "expression_encoder.use_norm": True,
    "gene_encoder.use_norm": True,
}
FIXED_COLLATOR = {"do_binning": True, "right_binning": False, "sampling": True}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The part of model_config.yml that decides the forward pass. largest: values above it count as it."""

    width: int
    heads: int
    inner: int
    layers: int
    tokens: int
    activation: str
    value_activation: str
    eps: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The part of collator_config.yml and vocab.json that decides the tokens. keep_first: positions that are not binned."""

    vocabulary: dict[str, int]
    pad_token: int
    pad_value: float
    bins: int
    keep_first: int


def find_folder(options: Options) -> Path:
    """The folder of model_config.yml: --weights itself, or the variant's below it. Raises UserError if it is not clear."""
    root = weights_root(options.weights, options.variant)
    if "model_dir" in options.settings:
        return root / options.settings["model_dir"]
    if (root / CONFIG).is_file():
        return root
    found = [file.parent for pattern in ("*/", "tahoe_x1/*/") for file in sorted(root.glob(pattern + CONFIG))]
    fitting = [folder for folder in found if folder.name == FOLDERS.get(options.variant)]
    if options.variant not in FOLDERS and len(found) == 1:
        fitting = found
    if len(fitting) != 1:
        names = ", ".join(str(folder.relative_to(root)) for folder in found) or f"no {CONFIG}"
        wanted = FOLDERS.get(options.variant, "one model")
        raise UserError(
            f"{root} does not hold {wanted}; found {names}. Say which: --set model_dir=NAME. {fetch_hint(options.variant)}"
        )
    return fitting[0]


def read_architecture(folder: Path, variant: str) -> Architecture:
    """model_config.yml. Raises UserError if it lacks a size or describes a network that is not implemented here."""
    file = folder / CONFIG
    config = _filled(_read_yaml(file, variant), DEFAULTS)
    with understood(file, "does not describe a Tahoe-x1", variant):
        values = config["expression_encoder"]
        shape = Architecture(
            width=int(config["d_model"]),
            heads=int(config["n_heads"]),
            inner=int(config["d_model"] * config["expansion_ratio"]),
            layers=int(config["n_layers"]),
            tokens=int(config["vocab_size"]),
            activation=str(config["transformer_activation"]),
            value_activation=str(values["activation"]),
            eps=float(config["norm_config"]["eps"]),
            largest=float(values["max_value"]),
        )
        _require(config, FIXED)
        if config["norm_config"]["norm_type"].lower() not in LAYERNORMS:
            raise ValueError(f"norm_type {config['norm_config']['norm_type']}; known: {', '.join(LAYERNORMS)}")
        if not {shape.activation, shape.value_activation} <= set(ACTIVATIONS):
            raise ValueError(f"activations {shape.activation}, {shape.value_activation}; known: {', '.join(ACTIVATIONS)}")
        if min(shape.width, shape.heads, shape.layers) < 1 or shape.width % shape.heads:
            raise ValueError(f"width {shape.width}, heads {shape.heads}, layers {shape.layers}")
    return shape


def read_encoding(folder: Path, variant: str) -> Encoding:
    """collator_config.yml and vocab.json. Raises UserError if one is damaged or asks for what is not implemented here."""
    file = folder / COLLATOR
    config = _filled(_read_yaml(file, variant), DEFAULTS_COLLATOR)
    with understood(file, "does not describe the input of a Tahoe-x1", variant):
        _require(config, FIXED_COLLATOR)
        encoding = Encoding(
            vocabulary=_read_vocabulary(folder / VOCABULARY, variant),
            pad_token=int(config["pad_token_id"]),
            pad_value=float(config["pad_value"]),
            bins=int(config["num_bins"]),
            keep_first=int(config["keep_first_n_tokens"]),
        )
        if not (3 <= encoding.bins <= 10_000 and 1 <= encoding.keep_first <= 2):
            raise ValueError(f"num_bins {encoding.bins}, keep_first_n_tokens {encoding.keep_first}")
        if encoding.pad_token < 0 or not isfinite(encoding.pad_value):
            raise ValueError(f"pad_token_id {encoding.pad_token}, pad_value {encoding.pad_value}")
    return encoding


def weights_file(folder: Path) -> Path:
    """model.safetensors, or best-model.pt if only that is there."""
    old = folder / OLD_WEIGHTS
    return old if old.is_file() and not (folder / WEIGHTS).is_file() else folder / WEIGHTS


def read_tensors(file: Path, variant: str) -> dict[str, torch.Tensor]:
    """The tensors of a weights_file, without the prefix ``model.``. Raises UserError if it holds anything else."""
    tensors = load_checkpoint(file, variant) if file.name == OLD_WEIGHTS else load_tensors(file, variant)
    with understood(file, "is not a checkpoint of Tahoe-x1", variant):
        if file.name == OLD_WEIGHTS:
            tensors = tensors["state"]["model"]
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise UserError(f"{file} is not a checkpoint of Tahoe-x1: it holds more than tensors. {fetch_hint(variant)}")
    return tensors


def _read_vocabulary(file: Path, variant: str) -> dict[str, int]:
    with open_file(file, variant) as stream, understood(file, "is not a vocabulary", variant):
        vocabulary = {str(name): int(number) for name, number in json.load(stream).items()}
    if "<cls>" not in vocabulary or len(set(vocabulary.values())) != len(vocabulary) or min(vocabulary.values()) < 0:
        raise UserError(f"{file}: token ids must differ, not be negative, and <cls> must have one. {fetch_hint(variant)}")
    return vocabulary


def _read_yaml(file: Path, variant: str) -> dict:
    with open_file(file, variant) as stream, understood(file, "is not YAML", variant):
        config = yaml.safe_load(stream)
    if not isinstance(config, dict):
        raise UserError(f"{file} holds a {type(config).__name__}, not settings. {fetch_hint(variant)}")
    return config


def _filled(config: dict, defaults: dict[str, object]) -> dict:
    """``config`` with the ``defaults`` of what it leaves out or empty. What lies in a section that it lacks stays out."""
    config = {name: dict(value) if isinstance(value, dict) else value for name, value in config.items()}
    for path, value in defaults.items():
        section, _, name = path.rpartition(".")
        place = config.get(section) if section else config
        if isinstance(place, dict):
            place[name] = value if place.get(name) is None else place[name]
    return config


def _require(config: dict, wanted: dict[str, object]) -> None:
    """Raises ValueError that names the first setting with another value."""
    for path, value in wanted.items():
        found = config
        for name in path.split("."):
            found = found[name]
        if found != value:
            raise ValueError(f"{path} is {found!r}; only {value!r} is implemented")
