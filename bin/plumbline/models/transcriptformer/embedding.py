"""Cells embedded by TranscriptFormer, zero-shot. Settings: see bin/embed_transcriptformer.py."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from plumbline.common.errors import NotApplicable, UserError, did_you_mean
from plumbline.counts.reading import Counts, obs_column
from plumbline.embedding.checkpoints import fetch_hint
from plumbline.embedding.options import Options, Result
from plumbline.embedding.weights import verify
from plumbline.models.runtime.cells import embed_cells
from plumbline.models.shared import genes
from plumbline.models.shared.columns import DUPLICATES, ORDERS, match
from plumbline.models.shared.fitting import at_least, choice, x_kind
from plumbline.models.shared.folders import find_model
from plumbline.models.transcriptformer import checkpoint
from plumbline.models.transcriptformer.files import FOLDERS, Config, read_assays, read_config
from plumbline.models.transcriptformer.network import POOLINGS, ProteinSums, TranscriptFormerCells
from plumbline.models.transcriptformer.tokens import Tokenizer

LATIN = {
    "human": "homo_sapiens",
    "mouse": "mus_musculus",
    "zebrafish": "danio_rerio",
    "fruit fly": "drosophila_melanogaster",
    "chicken": "gallus_gallus",
    "rabbit": "oryctolagus_cuniculus",
}
OUTPUTS, SPECIAL_TOKENS = ("cells", "proteins"), ("repaired", "upstream")


def embed(counts: Counts, options: Options) -> Result:
    """Embeddings (n_cells, 2048 in the released models); NaN rows for cells in which no gene has a token.

    Raises NotApplicable for values that are no counts and for species without tokens, UserError for unfit files.
    """
    variant, folder = options.variant, find_model(options, "transcriptformer", "config.json", FOLDERS)
    config = read_config(folder, variant)
    vocabulary = choose_vocabulary(folder, config, options)
    counts, about = genes_of(counts, options, vocabulary, config)
    how = {"gene_order": choice(options, "gene_order", ORDERS), "duplicates": choice(options, "duplicates", DUPLICATES)}
    ids = np.char.partition(counts.ensembl_id.astype(str), ".")[:, 0]  # without versions
    columns = match(ids, vocabulary.token, how["gene_order"], how["duplicates"])
    genes.require_genes(len(columns.token), counts.ensembl_id, variant)
    assay = read_assay(counts, folder, config, options)
    output = choice(options, "output", OUTPUTS)
    clip = at_least(options, "clip_counts", 30, 1)
    context = config.context + (output == "proteins")  # [START] takes no place where there is none
    tokenizer = Tokenizer(columns, vocabulary.start, context, clip, assay if output == "cells" else None)
    pooling = choice(options, "pooling", POOLINGS)
    source = Source(folder=folder, config=config, vocabulary=vocabulary, variant=variant)
    done = embed_cells(counts, options, partial(build, source, tokenizer, pooling, output))
    weights = [verify(file, variant, options.get("checkpoint", "") == "own") for file in source.files]
    return done.result(
        genes_used=int(columns.known.sum()),
        genes_total=counts.shape[1],
        extra={
            **how,
            "assay": str(options.get("assay", "unknown")),
            "clip_counts": clip,
            "pooling": pooling,
            "output": output,
            "context_length": config.context,
            "attends_across_cells": False,
            "depends_on_gene_order": "tokens in file order" if how["gene_order"] == "file" else "",
            "checkpoint": folder.name,
            "checkpoint_sha256": weights[0]["sha256"],
            "weights": weights,
            **about,
        },
    )


@dataclass(frozen=True, kw_only=True)
class Source:
    """What every GPU's process loads for itself."""

    folder: Path
    config: Config
    vocabulary: checkpoint.Vocabulary
    variant: str

    @property
    def files(self) -> list[Path]:
        """The files that numbers and tokens come from, the weights first."""
        vectors = self.vocabulary.vectors
        names = (
            [self.folder / "vocabs" / Path(name).name for name in self.config.vocabularies] if vectors is None else [vectors]
        )
        return [self.folder / checkpoint.WEIGHTS, self.folder / "config.json", *names]


