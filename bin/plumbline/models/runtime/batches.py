"""Batches of token sequences: what a model is asked for, how its input is padded, how many cells fit the device at once."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import scipy.sparse as sp

from plumbline.common.devices import is_gpu
from plumbline.embedding.options import Options
from plumbline.models.runtime.devices import pick_precision
from plumbline.models.runtime.progress import Progress

if TYPE_CHECKING:
    import torch

CPU_TOKENS = 1 << 14  # tokens a batch on a CPU: more is not faster
MEASURED_CELLS = 256  # cells embedded twice when measure_precision asks for the difference to fp32


@dataclass(frozen=True)
class Ragged:
    """Token sequences of n cells. length (n,); each of ``fields`` is (length.sum(),): the cells' sequences end to end."""

    length: np.ndarray
    fields: tuple[np.ndarray, ...]


class CellModel(Protocol):
    """Interface that a model implements to be run by `embed_cells`.

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


class OutOfDeviceMemory(Exception):
    """Not even a batch of one cell fits."""


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

    if not is_gpu(device):
        return CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    bytes_per_token = model.bytes_per_token * (1.0 if precision == torch.float32 else 0.75)
    return int(max(1, min(0.6 * free / bytes_per_token, 1 << 20)))


def autocast(device: str, precision: "torch.dtype"):
    """Reduced precision where asked for, else nothing."""
    import torch

    return nullcontext() if precision == torch.float32 else torch.autocast(device.partition(":")[0], dtype=precision)
