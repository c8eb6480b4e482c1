"""How every foundation model is run over the cells of a file: streamed, sorted by length, batched by memory, shared out.

A model is two steps: ``encode`` turns a block of counts into token sequences (numpy), ``forward`` turns a padded batch of
sequences into embeddings (torch). Everything else is here, once: windows of cells, so that memory does not grow with their
number; batches of similar length, so that little is spent on padding; smaller batches when a GPU runs out of memory; several
GPUs. The order of the cells is restored, and a cell's embedding depends on nothing but its own counts.
"""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import scipy.sparse as sp

from plumbline.counts import Counts
from plumbline.embedding_cli import Options
from plumbline.errors import OUT_OF_MEMORY
from plumbline.models.devices import pick_devices, pick_precision

if TYPE_CHECKING:
    import torch

SETTINGS = ("precision", "measure_precision")  # every model that runs through embed_cells takes these
WINDOW_TOKENS = 1 << 24  # tokens held at once: 4,096 cells of 4,096 tokens, 64 MB a field
CPU_TOKENS = 1 << 13  # tokens a batch on a CPU: what stays in its caches; more is not faster
MEASURED_CELLS = 256  # cells embedded twice when measure_precision asks for the difference to fp32


@dataclass(frozen=True)
class Ragged:
    """Token sequences of n cells. length (n,); each of ``fields`` is (length.sum(),): the cells' sequences end to end."""

    length: np.ndarray
    fields: tuple[np.ndarray, ...]


