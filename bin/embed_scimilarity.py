#!/usr/bin/env python3
"""Embed the cells of a raw-count h5ad with SCimilarity, from the authors' model folder (encoder.ckpt, gene_order.tsv).

Settings: empty (of a cell without a known gene: zeros, the default, embeds zeros, as upstream; nan: a row of NaN), layer (embed
layers[NAME] in place of X), model_dir (folder of encoder.ckpt below --weights), checkpoint=own, organism, orthologs, precision,
measure_precision; untrained=true: tiny random weights, made from the seed for these genes, in place of --weights (a floor).
"""

from functools import partial
from pathlib import Path

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run
from plumbline.models.runtime import cells as runtime
from plumbline.models.shared import genes, untrained

SETTINGS = ("empty", "layer", "model_dir", "checkpoint")


def embed(counts: Counts, options: Options) -> Result:
    """values (n_cells, 128 for the published model) of length 1; setting empty: what a cell without a known gene gets."""
    if untrained.is_untrained(options):
        from plumbline.models.scimilarity.untrained import make_checkpoint

        return untrained.embed_untrained(embed, make_checkpoint, counts, options)
    from plumbline.models.scimilarity.network import GENES, find_folder
    from plumbline.models.scimilarity.tokens import EMPTY, Tokenizer, read_genes
    from plumbline.models.shared.fitting import choice

    human = genes.human_counts(counts, options, by="symbol")
    counts = human.counts
    folder = find_folder(options)
    names = read_genes(folder / GENES, options.variant)
    empty = choice(options, "empty", EMPTY)
    tokenizer = Tokenizer(counts.symbol, names, empty)
    genes.require_genes(int(tokenizer.known.sum()), counts.symbol, options.variant)
    if "layer" in options.settings:
        counts = counts.layer(options.settings["layer"])
    done = runtime.embed_cells(counts, options, partial(build_model, folder, len(names), options.variant, tokenizer))
    return done.result(
        genes_used=int(tokenizer.known.sum()),
        genes_total=len(tokenizer.known),
        extra={"empty": empty, **facts(folder, options), **human.facts()},
    )


def build_model(folder: Path, n_genes: int, variant: str, tokenizer, device: str):
    """The model on one device; each GPU's process builds its own."""
    from plumbline.models.scimilarity.network import SCimilarityCells, load_network

    return SCimilarityCells(load_network(folder, n_genes, variant), tokenizer, device)


def facts(folder: Path, options: Options) -> dict:
    """Checkpoint and hashes, for the provenance."""
    from plumbline.embedding.weights import verify
    from plumbline.models.scimilarity.network import FILE, GENES

    own = options.settings.get("checkpoint") == "own"
    weights = [verify(folder / name, options.variant, own) for name in (FILE, GENES)]
    return {"checkpoint": folder.name, "checkpoint_sha256": weights[0]["sha256"], "weights": weights}


if __name__ == "__main__":
    run("scimilarity", embed, (*SETTINGS, *genes.SETTINGS, *runtime.SETTINGS, *untrained.SETTINGS))
