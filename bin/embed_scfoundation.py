#!/usr/bin/env python3
"""Embed the cells of a raw-count h5ad with scFoundation, from the authors' models.ckpt.

Settings: tgthighres (value of token T: t4, the default, T = 4; a5, T = log10(depth) + 5; f1, T = log10(1 x depth)), version
(ce, the default: the model of key cell; rde: of read-depth enhancement), pool (all, the default: tokens S and T, maximum and
mean over genes; max: maximum over all tokens), pre_normalized=true (X holds log1p of counts per 10,000; token S is then log10
of the sum of these, as upstream), checkpoint=own, organism, orthologs, precision, measure_precision; untrained=true: tiny
random weights, made from the seed for these genes, in place of --weights (a floor).
"""

from functools import partial
from pathlib import Path

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run
from plumbline.models.runtime import cells as runtime
from plumbline.models.shared import genes, untrained

SETTINGS = ("tgthighres", "version", "pool", "pre_normalized", "checkpoint")


def embed(counts: Counts, options: Options) -> Result:
    """values (n_cells, 3072 for the published model; 768 with pool=max); NaN rows for cells of a total of 1 or less."""
    if untrained.is_untrained(options):
        from plumbline.models.scfoundation.untrained import make_checkpoint

        return untrained.embed_untrained(embed, make_checkpoint, counts, options)
    from plumbline.models.scfoundation import tokens
    from plumbline.models.scfoundation.checkpoint import KEYS, find_file
    from plumbline.models.scfoundation.network import POOLS
    from plumbline.models.shared.fitting import choice

    pre_normalized = bool(options.get("pre_normalized", False))
    human = genes.human_counts(counts, options, kinds=("counts", "log") if pre_normalized else ("counts",), by="symbol")
    version, pool = choice(options, "version", tuple(KEYS)), choice(options, "pool", POOLS)
    target = str(options.get("tgthighres", "t4"))
    file = find_file(options.weights, options.variant)
    names = tokens.read_genes(tokens.gene_file(file.parent), options.variant)
    tokenizer = tokens.Tokenizer(human.counts.symbol, names, tokens.read_target(target), pre_normalized)
    genes.require_genes(int(tokenizer.known.sum()), human.counts.symbol, options.variant)
    build = partial(build_model, file, KEYS[version], options.variant, len(names), tokenizer, pool)
    done = runtime.embed_cells(human.counts, options, build)
    how = {"tgthighres": target, "version": version, "pool": pool, "pre_normalized": pre_normalized}
    return done.result(
        genes_used=int(tokenizer.known.sum()),
        genes_total=len(tokenizer.known),
        extra={**how, **facts(file, options), **human.facts()},
    )


def build_model(file: Path, key: str, variant: str, n_genes: int, tokenizer, pool: str, device: str):
    """The model on one device; each GPU's process builds its own."""
    from plumbline.models.scfoundation.checkpoint import load_network
    from plumbline.models.scfoundation.network import ScFoundationCells

    return ScFoundationCells(load_network(file, key, variant, n_genes), tokenizer, pool, device)


def facts(file: Path, options: Options) -> dict:
    """Checkpoint, list of genes and their hashes, for the provenance."""
    from plumbline.common.files import sha256
    from plumbline.embedding.weights import verify
    from plumbline.models.scfoundation.tokens import gene_file

    own = options.settings.get("checkpoint") == "own"
    weights = [verify(file, options.variant, own)]
    about = {"checkpoint": file.parent.name, "checkpoint_sha256": weights[0]["sha256"], "weights": weights}
    return about | {"gene_list_sha256": sha256(gene_file(file.parent))}


if __name__ == "__main__":
    run("scfoundation", embed, (*SETTINGS, *genes.SETTINGS, *runtime.SETTINGS, *runtime.LAYERS, *untrained.SETTINGS))
