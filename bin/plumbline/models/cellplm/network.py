"""CellPLM's layers (Wen et al. 2024, ICLR, "CellPLM: Pre-training of Cell Language Model Beyond Single Cells").

Cells, not genes, attend to each other, by Flow-Attention (Wu et al. 2022, "Flowformer", eq. 4-8), which is linear in the
number of cells: all a cell needs to know of the others are a few sums over them. Those sums are taken block by block, so that
no more than a block of cells is on the device and no matrix of cells x genes or cells x cells ever exists.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

EPS = 1e-6
GROUPS = 4  # of the group norm after the first linear layer
KEPT_CELLS = 16384  # sets up to this size keep queries, keys and values on the device instead of computing them anew


class Embedder(nn.Module):
    """log1p counts -> hidden state. The positional code is switched off in the authors' forward pass."""

    def __init__(self, n_genes: int, width: int) -> None:
        super().__init__()
        self.feat_enc = nn.Module()
        self.feat_enc.emb = nn.Parameter(torch.empty(n_genes, width))
        self.extra_linear = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Identity(), nn.GroupNorm(GROUPS, width))

    def forward(self, x: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """x: log1p counts (n, k); vectors (k, width): those of feat_enc.emb that belong to the k genes -> (n, width)."""
        return self.extra_linear(x @ vectors)


@dataclass
class Flow:
    """Sums over all cells of a set, per head: what one cell needs to know of the others. Accumulated in float64."""

    q: torch.Tensor | float = 0.0  # queries (heads, d)
    k: torch.Tensor | float = 0.0  # keys
    q_scaled: torch.Tensor | float = 0.0  # queries over their incoming flow
    k_scaled: torch.Tensor | float = 0.0  # keys over their outgoing flow
    weight: torch.Tensor | float = 0.0  # exp(conserved source flow) (heads,)
    kv: torch.Tensor | float = 0.0  # keys x weighted values (heads, d, d)


class FlowLayer(nn.Module):
    """Pre-norm layer: Flow-Attention over cells, then a GELU block. Upstream's parameter names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.self_attn = nn.Module()
        for name in ("query", "key", "value", "out"):
            self.self_attn.add_module(f"{name}_projection", nn.Linear(width, width))
        self._ff_block = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Identity(), nn.Linear(2 * width, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def project(self, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries and keys (through a sigmoid) and values of a block (n, width): each (heads, n, d)."""
        h, attention = self.norm1(h), self.self_attn
        projections = (attention.query_projection, attention.key_projection, attention.value_projection)
        q, k, v = (projection(h).unflatten(-1, (self.heads, -1)).transpose(0, 1) for projection in projections)
        return q.sigmoid(), k.sigmoid(), v

    def forward(self, h: torch.Tensor, q: torch.Tensor, flow: Flow, n_cells: int) -> torch.Tensor:
        """The block's next hidden state, once the sums over all ``n_cells`` of the set are known."""
        allocation = torch.sigmoid(_dot(q, flow.k_scaled))
        kv = (flow.kv * (n_cells / flow.weight)[:, None, None]).to(q.dtype)
        seen = (q / _dot(q, flow.k)[..., None]) @ kv * allocation[..., None]
        h = h + self.self_attn.out_projection(seen.transpose(0, 1).flatten(1))
        return h + self._ff_block(self.norm2(h))


def _dot(x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """(heads, n): the flow between each cell and the rest, (x + eps) . (total + eps)."""
    return ((x + EPS) @ (total.to(x.dtype) + EPS)[..., None])[..., 0]


def _add_totals(flow: Flow, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    flow.q += q.sum(1).double()
    flow.k += k.sum(1).double()


def _add_scaled(flow: Flow, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    flow.k_scaled += (k / _dot(k, flow.q)[..., None]).sum(1).double()
    flow.q_scaled += (q / _dot(q, flow.k)[..., None]).sum(1).double()


def _add_products(flow: Flow, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    weight = _dot(k, flow.q_scaled).clamp(-1.0, 1.0).exp()  # the softmax over cells; the clamp makes a maximum needless
    flow.weight += weight.sum(1).double()
    flow.kv += (k.transpose(1, 2) @ (v * weight[..., None])).double()


PASSES: tuple[Callable, ...] = (_add_totals, _add_scaled, _add_products)


def attend(layer: FlowLayer, hidden: np.ndarray, size: int, device: str) -> None:
    """One layer over a set of cells: ``hidden`` (n, width) is replaced, ``size`` rows at a time."""
    flow, n_cells = Flow(), len(hidden)
    kept = [layer.project(h) for _, h in blocks(hidden, size, device)] if n_cells <= KEPT_CELLS else None

    def projected() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        yield from kept if kept is not None else (layer.project(h) for _, h in blocks(hidden, size, device))

    for add in PASSES:
        for q, k, v in projected():
            add(flow, q, k, v)
    for number, (rows, h) in enumerate(blocks(hidden, size, device)):
        q = kept[number][0] if kept is not None else layer.project(h)[0]
        hidden[rows] = layer(h, q, flow, n_cells).cpu().numpy()


def blocks(hidden: np.ndarray, size: int, device: str) -> Iterator[tuple[slice, torch.Tensor]]:
    """(rows, hidden state on the device) of ``size`` cells after the other."""
    for start in range(0, len(hidden), size):
        rows = slice(start, start + size)
        yield rows, torch.from_numpy(hidden[rows]).to(device)


class Vae(nn.Module):
    """The latent layer of 20231027_85M: its mean."""

    def __init__(self, width: int, latent: int, n_components: int) -> None:
        super().__init__()
        self.hid_2mu = nn.Linear(width, latent)

    def forward(self, h: torch.Tensor, uniform: torch.Tensor | None) -> torch.Tensor:
        """(n, width) -> (n, latent)."""
        return self.hid_2mu(h)


class GaussianMixtureVae(nn.Module):
    """The latent layer of 20230926_85M: the mean given a mixture component.

    Upstream draws the component at random (Gumbel-max of the logits) at inference, too; without ``uniform`` the likeliest
    is taken.
    """

    def __init__(self, width: int, latent: int, n_components: int) -> None:
        super().__init__()
        self.inference = nn.Module()
        logits, gaussian = nn.Module(), nn.Module()
        logits.logits, gaussian.mu = nn.Linear(width, n_components), nn.Linear(512, latent)
        self.inference.inference_qyx = nn.ModuleList([logits])
        self.inference.inference_qzyx = nn.ModuleList([nn.Linear(width + n_components, 512), nn.ReLU(), gaussian])

    def forward(self, h: torch.Tensor, uniform: torch.Tensor | None) -> torch.Tensor:
        """(n, width) -> (n, latent). uniform (n, components): the random numbers behind the Gumbel noise, or None."""
        logits = self.inference.inference_qyx[0].logits(h)
        if uniform is not None:
            logits = logits - torch.log(-torch.log(uniform + 1e-20) + 1e-20)
        component = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(h.dtype)
        hidden, activation, gaussian = self.inference.inference_qzyx
        return gaussian.mu(activation(hidden(torch.cat([h, component], dim=1))))


LATENTS = {"vae": Vae, "gmvae": GaussianMixtureVae}


class Network(nn.Module):
    """All layers that an embedding needs, from a checkpoint's config."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        self.width, n_components = config["enc_hid"], config.get("num_clusters", 16)
        width = self.width
        self.embedder = Embedder(len(config["gene_list"]), width)
        self.encoder = nn.Module()
        layers = (FlowLayer(width, config.get("enc_head", 8)) for _ in range(config["enc_layers"]))
        self.encoder.layers = nn.ModuleList(layers)
        self.pre_latent_norm = nn.Module()
        self.pre_latent_norm.norm = nn.LayerNorm(width)
        latent = LATENTS[config["latent_mod"]](width, config["post_latent_dim"], n_components)
        self.latent = nn.Module()
        self.latent.layers = nn.ModuleList([nn.Identity(), latent])  # upstream's first latent layer does nothing

    def read_out(self, h: torch.Tensor, uniform: torch.Tensor | None) -> torch.Tensor:
        """Encoded cells (n, width) -> embeddings (n, latent)."""
        return self.latent.layers[1](self.pre_latent_norm.norm(h), uniform)
