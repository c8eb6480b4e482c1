"""UCE's forward pass (Rosen et al. 2023), from the authors' checkpoints as they are.

A post-norm transformer encoder over ESM2 protein vectors; the embedding of a cell is the decoded, L2-normalised CLS position.
What cannot change the result is left out: tokens pass the token network and the first layer's projections once per gene rather
than once per occurrence, the last layer computes its CLS query only, only CLS is decoded, and of the token table only the rows
of the data set's genes are read.
"""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts, require_counts
from plumbline.embedding.damage import understood
from plumbline.embedding.options import Options, Result
from plumbline.embedding.weights import fetch_hint, fill, find_folder, load_tensors, verify
from plumbline.models.runtime.batches import Ragged
from plumbline.models.runtime.cells import embed_cells
from plumbline.models.runtime.devices import pick_device
from plumbline.models.runtime.encoder import Encoder, key_bias
from plumbline.models.shared.fitting import choice, x_kind
from plumbline.models.shared.genes import named
from plumbline.models.uce.tokens import (
    CLS,
    PAD,
    Genome,
    cell_generator,
    draw_genes,
    expression_weights,
    organism,
    read_genome,
    sentence,
    upstream_filter,
)

HEADS = 20  # of every released model; a state dict does not tell
SAMPLING, PADDING = ("cell", "upstream"), ("mask", "upstream")
UPSTREAM_BATCH = 25
MODEL_FILES = {"uce_4l": "4layer_model.torch", "uce_33l": "33l_8ep_1024t_1280.torch"}
UNUSED = ("binary_decoder.", "gene_embedding_layer.", "pe_embedding.")  # training heads, and the table, which is read in part


class Network(nn.Module):
    """The layers of a checkpoint, its sizes taken from the tensors."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        width, token_width = tensors["encoder.0.weight"].shape
        hidden, output = tensors["decoder.0.0.weight"].shape[0], tensors["decoder.3.weight"].shape[0]
        feed_forward = tensors["transformer_encoder.layers.0.linear1.weight"].shape[0]
        n_layers = len({name.split(".")[2] for name in tensors if name.startswith("transformer_encoder.layers.")})
        self.encoder = nn.Sequential(nn.Linear(token_width, width), nn.GELU(), nn.LayerNorm(width))
        self.pos_encoder = nn.Module()
        self.pos_encoder.register_buffer("pe", torch.zeros(tensors["pos_encoder.pe"].shape[0], 1, width))
        self.transformer_encoder = Encoder(n_layers, width, HEADS, feed_forward)
        sizes = ((width, hidden), (hidden, output), (output, output))
        blocks = (nn.Sequential(nn.Linear(*size), nn.LayerNorm(size[1]), nn.GELU()) for size in sizes)
        self.decoder = nn.Sequential(*blocks, nn.Linear(output, output))

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        """Protein vectors (k, token_width) -> what stands for them in a sentence (k, width), before the position is added."""
        return self.encoder(functional.normalize(tokens, dim=-1)) * math.sqrt(self.encoder[0].out_features)

    def attend_first(self, x: torch.Tensor) -> torch.Tensor:
        """(k, width) -> its part of the first layer's queries, keys and values (k, 3 width), without their bias.

        They are linear, so a token's part and a position's part can be computed once each and added.
        """
        return x @ self.transformer_encoder.layers[0].self_attn.in_proj_weight.T

    def forward(self, x: torch.Tensor, projected: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Projected sentences (n, length, width), with positions -> unit vectors (n, output). projected: see Attention."""
        x = self.transformer_encoder(x, bias, queries=1, projected=projected)
        return functional.normalize(self.decoder(x[:, 0]).float(), dim=-1)


