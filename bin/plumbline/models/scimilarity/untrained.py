"""A SCimilarity of random weights in the authors' files: encoder.ckpt and gene_order.tsv."""

from collections.abc import Sequence
from pathlib import Path

import torch

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.objectives.head import seeded
from plumbline.models.scimilarity.network import FILE, GENES, Network
from plumbline.models.shared.genes import human_counts
from plumbline.models.shared.untrained import vocabulary

TINY = (64, 64)  # hidden layer, latent space


def make_checkpoint(folder: Path, counts: Counts, options: Options) -> None:
    """A tiny model that knows every symbol of ``counts``. Raises NotApplicable as the trained model does."""
    write_checkpoint(folder, vocabulary(human_counts(counts, options, by="symbol").counts.symbol), options.seed, TINY)


def write_checkpoint(folder: Path, genes: Sequence[str], seed: int, sizes: tuple[int, ...]) -> None:
    """A model of ``genes``; all weights as torch, and so the authors, start them."""
    model = seeded(seed, lambda: Network((len(genes), *sizes)))
    torch.save({"state_dict": model.state_dict()}, folder / FILE)
    (folder / GENES).write_text("".join(f"{name}\n" for name in genes))
