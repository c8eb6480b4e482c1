"""CellPLM: which cells see each other, and their embeddings, streamed from disk.

A cell's embedding depends on the set of cells it is embedded with, so the choice of the set is part of the model: ``all`` (the
default: neither order nor batch labels enter), ``batch`` (what upstream does silently if the file has a column named
batch: the labels enter), or ``chunk`` (consecutive cells: the order enters). The provenance records it.
"""

import tempfile
from typing import BinaryIO

import numpy as np
import scipy.sparse as sp
import torch

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts, obs_column, require_counts
from plumbline.embedding.options import Options, Result
from plumbline.embedding.weights import verify
from plumbline.models.cellplm.checkpoints import find_checkpoint, load_network
from plumbline.models.cellplm.network import Network, attend, blocks
from plumbline.models.runtime.devices import pick_device
from plumbline.models.runtime.progress import Progress
from plumbline.models.shared.columns import Columns, match
from plumbline.models.shared.fitting import at_least, choice, read_cells, x_kind
from plumbline.models.shared.genes import human_counts

SETS, COMPONENTS = ("all", "batch", "chunk"), ("argmax", "upstream")
CHUNK_CELLS = 1024
BLOCK_CELLS = {"cpu": 2048, "cuda": 16384}  # cells on the device at once
DENSE_CELLS = 512  # cells read at once, as a dense block
IN_MEMORY = 1 << 28  # bytes of hidden states kept in memory; more go to a scratch file


def embed(counts: Counts, options: Options) -> Result:
    """CellPLM embeddings (n_cells, 512 in the released models) of all cells. Settings: see bin/embed_cellplm.py.

    Raises NotApplicable if no gene is known, or for values that are no counts or an organism without orthologs; UserError
    for unfit weights or settings.
    """
    if x_kind(options) != "counts":
        raise NotApplicable("CellPLM reads raw counts; this data set holds transformed values")
    human = human_counts(counts, options, by="ensembl_id")
    counts = human.counts
    path, config = find_checkpoint(options)
    weights = verify(path, options.variant, own=options.get("checkpoint", "") == "own")
    columns = match_genes(counts, config["gene_list"])
    sets, about = cell_sets(counts, options)
    network = load_network(path, config, options.variant)
    model = CellPLM(network, columns, pick_device(options.device), options.batch_size)
    noise = Noise(options.seed, config) if choice(options, "component", COMPONENTS) == "upstream" else None
    values, share, unembedded = model.embed(counts, sets, noise, config["post_latent_dim"])
    about |= {
        "checkpoint": path.name,
        "checkpoint_sha256": weights["sha256"],
        "weights": [weights],
        "latent": config["latent_mod"],
        "component": "upstream" if noise else "argmax",
        "attends_across_cells": True,
        "block_cells": model.size,
        "devices": [model.device],
        **human.facts(),
    }
    return Result(
        values=values,
        genes_used=int(columns.known.sum()),
        genes_total=counts.shape[1],
        counts_used=share,
        unembedded=unembedded,
        extra=about,
    )


def match_genes(counts: Counts, gene_list: list[str]) -> Columns:
    """The known genes, by Ensembl id without its version; ``token`` is the row of the model's gene table.

    Counts of columns of one gene are added: upstream refuses such a file.
    """
    if not any(counts.ensembl_id):
        examples = ", ".join(counts.symbol[:3])
        raise UserError(f"CellPLM needs Ensembl ids, and no human gene goes by {examples}. Add a var column 'ensembl_id'.")
    index = {gene: number for number, gene in enumerate(gene_list)}
    columns = match(np.array([gene.partition(".")[0] for gene in counts.ensembl_id]), index)
    if not columns.known.any():
        raise NotApplicable(
            f"none of the {len(columns.known)} Ensembl ids (such as {counts.ensembl_id[0]}) is among CellPLM's {len(index)} "
            "human genes"
        )
    return columns


def cell_sets(counts: Counts, options: Options) -> tuple[list[np.ndarray], dict]:
    """(row numbers of each set of cells that see each other, what the provenance says about them)."""
    kind = choice(options, "set", SETS)
    size = at_least(options, "chunk_size", CHUNK_CELLS if kind == "chunk" else 0, 0)
    if kind != "batch" and (options.get("batch_column", "") or (kind == "all" and size)):
        raise UserError(f"--set set={kind}: chunk_size goes with set=chunk or batch, batch_column with set=batch.")
    everyone = np.arange(len(counts.cell_id))
    labels = batch_labels(counts, options) if kind == "batch" else np.zeros(len(everyone))
    groups = [everyone[labels == label] for label in np.unique(labels)]
    sets = [part for group in groups for part in (np.split(group, range(size, len(group), size)) if size else [group])]
    sizes = [len(part) for part in sets] or [0]
    about = {"set": kind, "n_sets": len(sets), "smallest_set": min(sizes), "largest_set": max(sizes)}
    return sets, about | {"depends_on_order": bool(size), "depends_on_batch_labels": kind == "batch"}


