"""Cells embedded by scConcept, zero-shot. Settings: see bin/embed_scconcept.py."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts
from plumbline.embedding.checkpoints import fetch_hint
from plumbline.embedding.options import Options, Result
from plumbline.embedding.weights import verify
from plumbline.models.runtime.cells import embed_cells
from plumbline.models.runtime.devices import pick_device
from plumbline.models.scconcept.files import FOLDERS, SAMPLINGS, Config, Genes, read_config, read_genes, read_state, species_of
from plumbline.models.scconcept.network import ScConceptCells, gene_vectors, load_network
from plumbline.models.scconcept.tokens import Tokenizer, tokens_of
from plumbline.models.shared import genes as shared_genes
from plumbline.models.shared.fitting import at_least, choice, x_kind
from plumbline.models.shared.folders import find_model


def embed(counts: Counts, options: Options) -> Result:
    """Unit vectors (n_cells, 512 or 1024 in the released models); NaN rows for cells in which no gene has a token.

    Raises NotApplicable for values that are no counts and for species without tokens, UserError for unfit files.
    """
    variant, folder = options.variant, find_model(options, "scconcept", "model.ckpt", FOLDERS)
    config = read_config(folder, variant)
    sampling = choice(options, "sampling", (config.sampling, *(name for name in SAMPLINGS if name != config.sampling)))
    counts, species, about = genes_of(counts, folder, options)
    genes = read_genes(folder, species, variant)
    token = tokens_of(counts.ensembl_id, counts.symbol, genes, bool(options.get("strip_versions", False)))
    shared_genes.require_genes(int((token >= 0).sum()), counts.ensembl_id, variant)
    max_tokens = at_least(options, "max_tokens", config.max_tokens, 1)
    source = Source(folder=folder, config=config, genes=genes, species=species, variant=variant)
    learnable = bool(options.get("learnable", True))
    if sampling == "random-nonzero":  # one stream of random numbers: one device
        options = replace(options, device=pick_device(options.device))
    tokenizer = Tokenizer(token, max_tokens, sampling, config.log, config.cls_value)
    done = embed_cells(counts, options, partial(build, source, tokenizer, learnable))
    files = (folder / "model.ckpt", folder / "config.yaml", folder / "gene_mappings" / f"{species}.csv")
    weights = [verify(file, variant, options.get("checkpoint", "") == "own") for file in files]
    random = "genes are drawn by one stream of random numbers" if sampling == "random-nonzero" else ""
    return done.result(
        genes_used=int((token >= 0).sum()),
        genes_total=len(token),
        extra={
            "sampling": sampling,
            "max_tokens": max_tokens,
            "learnable": learnable,
            "species": species,
            "attends_across_cells": False,
            "depends_on_order": bool(random),
            "depends_on_gene_order": random,
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
    genes: Genes
    species: str
    variant: str


def build(source: Source, tokenizer: Tokenizer, learnable: bool, device: str) -> ScConceptCells:
    """The model on one device. Raises UserError for a cell longer than the positions, and for tables of other genes."""
    file, hint = source.folder / "model.ckpt", fetch_hint(source.variant)
    state = read_state(source.folder, source.variant)
    network, own, pretrained = load_network(state, source.config, source.species, file, source.variant)
    if not learnable and pretrained is None:
        raise UserError(f"--set learnable=false: {source.folder.name} has no pretrained gene vectors. Leave it away.")
    if len(own) != source.genes.rows:
        raise UserError(
            f"{file} has {len(own)} genes and gene_mappings/{source.species}.csv {source.genes.rows}: they do not belong "
            f"together. {hint}"
        )
    if not source.config.values and tokenizer.max_tokens >= network.positional_encoder.pe.shape[1]:
        at_most = network.positional_encoder.pe.shape[1] - 1
        raise UserError(f"--set max_tokens={tokenizer.max_tokens}: {source.folder.name} has positions for {at_most} genes.")
    return ScConceptCells(network, gene_vectors(network, own if learnable else None, pretrained), tokenizer, device)


def genes_of(counts: Counts, folder: Path, options: Options) -> tuple[Counts, str, dict]:
    """(counts, species, provenance): under a species' own ids where the model has it, else through human orthologs."""
    species = species_of(folder, shared_genes.organism_of(counts, options))
    if species and "orthologs" not in options.settings:
        if x_kind(options) != "counts":
            raise NotApplicable(f"{options.variant} needs counts and the data set holds {x_kind(options)} values")
        return counts, species, {}
    human = shared_genes.human_counts(counts, options)
    return human.counts, "hsapiens", human.facts()
