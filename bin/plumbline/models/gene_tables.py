"""The gene embeddings that a checkpoint holds: one vector per gene, as the model looks it up before any cell is seen.

One function per family, which reads what its embedding script reads and runs no forward pass. UCE, STATE and TranscriptFormer
hold no gene embeddings of their own but protein vectors (ESM2), which were made without expression data.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from plumbline.common.errors import NotApplicable, UserError
from plumbline.embedding.options import Options
from plumbline.models.shared.gene_table import GeneTable, by_symbol

if TYPE_CHECKING:
    import torch

PROTEINS = "protein vectors (ESM2)"


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


def _geneformer(options: Options) -> GeneTable:
    from plumbline.embedding.weights import load_tensors
    from plumbline.models.geneformer.files import find_files
    from plumbline.models.geneformer.network import tensor_file

    files = find_files(options)
    tensors = load_tensors(tensor_file(files.folder, options.variant), options.variant)
    token = {name: number for name, number in files.dictionaries.token.items() if not name.startswith("<")}
    return GeneTable.of(token, _tensor(tensors, "bert.embeddings.word_embeddings.weight", options, files.shape.vocabulary))


def _scgpt(options: Options) -> GeneTable:
    from plumbline.embedding.weights import load_tensors
    from plumbline.models.scgpt.network import find_folder
    from plumbline.models.scgpt.tokens import SPECIALS, load_vocabulary

    folder = find_folder(options)
    vocabulary = load_vocabulary(folder / "vocab.json", options.variant)
    token = {name: number for name, number in vocabulary.items() if name not in SPECIALS}
    tensors = load_tensors(folder / "best_model.pt", options.variant)
    return GeneTable.of(token, _tensor(tensors, "encoder.embedding.weight", options, len(vocabulary)))


def _tahoe_x1(options: Options) -> GeneTable:
    from plumbline.models.tahoe_x1.files import find_folder, read_architecture, read_encoding, read_tensors, weights_file

    folder = find_folder(options)
    vocabulary = read_encoding(folder, options.variant).vocabulary
    token = {name: number for name, number in vocabulary.items() if not name.startswith("<")}
    tensors, rows = read_tensors(weights_file(folder), options.variant), read_architecture(folder, options.variant).tokens
    table = _tensor(tensors, "gene_encoder.embedding.weight", options, rows)
    _require_rows(max(token.values(), default=0) < rows, rows, options)
    return GeneTable.of(token, table)


def _scfoundation(options: Options) -> GeneTable:
    from plumbline.models.scfoundation.checkpoint import KEYS, N_OTHERS, find_file, read_part
    from plumbline.models.scfoundation.tokens import gene_file, read_genes
    from plumbline.models.shared.fitting import choice

    file = find_file(options.weights, options.variant)
    names = read_genes(gene_file(file.parent), options.variant)
    part = read_part(file, KEYS[choice(options, "version", tuple(KEYS))], options.variant)
    table = _tensor(part.tensors, "pos_emb.weight", options, len(names) + N_OTHERS)
    return GeneTable.of({name: row for row, name in enumerate(names)}, table)


def _nicheformer(options: Options) -> GeneTable:
    from plumbline.models.nicheformer.files import find_files, read_checkpoint, read_genes
    from plumbline.models.nicheformer.network import EXTRA_TOKENS
    from plumbline.models.nicheformer.tokens import FIRST_GENE

    files = find_files(options, "")
    ids = read_genes(files.genes, options.variant)
    _, state = read_checkpoint(files.checkpoint, options.variant)
    token = {name: FIRST_GENE + place for place, name in enumerate(ids) if name.startswith("ENSG")}
    return GeneTable.of(token, _tensor(state, "embeddings.weight", options, FIRST_GENE + len(ids) + EXTRA_TOKENS))


def _scconcept(options: Options) -> GeneTable:
    from plumbline.models.scconcept.files import FOLDERS, read_config, read_genes, read_state, species_of
    from plumbline.models.scconcept.network import gene_vectors, load_network
    from plumbline.models.shared.folders import find_model

    folder = find_model(options, "scconcept", "model.ckpt", FOLDERS)
    species = species_of(folder, "human")
    if species is None:
        raise NotApplicable(f"{options.variant} has no human genes")
    genes = read_genes(folder, species, options.variant)
    parts = read_state(folder, options.variant), read_config(folder, options.variant), species
    network, learnable, pretrained = load_network(*parts, folder / "model.ckpt", options.variant)
    _require_rows(len(learnable) == genes.rows, len(learnable), options)
    return GeneTable.of(genes.token, gene_vectors(network, learnable, pretrained))


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
    _require_rows(max(place.values(), default=0) < len(table), len(table), options)
    return GeneTable.of(place, table, PROTEINS)


def _transcriptformer(options: Options) -> GeneTable:
    from plumbline.models.shared.folders import find_model
    from plumbline.models.transcriptformer.checkpoint import load_network, own_vocabulary
    from plumbline.models.transcriptformer.files import FOLDERS, read_config

    folder, variant = find_model(options, "transcriptformer", "config.json", FOLDERS), options.variant
    config = read_config(folder, variant)
    _, table = load_network(folder, config, variant)
    token = own_vocabulary(folder, config, variant).token
    _require_rows(len(table) == len(token), len(table), options)
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


def _tensor(tensors: dict, name: str, options: Options, rows: int) -> "torch.Tensor":
    """A table of the checkpoint. Raises UserError where it lacks it, or the table has not as many rows as its names tell."""
    table = tensors.get(name) if isinstance(tensors, dict) else None
    if table is None or table.ndim != 2:
        from plumbline.embedding.checkpoints import fetch_hint

        raise UserError(f"{options.variant}: the checkpoint has no table {name}. {fetch_hint(options.variant)}")
    _require_rows(len(table) == rows, len(table), options)
    return table


def _require_rows(fits: bool, rows: int, options: Options) -> None:
    """Raises UserError where names do not fit the table: genes would get the vectors of others."""
    if not fits:
        from plumbline.embedding.checkpoints import fetch_hint

        raise UserError(
            f"{options.variant}: the checkpoint has {rows} gene vectors, and its files name another number of genes: they do "
            f"not belong together. {fetch_hint(options.variant)}"
        )


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