class UCE:
    """UCE on one device, for the genes of one data set (a plumbline.models.runtime.batches.CellModel).

    table (n_tokens, token_width): the checkpoint's, memory-mapped. padding: 'mask' hides padded positions; 'upstream' adds 1 to
    their logits instead, as upstream's float mask does, so that a cell depends on the longest cell of its batch.
    sampling: 'cell' seeds every cell by its id; 'upstream' draws from one RandomState, cell after cell.
    """

    fills = (PAD,)

    def __init__(  # noqa: PLR0913 - built from its parts, in the process of each GPU
        self,
        network: Network,
        table: torch.Tensor,
        genome: Genome,
        cell_id: np.ndarray,
        n_genes: int,
        device: str,
        seed: int,
        padding: str,
        sampling: str,
    ) -> None:
        self.network, self.genome, self.cell_id = network.to(device).eval(), genome, cell_id
        self.device, self.seed, self.padding = device, seed, padding
        self.sort = padding == "mask" and sampling == "cell"
        self.stream = np.random.RandomState(seed) if sampling == "upstream" else None
        self.known = np.zeros(n_genes, dtype=bool)
        self.known[genome.columns] = True
        self.stack = network.transformer_encoder.layers
        layer = self.stack[0]
        self.max_length = len(network.pos_encoder.pe)
        self.dimension = network.decoder[-1].out_features
        self.bytes_per_token = 4 * (8 * layer.linear2.out_features + 2 * layer.linear1.out_features)
        self._keep_tokens(table)

    def _keep_tokens(self, table: torch.Tensor) -> None:
        """Project the tokens this data set can contain; ``local`` maps a token id to its row among them."""
        chromosomes = np.unique(self.genome.chromosome) + self.genome.chromosome_offset
        used = np.unique(np.concatenate([np.arange(CLS + 1), self.genome.token, chromosomes]))
        self.local = np.zeros(len(table), dtype=np.int32)  # PAD is row 0 in both
        self.local[used] = np.arange(len(used))
        with torch.inference_mode():
            rows = torch.from_numpy(used).split(4096)
            self.projected = torch.cat([self.network.project(table[part].float().to(self.device)) for part in rows])
            self.first = self.network.attend_first(self.projected)
            attention = self.network.transformer_encoder.layers[0].self_attn
            self.position = self.network.pos_encoder.pe[:, 0]
            self.first_position = self.network.attend_first(self.position) + attention.in_proj_bias

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Sentences of the cells ``rows``; a cell without a known gene has length 0."""
        require_counts(block)
        block = block[:, self.genome.columns]
        block.sum_duplicates()
        weights = expression_weights(block)
        cells = []
        for row, start, stop in zip(rows, block.indptr[:-1], block.indptr[1:], strict=True):
            rng = self.stream or cell_generator(self.cell_id[row], self.seed)
            cells.append(self._sentence(weights[start:stop], block.indices[start:stop], rng))
        return Ragged(np.array([len(tokens) for tokens in cells], dtype=np.int64), (np.concatenate(cells),))

    def _sentence(self, weights: np.ndarray, genes: np.ndarray, rng: np.random.RandomState | np.random.Generator) -> np.ndarray:
        if not weights.any():
            return np.zeros(0, dtype=np.int32)
        drawn = draw_genes(weights, genes, len(self.genome.columns), rng)
        tokens = self.local[sentence(drawn, self.genome, rng)]
        if len(tokens) > self.max_length:
            raise UserError(
                f"a cell's genes lie on too many chromosomes: {len(tokens)} tokens for the model's {self.max_length} positions."
            )
        return tokens

    def forward(self, length: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, dimension) of padded sentences (n, longest)."""
        bias = key_bias(length, tokens.shape[1])
        if bias is not None and self.padding == "upstream":
            bias = (~bias).float()
        tokens, length = tokens.long(), tokens.shape[1]
        x = self.projected[tokens].add_(self.position[:length])
        return self.network(x, self.first[tokens].add_(self.first_position[:length]), bias)

    def pool(self, states: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """States (n, t, width) -> those of <cls> (n, width)."""
        return states[:, 0]


def load_network(path: Path, variant: str) -> tuple[Network, torch.Tensor]:
    """The network of a checkpoint and its token table (n_tokens, token_width; memory-mapped, not read).

    Raises UserError on a file that is damaged, no UCE checkpoint, or lacks a tensor.
    """
    tensors = load_tensors(path, variant)
    with understood(path, "is no UCE checkpoint", variant):
        table = tensors["pe_embedding.weight"]
        with torch.device("meta"):
            network = Network(tensors)
    fill(network, tensors, path, variant, ignore=UNUSED)
    width = network.encoder[0].in_features
    if table.ndim != 2 or table.shape[1] != width:
        raise UserError(f"{path}: token table {tuple(table.shape)} does not fit the width {width}. {fetch_hint(variant)}")
    return network, table


def build(device: str, path: Path, variant: str, **parts: object) -> UCE:
    """Load the checkpoint ``path`` onto ``device`` (every GPU's process does); ``parts``: the further arguments of UCE."""
    network, table = load_network(path, variant)
    return UCE(network, table, device=device, **parts)


def model_file(options: Options) -> Path:
    """The checkpoint: setting model_file, else the variant's, else the only .torch file that is no bare token table."""
    folder = find_folder(options.weights, "uce", "*.torch", options.variant)
    name = str(options.get("model_file", "")) or MODEL_FILES.get(options.variant, "")
    found = sorted(path.name for path in folder.glob("*.torch") if path.name != "all_tokens.torch")
    if name in found or "model_file" in options.settings:
        return folder / name
    if len(found) == 1:
        return folder / found[0]
    raise UserError(
        f"{folder} holds {len(found)} model files ({', '.join(found) or 'no *.torch'}), {name or 'no variant'} not among them: "
        f"say which with --set model_file=NAME. {fetch_hint(options.variant)}"
    )


def embed(counts: Counts, options: Options) -> Result:
    """UCE embeddings (n_cells, 1280 in the released models) of all cells. Settings: see bin/embed_uce.py.

    Raises NotApplicable for values that are no counts and for organisms without proteins, UserError for unfit weights.
    """
    if x_kind(options) != "counts":
        raise NotApplicable("UCE draws genes by raw counts; this data set holds transformed values")
    path, species, variant = model_file(options), organism(counts, options), options.variant
    counts, names = named(counts, "symbol", species)
    weights = verify(path, variant, own=options.get("checkpoint", "") == "own")
    network, table = load_network(path, variant)
    offset = int(options.get("chrom_token_offset", 0))
    filtered = bool(options.get("filter", False))
    rows, kept = upstream_filter(counts) if filtered else (np.arange(len(counts.cell_id)), np.ones(counts.shape[1], bool))
    genome = read_genome(path.parent, variant, species, np.where(kept, counts.symbol, ""), len(table), offset)
    how = {"padding": choice(options, "padding", PADDING), "sampling": choice(options, "sampling", SAMPLING)}
    if "upstream" in how.values():  # one stream of random numbers, batches in file order: one device
        options = replace(options, device=pick_device(options.device), batch_size=options.batch_size or UPSTREAM_BATCH)
    make = partial(build, path=path, variant=variant, genome=genome, cell_id=counts.cell_id, n_genes=counts.shape[1])
    done = embed_cells(counts, options, partial(make, seed=options.seed, **how), rows)
    layers = {name: spread(part, rows, len(counts.cell_id)) for name, part in done.split().items()}
    values = layers.pop("")
    about = {
        **done.extra,
        **names,
        **how,
        "checkpoint": path.name,
        "checkpoint_sha256": weights["sha256"],
        "weights": [weights],
        "species": species,
        "n_layers": len(network.transformer_encoder.layers),
        "filter": filtered,
        "cells_filtered": len(values) - len(rows),
        "genes_without_position": genome.unplaced,
        "attends_across_cells": False,
        "depends_on_gene_order": "genes are drawn by random numbers, in the order of the file",
    }
    return Result(
        values=values,
        genes_used=len(genome.columns),
        genes_total=len(kept),
        counts_used=done.counts_used,
        unembedded=done.unembedded + len(values) - len(rows),
        layers=layers,
        extra=about,
    )


def spread(values: np.ndarray, rows: np.ndarray, n_cells: int) -> np.ndarray:
    """values (k, d) as the ``rows`` of (n_cells, d), the others NaN."""
    out = np.full((n_cells, values.shape[1]), np.nan, dtype=np.float32)
    out[rows] = values
    return out
