"""An scFoundation of random weights in the authors' format: models.ckpt, and beside it the list of its genes."""

from collections.abc import Sequence
from pathlib import Path

import torch

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.objectives.head import seeded
from plumbline.models.scfoundation.checkpoint import FILE, KEYS
from plumbline.models.scfoundation.network import Architecture, Network
from plumbline.models.scfoundation.tokens import GENES
from plumbline.models.shared.genes import human_counts
from plumbline.models.shared.untrained import start_attention, vocabulary

TINY = Architecture(width=16, heads=4, layers=3, bins=100, alpha=1.0)


def make_checkpoint(folder: Path, counts: Counts, options: Options) -> None:
    """A tiny model that knows every symbol of ``counts``. Raises NotApplicable as the trained model does."""
    genes = vocabulary(human_counts(counts, options, by="symbol").counts.symbol)
    write_checkpoint(folder, genes, options.seed, TINY)


def write_checkpoint(folder: Path, genes: Sequence[str], seed: int, shape: Architecture) -> None:
    """Models of ``shape``, with a position for each of ``genes``, for T, S and padding; all keys hold the same weights."""
    tensors = {f"model.{name}": value for name, value in seeded(seed, lambda: start(shape, len(genes))).state_dict().items()}
    encoder = {"hidden_dim": shape.width, "depth": shape.layers, "heads": shape.heads}
    encoder |= {"module_type": "transformer", "norm_first": False}
    part = {
        "config": {
            "model": "mae_autobin",
            "model_config": {"mae_autobin": {"encoder": encoder, "bin_num": shape.bins, "bin_alpha": shape.alpha}},
            "dataset_config": {"rnaseq": {"bin_num": shape.bins}},
        },
        "state_dict": tensors,
    }
    torch.save(dict.fromkeys(KEYS.values(), part), folder / FILE)
    lines = ["gene_name\tindex", *(f"{name}\t{number}" for number, name in enumerate(genes))]
    (folder / GENES.name).write_text("\n".join(lines) + "\n")


def start(shape: Architecture, n_genes: int) -> Network:
    """Initial weights: all as torch starts them, attention as torch.nn.MultiheadAttention."""
    network = Network(shape, n_genes + 3)
    start_attention(network.encoder)
    return network