def batch_labels(counts: Counts, options: Options) -> np.ndarray:
    """Each cell's batch: the obs column ``batch_column``, or PREPARE's batches."""
    column = str(options.get("batch_column", ""))
    if column:
        return obs_column(counts, column)
    if options.tables is None:
        raise UserError("--set set=batch needs --tables, or --set batch_column=NAME of an obs column.")
    return read_cells(options.tables, counts.cell_id)["batch"].to_numpy(dtype=str)


class Noise:
    """The uniform numbers upstream's mixture components are drawn with after torch.manual_seed(seed), on the CPU."""

    def __init__(self, seed: int, config: dict) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.n_components, self.latent = config.get("num_clusters", 16), config["post_latent_dim"]
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)  # the DataLoader takes one number first

    def draw(self, n_cells: int) -> torch.Tensor:
        """(n_cells, components) for one forward pass; the latent noise, which the mean does not use, is drawn after it."""
        uniform = torch.rand(n_cells, self.n_components, generator=self.generator)
        torch.randn(n_cells, self.latent, generator=self.generator)
        return uniform


class CellPLM:
    """CellPLM on one device, for the genes of one data set. size: cells on the device at once."""

    def __init__(self, network: Network, columns: Columns, device: str, size: int) -> None:
        self.network, self.device = network.to(device), device
        self.columns = columns
        self.gene_vectors = network.embedder.feat_enc.emb.detach()[torch.from_numpy(columns.token).to(device)]
        self.size = size or fitting_size(network, device)
        self.seen = self.used = 0.0

    def embed(self, counts: Counts, sets: list[np.ndarray], noise: Noise | None, latent: int) -> tuple[np.ndarray, float, int]:
        """(embeddings (n_cells, latent), share of the counts in known genes, number of cells without one: rows of NaN)."""
        values = np.full((counts.shape[0], latent), np.nan, dtype=np.float32)
        progress, unembedded = Progress(counts.shape[0], self.device), 0
        for rows in sets:
            uniform = noise.draw(len(rows)) if noise else None
            with tempfile.TemporaryFile() as scratch, torch.inference_mode():
                hidden, empty = self._read(counts, rows, scratch)
                self._encode(hidden, uniform, values, rows)
            values[rows[empty]] = np.nan
            unembedded += int(empty.sum())
            progress.add(len(rows))
        progress.finish()
        return values, self.used / self.seen if self.seen else 0.0, unembedded

    def _read(self, counts: Counts, rows: np.ndarray, scratch: BinaryIO) -> tuple[np.ndarray, np.ndarray]:
        """(embedder output (n, width) of a set of cells, kept in a scratch file if large; cells without a known gene)."""
        shape, done, empty = (len(rows), self.network.width), 0, np.zeros(len(rows), dtype=bool)
        small = 4 * len(rows) * self.network.width <= IN_MEMORY
        hidden = np.empty(shape, np.float32) if small else np.memmap(scratch, np.float32, "w+", shape=shape)
        for _, block in counts.blocks(rows, DENSE_CELLS):
            require_counts(block)
            part, known = slice(done, done + block.shape[0]), self.columns.read(block)
            self.seen += float(block.sum(dtype=np.float64))
            self.used += float(known.sum(dtype=np.float64))
            empty[part] = known.getnnz(axis=1) == 0
            hidden[part] = self._first(known)
            done = part.stop
        return hidden, empty

    def _first(self, block: sp.csr_matrix) -> np.ndarray:
        """Embedder output (n, width) of a block. A dense block, faster at 2 % of genes and more, lives no longer than this."""
        values = block.toarray()
        x = torch.from_numpy(np.log1p(values, out=values)).to(self.device)
        return self.network.embedder(x, self.gene_vectors).cpu().numpy()

    def _encode(self, hidden: np.ndarray, uniform: torch.Tensor | None, values: np.ndarray, rows: np.ndarray) -> None:
        """All layers over one set of cells; the embeddings go to ``values[rows]``."""
        for layer in self.network.encoder.layers:
            attend(layer, hidden, self.size, self.device)
        for part, h in blocks(hidden, self.size, self.device):
            noise = None if uniform is None else uniform[part].to(self.device)
            values[rows[part]] = self.network.read_out(h, noise).cpu().numpy()


def fitting_size(network: Network, device: str) -> int:
    """Cells a block: the most, by halving, whose layer fits what memory the device has free."""
    size = BLOCK_CELLS[device.partition(":")[0]]
    while device != "cpu" and size > 1:
        try:
            with torch.inference_mode():
                attend(network.encoder.layers[0], np.zeros((size, network.width), np.float32), size, device)
            break
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            size //= 2
    return size
