"""Cells embedded by Nicheformer, zero-shot. Settings: see bin/embed_nicheformer.py."""

from dataclasses import replace
from functools import partial

import numpy as np

from plumbline.common.errors import UserError, did_you_mean
from plumbline.counts.reading import Counts
from plumbline.embedding.checkpoints import fetch_hint
from plumbline.embedding.options import Options, Result
from plumbline.embedding.weights import verify
from plumbline.genes.orthologs import MOUSE
from plumbline.models.nicheformer.files import TECHNOLOGIES, Config, find_files, read_checkpoint, read_genes, read_means
from plumbline.models.nicheformer.network import build, number_of_layers
from plumbline.models.nicheformer.tokens import ASSAY, FIRST_GENE, MODALITY, RANKINGS, SPECIES, Tokenizer, divisors
from plumbline.models.runtime.cells import embed_cells
from plumbline.models.shared import genes
from plumbline.models.shared.columns import DUPLICATES, match
from plumbline.models.shared.fitting import choice

PADDINGS = ("mean", "mask")


def embed(counts: Counts, options: Options) -> Result:
    """Embeddings (n_cells, 512 in the released model); NaN rows for cells that express no gene of the list.

    Raises NotApplicable for values that are no counts and for species without names, UserError for unfit files.
    """
    variant, ranking = options.variant, choice(options, "ranking", RANKINGS)
    technology = choice(options, "technology", TECHNOLOGIES) if ranking != "counts" else ""
    files = find_files(options, technology)
    config, _ = read_checkpoint(files.checkpoint, variant)
    ids = read_genes(files.genes, variant)
    if config.n_tokens != len(ids) + FIRST_GENE:
        raise UserError(
            f"{files.checkpoint} has {config.n_tokens} tokens and {files.genes} {len(ids)} genes: they do not belong together. "
            f"{fetch_hint(variant)}"
        )
    means = read_means(files.means, len(ids), variant) if files.means else None
    counts, species, about = genes_of(counts, ids, options)
    how = {"ranking": ranking, "duplicates": choice(options, "duplicates", DUPLICATES)}
    columns = match(counts.ensembl_id, {name: at for at, name in enumerate(ids)}, duplicates=how["duplicates"])
    genes.require_genes(len(columns.token), counts.ensembl_id, variant)
    padding, layer = choice(options, "padding", PADDINGS), int(options.get("layer", -1))
    number_of_layers(config, layer)
    meta = meta_tokens(config, species, options)
    tokenizer = Tokenizer(columns, divisors(means, ranking, len(ids)), meta, config.context, padding == "mean")
    with_context = bool(options.get("with_context", False))
    done = embed_cells(counts, options, partial(build, files, variant, layer, with_context, tokenizer))
    own = options.get("checkpoint", "") == "own"
    weights = [verify(file, variant, own) for file in (files.checkpoint, files.genes, files.means) if file]
    return done.result(
        genes_used=int(columns.known.sum()),
        genes_total=counts.shape[1],
        extra={
            **how,
            "technology": technology,
            "meta_tokens": meta,
            "padding": padding,
            "layer": layer,
            "with_context": with_context,
            "species": species,
            "attends_across_cells": False,
            "checkpoint": files.checkpoint.name,
            "checkpoint_sha256": weights[0]["sha256"],
            "weights": weights,
            **about,
        },
    )


def genes_of(counts: Counts, ids: list[str], options: Options) -> tuple[Counts, str, dict]:
    """(counts under ids of the model's list, human or mouse, provenance).

    A mouse gene goes by its human ortholog, as in the authors' corpus, but for those that are on the list themselves.
    """
    human = genes.human_counts(counts, options, by="ensembl_id")
    if genes.organism_of(counts, options) not in MOUSE:
        return human.counts, "human", human.facts()
    own = np.where(np.isin(counts.ensembl_id, ids) & (human.counts.ensembl_id == ""), counts.ensembl_id, "")
    merged = human.counts.ensembl_id.astype(object) + own.astype(object)
    return replace(human.counts, ensembl_id=merged.astype(str)), "mouse", human.facts()


def meta_tokens(config: Config, species: str, options: Options) -> list[int]:
    """The tokens in front of the genes: the same for all cells, so that no technology tells batches apart."""
    chosen = {"specie": SPECIES[species]}
    for name, known, default in (("assay", ASSAY, "10x 3'"), ("modality", MODALITY, "dissociated")):
        value = str(options.get(name, default)).lower()
        if value not in known:
            raise UserError(f"--set {name}={value}: unknown.{did_you_mean(value, list(known))}")
        chosen[name] = known[value]
    return [chosen[name] for name in config.meta]
