"""A Geneformer (V1) of random weights in the authors' files: config.json, model.safetensors and three dictionaries."""

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.geneformer.network import Architecture, Geneformer, bert_names
from plumbline.models.objectives.head import seeded
from plumbline.models.shared.genes import human_counts
from plumbline.models.shared.untrained import vocabulary

SPECIALS = ("<pad>", "<mask>")
TINY = Architecture(layers=3, width=64, heads=4, inner=128, positions=2048, vocabulary=0, types=2, eps=1e-12)
STD = 0.02  # BERT's initializer_range


def make_checkpoint(folder: Path, counts: Counts, options: Options) -> None:
    """A tiny model that knows every gene of ``counts``. Raises NotApplicable as the trained model does.

    A gene goes by its Ensembl id, or its symbol where it has none. All medians are 1: those of a corpus are pre-training.
    """
    human = human_counts(counts, options).counts
    names = np.where(human.ensembl_id == "", human.symbol, human.ensembl_id)
    write_checkpoint(folder, vocabulary(np.char.upper(names)), options.seed, TINY)


def write_checkpoint(folder: Path, genes: Sequence[str], seed: int, shape: Architecture) -> None:
    """A model of ``shape``, but for the vocabulary: the special tokens, then ``genes``."""
    token = {name: number for number, name in enumerate((*SPECIALS, *genes))}
    model = seeded(seed, lambda: start(shape, len(token)))
    save_file(to_bert(model, shape.layers), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config(shape, len(token))))
    median, mapping = dict.fromkeys(genes, 1.0), {gene: gene for gene in genes}
    kinds = {"token_dictionary": token, "gene_median_dictionary": median, "ensembl_mapping_dict": mapping}
    for kind, value in kinds.items():
        (folder / f"{kind}.pkl").write_bytes(pickle.dumps(value))


def start(shape: Architecture, n_tokens: int) -> Geneformer:
    """Initial weights of BERT: normal(0, 0.02), biases 0, layer norms 1 and 0, padding 0."""
    model = Geneformer(replace(shape, vocabulary=n_tokens), shape.layers)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=STD)
        elif "norm" not in name:
            nn.init.zeros_(parameter)
    with torch.no_grad():
        model.word.weight[0] = 0.0
    return model


def to_bert(model: Geneformer, n_layers: int) -> dict[str, torch.Tensor]:
    """The state dict under BERT's parameter names: the inverse of geneformer.rename."""
    state, tensors = model.state_dict(), {}
    for old, new in bert_names(n_layers).items():
        for kind in ("weight", "bias"):
            if (name := new.format(kind)) in state:
                parts = state[name].chunk(len(old))
                tensors |= {f"{part}.{kind}": tensor.contiguous() for part, tensor in zip(old, parts, strict=True)}
    return tensors


def config(shape: Architecture, n_tokens: int) -> dict:
    """config.json, as transformers writes and reads it."""
    return {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.width,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.types,
        "vocab_size": n_tokens,
        "layer_norm_eps": shape.eps,
        "hidden_act": "relu",
        "initializer_range": STD,
        "pad_token_id": 0,
    }