class CellModel(Protocol):
    """What embed_cells needs of a model.

    dimension: width of the embedding. fills: what pads each field. max_length: the longest sequence ``encode`` returns.
    bytes_per_token: memory the activations of one token take in fp32. known (n_genes,) bool: genes of the file it uses.
    sort: False keeps batches in file order with the batch size as given, for upstream quirks that depend on it.
    """

    dimension: int
    fills: tuple[float, ...]
    max_length: int
    bytes_per_token: int
    known: np.ndarray
    sort: bool

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Sequences of the cells ``rows`` (row numbers in the file) with counts ``block``; length 0: nothing to embed."""

    def forward(self, length: "torch.Tensor", *fields: "torch.Tensor") -> "torch.Tensor":
        """Embeddings (n, dimension) of a batch; each field is (n, length.max()), padded with its fill."""


@dataclass
class Embedded:
    """values float32 (n_cells, d), NaN where a cell has no token; ``counts_used`` of all counts are in known genes."""

    values: np.ndarray
    unembedded: int
    counts_used: float
    counts_seen: float
    extra: dict


class OutOfDeviceMemory(Exception):
    """Not even a batch of one cell fits."""


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


class Batcher:
    """Cuts windows into batches, runs them, and learns the largest batch the device takes."""

    def __init__(self, model: CellModel, options: Options, device: str) -> None:
        self.model, self.device, self.limit = model, device, options.batch_size
        self.precision = pick_precision(options, device)
        self.budget = token_budget(model, device, self.precision)
        self.n_halved = 0
        self.measured: dict | None = {} if options.get("measure_precision", False) else None

    def embed(self, ragged: Ragged, progress: "Progress") -> np.ndarray:
        """Embeddings (n, d) of a window in its own order; NaN rows for empty sequences."""
        import torch

        values = np.full((len(ragged.length), self.model.dimension), np.nan, dtype=np.float32)
        starts = np.concatenate([[0], np.cumsum(ragged.length)])
        waiting = np.flatnonzero(ragged.length)
        progress.add(len(ragged.length) - len(waiting))
        if self.model.sort:
            waiting = waiting[np.argsort(-ragged.length[waiting], kind="stable")]
        while len(waiting):
            batch = waiting[: self._size(waiting, ragged.length)]
            try:
                values[batch] = self._run(pad(ragged, starts, batch, self.model.fills))
            except torch.cuda.OutOfMemoryError:
                self._halve(len(batch), int(ragged.length[batch].max()))
                continue
            waiting = waiting[len(batch) :]
            progress.add(len(batch))
        return values

    def _size(self, waiting: np.ndarray, length: np.ndarray) -> int:
        """Cells of the next batch."""
        if not self.model.sort and self.limit:
            return self.limit
        fitting = max(1, self.budget // int(length[waiting].max()))
        return min(fitting, self.limit) if self.limit else fitting

    def _halve(self, n_cells: int, longest: int) -> None:
        """The device ran out of memory: from now on, half of that."""
        import torch

        if n_cells == 1:
            raise OutOfDeviceMemory(f"{self.device}: one cell of {longest} tokens does not fit its memory.")
        torch.cuda.empty_cache()
        self.n_halved += 1
        half = -(-n_cells // 2)
        self.budget, self.limit = half * longest, half if self.limit else 0

    def _run(self, padded: list[np.ndarray]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            tensors = [torch.from_numpy(array).to(self.device, non_blocking=True) for array in padded]
            with autocast(self.device, self.precision):
                out = self.model.forward(*tensors).float()
            if self.measured is not None and self.measured.get("cells", 0) < MEASURED_CELLS:
                self._measure(out, self.model.forward(*tensors).float())
            return out.cpu().numpy()

    def _measure(self, out: "torch.Tensor", exact: "torch.Tensor") -> None:
        import torch

        cosine = torch.nn.functional.cosine_similarity(out, exact)
        old = self.measured
        self.measured = {
            "cells": old.get("cells", 0) + len(out),
            "max_difference": max(old.get("max_difference", 0.0), float((out - exact).abs().max())),
            "min_cosine": min(old.get("min_cosine", 1.0), float(cosine.min())),
        }

    def facts(self) -> dict:
        """What the provenance says about how the batches were run."""
        facts = {"precision": str(self.precision).removeprefix("torch."), "batches_halved": self.n_halved}
        return facts | ({"fp32_difference": self.measured} if self.measured is not None else {})


def pad(ragged: Ragged, starts: np.ndarray, cells: np.ndarray, fills: tuple[float, ...]) -> list[np.ndarray]:
    """[length (n,), each field (n, longest)] of ``cells``, padded with ``fills``. starts (n + 1,): where sequences begin."""
    length = ragged.length[cells].astype(np.int64)
    inside = np.arange(length.max()) < length[:, None]
    source = np.concatenate([np.arange(starts[cell], starts[cell + 1]) for cell in cells])
    out = [length]
    for field, fill in zip(ragged.fields, fills, strict=True):
        array = np.full(inside.shape, fill, dtype=field.dtype)
        array[inside] = field[source]
        out.append(array)
    return out


def token_budget(model: CellModel, device: str, precision: "torch.dtype") -> int:
    """Padded tokens a batch: what fits a CPU's caches, or 60 % of the GPU memory that is free now."""
    import torch

    if not device.startswith("cuda"):
        return CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    bytes_per_token = model.bytes_per_token * (1.0 if precision == torch.float32 else 0.75)
    return int(max(1, min(0.6 * free / bytes_per_token, 1 << 20)))


def autocast(device: str, precision: "torch.dtype"):
    """Reduced precision where asked for, else nothing."""
    import torch

    return nullcontext() if precision == torch.float32 else torch.autocast(device.partition(":")[0], dtype=precision)


class Progress:
    """Cells done, cells/s and the time left, on stderr every ``every`` seconds."""

    def __init__(self, total: int, name: str, every: float = 10.0) -> None:
        self.total, self.name, self.every, self.done = total, name, every, 0
        self.start = self.last = time.monotonic()

    def add(self, n: int) -> None:
        """``n`` more cells are done."""
        self.done += n
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            speed = self.done / (now - self.start)
            left = (self.total - self.done) / speed if speed else float("inf")
            text = f"{self.name}: {self.done:,} of {self.total:,} cells, {speed:,.1f} cells/s, {left:,.0f} s left"
            print(text, file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """Since the first cell: without start-up and the loading of weights."""
        return time.monotonic() - self.start

    def finish(self) -> None:
        """The last line."""
        speed = self.done / max(self.seconds, 1e-9)
        print(f"{self.name}: {self.done:,} cells in {self.seconds:,.1f} s, {speed:,.1f} cells/s", file=sys.stderr, flush=True)
