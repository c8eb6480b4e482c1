#!/usr/bin/env python3
"""Embed the cells of an h5ad with scGPT, from the authors' checkpoint folder (args.json, best_model.pt, vocab.json).

Settings: max_length (tokens a cell with <cls>, 1200 as upstream; a cell with more genes is represented by a random choice),
sampling (cell, the default: random choices from the cell's id and the seed; upstream: one stream after np.random.seed and
torch.manual_seed, cell after cell, on one device), layer (embed layers[NAME] in place of X), model_dir (folder of args.json
below --weights), checkpoint=own, organism, orthologs, precision, measure_precision; with a head: tune (lora
or last: train the model with it), tune_rank (8, of lora), tune_layers (1, of last); untrained=true: tiny random weights, made
from the seed for these genes, in place of --weights (a floor).
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from plumbline.common.errors import UserError
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run
from plumbline.models.runtime import cells as runtime
from plumbline.models.shared import genes, untrained

SETTINGS = ("max_length", "sampling", "layer", "model_dir", "checkpoint")


def embed(counts: Counts, options: Options) -> Result:
    """values (n_cells, 512 for the published models) of length 1; NaN rows for cells in which no gene is known."""
    if untrained.is_untrained(options):
        from plumbline.models.scgpt.untrained import make_checkpoint

        return untrained.embed_untrained(embed, make_checkpoint, counts, options)
    from plumbline.models.runtime.devices import pick_device
    from plumbline.models.scgpt.network import find_folder
    from plumbline.models.scgpt.tokens import load_vocabulary

    human = genes.human_counts(counts, options, kinds=("counts", "log"), by="symbol")
    counts, symbol = human.counts, human.counts.symbol
    folder = find_folder(options)
    vocabulary = load_vocabulary(folder / "vocab.json", options.variant)
    n_known = sum(str(name) in vocabulary for name in symbol)
    genes.require_genes(n_known, symbol, options.variant)
    if "layer" in options.settings:
        counts = counts.layer(options.settings["layer"])
    sampling, max_length = choose_sampling(options), choose_length(options)
    if sampling == "upstream":  # one stream of random numbers: one device
        options = replace(options, device=pick_device(options.device))
    build = partial(build_model, folder, vocabulary, symbol, counts.cell_id, options, max_length, sampling)
    tuning = {}
    if "tune" in options.settings:
        from plumbline.models.objectives.tuning import tuned

        build, tuning["tuning"] = tuned(build, counts, options)
    done = runtime.embed_cells(counts, options, build)
    extra = {
        "max_length": max_length,
        "sampling": sampling,
        "depends_on_gene_order": "ties are broken by random numbers, in the order of the file",
        **facts(folder, options),
        **human.facts(),
        **tuning,
    }
    return done.result(
        genes_used=n_known,
        genes_total=len(symbol),
        extra=extra,
    )


def choose_sampling(options: Options) -> str:
    """cell or upstream."""
    sampling = str(options.get("sampling", "cell"))
    if sampling not in ("cell", "upstream"):
        raise UserError(f"--set sampling={sampling}: expected cell or upstream.")
    return sampling


def choose_length(options: Options) -> int:
    """Tokens a cell, <cls> included."""
    length = int(options.get("max_length", 1200))
    if length < 2:
        raise UserError(f"--set max_length={length}: at least 2 (<cls> and one gene).")
    return length


def build_model(  # noqa: PLR0913 - built from its parts, in the process of each GPU
    folder: Path, vocabulary: dict, symbol, cell_id, options: Options, max_length: int, sampling: str, device: str
):
    """The model on one device; each GPU's process builds its own."""
    from plumbline.models.scgpt.network import ScGPTCells, load_scgpt
    from plumbline.models.scgpt.tokens import Tokenizer
    from plumbline.models.shared.chance import CellChance, UpstreamChance

    chance = CellChance(cell_id, options.seed) if sampling == "cell" else UpstreamChance(options.seed)
    tokenizer = Tokenizer(symbol, vocabulary, max_length, chance)
    return ScGPTCells(load_scgpt(folder, options.variant, len(vocabulary)), tokenizer, vocabulary["<pad>"], device)


def facts(folder: Path, options: Options) -> dict:
    """Checkpoint and hashes, for the provenance."""
    from plumbline.embedding.weights import verify

    own = options.settings.get("checkpoint") == "own"
    weights = [verify(folder / name, options.variant, own) for name in ("best_model.pt", "vocab.json", "args.json")]
    return {"checkpoint": folder.name, "checkpoint_sha256": weights[0]["sha256"], "weights": weights}


if __name__ == "__main__":
    run("scgpt", embed, (*SETTINGS, *genes.SETTINGS, *runtime.SETTINGS, *runtime.LAYERS, *runtime.TUNING, *untrained.SETTINGS))
