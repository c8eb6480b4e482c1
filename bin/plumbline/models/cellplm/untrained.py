"""A CellPLM (vae) of random weights in the authors' files: <prefix>.config.json and <prefix>.best.ckpt."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.cellplm.network import Network
from plumbline.models.objectives.head import seeded
from plumbline.models.shared.genes import human_counts
from plumbline.models.shared.untrained import vocabulary

CONFIG = {  # as 20231027_85M, but for the sizes
    "enc_mod": "flowformer",
    "latent_mod": "vae",
    "dec_mod": "nbmlp",
    "dec_hid": 8,
    "dec_layers": 2,
    "model_dropout": 0.2,
    "norm": "groupnorm",
    "cat_pe": False,
    "batch_num": 1,
    "dataset_num": 1,
    "mask_node_rate": 0.75,
    "mask_feature_rate": 0.25,
}


@dataclass(frozen=True)
class Sizes:
    """Hidden width, layers, and dimensions of the embedding."""

    width: int
    layers: int
    latent: int


TINY = Sizes(width=64, layers=3, latent=64)


def make_checkpoint(folder: Path, counts: Counts, options: Options) -> None:
    """A tiny model that knows every Ensembl id of ``counts``. Raises NotApplicable as the trained model does."""
    human = human_counts(counts, options, by="ensembl_id").counts
    genes = vocabulary(str(gene).partition(".")[0] for gene in human.ensembl_id)
    write_checkpoint(folder, "untrained", genes, options.seed, TINY)


def write_checkpoint(folder: Path, prefix: str, genes: Sequence[str], seed: int, sizes: Sizes) -> None:
    """A model of ``sizes`` for ``genes``."""
    about = {"enc_hid": sizes.width, "enc_layers": sizes.layers, "post_latent_dim": sizes.latent, "out_dim": len(genes)}
    config = CONFIG | about | {"gene_list": list(genes)}
    model = seeded(seed, lambda: start(config))
    torch.save({"model_state_dict": model.state_dict()}, folder / f"{prefix}.best.ckpt")
    (folder / f"{prefix}.config.json").write_text(json.dumps(config))


def start(config: dict) -> Network:
    """Initial weights as the authors': gene vectors normal(0, 0.005), all else as torch starts it."""
    network = Network(config)
    nn.init.normal_(network.embedder.feat_enc.emb, std=0.005)
    return network
