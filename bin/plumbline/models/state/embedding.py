"""Cells embedded by STATE's cell embedding, zero-shot. Settings: see bin/embed_state.py."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from plumbline.common.errors import UserError
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.embedding.weights import verify
from plumbline.models.runtime.cells import embed_cells
from plumbline.models.runtime.devices import pick_device
from plumbline.models.shared import genes
from plumbline.models.shared.columns import Columns, match
from plumbline.models.shared.fitting import at_least, choice, x_kind
from plumbline.models.state.files import CONFIG, PROTEINS, Config, find_checkpoint, read_checkpoint, read_proteins
from plumbline.models.state.network import StateCells, load_network
from plumbline.models.state.tokens import CLS_VALUES, INPUTS, CellChance, Rule, Tokenizer, UpstreamChance

SAMPLINGS, DUPLICATES = ("cell", "upstream"), ("sum", "keep")


def embed(counts: Counts, options: Options) -> Result:
    """Embeddings (n_cells, output) of length 1; NaN rows for cells that express no known gene.

    Raises NotApplicable for signed values and for species without human names, UserError for unfit files.
    """
    variant, file = options.variant, find_checkpoint(options)
    human = genes.human_counts(counts, options, kinds=("counts", "log"), by="symbol")
    counts = human.counts.layer(options.settings["layer"]) if "layer" in options.settings else human.counts
    config, loaded = read_checkpoint(file, variant)
    place = {name: at for at, name in enumerate(read_proteins(file, loaded, config, variant))}
    how = choose(options)
    columns = match_columns(counts.symbol, place, how)
    genes.require_genes(len(columns.token), counts.symbol, variant)
    length = at_least(options, "pad_length", config.length, 2)
    cls_column = cls_place(columns, config) if how["cls_value"] == "upstream" else None
    rule = Rule(length=length, kind=how["input"], cls_column=cls_column)
    upstream = how["sampling"] == "upstream"
    if upstream:  # one stream of random numbers: one device
        options = replace(options, device=pick_device(options.device))
    chance = UpstreamChance(options.seed, config) if upstream else CellChance(counts.cell_id, options.seed)
    tokenizer, code = Tokenizer(columns, rule, chance), bool(options.get("dataset_code", False))
    done = embed_cells(counts, options, partial(build, file, variant, tokenizer, code, not upstream))
    own = options.get("checkpoint", "") == "own"
    beside = [path for path in (file.with_name(CONFIG), file.with_name(PROTEINS)) if path.is_file()]
    weights = [verify(path, variant, own) for path in (file, *beside)]
    by_file = how["duplicates"] == "keep" or cls_column is not None
    return done.result(
        genes_used=int(columns.known.sum()),
        genes_total=counts.shape[1],
        extra={
            **how,
            "pad_length": length,
            "dataset_code": code,
            "attends_across_cells": False,
            "depends_on_order": upstream,
            "depends_on_gene_order": "as upstream: genes are matched in the order of the file" if by_file else "",
            "checkpoint": file.name,
            "checkpoint_sha256": weights[0]["sha256"],
            "weights": weights,
            **human.facts(),
        },
    )


def choose(options: Options) -> dict[str, str]:
    """The settings that have a value of upstream's."""
    kind = "log" if x_kind(options) == "log" else "counts"
    known = {"sampling": SAMPLINGS, "duplicates": DUPLICATES, "cls_value": CLS_VALUES}
    how = {name: choice(options, name, values) for name, values in known.items()}
    return how | {"input": choice(options, "input", (kind, *(name for name in INPUTS if name != kind)))}


def match_columns(symbol: np.ndarray, place: dict[str, int], how: dict[str, str]) -> Columns:
    """The columns with a known symbol; with duplicates=keep each by itself, in the order of the file, as upstream."""
    if how["duplicates"] == "sum":
        return match(symbol, place, "file" if how["cls_value"] == "upstream" else "vocabulary")
    known = np.flatnonzero([str(name) in place for name in symbol])
    each = match(np.arange(len(symbol)).astype(str), {str(column): at for at, column in enumerate(known)})
    return Columns(gather=each.gather, token=np.array([place[str(symbol[column])] for column in known], dtype=np.int64))


def cls_place(columns: Columns, config: Config) -> int:
    """The gene whose value upstream gives <cls>: number cls_token_idx of the matched columns."""
    if config.cls_index >= len(columns.token):
        raise UserError(f"--set cls_value=upstream: {len(columns.token)} genes are known; number {config.cls_index} is needed.")
    return config.cls_index


def build(file: Path, variant: str, tokenizer: Tokenizer, code: bool, sort: bool, device: str) -> StateCells:
    """The model on one device; each GPU's process reads the files."""
    config, loaded = read_checkpoint(file, variant)
    vectors = list(read_proteins(file, loaded, config, variant).values())
    proteins = torch.stack([vectors[token].float() for token in tokenizer.columns.token])
    return StateCells(load_network(loaded["state_dict"], config, file, variant), proteins, tokenizer, code, sort, device)
