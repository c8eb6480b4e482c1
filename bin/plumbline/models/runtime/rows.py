"""Embed cells on one device: windows of cells, prepared ahead in a second thread; memory does not grow with their number."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.runtime.batches import Batcher, CellModel, Ragged
from plumbline.models.runtime.progress import Progress

WINDOW_TOKENS = 1 << 24  # tokens held at once: 4,096 cells of 4,096 tokens, 64 MB a field


@dataclass
class Embedded:
    """values float32 (n_cells, d), NaN where a cell has no token; ``counts_used`` of all counts are in known genes.

    parts: columns of ``values`` by name, where hidden states follow the model's own embedding (layers.py).
    """

    values: np.ndarray
    unembedded: int
    counts_used: float
    counts_seen: float
    extra: dict
    parts: dict[str, int] = field(default_factory=dict)

    def result(self, *, genes_used: int, genes_total: int, extra: dict) -> Result:
        """What the model returns: these embeddings with its genes, and its provenance beside that of the run."""
        layers = self.split()
        return Result(
            values=layers.pop(""),
            layers=layers,
            genes_used=genes_used,
            genes_total=genes_total,
            counts_used=self.counts_used,
            unembedded=self.unembedded,
            extra={**extra, **self.extra},
        )

    def split(self) -> dict[str, np.ndarray]:
        """Embeddings (n_cells, ...) by name: '' is the model's own, layer4 a hidden state. Each is an array of its own."""
        parts = self.parts or {"": self.values.shape[1]}
        ends = np.cumsum(list(parts.values()))
        return {
            name: np.ascontiguousarray(self.values[:, end - parts[name] : end]) for name, end in zip(parts, ends, strict=True)
        }


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
    return Embedded(values, empty, used / seen if seen else 0.0, seen, extra, getattr(model, "parts", {}))


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
