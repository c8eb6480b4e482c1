"""scConcept's forward pass (Bahrami et al. 2025): the <cls> position of an encoder over ranked genes, divided by its length.

The order of a cell's genes enters by sinusoidal positions, which are in the checkpoint; counts enter only in models that encode
values. There is no normalisation behind the last layer. The network of gene vectors runs once a gene, and the last layer is
computed for <cls> only. In float32 by default; the authors' code always runs in bfloat16 (--set precision=bf16).
"""

from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional as F

from plumbline.common.errors import UserError
from plumbline.embedding.checkpoints import fetch_hint
from plumbline.embedding.weights import fill
from plumbline.models.runtime.batches import Ragged
from plumbline.models.runtime.encoder import Attention, key_bias
from plumbline.models.scconcept.files import PAD, Config
from plumbline.models.scconcept.tokens import Tokenizer

TABLES = ("gene_token_encoder.learnable_embs.", "gene_token_encoder.pretrained_embs.")  # a row a gene, of every species
UNUSED = (*TABLES, "logit_scale", "expression_decoder.")


class Layer(nn.Module):
    """An encoder layer; pre-norm: x + attention(norm1(x)), then x + linear2(act(linear1(norm2(x)))); post-norm as in torch."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attn = Attention(config.width, config.heads)
        self.linear1, self.linear2 = nn.Linear(config.width, config.inner), nn.Linear(config.inner, config.width)
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.pre_norm, self.act = config.pre_norm, F.gelu if config.gelu else F.relu

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None, queries: int | None = None) -> torch.Tensor:
        """x (n, t, width) -> (n, queries or t, width)."""
        if self.pre_norm:
            x = x[:, :queries] + self.self_attn(self.norm1(x), bias, queries)
            return x + self.linear2(self.act(self.linear1(self.norm2(x))))
        x = self.norm1(x[:, :queries] + self.self_attn(x, bias, queries))
        return self.norm2(x + self.linear2(self.act(self.linear1(x))))


class GeneEncoder(nn.Module):
    """Rows of the tables -> gene vectors."""

    def __init__(self, config: Config, pretrained: int) -> None:
        super().__init__()
        if pretrained:
            self.adapter1 = nn.Linear(pretrained, config.gene_width)
        self.adapter2, self.enc_norm = nn.Linear(config.gene_width, config.width), nn.LayerNorm(config.width)

    def forward(self, learnable: torch.Tensor | None, pretrained: torch.Tensor | None) -> torch.Tensor:
        """Vectors (k, width) of k genes, from either row or their sum."""
        x = learnable if pretrained is None else self.adapter1(pretrained)
        return self.enc_norm(self.adapter2(x if learnable is None or pretrained is None else x + learnable))


class ValueEncoder(nn.Module):
    """A count through a small network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1, self.linear2, self.norm = nn.Linear(1, width), nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, counts: torch.Tensor) -> torch.Tensor:
        """counts (n, t) -> (n, t, width)."""
        return self.norm(self.linear2(F.relu(self.linear1(counts[..., None]))))


