"""Nicheformer's forward pass (Schaar et al. 2024): the mean of an encoder's states over the genes of a cell.

Upstream's mean includes padding, whose states depend on the cell through attention: a cell of 300 genes is four fifths
padding.
That is the default, as no embedding of the authors is without it; --set padding=mask leaves padding out.
"""

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from plumbline.common.errors import UserError
from plumbline.embedding.weights import fill
from plumbline.models.nicheformer.files import META, Config, Files, read_checkpoint
from plumbline.models.nicheformer.tokens import PAD, Tokenizer
from plumbline.models.runtime.batches import Ragged
from plumbline.models.runtime.encoder import Encoder

UNUSED = ("encoder_layer.", "classifier_head.", "pooler_head.", "cls_head.", "pos")  # of the training
EPS, EXTRA_TOKENS = 1e-12, 5


class Network(nn.Module):
    """The encoder up to ``layers``, under the checkpoint's names."""

    def __init__(self, config: Config, layers: int) -> None:
        super().__init__()
        self.embeddings = nn.ParameterDict({"weight": torch.empty(config.n_tokens + EXTRA_TOKENS, config.width)})
        self.positional_embedding = nn.ParameterDict({"weight": torch.empty(config.context, config.width)})
        self.encoder = Encoder(layers, config.width, config.heads, config.inner, EPS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """States (n, t, width) of tokens (n, t)."""
        x = self.embeddings["weight"][tokens] + self.positional_embedding["weight"][: tokens.shape[1]]
        seen = tokens != PAD
        return self.encoder(x, None if bool(seen.all()) else seen[:, None, None, :])


def number_of_layers(config: Config, layer: int) -> int:
    """How many layers are needed for the output of ``layer``: 0 is the first, -1 the last."""
    if not -config.layers <= layer < config.layers:
        raise UserError(f"--set layer={layer}: the model has layers 0 to {config.layers - 1}, or {-config.layers} to -1.")
    return layer % config.layers + 1


class NicheformerCells:
    """Nicheformer as runtime.embed_cells wants it. first: the position at which the mean begins."""

    sort, fills = True, (PAD,)

    def __init__(self, network: Network, tokenizer: Tokenizer, first: int, device: str) -> None:
        self.network, self.tokenizer, self.first = network.to(device).eval(), tokenizer, first
        self.known, self.max_length = tokenizer.columns.known, tokenizer.context
        self.dimension, self.stack = network.embeddings["weight"].shape[1], network.encoder.layers
        self.bytes_per_token = 4 * (8 * self.dimension + 2 * self.stack[0].linear1.out_features)

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Tokens."""
        return self.tokenizer(block)

    def forward(self, length: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, width)."""
        return self.pool(self.network(tokens.long()).float(), length)

    def pool(self, states: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """States (n, t, width) -> their mean from ``first`` on (n, width)."""
        place = torch.arange(states.shape[1], device=states.device)
        inside = (place >= self.first) & (place < length[:, None])
        return torch.einsum("ntd,nt->nd", states, inside.float()) / inside.sum(dim=1)[:, None]


def build(files: Files, variant: str, layer: int, with_context: bool, tokenizer: Tokenizer, device: str) -> NicheformerCells:
    """The model on one device. with_context: species, assay and modality are part of the mean."""
    config, state = read_checkpoint(files.checkpoint, variant)
    layers = number_of_layers(config, layer)
    with torch.device("meta"):
        network = Network(config, layers)
    above = tuple(f"encoder.layers.{number}." for number in range(layers, config.layers))
    named = {name: tensor for name, tensor in state.items() if name.startswith("positional") or not name.startswith(UNUSED)}
    fill(network, named, files.checkpoint, variant, ignore=above)
    return NicheformerCells(network, tokenizer, 0 if with_context else len(META), device)
