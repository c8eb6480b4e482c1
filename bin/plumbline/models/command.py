"""The command line every ``bin/embed_<model>.py`` shares, and the provenance every embedding carries.

run("scgpt", embed)      # embed(counts: Counts, options: Options) -> Result

Every script also takes --set head=contrastive|classify: a head trained on the fitting cells' perturbations (models/head.py).
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from plumbline.common.arguments import SEEDS, Parser, whole
from plumbline.common.errors import NotApplicable, UserError, run_script
from plumbline.common.threads import limit_threads
from plumbline.common.usage import usage
from plumbline.counts.reading import Counts, open_counts, require_raw
from plumbline.data.facts import read_facts
from plumbline.embedding.contract import write_embedding, write_not_applicable
from plumbline.embedding.options import Options, Result, Source
from plumbline.genes.names import shared_genes
from plumbline.models.shared.damage import damaged

MIN_SHARED = 50  # genes
HEAD_SETTINGS = {
    "head": "contrastive or classify: train a head on the perturbations of the fitting cells, and embed by its output",
    "head_dim": "dimensions of that output (64)",
    "head_hidden": "units of a hidden layer (0: the head is linear)",
    "head_temperature": "of the contrastive loss (0.2)",
    "head_epochs": "at most (100; training stops 10 epochs after the best on held-out batches of the fitting cells)",
    "head_learning_rate": "of AdamW (0.001)",
    "head_weight_decay": "of AdamW (1.0)",
    "head_checkpoint": "file written after each epoch, from which a killed run goes on",
}


def run(
    model: str,
    embed: Callable[[Counts, Options], Result],
    known_settings: tuple[str, ...] = (),
    takes_embedding: bool = False,
) -> None:
    """Parse the arguments, embed, write embedding and provenance. A NotApplicable is written as such and exits 0."""
    run_script(lambda: _main(model, embed, known_settings, takes_embedding))


def _main(
    model: str, embed: Callable[[Counts, Options], Result], known_settings: tuple[str, ...], takes_embedding: bool
) -> None:
    parser = _parser(model, known_settings, takes_embedding)
    arguments = parser.parse_args()
    options = _options(arguments, known_settings)
    limit_threads(options.threads)
    start = time.monotonic()
    counts = opened(arguments.counts, arguments.layer, options, values_used=not takes_embedding)
    about = embed_to(arguments.output, model, embed, counts, options, arguments.source, start)
    if "seconds" in about:
        speed = f"{about['seconds']:.1f} s, {about['cells_per_second']:.0f} cells/s"
        print(f"{model}: {len(counts.cell_id)} cells, {speed}", file=sys.stderr)


def embed_to(
    output: Path,
    model: str,
    embed: Callable[[Counts, Options], Result],
    counts: Counts,
    options: Options,
    source: Path | None = None,
    start: float | None = None,
) -> dict:
    """Embed ``counts`` and write the two files of the border; returns the provenance. A NotApplicable is written as such.

    Hidden states (setting layers) are further embeddings, <output>.layer4.npz of a variant named <variant>.layer4.

    source: folder with counts.h5ad and tables/ of another data set to fit on. start: when the step began (time.monotonic()).
    """
    start = time.monotonic() if start is None else start
    about = {"model": model} | {name: getattr(options, name) for name in ("variant", "seed", "fit_on", "settings")}
    try:
        counts = damaged(counts, options.fit_on, source is not None)
        if source:
            counts, options = _on_shared_genes(counts, options, source)
        result = _embed(embed, counts, options)
    except NotApplicable as reason:
        print(f"not applicable: {reason}", file=sys.stderr)
        write_not_applicable(output, str(reason), about)
        return about
    about |= {
        "genes_used": result.genes_used,
        "genes_total": result.genes_total,
        **({"genes_shared": counts.shape[1]} if options.source else {}),
        "counts_used": result.counts_used,
        "unembedded_cells": result.unembedded,
        **_cost(options, len(counts.cell_id), start),
        **result.extra,
    }
    for name, values in result.layers.items():
        named = about | {"variant": f"{about['variant']}.{name}"}
        write_embedding(output.with_name(f"{output.stem}.{name}.npz"), counts.cell_id, values, named)
    write_embedding(output, counts.cell_id, result.values, about)
    return about


def opened(path: Path, layer: str, options: Options, values_used: bool = True) -> Counts:
    """The counts to embed. Raises UserError if they are none and PREPARE's facts do not say so."""
    counts = replace(open_counts(path, layer), x_kind=read_facts(options.tables).get("x_kind", "counts"))
    if values_used and not options.tables and "layer" not in options.settings:
        require_raw(counts)
    return counts


