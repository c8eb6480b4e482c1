"""scFoundation's encoder: expressed genes alone go through it (Hao et al. 2024, doi:10.1038/s41592-024-02305-7).

A value becomes a mixture of bin vectors; the position in the list of genes says which gene it is. The embedding of a cell puts
four vectors side by side: token S, token T, maximum and mean over the genes. Not normalised. The decoder is not needed.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional as F

from plumbline.models.runtime.batches import Ragged
from plumbline.models.runtime.encoder import Encoder, key_bias
from plumbline.models.scfoundation.tokens import Tokenizer

POOLS = ("all", "max")
DEPTH_TOKENS = 2  # S and T, in front of the genes


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The part of the configuration that decides the forward pass. alpha: weight of a bin's own score beside mlp2's."""

    width: int
    heads: int
    layers: int
    bins: int
    alpha: float


class ValueEncoder(nn.Module):
    """A value -> softmax over bins -> mixture of their vectors."""

    def __init__(self, bins: int, width: int, alpha: float) -> None:
        super().__init__()
        self.mlp = nn.Linear(1, bins)
        self.mlp2 = nn.Linear(bins, bins)
        self.emb = nn.Embedding(bins, width)
        self.alpha = alpha

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """values (...) -> (..., width)."""
        hidden = F.leaky_relu_(self.mlp(values[..., None]), 0.1)
        share = torch.softmax(self.alpha * hidden + self.mlp2(hidden), dim=-1)
        return share @ self.emb.weight


class EncoderWithNorm(nn.Module):
    """The transformer and its final norm, under the authors' names."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.transformer_encoder = Encoder(shape.layers, shape.width, shape.heads, 4 * shape.width).layers
        self.norm = nn.LayerNorm(shape.width)

    @property
    def layers(self) -> nn.ModuleList:
        """The layers, under the name that every encoder here has."""
        return self.transformer_encoder

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(n, t, width) -> the same shape. bias: what key_bias returns."""
        for layer in self.layers:
            x = layer(x, bias)
        return self.norm(x)


class Network(nn.Module):
    """Embedding of tokens and encoder, with the authors' parameter names. n_positions: rows of the gene table."""

    def __init__(self, shape: Architecture, n_positions: int) -> None:
        super().__init__()
        self.token_emb = ValueEncoder(shape.bins, shape.width, shape.alpha)
        self.pos_emb = nn.Embedding(n_positions, shape.width)
        self.encoder = EncoderWithNorm(shape)

    def forward(self, tokens: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Tokens and values (n, t) -> hidden states (n, t, width)."""
        return self.encoder(self.token_emb(values) + self.pos_emb(tokens), bias)


class ScFoundationCells:
    """scFoundation as runtime.embed_cells wants it. pool: all (4 x width) or max (width: over genes, T and S)."""

    sort = True
    fills = (0, 0.0)

    def __init__(self, network: Network, tokenizer: Tokenizer, pool: str, device: str) -> None:
        self.network, self.tokenizer, self.known = network.to(device), tokenizer, tokenizer.known
        self.stack = network.encoder.layers
        self.pooling, self.max_length = pool, tokenizer.max_length
        bins, width = network.token_emb.emb.weight.shape
        self.dimension = width * (4 if pool == "all" else 1)
        self.bytes_per_token = 4 * (16 * width + 3 * bins)

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Tokens and values: S, T, then the genes."""
        return self.tokenizer(rows, block)

    def forward(self, length: torch.Tensor, tokens: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, dimension)."""
        return self.pool(self.network(tokens, values, key_bias(length, tokens.shape[1])).float(), length)

    def pool(self, x: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """States (n, t, width) -> (n, dimension)."""
        padding = (torch.arange(x.shape[1], device=length.device) >= length[:, None])[..., None]
        if self.pooling == "max":
            return x.masked_fill(padding, -torch.inf).amax(dim=1)
        genes, padding = x[:, DEPTH_TOKENS:], padding[:, DEPTH_TOKENS:]
        mean = genes.masked_fill(padding, 0.0).sum(dim=1) / (length - DEPTH_TOKENS)[:, None]
        return torch.cat([x[:, 0], x[:, 1], genes.masked_fill(padding, -torch.inf).amax(dim=1), mean], dim=1)
