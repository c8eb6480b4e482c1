"""Tahoe-x1: a pre-norm transformer over the expressed genes; the embedding is <cls> after the last norm, divided by its length.

Source: Gandhi et al. 2025 (doi:10.1101/2025.10.23.683759), the authors' get_batch_embeddings without chemistry. There are no
positions. The last block is computed for <cls> only.
"""

from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional as F

from plumbline.common.errors import UserError
from plumbline.embedding.weights import fetch_hint, fill
from plumbline.models.runtime.batches import Ragged
from plumbline.models.runtime.encoder import Attention, key_bias
from plumbline.models.tahoe_x1.files import Architecture, Encoding, read_architecture, read_tensors, weights_file
from plumbline.models.tahoe_x1.tokens import Tokenizer

ACTIVATION = {"relu": F.relu, "gelu": F.gelu}
UNUSED = ("expression_decoder.", "mvc_decoder.", "flag_encoder.", "chem_encoder.")  # training heads, generation, drugs


class GeneEncoder(nn.Module):
    """Gene embedding, normalised."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.tokens, shape.width)
        self.enc_norm = nn.LayerNorm(shape.width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens (...) -> (..., width)."""
        return self.enc_norm(self.embedding(tokens))


class ValueEncoder(nn.Module):
    """An expression value (a bin, not rescaled) through a small network."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.linear1 = nn.Linear(1, shape.width)
        self.linear2 = nn.Linear(shape.width, shape.width)
        self.norm = nn.LayerNorm(shape.width)
        self.activation, self.largest = ACTIVATION[shape.value_activation], shape.largest

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """values (...) -> (..., width)."""
        return self.norm(self.linear2(self.activation(self.linear1(values.clamp(max=self.largest)[..., None]))))


class Block(nn.Module):
    """x = x + attention(norm1(x)); x = x + down(activation(up(norm2(x)))), with the authors' parameter names."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.self_attn = Attention(shape.width, shape.heads)
        self.up_proj = nn.Linear(shape.width, shape.inner)
        self.down_proj = nn.Linear(shape.inner, shape.width)
        self.norm1 = nn.LayerNorm(shape.width, eps=shape.eps)
        self.norm2 = nn.LayerNorm(shape.width, eps=shape.eps)
        self.activation = ACTIVATION[shape.activation]

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None, queries: int | None = None) -> torch.Tensor:
        """x (n, t, width) -> (n, queries or t, width)."""
        x = x[:, :queries] + self.self_attn(self.norm1(x), bias, queries)
        return x + self.down_proj(self.activation(self.up_proj(self.norm2(x))))


class Blocks(nn.Module):
    """The blocks and the final norm."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, eps=shape.eps)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(n, t, width) -> <cls> (n, width)."""
        for layer in self.layers[:-1]:
            x = layer(x, bias)
        return self.norm(self.layers[-1](x, bias, queries=1)[:, 0])


class Network(nn.Module):
    """The model, with the authors' parameter names (attention: torch's)."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.gene_encoder = GeneEncoder(shape)
        self.expression_encoder = ValueEncoder(shape)
        self.transformer_encoder = Blocks(shape)

    def forward(self, tokens: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Tokens and values (n, t) -> embeddings (n, width) of length 1."""
        x = self.gene_encoder(tokens) + self.expression_encoder(values)
        return F.normalize(self.transformer_encoder(x, bias).float(), dim=1)


def load_network(folder: Path, variant: str, encoding: Encoding) -> Network:
    """The model of a folder. Raises UserError on a missing, extra or misshapen tensor, and on a token without a row in it."""
    shape, file = read_architecture(folder, variant), weights_file(folder)
    largest = max(*encoding.vocabulary.values(), encoding.pad_token)
    if largest >= shape.tokens:
        raise UserError(
            f"{folder} has token ids up to {largest}, but a gene table of {shape.tokens} rows. {fetch_hint(variant)}"
        )
    tensors = read_tensors(file, variant)
    held = len({name.split(".")[2] for name in tensors if name.startswith("transformer_encoder.layers.")})
    table = tensors.get("gene_encoder.embedding.weight")
    if held != shape.layers or table is None or table.shape != (shape.tokens, shape.width):
        size = "no gene table" if table is None else f"a gene table of {tuple(table.shape)}"
        raise UserError(
            f"{file} holds {held} layers and {size}, but its configuration says {shape.layers} and "
            f"({shape.tokens}, {shape.width}). {fetch_hint(variant)}"
        )
    with torch.device("meta"):
        network = Network(shape)
    fill(network, {name.replace(".Wqkv.", ".in_proj_"): tensor for name, tensor in tensors.items()}, file, variant, UNUSED)
    return network.eval()


class TahoeCells:
    """Tahoe-x1 as runtime.embed_cells wants it."""

    sort = True

    def __init__(self, network: Network, tokenizer: Tokenizer, pad_token: int, device: str) -> None:
        self.network, self.tokenizer, self.known = network.to(device), tokenizer, tokenizer.known
        self.fills = (pad_token, tokenizer.pad_value)
        self.max_length = min(tokenizer.max_length, len(tokenizer.columns) + 1)
        self.stack = network.transformer_encoder.layers
        layer = self.stack[0].up_proj
        self.dimension = layer.in_features
        self.bytes_per_token = 4 * (8 * self.dimension + 2 * layer.out_features)

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Token ids and values."""
        return self.tokenizer(rows, block)

    def forward(self, length: torch.Tensor, tokens: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, width) of length 1."""
        return self.network(tokens, values, key_bias(length, tokens.shape[1]))

    def pool(self, states: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """States (n, t, width) -> those of <cls> (n, width)."""
        return states[:, 0]