def _embed(embed: Callable[[Counts, Options], Result], counts: Counts, options: Options) -> Result:
    if "head" not in options.settings:
        return embed(counts, options)
    from plumbline.models.objectives.head import embed_with_head

    return embed_with_head(embed, counts, options)


def _parser(model: str, known_settings: tuple[str, ...], takes_embedding: bool) -> argparse.ArgumentParser:
    settings = f" Known: {', '.join(known_settings)}." if known_settings else ""
    heads = "Settings of a head: " + "; ".join(f"{name}: {text}" for name, text in HEAD_SETTINGS.items()) + "."
    parser = Parser(description=f"Embed the cells of a raw-count h5ad with {model}.", epilog=heads)
    parser.add_argument("--counts", "--input", type=Path, required=True, help="h5ad with raw counts in X")
    parser.add_argument("--layer", default="X", help="where the raw counts are, if not in X: raw, or the name of a layer")
    parser.add_argument("--output", type=Path, required=True, help="embedding.npz; provenance goes to embedding.json beside it")
    own = "file that holds the embedding, keyed by cell id" if takes_embedding else "folder of the authors' checkpoint files"
    parser.add_argument("--weights", "--embedding", type=Path, required=takes_embedding, help=own)
    parser.add_argument("--variant", default=model, help="a row of assets/models.csv")
    parser.add_argument("--tables", type=Path, help="PREPARE's tables (splits, cells); needed to fit on the train split")
    parser.add_argument(
        "--fit-on", default="all", help="cells a trained model is fitted on: train, all, train@0.05#1, train+thinned25, ..."
    )
    parser.add_argument("--source", type=Path, help="folder with counts.h5ad and tables/ of another data set to fit on")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=f"a setting of the model.{settings}")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0, ...")
    parser.add_argument("--batch-size", type=whole(0), default=0, help="cells a batch; 0 chooses from the memory")
    parser.add_argument("--seed", type=whole(*SEEDS), default=42)
    parser.add_argument("--threads", type=whole(1), default=os.cpu_count() or 1)
    return parser


def _options(arguments: argparse.Namespace, known: tuple[str, ...]) -> Options:
    settings = {}
    known = (*known, *HEAD_SETTINGS)
    for pair in arguments.set:
        name, equals, value = pair.partition("=")
        if not equals or name not in known:
            raise UserError(f"--set {pair}: expected KEY=VALUE with KEY one of {', '.join(known)}.")
        settings[name] = value
    headless = [name for name in settings if name.startswith("head_") and "head" not in settings]
    if headless:
        raise UserError(f"--set {headless[0]}={settings[headless[0]]}: there is no head. Add --set head=contrastive.")
    names = ("variant", "weights", "tables", "fit_on", "seed", "device", "batch_size", "threads")
    return Options(settings=settings, **{name: getattr(arguments, name) for name in names})


def _on_shared_genes(counts: Counts, options: Options, folder: Path) -> tuple[Counts, Options]:
    """Both data sets on the genes they share. Raises NotApplicable if these are fewer than MIN_SHARED."""
    kind = read_facts(folder / "tables").get("x_kind", "counts")
    other = replace(open_counts(folder / "counts.h5ad"), x_kind=kind)
    organisms = {read_facts(tables).get("organism", "") for tables in (options.tables, folder / "tables")}
    here, there = shared_genes(counts, other, organisms.pop() if len(organisms) == 1 else "")
    if len(here) < MIN_SHARED:
        raise NotApplicable(f"{len(here)} genes are shared with the data set to fit on; {MIN_SHARED} are needed.")
    source = Source(counts=other.take_genes(there), tables=folder / "tables")
    return counts.take_genes(here), replace(options, source=source)


def _cost(options: Options, n_cells: int, start: float) -> dict:
    used = usage(start)
    speed = {"cells_per_second": round(n_cells / max(used["seconds"], 1e-9), 2)}
    return used | speed | {"threads": options.threads, "device": options.device}
