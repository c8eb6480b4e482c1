"""The gene embeddings that a checkpoint holds: one vector per gene, as the model looks it up before any cell is seen.

One function per family, which reads what its embedding script reads and runs no forward pass. UCE, STATE and TranscriptFormer
hold no gene embeddings of their own but protein vectors (ESM2), which were made without expression data.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plumbline.common.errors import NotApplicable, UserError
from plumbline.embedding.options import Options
from plumbline.genes import names as gene_names

if TYPE_CHECKING:
    import torch

PROTEINS = "protein vectors (ESM2)"
LEARNED = "gene embeddings of the checkpoint"


@dataclass(frozen=True, kw_only=True)
class GeneTable:
    """names (k,): symbols or Ensembl ids, as the model knows its genes. vectors (k, d), float32. kind: what they are."""

    names: np.ndarray
    vectors: np.ndarray
    kind: str = LEARNED

    @staticmethod
    def of(place: Mapping[str, int], table: "torch.Tensor", kind: str = LEARNED) -> "GeneTable":
        """The rows of ``table`` that names stand for. place: name -> row."""
        import torch

        rows = torch.tensor(list(place.values()), dtype=torch.int64)
        return GeneTable(names=np.array(list(place), dtype=str), vectors=table[rows].float().numpy(), kind=kind)


def read_gene_table(model: str, options: Options) -> GeneTable:
    """The table of human genes of a model's checkpoint, ``by_symbol``.

    Raises NotApplicable for a model without one, UserError for files that cannot be used.
    """
    if model not in READERS:
        raise NotApplicable(f"{model} holds no table of gene embeddings")
    found = READERS[model](options)
    if found.vectors.ndim != 2 or not found.vectors.size or not np.isfinite(found.vectors).all():
        raise UserError(f"{options.variant}: the table of gene embeddings is empty, or not of finite vectors.")
    return by_symbol(found)


def by_symbol(table: GeneTable) -> GeneTable:
    """The table by human symbols in upper case, sorted; of a gene that is there twice the first."""
    symbol = gene_names.symbols(table.names, "human")
    names = np.char.upper(np.where(symbol == "", table.names, symbol).astype(str))
    _, first = np.unique(names, return_index=True)
    return GeneTable(names=names[first], vectors=table.vectors[first], kind=table.kind)


def _geneformer(options: Options) -> GeneTable:
    from plumbline.embedding.weights import load_tensors
    from plumbline.models.geneformer.files import find_files
    from plumbline.models.geneformer.network import tensor_file

    files = find_files(options)
    tensors = load_tensors(tensor_file(files.folder, options.variant), options.variant)
    token = {name: number for name, number in files.dictionaries.token.items() if not name.startswith("<")}
    return GeneTable.of(token, _tensor(tensors, "bert.embeddings.word_embeddings.weight", options))


def _scgpt(options: Options) -> GeneTable:
    from plumbline.embedding.weights import load_tensors
    from plumbline.models.scgpt.network import find_folder
    from plumbline.models.scgpt.tokens import SPECIALS, load_vocabulary

    folder = find_folder(options)
    vocabulary = load_vocabulary(folder / "vocab.json", options.variant)
    token = {name: number for name, number in vocabulary.items() if name not in SPECIALS}
    return GeneTable.of(
        token, _tensor(load_tensors(folder / "best_model.pt", options.variant), "encoder.embedding.weight", options)
    )


def _tahoe_x1(options: Options) -> GeneTable:
    from plumbline.models.tahoe_x1.files import find_folder, read_encoding, read_tensors, weights_file

    folder = find_folder(options)
    vocabulary = read_encoding(folder, options.variant).vocabulary
    token = {name: number for name, number in vocabulary.items() if not name.startswith("<")}
    return GeneTable.of(
        token, _tensor(read_tensors(weights_file(folder), options.variant), "gene_encoder.embedding.weight", options)
    )


def _scfoundation(options: Options) -> GeneTable:
    from plumbline.models.scfoundation.checkpoint import KEYS, find_file, read_part
    from plumbline.models.scfoundation.tokens import gene_file, read_genes
    from plumbline.models.shared.fitting import choice

    file = find_file(options.weights, options.variant)
    names = read_genes(gene_file(file.parent), options.variant)
    part = read_part(file, KEYS[choice(options, "version", tuple(KEYS))], options.variant)
    return GeneTable.of({name: row for row, name in enumerate(names)}, _tensor(part.tensors, "pos_emb.weight", options))


def _nicheformer(options: Options) -> GeneTable:
    from plumbline.models.nicheformer.files import find_files, read_checkpoint, read_genes
    from plumbline.models.nicheformer.tokens import FIRST_GENE

    files = find_files(options, "")
    ids = read_genes(files.genes, options.variant)
    _, state = read_checkpoint(files.checkpoint, options.variant)
    token = {name: FIRST_GENE + place for place, name in enumerate(ids) if name.startswith("ENSG")}
    return GeneTable.of(token, _tensor(state, "embeddings.weight", options))


def _scconcept(options: Options) -> GeneTable:
    from plumbline.models.scconcept.files import FOLDERS, read_config, read_genes, read_state, species_of
    from plumbline.models.scconcept.network import gene_vectors, load_network
    from plumbline.models.shared.folders import find_model

    folder = find_model(options, "scconcept", "model.ckpt", FOLDERS)
    species = species_of(folder, "human")
    if species is None:
        raise NotApplicable(f"{options.variant} has no human genes")
    token = read_genes(folder, species, options.variant).token
    parts = read_state(folder, options.variant), read_config(folder, options.variant), species
    network, learnable, pretrained = load_network(*parts, folder / "model.ckpt", options.variant)
    return GeneTable.of(token, gene_vectors(network, learnable, pretrained))


def _cellplm(options: Options) -> GeneTable:
    from plumbline.models.cellplm.checkpoints import find_checkpoint, load_network

    path, config = find_checkpoint(options)
    network = load_network(path, config, options.variant)
    place = {name: row for row, name in enumerate(config["gene_list"])}
    return GeneTable.of(place, network.embedder.feat_enc.emb.detach())


def _uce(options: Options) -> GeneTable:
    from plumbline.models.uce.network import load_network, model_file
    from plumbline.models.uce.tokens import first_token, protein_names

    path, variant = model_file(options), options.variant
    _, table = load_network(path, variant)
    first = first_token(path.parent, variant, "human")
    place = {name: first + place for name, place in protein_names(path.parent, variant, "human").items()}
    return GeneTable.of(place, table, PROTEINS)


def _transcriptformer(options: Options) -> GeneTable:
    from plumbline.models.shared.folders import find_model
    from plumbline.models.transcriptformer.checkpoint import load_network, own_vocabulary
    from plumbline.models.transcriptformer.files import FOLDERS, read_config

    folder, variant = find_model(options, "transcriptformer", "config.json", FOLDERS), options.variant
    config = read_config(folder, variant)
    _, table = load_network(folder, config, variant)
    token = own_vocabulary(folder, config, variant).token
    return GeneTable.of({name: row for name, row in token.items() if name.startswith("ENSG")}, table, PROTEINS)


def _state(options: Options) -> GeneTable:
    import torch

    from plumbline.models.state.files import find_checkpoint, read_checkpoint, read_proteins

    file, variant = find_checkpoint(options), options.variant
    config, loaded = read_checkpoint(file, variant)
    proteins = read_proteins(file, loaded, config, variant)
    return GeneTable.of({name: row for row, name in enumerate(proteins)}, torch.stack(list(proteins.values())), PROTEINS)


def _gene_vectors(options: Options) -> GeneTable:
    from plumbline.models.gene_vectors import find_file, read_vectors

    names, vectors = read_vectors(find_file(options))
    return GeneTable(names=names, vectors=vectors, kind="gene vectors of the file")


def _tensor(tensors: dict, name: str, options: Options) -> "torch.Tensor":
    """A table of the checkpoint. Raises UserError where it lacks it."""
    table = tensors.get(name) if isinstance(tensors, dict) else None
    if table is None or table.ndim != 2:
        from plumbline.embedding.checkpoints import fetch_hint

        raise UserError(f"{options.variant}: the checkpoint has no table {name}. {fetch_hint(options.variant)}")
    return table


READERS: dict[str, Callable[[Options], GeneTable]] = {
    "geneformer": _geneformer,
    "scgpt": _scgpt,
    "tahoe_x1": _tahoe_x1,
    "scfoundation": _scfoundation,
    "nicheformer": _nicheformer,
    "scconcept": _scconcept,
    "cellplm": _cellplm,
    "uce": _uce,
    "transcriptformer": _transcriptformer,
    "state": _state,
    "gene_vectors": _gene_vectors,
}
