"""Geneformer (V1, V2): cells embedded by the authors' checkpoints, zero-shot.

Sources: Theodoris et al. 2023 (doi:10.1038/s41586-023-06139-9), Chen et al. 2024 (doi:10.1101/2024.08.16.608180); embedding
as the authors' EmbExtractor: BERT (post-norm, ReLU) in eval mode, hidden states of a chosen layer, pooled.
The vocabulary head is never computed, nor any layer above the chosen one, nor (cls pooling) its other positions.

Why not ``transformers``, whose BertModel this is (the tests compare them): on the same tokens, with the same fused attention,
it took 0 to 26 % more CPU time, and it computes every layer and every position.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from plumbline.common.errors import UserError
from plumbline.embedding.damage import understood
from plumbline.embedding.weights import fetch_hint, fill, load_tensors, open_file
from plumbline.models.geneformer.tokens import Tokenizer
from plumbline.models.runtime.batches import Ragged
from plumbline.models.runtime.encoder import Encoder, key_bias

TENSOR_FILES = ("model.safetensors", "pytorch_model.bin")
DEFAULTS = {  # of transformers' BertConfig, for what config.json leaves out
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "vocab_size": 30522,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
}
FIXED = {"hidden_act": "relu", "position_embedding_type": "absolute"}  # of every Geneformer
UNUSED = ("cls.", "bert.embeddings.position_ids", "bert.pooler.")  # the vocabulary head, and buffers of other versions


@dataclass(frozen=True)
class Architecture:
    """The part of config.json that decides the forward pass."""

    layers: int
    width: int
    heads: int
    inner: int
    positions: int
    vocabulary: int
    types: int
    eps: float


def read_config(folder: Path, variant: str) -> Architecture:
    """config.json of a model folder. Raises UserError if it describes anything but the BERT that Geneformer is."""
    file = folder / "config.json"
    with open_file(file, variant) as stream, understood(file, "is no configuration of a BERT model", variant):
        config = DEFAULTS | json.load(stream)
        for name, wanted in FIXED.items():
            if config[name] != wanted:
                raise UserError(f"{file}: {name} is {config[name]!r}; Geneformer's is {wanted!r}.")
        return Architecture(
            layers=int(config["num_hidden_layers"]),
            width=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            inner=int(config["intermediate_size"]),
            positions=int(config["max_position_embeddings"]),
            vocabulary=int(config["vocab_size"]),
            types=int(config["type_vocab_size"]),
            eps=float(config["layer_norm_eps"]),
        )


class Geneformer(nn.Module):
    """BERT up to hidden state ``n_layers`` (0 is the output of the embeddings)."""

    def __init__(self, shape: Architecture, n_layers: int) -> None:
        super().__init__()
        self.word = nn.Embedding(shape.vocabulary, shape.width)
        self.position = nn.Embedding(shape.positions, shape.width)
        self.kind = nn.Embedding(shape.types, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=shape.eps)
        self.encoder = Encoder(n_layers, shape.width, shape.heads, shape.inner, shape.eps)

    def forward(self, tokens: torch.Tensor, length: torch.Tensor, queries: int | None = None) -> torch.Tensor:
        """tokens (n, t), length (n,) -> hidden states (n, queries or t, width)."""
        t = tokens.shape[1]
        x = self.word(tokens) + self.position.weight[:t] + self.kind.weight[0]
        x = self.encoder(self.norm(x), key_bias(length, t), queries)
        return x[:, :queries]


def load_geneformer(folder: Path, variant: str, layer: int) -> Geneformer:
    """The authors' weights, up to hidden state ``n_layers + layer`` (upstream's emb_layer: -1 is the second-to-last)."""
    shape = read_config(folder, variant)
    if not -shape.layers <= layer <= 0:
        raise UserError(f"--set layer={layer}: {folder.name} has layers {-shape.layers} (the input) to 0 (the last).")
    file = tensor_file(folder, variant)
    tensors = load_tensors(file, variant)
    n_layers = shape.layers + layer
    with torch.device("meta"):
        model = Geneformer(shape, n_layers)
    above = tuple(f"bert.encoder.layer.{number}." for number in range(n_layers, shape.layers))
    fill(model, rename(tensors, n_layers), file, variant, ignore=(*UNUSED, *above))
    return model.eval()


def tensor_file(folder: Path, variant: str) -> Path:
    """model.safetensors, or pytorch_model.bin where there is none."""
    found = [folder / name for name in TENSOR_FILES if (folder / name).is_file()]
    if not found:
        raise UserError(f"{folder} holds neither {' nor '.join(TENSOR_FILES)}. {fetch_hint(variant)}")
    return found[0]


def rename(tensors: dict[str, torch.Tensor], n_layers: int) -> dict[str, torch.Tensor]:
    """BERT's parameter names -> those of ``Geneformer``; names that do not belong are kept for ``fill`` to judge."""
    tensors = dict(tensors)
    out = {}
    for old, new in bert_names(n_layers).items():
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"{part}.{kind}", None) for part in old]
            if all(part is not None for part in parts):
                out[new.format(kind)] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return out | tensors