def build(source: Source, tokenizer: Tokenizer, pooling: str, output: str, device: str) -> TranscriptFormerCells | ProteinSums:
    """The model on one device."""
    network, table = checkpoint.load_network(source.folder, source.config, source.variant)
    tokens = checkpoint.read_tokens(table, tokenizer.columns.token, source.vocabulary, source.config, source.variant)
    n_assays = len(network.aux_embeddings["assay"]["weight"]) if source.config.assays else 0
    if tokenizer.assay is not None and tokenizer.assay.max(initial=0) >= n_assays:
        raise UserError(
            f"assay_vocab.json has a technology number {tokenizer.assay.max()}, but the checkpoint vectors for {n_assays}: "
            f"these files do not belong together. {fetch_hint(source.variant)}"
        )
    if output == "proteins":
        return ProteinSums(source.config.context, tokens, tokenizer, device)
    pads = source.vocabulary.misplaced
    return TranscriptFormerCells(network, source.config, tokens, tokenizer, device, pooling, pads)


def choose_vocabulary(folder: Path, config: Config, options: Options) -> checkpoint.Vocabulary:
    """The checkpoint's genes, or those of the file that setting pretrained_embedding names."""
    name = str(options.get("pretrained_embedding", ""))
    specials = choice(options, "special_tokens", SPECIAL_TOKENS)
    if not name:
        if specials == "upstream":
            raise UserError(
                "--set special_tokens=upstream concerns tables of other species: add --set pretrained_embedding=FILE."
            )
        return checkpoint.own_vocabulary(folder, config, options.variant)
    places = [Path(name), folder / name, folder.parent / name]
    file = next((place for place in places if place.is_file()), places[0])
    return checkpoint.other_vocabulary(file, config, options.variant, specials == "upstream")


def genes_of(counts: Counts, options: Options, vocabulary: checkpoint.Vocabulary, config: Config) -> tuple[Counts, dict]:
    """Counts under the Ensembl ids of a species that has tokens, and what the provenance says of it.

    A species the model knows, or whose protein vectors are given, goes by its own ids; any other as for every model of
    human genes, by orthologs (plumbline.models.shared.genes).
    """
    organism = genes.organism_of(counts, options)
    latin = LATIN.get(organism, organism.replace(" ", "_"))
    known = config.species if vocabulary.vectors is None else (vocabulary.vectors.name.removesuffix("_gene.h5"),)
    if latin in known and "orthologs" not in options.settings:
        if x_kind(options) != "counts":
            raise NotApplicable(f"{options.variant} needs counts and the data set holds {x_kind(options)} values")
        counts, names = genes.named(counts, "ensembl_id", organism)
        return counts, {"species": latin, **names}
    if vocabulary.vectors is not None or "homo_sapiens" not in known:
        raise NotApplicable(f"{options.variant} has tokens of {', '.join(known)} here and the data set is {organism}")
    human = genes.human_counts(counts, options, by="ensembl_id")
    return human.counts, {"species": "homo_sapiens", **human.facts()}


def read_assay(counts: Counts, folder: Path, config: Config, options: Options) -> np.ndarray | None:
    """The number of every cell's assay (n_cells,), or None where no assay enters.

    Setting assay: unknown (default; the token is then seen by nobody, so it is left out), a name of assay_vocab.json, or obs:
    the column assay of the file, as upstream; names it does not know are unknown.
    """
    wanted = str(options.get("assay", "unknown"))
    if wanted == "unknown":
        return None
    if not config.assays:
        raise UserError(f"--set assay={wanted}: {folder.name} has no assay token. Leave it away.")
    assays = read_assays(folder, options.variant)
    if wanted == "obs":
        return np.array([assays.get(str(name), 0) for name in obs_column(counts, "assay")], dtype=np.int64)
    if wanted not in assays:
        raise UserError(f"--set assay={wanted}: not in assay_vocab.json.{did_you_mean(wanted, list(assays))}")
    return np.full(len(counts.cell_id), assays[wanted], dtype=np.int64)
