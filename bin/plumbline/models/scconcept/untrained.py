"""An scConcept of random weights in the authors' files: config.yaml, model.ckpt, gene_mappings/hsapiens.csv."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.objectives.head import seeded
from plumbline.models.scconcept.files import CLS, PAD, Config
from plumbline.models.scconcept.network import TABLES, Network
from plumbline.models.shared.genes import human_counts
from plumbline.models.shared.untrained import start_attention, vocabulary

TINY = Config(
    width=64,
    gene_width=64,
    heads=4,
    inner=128,
    layers=3,
    max_tokens=1000,
    projection=0,
    values=False,
    pre_norm=True,
    gelu=True,
)


def make_checkpoint(folder: Path, counts: Counts, options: Options) -> None:
    """A tiny model that knows every gene of ``counts``: by its Ensembl id, or its symbol where it has none."""
    human = human_counts(counts, options).counts
    write_checkpoint(folder, vocabulary(np.where(human.ensembl_id == "", human.symbol, human.ensembl_id)), options.seed, TINY)


def write_checkpoint(folder: Path, genes: Sequence[str], seed: int, config: Config) -> None:
    """A model of ``config`` whose tokens are the special ones, then ``genes``."""
    (folder / "gene_mappings").mkdir()
    with open(folder / "gene_mappings" / "hsapiens.csv", "w", newline="") as stream:
        rows = [("<cls>", "", CLS), ("<pad>", "", PAD), *((gene, gene, PAD + 1 + at) for at, gene in enumerate(genes))]
        csv.writer(stream).writerows([("gene_id", "gene_name", "token"), *rows])
    (folder / "config.yaml").write_text(yaml.safe_dump(described(config)))
    network = seeded(seed, lambda: start(config))
    state = {name.replace(".in_proj_", ".Wqkv."): tensor for name, tensor in network.state_dict().items()}
    table = seeded(seed, lambda: torch.randn(len(genes) + 2, config.gene_width))
    torch.save({"state_dict": state | {f"{TABLES[0]}hsapiens.weight": table}}, folder / "model.ckpt")


def start(config: Config) -> Network:
    """All as torch starts it, sines as positions, a normal <cls>."""
    network = Network(config, 0, config.max_tokens + 1)
    start_attention(network.transformer_encoder)
    nn.init.normal_(network.cls_embedding)
    place = torch.arange(config.max_tokens + 1)[:, None]
    angle = place * torch.exp(torch.arange(0, config.width, 2) * (-math.log(10000.0) / config.width))
    network.positional_encoder.pe[0, :, 0::2], network.positional_encoder.pe[0, :, 1::2] = angle.sin(), angle.cos()
    return network


def described(config: Config) -> dict:
    """config.yaml, as the authors write it."""
    network = {
        "dim_model": config.width,
        "dim_gene_embs": config.gene_width,
        "num_head": config.heads,
        "dim_hid": config.inner,
        "nlayers": config.layers,
        "input_encoding": "rank_encoding",
        "norm_scheme": "pre",
        "activation": "gelu",
    }
    return {"model": network, "datamodule": {"dataset": {"train": {"max_tokens": config.max_tokens}}}}