class Network(nn.Module):
    """All that a checkpoint holds but the tables of genes, under the checkpoint's names. positions: rows of its sinusoids."""

    def __init__(self, config: Config, pretrained: int, positions: int) -> None:
        super().__init__()
        self.cls_embedding = nn.Parameter(torch.zeros(config.width))
        self.gene_token_encoder = GeneEncoder(config, pretrained)
        if config.values:
            self.value_encoder = ValueEncoder(config.width)
        else:
            self.positional_encoder = nn.Module()
            self.positional_encoder.register_buffer("pe", torch.zeros(1, positions, config.width))
        self.transformer_encoder = nn.Module()
        self.transformer_encoder.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.projection = nn.Linear(config.width, config.projection, bias=False) if config.projection else None

    def start(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """What the first layer reads: gene vectors x (n, t, width), <cls> in place of the first, and ranks or counts."""
        x[:, 0] = self.cls_embedding
        return x + (
            self.value_encoder(counts) if hasattr(self, "value_encoder") else self.positional_encoder.pe[0, : x.shape[1]]
        )

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x (n, t, width) as ``start`` returns it -> unit vectors (n, width or projection)."""
        layers = self.transformer_encoder.layers
        for number, layer in enumerate(layers, 1):
            x = layer(x, bias, 1 if number == len(layers) else None)
        cls = x[:, 0] if self.projection is None else self.projection(x[:, 0])
        return F.normalize(cls.float(), dim=1)


def load_network(
    state: dict[str, torch.Tensor], config: Config, species: str, file: Path, variant: str
) -> tuple[Network, torch.Tensor, torch.Tensor | None]:
    """(network, learnable rows, pretrained rows or None) of a species, rows (n_tokens, ...). Raises UserError for a misfit."""
    learnable, pretrained = (state.get(f"{table}{species}.weight") for table in TABLES)
    pe = state.get("positional_encoder.pe")
    if learnable is None:
        raise UserError(
            f"{file} has no genes of {species}: it is no scConcept checkpoint, or another one. {fetch_hint(variant)}"
        )
    _require_tables(learnable, pretrained, config, file, variant)
    with torch.device("meta"):
        positions = pe.shape[1] if pe is not None and pe.ndim == 3 else 0
        network = Network(config, pretrained.shape[1] if pretrained is not None else 0, positions)
    renamed = {name.replace(".Wqkv.", ".in_proj_"): tensor for name, tensor in state.items()}
    fill(network, renamed, file, variant, ignore=UNUSED)
    return network.eval(), learnable, pretrained


def _require_tables(learnable: torch.Tensor, pretrained: torch.Tensor | None, config: Config, file: Path, variant: str) -> None:
    """Raises UserError unless the tables of gene vectors are of one length, and as wide as the configuration says."""
    tables = [table for table in (learnable, pretrained) if table is not None]
    shapes = [tuple(table.shape) if isinstance(table, torch.Tensor) and table.is_floating_point() else () for table in tables]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != config.gene_width or len({n for n, _ in shapes}) > 1:
        found = " and ".join(map(str, shapes))
        raise UserError(
            f"{file} has tables of gene vectors of shape {found}; they must have one length, and the first a width of "
            f"{config.gene_width}. {fetch_hint(variant)}"
        )


class ScConceptCells:
    """scConcept as runtime.embed_cells wants it. genes (n_tokens, width): the vectors of all genes."""

    def __init__(self, network: Network, genes: torch.Tensor, tokenizer: Tokenizer, device: str) -> None:
        self.network, self.genes, self.tokenizer = network.to(device), genes.to(device), tokenizer
        self.sort, self.known, self.fills = tokenizer.sampling != "random-nonzero", tokenizer.known, (PAD, 0.0)
        self.dimension = network.projection.out_features if network.projection is not None else genes.shape[1]
        self.max_length, self.stack = tokenizer.max_tokens + 1, network.transformer_encoder.layers
        self.bytes_per_token = 4 * (8 * genes.shape[1] + 2 * self.stack[0].linear1.out_features)

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Ranked tokens and their counts."""
        return self.tokenizer(block)

    def forward(self, length: torch.Tensor, tokens: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, dimension) of length 1."""
        x = self.network.start(self.genes[tokens.long()], counts)
        return self.network(x, key_bias(length, tokens.shape[1]))

    def pool(self, states: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """States (n, t, width) -> those of <cls> (n, width)."""
        return states[:, 0]


def gene_vectors(network: Network, learnable: torch.Tensor | None, pretrained: torch.Tensor | None) -> torch.Tensor:
    """Vectors (n_tokens, width) of all genes, a part of them at a time."""
    given = [table for table in (learnable, pretrained) if table is not None]
    with torch.inference_mode():
        parts = zip(*(table.float().split(8192) for table in given), strict=True)
        make = network.gene_token_encoder
        if pretrained is None:
            return torch.cat([make(rows[0], None) for rows in parts])
        return torch.cat([make(rows[0] if learnable is not None else None, rows[-1]) for rows in parts])
