"""An scGPT of random weights in the authors' files: best_model.pt, vocab.json, args.json."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.objectives.head import seeded
from plumbline.models.scgpt.network import Architecture, ScGPT
from plumbline.models.scgpt.tokens import SPECIALS
from plumbline.models.shared.genes import human_counts
from plumbline.models.shared.untrained import start_attention, vocabulary

TINY = Architecture(width=64, heads=4, inner=64, layers=3, pad_value=-2.0)


def make_checkpoint(folder: Path, counts: Counts, options: Options) -> None:
    """A tiny model that knows every symbol of ``counts``. Raises NotApplicable as the trained model does."""
    symbol = human_counts(counts, options, kinds=("counts", "log"), by="symbol").counts.symbol
    write_checkpoint(folder, [name for name in vocabulary(symbol) if name not in SPECIALS], options.seed, TINY)


def write_checkpoint(folder: Path, genes: Sequence[str], seed: int, shape: Architecture) -> None:
    """A model of ``shape`` whose tokens are ``genes``, then the special ones."""
    tokens = {name: number for number, name in enumerate((*genes, *SPECIALS))}
    model = seeded(seed, lambda: start(shape, len(tokens)))
    torch.save(model.state_dict(), folder / "best_model.pt")
    (folder / "vocab.json").write_text(json.dumps(tokens))
    sizes = {"embsize": shape.width, "nheads": shape.heads, "d_hid": shape.inner, "nlayers": shape.layers}
    (folder / "args.json").write_text(json.dumps(sizes | {"pad_token": "<pad>", "pad_value": shape.pad_value}))


def start(shape: Architecture, n_tokens: int) -> ScGPT:
    """Initial weights of the authors' TransformerModel: gene vectors uniform in +-0.1, all else as torch starts it."""
    model = ScGPT(shape, n_tokens)
    nn.init.uniform_(model.encoder.embedding.weight, -0.1, 0.1)
    start_attention(model.transformer_encoder)
    return model
