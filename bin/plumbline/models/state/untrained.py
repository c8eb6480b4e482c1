"""A STATE cell embedding of random weights in the authors' files: a checkpoint, config.yaml and protein_embeddings.pt.

Protein vectors are random, as everything else: those of a protein model are pre-training.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from torch import nn

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.objectives.head import seeded
from plumbline.models.shared.genes import human_counts
from plumbline.models.shared.untrained import start_attention, vocabulary
from plumbline.models.state.files import CONFIG, PROTEINS, SIZES, Config
from plumbline.models.state.network import Network

TINY = Config(
    width=64,
    heads=4,
    inner=128,
    layers=3,
    output=64,
    protein=32,
    length=2048,
    cls_index=3,
    n_tokens=0,
    draws=(1, 1, 1),
    batch=16,
)


def make_checkpoint(folder: Path, counts: Counts, options: Options) -> None:
    """A tiny model that knows every symbol of ``counts``. Raises NotApplicable as the trained model does."""
    symbol = human_counts(counts, options, kinds=("counts", "log"), by="symbol").counts.symbol
    write_checkpoint(folder, vocabulary(symbol), options.seed, TINY)


def write_checkpoint(folder: Path, genes: Sequence[str], seed: int, config: Config) -> None:
    """A model of ``config`` whose tokens are ``genes``."""
    state = {_named(name): tensor for name, tensor in seeded(seed, lambda: start(config)).state_dict().items()}
    told = {theirs: getattr(config, ours) for ours, theirs in SIZES.items()} | {"token_dim": config.protein}
    torch.save({"state_dict": state, "hyper_parameters": told}, folder / "untrained.ckpt")
    proteins = seeded(seed, lambda: torch.randn(len(genes), config.protein))
    torch.save({name: vector.clone() for name, vector in zip(genes, proteins, strict=True)}, folder / PROTEINS)
    positive, other, batch = config.draws
    dataset = {"pad_length": config.length, "cls_token_idx": config.cls_index, "P": positive, "N": other, "S": batch}
    described = {"dataset": dataset, "model": {"batch_size": config.batch}}
    described["embeddings"] = {"current": "random", "random": {"num": len(genes)}}
    (folder / CONFIG).write_text(yaml.safe_dump(described))


def _named(name: str) -> str:
    return name.replace(".self_attn.in_proj_", ".qkv_proj.").replace(".self_attn.out_proj.", ".out_proj.")


def start(config: Config) -> Network:
    """All as torch starts it; normal tokens and bins."""
    network = Network(config)
    start_attention(network.transformer_encoder)
    for parameter in (network.cls_token, network.dataset_token, network.bin_encoder["weight"]):
        nn.init.normal_(parameter)
    return network
