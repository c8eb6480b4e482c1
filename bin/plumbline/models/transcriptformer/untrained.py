"""A TranscriptFormer of random weights in the authors' files: config.json, model_weights.pt and a table of protein vectors.

Protein vectors are random, as everything else: those of a protein model are pre-training.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.objectives.head import seeded
from plumbline.models.shared.genes import human_counts
from plumbline.models.shared.untrained import vocabulary
from plumbline.models.transcriptformer.checkpoint import SPECIALS_OF_TABLES, TABLE, WEIGHTS
from plumbline.models.transcriptformer.files import SIZES, Config
from plumbline.models.transcriptformer.network import Network

TABLE_NAME = "homo_sapiens_gene.h5"
PROTEIN = 32  # width of the protein vectors
TINY = Config(
    width=64,
    inner=64,
    heads=4,
    layers=3,
    context=2047,
    softcap=10.0,
    eps=1e-6,
    attention_bias=False,
    inner_bias=False,
    vocabularies=(TABLE_NAME,),
    specials=SPECIALS_OF_TABLES,
    assays=True,
)


def make_checkpoint(folder: Path, counts: Counts, options: Options) -> None:
    """A tiny model that knows every Ensembl id of ``counts``. Raises NotApplicable as the trained model does."""
    human = human_counts(counts, options, by="ensembl_id").counts
    write_checkpoint(folder, vocabulary(name.partition(".")[0] for name in human.ensembl_id), options.seed, TINY)


def write_checkpoint(folder: Path, genes: Sequence[str], seed: int, config: Config) -> None:
    """A model of ``config`` whose tokens are the special ones, then ``genes``. All starts as torch starts it."""
    (folder / "vocabs").mkdir()
    (folder / "config.json").write_text(json.dumps(described(config)))
    (folder / "vocabs" / "assay_vocab.json").write_text(json.dumps({"unknown": 0}))
    network = seeded(seed, lambda: Network(config, PROTEIN, 1))
    table = seeded(seed, lambda: torch.randn(len(config.specials) + len(genes), PROTEIN))
    torch.save(network.state_dict() | {TABLE: table}, folder / WEIGHTS)
    with h5py.File(folder / "vocabs" / TABLE_NAME, "w") as file:
        file["keys"] = np.array(genes, dtype=h5py.string_dtype())


def described(config: Config) -> dict:
    """config.json, as the authors write it."""
    sizes = {theirs: getattr(config, ours) for ours, theirs in SIZES.items()}
    biases = {"attn_bias": config.attention_bias, "fw_bias": config.inner_bias}
    network = {**sizes, **biases, "softcap": config.softcap, "log_counts_eps": config.eps, "activation": "gelu", "aux_len": 1}
    names = {"esm2_mappings": list(config.vocabularies), "special_tokens": list(config.specials)}
    return {"model": {"model_config": network, "data_config": {**names, "aux_cols": "assay"}}}
