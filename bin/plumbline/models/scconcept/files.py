"""scConcept's files, as in the authors' repository: config.yaml, model.ckpt, gene_mappings/<species>.csv."""

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from plumbline.common.errors import UserError
from plumbline.embedding.checkpoints import fetch_hint
from plumbline.embedding.damage import understood
from plumbline.embedding.training_checkpoints import load_checkpoint
from plumbline.embedding.weights import open_file

FOLDERS = {"scconcept_30m": "corpus40M-model30M", "scconcept_170m": "corpus360M[multi-species]-model170M"}
SPECIES = {
    "human": "hsapiens",
    "homo sapiens": "hsapiens",
    "mouse": "mmusculus",
    "mus musculus": "mmusculus",
    "zebrafish": "drerio",
    "danio rerio": "drerio",
}
CLS, PAD = 0, 1
SAMPLINGS = ("top-nonzero", "top", "random-nonzero")
# what config.yaml may say in its sections model and datamodule; the first is what the authors' code takes where it says nothing
CHOICES = {
    "input_encoding": ("rank_encoding", "value_encoding"),
    "norm_scheme": ("post", "pre"),
    "activation": ("relu", "gelu"),
}
DATA_CHOICES = {"gene_sampling_strategy": SAMPLINGS, "normalization": ("raw", "log1p")}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The part of config.yaml that decides an embedding. projection: width behind the last layer, 0 if there is none.

    sampling: which genes of a cell enter, unless a setting says it. log: counts enter as log1p. cls_value: <cls>'s count.
    """

    width: int
    gene_width: int
    heads: int
    inner: int
    layers: int
    max_tokens: int
    projection: int
    values: bool
    pre_norm: bool
    gelu: bool
    sampling: str = SAMPLINGS[0]
    log: bool = False
    cls_value: float = -2.0


@dataclass(frozen=True, kw_only=True)
class Genes:
    """The vocabulary of a species. token: Ensembl id -> token. id_of: symbol in lower case -> Ensembl id.

    rows: of the tables of gene vectors that belong to it.
    """

    token: dict[str, int]
    id_of: dict[str, str]

    @property
    def rows(self) -> int:
        return len(self.token) + 2  # <cls> and <pad>


def read_config(folder: Path, variant: str) -> Config:
    """config.yaml. Raises UserError where it lacks a size, or names an encoding or a layer that is not known."""
    file = folder / "config.yaml"
    with open_file(file, variant) as stream, understood(file, "is no description of an scConcept model", variant):
        described = yaml.safe_load(stream)
        network, data = described["model"], described["datamodule"]
        train = data["dataset"]["train"]
        chosen = {name: network.get(name) or known[0] for name, known in CHOICES.items()}
        # older files say in the section train how genes are sampled, and the authors' code listens to it first
        chosen |= {name: train.get(name) or data.get(name) or known[0] for name, known in DATA_CHOICES.items()}
        config = _config(network, int(train["max_tokens"]), chosen)
    for name, known in (CHOICES | DATA_CHOICES).items():
        if chosen[name] not in known:
            raise UserError(f"{file}: {name} is {chosen[name]!r}; known are {', '.join(known)}. {fetch_hint(variant)}")
    return config


def _config(network: dict, max_tokens: int, chosen: dict) -> Config:
    return Config(
        width=int(network["dim_model"]),
        gene_width=int(network.get("dim_gene_embs") or network["dim_model"]),
        heads=int(network["num_head"]),
        inner=int(network["dim_hid"]),
        layers=int(network["nlayers"]),
        max_tokens=max_tokens,
        projection=int(network.get("projection_dim") or 0),
        values=chosen["input_encoding"] == "value_encoding",
        pre_norm=chosen["norm_scheme"] == "pre",
        gelu=chosen["activation"] == "gelu",
        sampling=chosen["gene_sampling_strategy"],
        log=chosen["normalization"] == "log1p",
        cls_value=float(network.get("cls_value", Config.cls_value)),
    )


def species_of(folder: Path, organism: str) -> str | None:
    """The name of an organism in the model's files; None if it has no genes of it."""
    name = SPECIES.get(organism.replace("_", " "), organism)
    return name if (folder / "gene_mappings" / f"{name}.csv").is_file() else None


def read_genes(folder: Path, species: str, variant: str) -> Genes:
    """gene_mappings/<species>.csv. Of a symbol that comes twice the first row counts."""
    file = folder / "gene_mappings" / f"{species}.csv"
    open_file(file, variant).close()
    token, id_of = {}, {}
    with understood(file, "is no table of gene_id, gene_name, token", variant), open(file, newline="") as stream:
        for row in csv.DictReader(stream):
            token[row["gene_id"]] = int(row["token"])
            id_of.setdefault(str(row["gene_name"]).casefold(), row["gene_id"])
    if (token.pop("<cls>", None), token.pop("<pad>", None)) != (CLS, PAD) or not token:
        raise UserError(f"{file} does not begin with <cls> 0 and <pad> 1, or is cut. {fetch_hint(variant)}")
    genes = Genes(token=token, id_of=id_of | {"": ""})
    if not PAD < min(token.values()) <= max(token.values()) < genes.rows:
        raise UserError(f"{file}: tokens of genes are not {PAD + 1} to {genes.rows - 1}. {fetch_hint(variant)}")
    return genes


def read_state(folder: Path, variant: str) -> dict[str, torch.Tensor]:
    """The tensors of model.ckpt, which is a checkpoint of Lightning (state_dict) or of Fabric (model)."""
    file = folder / "model.ckpt"
    loaded = load_checkpoint(file, variant)
    state = next((loaded[key] for key in ("state_dict", "model") if isinstance(loaded.get(key), dict)), None)
    if state is None:
        raise UserError(f"{file} is no scConcept checkpoint: it has neither state_dict nor model. {fetch_hint(variant)}")
    return state
