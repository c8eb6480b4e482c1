"""Several GPUs of a node: each embeds a contiguous part of the cells in a process of its own."""

import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from plumbline.common.devices import is_gpu
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.runtime.batches import CellModel
from plumbline.models.runtime.rows import Embedded, embed_rows


def embed_shards(
    counts: Counts, options: Options, build: Callable[[str], CellModel], devices: list[str], rows: np.ndarray
) -> Embedded:
    """Embed the cells ``rows`` on several devices. A cell does not depend on its shard, so the result is that of one device."""
    parts = np.array_split(rows, len(devices))
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.npy" for number in range(len(devices))]
        # spawn, not fork: CUDA does not survive a fork
        with ProcessPoolExecutor(len(devices), mp_context=get_context("spawn")) as pool:
            jobs = [
                pool.submit(_embed_part, counts, options, build, device, rows, file)
                for device, rows, file in zip(devices, parts, files, strict=True)
            ]
            facts = [job.result() for job in jobs]
        values = np.concatenate([np.load(file) for file in files])
    weight = np.array([fact["counts"] for fact in facts])
    used = float(np.sum(weight * [fact["counts_used"] for fact in facts]) / weight.sum()) if weight.sum() else 0.0
    extra = {**facts[0]["extra"], "devices": devices, "peak_gpu_memory_bytes": max(fact["peak"] for fact in facts)}
    return Embedded(values, sum(fact["unembedded"] for fact in facts), used, float(weight.sum()), extra, facts[0]["parts"])


def _embed_part(
    counts: Counts, options: Options, build: Callable[[str], CellModel], device: str, rows: np.ndarray, file: Path
) -> dict:
    import torch

    if is_gpu(device):
        torch.cuda.set_device(device)
    part = embed_rows(counts, options, build, device, rows)
    np.save(file, part.values)
    peak = torch.cuda.max_memory_allocated(device) if is_gpu(device) else 0
    return {
        "unembedded": part.unembedded,
        "counts_used": part.counts_used,
        "counts": part.counts_seen,
        "extra": part.extra,
        "parts": part.parts,
        "peak": peak,
    }
