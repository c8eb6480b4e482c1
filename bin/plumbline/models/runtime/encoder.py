"""The transformer encoder that Geneformer (BERT), scGPT and UCE have in common: post-norm, ReLU, self-attention over genes.

Layer, as in Vaswani et al. 2017 and torch.nn.TransformerEncoderLayer(norm_first=False):
x = norm1(x + attention(x)); x = norm2(x + linear2(relu(linear1(x)))).
Attention is torch's fused kernel: the (tokens x tokens) matrix never exists in memory.
"""

import torch
from torch import nn
from torch.nn import functional as F

from plumbline.common.errors import UserError


class Attention(nn.Module):
    """Multi-head self-attention with the parameter names of torch.nn.MultiheadAttention."""

    def __init__(self, width: int, heads: int) -> None:
        """Raises UserError for a width that the heads cannot share: no tensor tells how many there are."""
        super().__init__()
        if heads < 1 or width % heads:
            raise UserError(f"The checkpoint has a width of {width}, which {heads} attention heads cannot share evenly.")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, x: torch.Tensor, bias: torch.Tensor | None, queries: int | None, projected: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x (n, t, width) -> (n, queries or t, width): what the first ``queries`` positions attend to.

        projected (n, t, 3 width): x times in_proj_weight plus in_proj_bias, where the caller has it already.
        """
        n, t, width = x.shape
        if projected is not None:
            q, k, v = projected.view(n, t, 3, self.heads, -1).unbind(2)
            q = q[:, :queries]
        elif queries is None:
            q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).view(n, t, 3, self.heads, -1).unbind(2)
        else:
            q = F.linear(x[:, :queries], self.in_proj_weight[:width], self.in_proj_bias[:width])
            q = q.view(n, queries, self.heads, -1)
            k, v = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).view(n, t, 2, self.heads, -1).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out_proj(out.transpose(1, 2).reshape(n, -1, width))


class EncoderLayer(nn.Module):
    """One encoder layer with the parameter names of torch.nn.TransformerEncoderLayer."""

    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.linear1 = nn.Linear(width, inner)
        self.linear2 = nn.Linear(inner, width)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.norm2 = nn.LayerNorm(width, eps=eps)

    def forward(
        self,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        queries: int | None = None,
        projected: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x (n, t, width) -> (n, queries or t, width)."""
        x = self.norm1(x[:, :queries] + self.self_attn(x, bias, queries, projected))
        return self.norm2(x + self.linear2(F.relu_(self.linear1(x))))


class Encoder(nn.Module):
    """``layers`` layers. Parameter names: layers.<number>.<name in torch.nn.TransformerEncoderLayer>."""

    def __init__(self, layers: int, width: int, heads: int, inner: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, inner, eps) for _ in range(layers))

    def forward(
        self,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        queries: int | None = None,
        projected: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states after the last layer, (n, queries or t, width).

        bias: what key_bias returns. queries: only the first so many positions of the last layer are needed (the
        <cls> token: 1), so only they are computed; None is all.
        projected: see Attention, for the first layer.
        """
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, bias, queries if number == len(self.layers) else None, projected if number == 1 else None)
        return x


def key_bias(length: torch.Tensor, longest: int) -> torch.Tensor | None:
    """Mask (n, 1, 1, longest) that hides padding from attention; None if no sequence of the batch is padded."""
    if int(length.min()) == longest:
        return None
    return (torch.arange(longest, device=length.device) < length[:, None])[:, None, None, :]
