"""A Tahoe-x1 of random weights in the authors' files."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from safetensors.torch import save_file

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.objectives.head import seeded
from plumbline.models.shared.genes import human_counts
from plumbline.models.shared.untrained import start_attention, vocabulary
from plumbline.models.tahoe_x1.files import COLLATOR, CONFIG, VOCABULARY, WEIGHTS, Architecture
from plumbline.models.tahoe_x1.network import Network

SPECIALS = ("<pad>", "<cls>", "<eoc>")
TINY = {"d_model": 64, "n_heads": 4, "n_layers": 3}


def make_checkpoint(folder: Path, counts: Counts, options: Options) -> None:
    """A tiny model that knows every Ensembl id of ``counts``. Raises NotApplicable as the trained model does."""
    ensembl = human_counts(counts, options, by="ensembl_id").counts.ensembl_id
    write_checkpoint(folder, vocabulary(ensembl), options.seed, TINY)


def write_checkpoint(folder: Path, genes: Sequence[str], seed: int, sizes: dict[str, int], keep_first: int = 1) -> None:
    """A model of ``sizes`` whose tokens are the special ones, then ``genes``."""
    tokens = {name: number for number, name in enumerate((*SPECIALS, *genes))}
    config = sizes | {"expansion_ratio": 4, "vocab_size": len(tokens), "transformer_activation": "relu"}
    config |= {"norm_scheme": "pre", "cell_emb_style": "cls", "use_glu": False}
    config |= {"norm_config": {"norm_type": "layernorm", "eps": 1e-5}, "gene_encoder": {"use_norm": True}}
    values = {"input_emb_style": "continuous", "max_value": 512, "activation": "relu", "use_norm": True}
    collator = {"pad_token_id": 0, "pad_value": -2, "do_binning": True, "num_bins": 51, "right_binning": False}
    (folder / VOCABULARY).write_text(json.dumps(tokens))
    (folder / CONFIG).write_text(yaml.safe_dump(config | {"expression_encoder": values}))
    (folder / COLLATOR).write_text(yaml.safe_dump(collator | {"keep_first_n_tokens": keep_first}))
    shape = Architecture(
        width=sizes["d_model"],
        heads=sizes["n_heads"],
        inner=4 * sizes["d_model"],
        layers=sizes["n_layers"],
        tokens=len(tokens),
        activation="relu",
        value_activation="relu",
        eps=1e-5,
        largest=512.0,
    )
    state = seeded(seed, lambda: start(shape)).state_dict()
    tensors = {f"model.{name.replace('.in_proj_', '.Wqkv.')}": tensor for name, tensor in state.items()}
    save_file(tensors, folder / WEIGHTS)


def start(shape: Architecture) -> Network:
    """Initial weights: all as torch starts them, attention as torch.nn.MultiheadAttention."""
    network = Network(shape)
    start_attention(network.transformer_encoder)
    return network
