#!/usr/bin/env python3
"""Embed the cells of a raw-count h5ad with Tahoe-x1, from the authors' model folder (vocab.json, model_config.yml,
collator_config.yml and model.safetensors, or best-model.pt).

Settings: max_length (tokens a cell with <cls>, 2048 as upstream; a cell with more genes is represented by a random choice),
sampling (cell, the default: the choice comes from the cell's id and the seed; upstream: one stream after torch.manual_seed,
cell after cell, on one device), gene_order (token, the default: the order of the file's columns does not enter; file: it does,
as upstream: the 3B model then reads the raw count of the first expressed gene), layer (embed layers[NAME] in place of X),
model_dir (folder of model_config.yml below --weights), checkpoint=own, organism, orthologs, precision (on a GPU bf16, as
upstream), measure_precision; untrained=true: tiny random weights, made from the seed for these genes, in place of --weights (a
floor).
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from plumbline.common.devices import is_gpu
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run
from plumbline.models.runtime import cells as runtime
from plumbline.models.shared import genes, untrained

SETTINGS = ("max_length", "sampling", "gene_order", "layer", "model_dir", "checkpoint")


def embed(counts: Counts, options: Options) -> Result:
    """values (n_cells, 512, 2048 or 2560) of length 1; NaN rows for cells in which no gene is known."""
    if untrained.is_untrained(options):
        from plumbline.models.tahoe_x1.untrained import make_checkpoint

        return untrained.embed_untrained(embed, make_checkpoint, counts, options)
    from plumbline.models.tahoe_x1.files import find_folder, read_encoding

    human = genes.human_counts(counts, options, by="ensembl_id")
    counts, ensembl = human.counts, human.counts.ensembl_id
    folder = find_folder(options)
    encoding = read_encoding(folder, options.variant)
    options, how = choose(options)
    tokenizer = make_tokenizer(counts, encoding, options, how)
    n_known = int(tokenizer.known.sum())
    genes.require_genes(n_known, ensembl, options.variant)
    if "layer" in options.settings:
        counts = counts.layer(options.settings["layer"])
    if how["gene_order"] == "file":
        how["depends_on_gene_order"] = "tokens in the order of the file's columns (gene_order=file)"
    done = runtime.embed_cells(counts, options, partial(build_model, folder, options.variant, encoding, tokenizer))
    return done.result(
        genes_used=n_known,
        genes_total=len(ensembl),
        extra={**how, "keep_first": tokenizer.keep, **facts(folder, options), **human.facts()},
    )


def choose(options: Options) -> tuple[Options, dict]:
    """(options with device and precision settled, {max_length, sampling, gene_order})."""
    from plumbline.models.runtime.devices import pick_device, pick_devices
    from plumbline.models.shared.fitting import at_least, choice
    from plumbline.models.tahoe_x1.tokens import GENE_ORDERS

    how = {
        "max_length": at_least(options, "max_length", 2048, 3),
        "sampling": choice(options, "sampling", ("cell", "upstream")),
        "gene_order": choice(options, "gene_order", GENE_ORDERS),
    }
    if options.get("precision", "auto") == "auto" and is_gpu(pick_devices(options.device)[0]):
        options = replace(options, settings=options.settings | {"precision": "bf16"})  # what it was trained in
    if how["sampling"] == "upstream":  # one stream of random numbers: one device
        options = replace(options, device=pick_device(options.device))
    return options, how


def make_tokenizer(counts: Counts, encoding, options: Options, how: dict):
    """Tokens and values of this file's cells."""
    from plumbline.models.shared.chance import CellChance, UpstreamChance
    from plumbline.models.tahoe_x1.tokens import Tokenizer

    chance = UpstreamChance(options.seed) if how["sampling"] == "upstream" else CellChance(counts.cell_id, options.seed)
    return Tokenizer(counts.ensembl_id, encoding, how["max_length"], how["gene_order"], chance)


def build_model(folder: Path, variant: str, encoding, tokenizer, device: str):
    """The model on one device; each GPU's process builds its own."""
    from plumbline.models.tahoe_x1.network import TahoeCells, load_network

    return TahoeCells(load_network(folder, variant, encoding), tokenizer, encoding.pad_token, device)


def facts(folder: Path, options: Options) -> dict:
    """Checkpoint and hashes, for the provenance."""
    from plumbline.embedding.weights import verify
    from plumbline.models.tahoe_x1.files import COLLATOR, CONFIG, VOCABULARY, weights_file

    own = options.settings.get("checkpoint") == "own"
    files = (weights_file(folder), folder / VOCABULARY, folder / CONFIG, folder / COLLATOR)
    weights = [verify(file, options.variant, own) for file in files]
    return {"checkpoint": folder.name, "checkpoint_sha256": weights[0]["sha256"], "weights": weights}


if __name__ == "__main__":
    run("tahoe_x1", embed, (*SETTINGS, *genes.SETTINGS, *runtime.SETTINGS, *runtime.LAYERS, *untrained.SETTINGS))