def bert_names(n_layers: int) -> dict[tuple[str, ...], str]:
    """BERT's modules -> the parameters of ``Geneformer`` they make up, one after the other; {} stands for weight and bias."""
    names = {("bert.embeddings.LayerNorm",): "norm.{}"}
    for kind in ("word", "position", "token_type"):
        names[(f"bert.embeddings.{kind}_embeddings",)] = {"token_type": "kind"}.get(kind, kind) + ".{}"
    for number in range(n_layers):
        old, new = f"bert.encoder.layer.{number}.", f"encoder.layers.{number}."
        names[tuple(f"{old}attention.self.{part}" for part in ("query", "key", "value"))] = new + "self_attn.in_proj_{}"
        names[(old + "attention.output.dense",)] = new + "self_attn.out_proj.{}"
        names[(old + "attention.output.LayerNorm",)] = new + "norm1.{}"
        names[(old + "intermediate.dense",)] = new + "linear1.{}"
        names[(old + "output.dense",)] = new + "linear2.{}"
        names[(old + "output.LayerNorm",)] = new + "norm2.{}"
    return names


class GeneformerCells:
    """Geneformer as runtime.embed_cells wants it.

    pooling 'cell': mean over the genes of the cell (without <cls> and <eos>); 'cls': the <cls> token, V2 only.
    """

    sort = True

    def __init__(self, model: Geneformer, tokenizer: Tokenizer, pooling: str, pad: int, device: str) -> None:
        self.model, self.tokenizer, self.pooling, self.device = model.to(device), tokenizer, pooling, device
        self.encoder, self.fills, self.known = model.encoder, (pad,), tokenizer.known
        self.stack = model.encoder.layers
        self.dimension = model.word.embedding_dim
        self.max_length = tokenizer.n_genes + 2 * tokenizer.specials
        inner = model.encoder.layers[0].linear1.out_features if len(model.encoder.layers) else 0
        self.bytes_per_token = 4 * (8 * self.dimension + 2 * inner)

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Ranked token ids."""
        return self.tokenizer(block)

    def forward(self, length: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Pooled hidden states (n, width)."""
        if self.pooling == "cls":
            return self.pool(self.model(tokens, length, queries=1), length)
        return self.pool(self.model(tokens, length).float(), length)

    def pool(self, hidden: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Hidden states (n, t, width) -> (n, width)."""
        if self.pooling == "cls":
            return hidden[:, 0]
        edge = int(self.tokenizer.specials)  # <cls> before the genes, <eos> after them
        place = torch.arange(hidden.shape[1], device=hidden.device)
        inside = (place >= edge) & (place < length[:, None] - edge)
        return torch.einsum("ntd,nt->nd", hidden, inside.float()) / (length[:, None] - 2 * edge)
