"""TranscriptFormer's forward pass (Pearce et al. 2025), from the authors' checkpoints as they are.

Unlike a usual transformer, a layer adds to the normalised stream, attention logits carry the logarithm of the key's count and
are capped, and there is neither a final normalisation nor a position: the order of genes enters by the causal mask alone. The
embedding is the sum of the states of [START] and the genes over the CONTEXT LENGTH, so its norm grows with the number of genes.
What cannot change the result is left out: the heads that predict counts and genes, padding beyond the longest cell of a batch,
keys that no query of a block may see; the network of gene vectors runs once a gene. torch's fused attention knows no cap, so
the scores are computed here, a block of queries after the other.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional as F

from plumbline.models.runtime.batches import Ragged
from plumbline.models.transcriptformer.files import Config
from plumbline.models.transcriptformer.tokens import Tokenizer

BLOCK = 128  # queries at once
POOLINGS = ("context", "mean")


class Attention(nn.Module):
    """Causal self-attention over keys weighted by their counts; linears: query, key, value, output."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.softcap = config.heads, config.softcap
        self.linears = nn.ModuleList(nn.Linear(config.width, config.width, bias=config.attention_bias) for _ in range(4))

    def forward(self, x: torch.Tensor, bias: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """x (n, t, width); bias (n, t): added to the logits of a key; hidden (n, t) bool: keys that nobody sees."""
        n, t, width = x.shape
        q, k, v = (linear(x).view(n, t, self.heads, -1).transpose(1, 2) for linear in self.linears[:3])
        q = q / q.shape[-1] ** 0.5
        parts = [self._block(q, k, v, bias, hidden, start) for start in range(0, t, BLOCK)]
        return self.linears[3](torch.cat(parts, dim=2).transpose(1, 2).reshape(n, t, width))

    def _block(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, hidden: torch.Tensor, start: int
    ) -> torch.Tensor:
        """What the queries from ``start`` on attend to, of the keys up to the last of them."""
        stop = min(start + BLOCK, q.shape[2])
        logits = (q[:, :, start:stop] @ k[:, :, :stop].transpose(2, 3)).float() + bias[:, None, None, :stop]
        if self.softcap:
            logits = logits.div_(self.softcap).tanh_().mul_(self.softcap)
        place = torch.arange(stop, device=q.device)
        unseen = (place > place[start:, None]) | hidden[:, None, None, :stop]
        weights = logits.masked_fill_(unseen, torch.finfo(logits.dtype).min).softmax(dim=-1)
        return weights.to(v.dtype) @ v[:, :, :stop]


class Layer(nn.Module):
    """h = norm1(x); h = h + attention(h); h = norm2(h); h + linear2(gelu(linear1(h)))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.linear1 = nn.Linear(config.width, config.inner, bias=config.inner_bias)
        self.linear2 = nn.Linear(config.inner, config.width, bias=config.inner_bias)
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """x (n, t, width) -> the same shape. bias, hidden: see Attention."""
        h = self.norm1(x)
        h = self.norm2(h + self.self_attn(h, bias, hidden))
        return h + self.linear2(F.gelu(self.linear1(h)))


class GeneMLP(nn.Module):
    """A protein vector -> a gene vector."""

    def __init__(self, protein: int, width: int) -> None:
        super().__init__()
        # the fourth, without parameters, is a dropout in training: it keeps the numbers of the checkpoint's names
        self.layers = nn.Sequential(
            nn.Linear(protein, width), nn.ReLU(), nn.LayerNorm(width), nn.Identity(), nn.Linear(width, width)
        )

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """vectors (k, protein) -> (k, width)."""
        return self.layers(vectors)


class Network(nn.Module):
    """The layers, with the parameter names of the checkpoint; its token table stays outside."""

    def __init__(self, config: Config, protein: int, n_assays: int) -> None:
        super().__init__()
        self.gene_embeddings = nn.ModuleDict({"mlp": GeneMLP(protein, config.width)})
        if config.assays:
            table = nn.Parameter(torch.zeros(n_assays, config.width))
            self.aux_embeddings = nn.ModuleDict({"assay": nn.ParameterDict({"weight": table})})
        layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.transformer_encoder = nn.ModuleDict({"encoder_layers": layers})

    def project(self, vectors: torch.Tensor) -> torch.Tensor:
        """Gene vectors (k, width) of protein vectors."""
        return self.gene_embeddings["mlp"](vectors)

    def forward(self, x: torch.Tensor, bias: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """States (n, t, width) after the last layer."""
        for layer in self.transformer_encoder["encoder_layers"]:
            x = layer(x, bias, hidden)
        return x


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Which tokens a model reads: vocabulary numbers -> rows of ``vectors``, the protein vectors of those that can occur.

    local (n_tokens,): the row of a token. vectors (k, protein): float32. pad: the row of [PAD].
    """

    local: np.ndarray
    vectors: torch.Tensor
    pad: int


class TranscriptFormerCells:
    """TranscriptFormer as runtime.embed_cells wants it.

    pooling 'context': the sum of states over the context length, as upstream; 'mean': over the cell's own positions.
    pads: padding is seen and summed up to the context length, as in upstream's tables of other species (a defect).
    """

    sort = True

    def __init__(
        self,
        network: Network,
        config: Config,
        tokens: Tokens,
        tokenizer: Tokenizer,
        device: str,
        pooling: str = "context",
        pads: bool = False,
    ) -> None:
        self.network, self.config, self.tokenizer = network.to(device).eval(), config, tokenizer
        self.pooling, self.pads, self.local = pooling, pads, tokens.local
        with torch.inference_mode():
            parts = [self.network.project(part.to(device)) for part in tokens.vectors.split(4096)]
            self.genes = torch.cat(parts)
        self.known, self.dimension = tokenizer.columns.known, config.width
        self.stack = network.transformer_encoder["encoder_layers"]
        self.lead = int(tokenizer.assay is not None)
        self.fills, self.max_length = (tokens.pad, 0.0), config.context + self.lead
        self.bytes_per_token = 4 * (8 * config.width + 2 * config.inner + 3 * config.heads * BLOCK)

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Rows of gene vectors (an assay's number in front, where assays enter), and counts."""
        ragged = self.tokenizer(rows, block)
        tokens, counts = ragged.fields
        begin = (np.cumsum(ragged.length) - ragged.length)[ragged.length > 0]
        rows_of = self.local[tokens]
        if self.lead:
            rows_of[begin] = tokens[begin]
        return Ragged(ragged.length, (rows_of, counts))

    def states(self, length: torch.Tensor, tokens: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """States (n, t, width) of every position, an assay's first."""
        tokens = tokens.long()
        hidden = torch.arange(tokens.shape[1], device=tokens.device) >= length[:, None]
        x = self.genes[tokens if not self.lead else tokens.clone().index_fill_(1, tokens.new_zeros(1), 0)]
        if self.lead:
            x[:, 0] = self.network.aux_embeddings["assay"]["weight"][tokens[:, 0]]
            hidden[:, 0] = tokens[:, 0] == 0  # an unknown assay is seen by nobody
        return self.network(x, torch.log1p(counts + self.config.eps), hidden)

    def forward(self, length: torch.Tensor, tokens: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, width)."""
        if self.pads:
            room = self.max_length - tokens.shape[1]
            tokens, counts = F.pad(tokens, (0, room), value=self.fills[0]), F.pad(counts, (0, room))
            length = torch.full_like(length, self.max_length)
        return self.pool(self.states(length, tokens, counts).float(), length)

    def pool(self, states: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """States (n, t, width) -> (n, width), without an assay's."""
        if self.pads:
            length = torch.full_like(length, self.max_length)
        place = torch.arange(states.shape[1], device=states.device)
        inside = (place >= self.lead) & (place < length[:, None])
        total = torch.einsum("ntd,nt->nd", states, inside.float())
        return total / (self.config.context if self.pooling == "context" else (length - self.lead)[:, None])


class ProteinSums:
    """The authors' baseline ESM2-CE: the sum of the protein vectors of the expressed genes over the context length."""

    sort = True

    def __init__(self, context: int, tokens: Tokens, tokenizer: Tokenizer, device: str) -> None:
        self.vectors, self.local, self.tokenizer, self.context = tokens.vectors.to(device), tokens.local, tokenizer, context
        self.known, self.dimension = tokenizer.columns.known, tokens.vectors.shape[1]
        self.fills, self.max_length, self.bytes_per_token = (0, 0.0), context + 1, 8 * self.dimension

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Rows of protein vectors; the counts do not enter."""
        ragged = self.tokenizer(rows, block)
        return Ragged(ragged.length, (self.local[ragged.fields[0]], ragged.fields[1]))

    def forward(self, length: torch.Tensor, tokens: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Sums (n, protein) over the genes: what stands behind [START]."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        inside = (place >= 1) & (place < length[:, None])
        return torch.einsum("ntd,nt->nd", self.vectors[tokens.long()].float(), inside.float()) / self.context
