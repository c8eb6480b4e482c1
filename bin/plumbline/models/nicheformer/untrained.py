"""A Nicheformer of random weights in the authors' files: nicheformer.ckpt, model.h5ad and a file of means.

All means are 1: those of a corpus are pre-training.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from plumbline.counts.reading import Counts
from plumbline.counts.writing import CsrWriter
from plumbline.embedding.options import Options
from plumbline.models.nicheformer.files import GENES, META, SIZES, Config
from plumbline.models.nicheformer.network import Network
from plumbline.models.nicheformer.tokens import FIRST_GENE
from plumbline.models.objectives.head import seeded
from plumbline.models.shared.genes import human_counts
from plumbline.models.shared.untrained import start_attention, vocabulary

TINY = Config(width=64, heads=4, inner=128, layers=3, context=1500, n_tokens=0, meta=META)


def make_checkpoint(folder: Path, counts: Counts, options: Options) -> None:
    """A tiny model that knows every Ensembl id of ``counts``. Raises NotApplicable as the trained model does."""
    human = human_counts(counts, options, by="ensembl_id").counts
    write_checkpoint(folder, vocabulary(human.ensembl_id), options.seed, TINY)


def write_checkpoint(folder: Path, genes: Sequence[str], seed: int, config: Config) -> None:
    """A model of ``config``, but for the number of tokens, whose list is ``genes``."""
    config = Config(**{**config.__dict__, "n_tokens": FIRST_GENE + len(genes)})
    state = seeded(seed, lambda: start(config)).state_dict()
    told = {theirs: getattr(config, ours) for ours, theirs in SIZES.items()} | dict.fromkeys(META, True)
    told |= {"n_tokens": config.n_tokens, "learnable_pe": True}
    torch.save({"state_dict": state, "hyper_parameters": told}, folder / "untrained.ckpt")
    np.save(folder / "dissociated_mean_script.npy", np.ones(len(genes)))
    with CsrWriter(folder / GENES, len(genes)) as writer:
        writer.append(sp.csr_matrix((1, len(genes)), dtype=np.float32))
        writer.finish(np.array(["model"]), {}, np.array(genes), {})


def start(config: Config) -> Network:
    """All as torch starts it: normal tables, and the encoder's layers."""
    network = Network(config, config.layers)
    start_attention(network.encoder)
    nn.init.normal_(network.embeddings["weight"])
    nn.init.normal_(network.positional_embedding["weight"])
    return network
