"""TranscriptFormer's weights, and the protein vectors of the tokens that a data set can contain."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from plumbline.common.errors import UserError
from plumbline.embedding.checkpoints import fetch_hint
from plumbline.embedding.weights import fill, load_tensors
from plumbline.models.transcriptformer.files import Config, read_ids, read_vectors, read_vocabulary
from plumbline.models.transcriptformer.network import Network, Tokens

WEIGHTS, TABLE = "model_weights.pt", "gene_embeddings.embedding.weight"
UNUSED = ("mu.", "gene_id_head.", TABLE)  # heads of the training, and the table, of which rows are read
# upstream builds the table of another species with its special tokens in this order, whatever config.json says
SPECIALS_OF_TABLES = ("unknown", "[START]", "[END]", "[RD]", "[CELL]", "[PAD]", "[MASK]")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """token: special token or Ensembl id -> number. start, pad: numbers. vectors: a file of protein vectors that replaces the
    checkpoint's, or None. misplaced: whether special tokens lie as in upstream's tables of other species."""

    token: dict[str, int]
    start: int
    pad: int
    vectors: Path | None = None
    misplaced: bool = False


def own_vocabulary(folder: Path, config: Config, variant: str) -> Vocabulary:
    """The checkpoint's own genes."""
    token = read_vocabulary(folder, config, variant)
    return Vocabulary(token=token, start=token["[START]"], pad=token["[PAD]"])


def other_vocabulary(file: Path, config: Config, variant: str, misplaced: bool) -> Vocabulary:
    """The genes of another species, from a file of its protein vectors.

    misplaced: as upstream, whose sequences then begin with [END] and whose padding is seen and summed.
    """
    specials = SPECIALS_OF_TABLES if misplaced else config.specials
    names = [*specials, *read_ids(file, variant)]
    token = {name: number for number, name in enumerate(dict.fromkeys(names))}
    start = config.specials.index("[START]")
    return Vocabulary(token=token, start=start, pad=token["[PAD]"], vectors=file, misplaced=misplaced)


def load_network(folder: Path, config: Config, variant: str) -> tuple[Network, torch.Tensor]:
    """The network and its token table (n_tokens, protein; memory-mapped). Raises UserError on a tensor that does not fit."""
    file = folder / WEIGHTS
    tensors = load_tensors(file, variant)
    assays = tensors.get("aux_embeddings.assay.weight") if isinstance(tensors, dict) else None
    table = tensors.get(TABLE) if isinstance(tensors, dict) else None
    if not isinstance(table, torch.Tensor) or table.ndim != 2:
        raise UserError(f"{file} is no TranscriptFormer checkpoint: it has no table {TABLE}. {fetch_hint(variant)}")
    unused = UNUSED if config.assays else (*UNUSED, "aux_embeddings.")
    with torch.device("meta"):
        network = Network(config, table.shape[1], len(assays) if isinstance(assays, torch.Tensor) else 1)
    fill(network, tensors, file, variant, ignore=unused)
    return network, table


def read_tokens(table: torch.Tensor, genes: np.ndarray, vocabulary: Vocabulary, config: Config, variant: str) -> Tokens:
    """Protein vectors of the special tokens and of ``genes`` (token numbers)."""
    used = np.unique(np.concatenate([[vocabulary.start, vocabulary.pad], genes]))
    local = np.zeros(len(vocabulary.token), dtype=np.int32)
    local[used] = np.arange(len(used))
    if vocabulary.vectors is None:
        if len(table) != len(vocabulary.token):
            raise UserError(
                f"the table of {WEIGHTS} has {len(table)} tokens, config.json and vocabs/ name {len(vocabulary.token)}: these "
                f"files do not belong together. {fetch_hint(variant)}"
            )
        vectors = table[torch.from_numpy(used)].float()
    else:
        vectors = _other_vectors(table, used, vocabulary, config, variant)
    return Tokens(local=local, vectors=vectors, pad=int(local[vocabulary.pad]))


def _other_vectors(table: torch.Tensor, used: np.ndarray, vocabulary: Vocabulary, config: Config, variant: str) -> torch.Tensor:
    """The checkpoint's vectors for special tokens, those of the file for genes."""
    names = list(vocabulary.token)
    special = [number for number in used if number < len(config.specials)]
    genes = read_vectors(vocabulary.vectors, [names[number] for number in used[len(special) :]], variant)
    if genes.shape[1] != table.shape[1]:
        raise UserError(f"{vocabulary.vectors} has vectors of {genes.shape[1]} numbers, the checkpoint of {table.shape[1]}.")
    rows = [config.specials.index(names[number]) for number in special]
    return torch.cat([table[rows].float(), torch.from_numpy(genes)])
