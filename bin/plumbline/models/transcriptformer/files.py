"""TranscriptFormer's files, as downloaded: config.json, model_weights.pt, vocabs/assay_vocab.json, vocabs/<species>_gene.h5."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plumbline.common.errors import UserError
from plumbline.counts.hdf5 import open_hdf5
from plumbline.embedding.checkpoints import fetch_hint
from plumbline.embedding.damage import understood
from plumbline.embedding.weights import open_file

FOLDERS = {
    "transcriptformer_sapiens": "tf_sapiens",
    "transcriptformer_exemplar": "tf_exemplar",
    "transcriptformer_metazoa": "tf_metazoa",
}
SPECIALS = ("[PAD]", "[START]")  # those of the special tokens that an embedding needs
SIZES = {
    "width": "embed_dim",
    "inner": "model_dim",
    "heads": "num_heads",
    "layers": "num_layers",
    "context": "seq_len",
}
SOFTCAP = 10.0  # the authors' default


@dataclass(frozen=True, kw_only=True)
class Config:
    """The part of config.json that decides an embedding.

    context: positions of [START] and genes. vocabularies: the *_gene.h5, in the order of their tokens. specials: tokens 0, 1
    and so on. assays: whether the model has an assay token.
    """

    width: int
    inner: int
    heads: int
    layers: int
    context: int
    softcap: float
    eps: float
    attention_bias: bool
    inner_bias: bool
    vocabularies: tuple[str, ...]
    specials: tuple[str, ...]
    assays: bool

    @property
    def species(self) -> tuple[str, ...]:
        """homo_sapiens, mus_musculus, ..."""
        return tuple(Path(name).name.removesuffix("_gene.h5") for name in self.vocabularies)


def read_config(folder: Path, variant: str) -> Config:
    """config.json. Raises UserError where it lacks a size, or describes layers that this forward pass has not."""
    file = folder / "config.json"
    with open_file(file, variant) as stream, understood(file, "is no description of a TranscriptFormer", variant):
        described = json.load(stream)["model"]
        config = _config(described["model_config"], described["data_config"])
    lacking = [name for name in SPECIALS if name not in config.specials]
    activation = described["model_config"].get("activation", "gelu")
    if lacking or activation != "gelu":
        wrong = f"no special token {lacking[0]}" if lacking else f"the activation {activation!r}; only gelu is known"
        raise UserError(f"{file} has {wrong}. {fetch_hint(variant)}")
    return config


def _config(network: dict, data: dict) -> Config:
    if network["embed_dim"] % network["num_heads"]:
        raise ValueError(f"{network['num_heads']} attention heads cannot share a width of {network['embed_dim']}")
    return Config(
        **{ours: int(network[theirs]) for ours, theirs in SIZES.items()},
        softcap=float(network.get("softcap", SOFTCAP) or 0),
        eps=float(network.get("log_counts_eps", 1e-6)),
        attention_bias=bool(network.get("attn_bias", False)),
        inner_bias=bool(network.get("fw_bias", False)),
        vocabularies=tuple(map(str, data["esm2_mappings"])),
        specials=tuple(map(str, data["special_tokens"])),
        assays=bool(data.get("aux_cols")) and int(network.get("aux_len", 1)) > 0,
    )


def read_vocabulary(folder: Path, config: Config, variant: str) -> dict[str, int]:
    """Special token or Ensembl id -> token: the specials, then the ids of every file in its order, each once."""
    names = list(config.specials)
    for name in config.vocabularies:
        names += read_ids(folder / "vocabs" / Path(name).name, variant)
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def read_ids(file: Path, variant: str) -> list[str]:
    """The Ensembl ids of a table of protein vectors."""
    open_file(file, variant).close()
    with understood(file, "is truncated or no table of protein vectors", variant), open_hdf5(file) as table:
        return table["keys"].asstr()[:].tolist()


def read_vectors(file: Path, ids: list[str], variant: str) -> np.ndarray:
    """The protein vectors (len(ids), width) of ``ids``."""
    with understood(file, "is truncated or lacks vectors", variant), open_hdf5(file) as table:
        return np.stack([table["arrays"][name][:] for name in ids]).astype(np.float32)


def read_assays(folder: Path, variant: str) -> dict[str, int]:
    """assay_vocab.json: the name of a technology -> its number; 'unknown' is 0."""
    file = folder / "vocabs" / "assay_vocab.json"
    with open_file(file, variant) as stream, understood(file, "is no vocabulary of assays", variant):
        return {str(name): int(number) for name, number in json.load(stream).items()}
