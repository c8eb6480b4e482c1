"""STATE's cell embedding (Adduri et al. 2025): <cls> in a set of genes, decoded and divided by its length.

Written from a description of the published procedure. The network has neither positions nor a mask, so that <cls> and the token
of the data set stand first here, and the last layer and the decoder are computed for these two alone. The network of gene
vectors runs once a gene. The data set's code, 10 numbers that say from which data set a cell might be, can be appended as
upstream does.
"""

import math
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional as F

from plumbline.embedding.weights import fill
from plumbline.models.runtime.batches import Ragged
from plumbline.models.runtime.encoder import EncoderLayer, key_bias
from plumbline.models.state.files import Config
from plumbline.models.state.tokens import CLS, DATASET, Tokenizer

UNUSED = ("binary_decoder.", "dataset_encoder.", "gene_embedding_layer.", "pe_embedding.")  # of the training, or repeated
BINS, HIDDEN, CODE = 10, 512, 10
QUERIES = 2  # <cls> and the data set's token


class GeluLayer(EncoderLayer):
    """A post-norm layer with gelu in place of relu."""

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None, queries: int | None = None) -> torch.Tensor:
        """x (n, t, width) -> (n, queries or t, width)."""
        x = self.norm1(x[:, :queries] + self.self_attn(x, bias, queries))
        return self.norm2(x + self.linear2(F.gelu(self.linear1(x))))


class SkipBlock(nn.Module):
    """norm(x + dense(relu(intermediate(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.intermediate_dense, self.dense = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> the same shape."""
        return self.layer_norm(x + self.dense(F.relu(self.intermediate_dense(x))))


class Network(nn.Module):
    """The parts of a checkpoint that an embedding needs, under its names (but for the attention's)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.cls_token, self.dataset_token = (nn.Parameter(torch.zeros(1, config.protein)) for _ in range(2))
        self.encoder = nn.Sequential(nn.Linear(config.protein, config.width), nn.LayerNorm(config.width), nn.SiLU())
        self.count_encoder = nn.Sequential(nn.Linear(1, HIDDEN), nn.LeakyReLU(), nn.Linear(HIDDEN, BINS))
        self.bin_encoder = nn.ParameterDict({"weight": torch.zeros(BINS, config.width)})
        self.transformer_encoder = nn.Module()
        layers = (GeluLayer(config.width, config.heads, config.inner, 1e-5) for _ in range(config.layers))
        self.transformer_encoder.layers = nn.ModuleList(layers)
        self.decoder = nn.Sequential(SkipBlock(config.width), nn.Linear(config.width, config.output))
        self.dataset_embedder = nn.Linear(config.output, CODE)

    def table(self, proteins: torch.Tensor) -> torch.Tensor:
        """Vectors (2 + k, width) of <cls>, the data set's token and k genes (k, protein)."""
        rows = torch.cat([self.cls_token, self.dataset_token, F.normalize(proteins, dim=-1)])
        return self.encoder(rows) * math.sqrt(self.encoder[0].out_features)

    def weigh(self, values: torch.Tensor) -> torch.Tensor:
        """Vectors (n, t, width) that stand for values (n, t): mixtures of bins; the data set's token gets none."""
        mixed = self.count_encoder(values[..., None]).softmax(dim=-1) @ self.bin_encoder["weight"]
        return mixed.index_fill(1, torch.tensor([DATASET], device=values.device), 0)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x (n, t, width) -> decoded states (n, 2, output) of <cls> and the data set's token."""
        layers = self.transformer_encoder.layers
        for number, layer in enumerate(layers, 1):
            x = layer(x, bias, QUERIES if number == len(layers) else None)
        return self.decoder(x[:, :QUERIES])


def load_network(state: dict[str, torch.Tensor], config: Config, file: Path, variant: str) -> Network:
    """The network with a checkpoint's numbers. Raises UserError on a tensor that is missing, surplus or of another shape."""
    with torch.device("meta"):
        network = Network(config)
    renamed = {_rename(name): tensor for name, tensor in state.items()}
    fill(network, renamed, file, variant, ignore=UNUSED)
    return network.eval()


def _rename(name: str) -> str:
    return name.replace(".qkv_proj.", ".self_attn.in_proj_").replace(".out_proj.", ".self_attn.out_proj.")


class StateCells:
    """STATE as runtime.embed_cells wants it.

    proteins (genes, protein): vectors of the tokenizer's columns. code: append the data set's code.
    """

    fills = (CLS, 0.0)

    def __init__(
        self, network: Network, proteins: torch.Tensor, tokenizer: Tokenizer, code: bool, sort: bool, device: str
    ) -> None:
        self.network, self.tokenizer, self.code, self.sort = network.to(device), tokenizer, code, sort
        with torch.inference_mode():
            self.genes = self.network.table(proteins.to(device))
        self.known, self.max_length = tokenizer.columns.known, tokenizer.rule.length + 1
        self.dimension = network.dataset_embedder.in_features + CODE * code
        self.stack = network.transformer_encoder.layers
        inner = self.stack[0].linear1.out_features
        self.bytes_per_token = 4 * (8 * self.genes.shape[1] + 2 * inner + 2 * HIDDEN)

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Rows of the table, and values."""
        return self.tokenizer(rows, block)

    def start(self, tokens: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """What the first layer reads (n, t, width)."""
        return self.genes[tokens.long()] + self.network.weigh(values)

    def forward(self, length: torch.Tensor, tokens: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, dimension): of length 1, then the data set's code as it is."""
        cell, dataset = self.network(self.start(tokens, values), key_bias(length, tokens.shape[1])).float().unbind(1)
        cell = F.normalize(cell, dim=1)
        return torch.cat([cell, self.network.dataset_embedder(dataset).float()], dim=1) if self.code else cell

    def pool(self, states: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """States (n, t, width) -> those of <cls> (n, width)."""
        return states[:, 0]
