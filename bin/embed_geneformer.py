#!/usr/bin/env python3
"""Embed the cells of a raw-count h5ad with Geneformer (V1 or V2), from the authors' checkpoint files.

Settings: layer (0 the last; -1, the default, the one before it, as upstream), pooling (cell: mean over genes; cls: the <cls>
token, V2 only and its default), max_length (tokens a cell; default: what the model takes), collapse (sum: columns of one gene
are summed; upstream: only where upstream's test notices them), strip_versions (ENSG....7 -> ENSG...), model_dir (folder of
config.json below --weights), checkpoint=own, organism, orthologs, precision, measure_precision; with a head: tune (lora
or last: train the model with it), tune_rank (8, of lora), tune_layers (1, of last); untrained=true: tiny random weights, made
from the seed for these genes, in place of --weights (a floor).
"""

from functools import partial

import numpy as np

from plumbline.common.errors import UserError
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run
from plumbline.models.runtime import cells as runtime
from plumbline.models.shared import genes, untrained

SETTINGS = ("layer", "pooling", "max_length", "collapse", "strip_versions", "model_dir", "checkpoint", *runtime.LAYERS)


def embed(counts: Counts, options: Options) -> Result:
    """values (n_cells, hidden size); NaN rows for cells in which no gene has a token."""
    if untrained.is_untrained(options):
        from plumbline.models.geneformer.untrained import make_checkpoint

        return untrained.embed_untrained(embed, make_checkpoint, counts, options)
    from plumbline.models.geneformer.files import find_files

    human = genes.human_counts(counts, options)
    counts, ensembl, symbol = human.counts, human.counts.ensembl_id, human.counts.symbol
    files = find_files(options)
    names = np.where(ensembl == "", symbol, ensembl)
    tokenizer = build_tokenizer(ensembl, symbol, files, options)
    genes.require_genes(int(tokenizer.known.sum()), names, options.variant)
    pooling = choose_pooling(files.dictionaries.has_specials, options)
    layer = int(options.get("layer", -1))
    build = partial(build_model, tokenizer, files, options.variant, pooling, layer)
    tuning = {}
    if "tune" in options.settings:
        from plumbline.models.objectives.tuning import tuned

        build, tuning["tuning"] = tuned(build, counts, options)
    done = runtime.embed_cells(counts, options, build)
    extra = {
        "layer": layer,
        "pooling": pooling,
        "max_length": max_length(files, options),
        **files.facts(options),
        **human.facts(),
        **tuning,
    }
    return done.result(
        genes_used=int(tokenizer.known.sum()),
        genes_total=len(names),
        extra=extra,
    )


def build_tokenizer(ensembl: np.ndarray, symbol: np.ndarray, files, options: Options):
    """The rank-value encoding of this file's genes."""
    from plumbline.models.geneformer.tokens import Tokenizer, canonical_ids, sums_duplicates_upstream

    mapping = files.dictionaries.mapping
    canonical = canonical_ids(ensembl, symbol, mapping, bool(options.get("strip_versions", False)))
    collapse = str(options.get("collapse", "sum"))
    if collapse not in ("sum", "upstream"):
        raise UserError(f"--set collapse={collapse}: expected sum or upstream.")
    sums = collapse == "sum" or sums_duplicates_upstream(np.where(ensembl == "", symbol, ensembl), mapping)
    return Tokenizer(canonical, files.dictionaries, max_length(files, options), sums)


def max_length(files, options: Options) -> int:
    """Tokens a cell, at most what the model has positions for."""
    length = int(options.get("max_length", files.shape.positions))
    if not 3 <= length <= files.shape.positions:
        raise UserError(f"--set max_length={length}: {files.folder.name} takes 3 to {files.shape.positions} tokens.")
    return length


def choose_pooling(has_specials: bool, options: Options) -> str:
    """cell or cls; upstream's default is cls where there is a <cls> token."""
    pooling = str(options.get("pooling", "cls" if has_specials else "cell"))
    if pooling not in ("cell", "cls"):
        raise UserError(f"--set pooling={pooling}: expected cell or cls.")
    if pooling == "cls" and not has_specials:
        raise UserError("--set pooling=cls: this model has no <cls> token (Geneformer V1); use pooling=cell.")
    return pooling


def build_model(tokenizer, files, variant: str, pooling: str, layer: int, device: str):
    """The model on one device; each GPU's process builds its own."""
    from plumbline.models.geneformer.network import GeneformerCells, load_geneformer

    model = load_geneformer(files.folder, variant, layer)
    return GeneformerCells(model, tokenizer, pooling, files.dictionaries.token["<pad>"], device)


if __name__ == "__main__":
    run("geneformer", embed, (*SETTINGS, *genes.SETTINGS, *runtime.SETTINGS, *runtime.TUNING, *untrained.SETTINGS))
