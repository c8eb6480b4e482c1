"""How every foundation model is run over the cells of a file: streamed, sorted by length, batched by memory, shared out.

A model is two steps: ``encode`` turns a block of counts into token sequences (numpy), ``forward`` turns a padded batch of
sequences into embeddings (torch). Everything else is here, once: windows of cells, so that memory does not grow with their
number; batches of similar length, so that little is spent on padding; smaller batches when a GPU runs out of memory; several
GPUs. The order of the cells is restored, and a cell's embedding depends on nothing but its own counts.
"""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from plumbline.counts import Counts
from plumbline.embedding_cli import Options
from plumbline.errors import OUT_OF_MEMORY
from plumbline.models.batches import Batcher, CellModel, OutOfDeviceMemory, Ragged
from plumbline.models.devices import pick_devices
from plumbline.models.progress import Progress

SETTINGS = ("precision", "measure_precision")  # every model that runs through embed_cells takes these
TUNING = ("tune", "tune_rank", "tune_layers")  # settings of the models that can be fine-tuned (tuning.py)
WINDOW_TOKENS = 1 << 24  # tokens held at once: 4,096 cells of 4,096 tokens, 64 MB a field


@dataclass
class Embedded:
    """values float32 (n_cells, d), NaN where a cell has no token; ``counts_used`` of all counts are in known genes."""

    values: np.ndarray
    unembedded: int
    counts_used: float
    counts_seen: float
    extra: dict


def embed_cells(
    counts: Counts, options: Options, build: Callable[[str], CellModel], rows: np.ndarray | None = None
) -> Embedded:
    """Embed the cells of ``counts`` with the model that ``build(device)`` returns (picklable: every GPU's process calls it).

    rows: only these row numbers, in this order (all by default); values has one row for each of them. Ends the
    process with exit code OUT_OF_MEMORY if one cell alone does not fit the GPU.
    """
    devices = pick_devices(options.device)
    rows = np.arange(len(counts.cell_id)) if rows is None else rows
    try:
        if len(devices) > 1:
            from plumbline.models.shards import embed_shards

            return embed_shards(counts, options, build, devices, rows)
        return embed_rows(counts, options, build, devices[0], rows)
    except OutOfDeviceMemory as error:
        print(f"ERROR: {error}", file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)


def embed_rows(counts: Counts, options: Options, build: Callable[[str], CellModel], device: str, rows: np.ndarray) -> Embedded:
    """Embed the cells ``rows`` on one device; values has one row for each of them."""
    model = build(device)
    batcher = Batcher(model, options, device)
    values = np.full((len(rows), model.dimension), np.nan, dtype=np.float32)
    progress = Progress(len(rows), device)
    seen, used, done, empty = 0.0, 0.0, 0, 0
    for ragged, n_seen, n_used in ahead(_windows(counts, rows, model, options.batch_size)):
        values[done : done + len(ragged.length)] = batcher.embed(ragged, progress)
        done, seen, used = done + len(ragged.length), seen + n_seen, used + n_used
        empty += int((ragged.length == 0).sum())
    progress.finish()
    extra = {"devices": [device], "embedding_seconds": round(progress.seconds, 3), **batcher.facts()}
    return Embedded(values, empty, used / seen if seen else 0.0, seen, extra)


def _windows(counts: Counts, rows: np.ndarray, model: CellModel, batch_size: int) -> Iterator[tuple[Ragged, float, float]]:
    """(sequences, counts seen, counts in known genes) of one window of cells after the other."""
    size = max(1, min(4096, WINDOW_TOKENS // max(model.max_length, 1)))
    if not model.sort:  # batches must not be cut at a window's end
        size = -(-size // max(batch_size, 1)) * max(batch_size, 1)
    for chunk, block in counts.blocks(rows, size):
        totals = np.asarray(block.sum(axis=0, dtype=np.float64)).ravel()
        yield model.encode(chunk, block), float(totals.sum()), float(totals[model.known].sum())


def ahead(items: Iterator) -> Iterator:
    """The same items, each prepared in a second thread while the one before it is in use: the GPU need not wait for tokens."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item
