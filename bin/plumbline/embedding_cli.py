"""The command line every ``bin/embed_<model>.py`` shares, and the provenance every embedding carries.

run("scgpt", embed)      # embed(counts: Counts, options: Options) -> Result
"""

import argparse
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from plumbline.contract import write_embedding, write_not_applicable
from plumbline.counts import Counts, open_counts
from plumbline.errors import NotApplicable, UserError, run_script


@dataclass(frozen=True)
class Options:
    """What a model is told. ``settings`` are the --set pairs; ``tables`` is PREPARE's folder (None outside the pipeline).

    embedding: the file of --embedding, which only a script that ``run``s with ``takes_embedding`` has.
    """

    variant: str
    weights: Path | None
    tables: Path | None
    fit_on: str
    seed: int
    device: str
    batch_size: int
    threads: int
    settings: dict[str, str]
    embedding: Path | None = None

    def get(self, name: str, default: str | int | float | bool) -> str | int | float | bool:
        """One setting, converted to the type of its default. Raises UserError on a value that does not convert."""
        if name not in self.settings:
            return default
        text = self.settings[name]
        try:
            return text.lower() in ("1", "true", "yes") if isinstance(default, bool) else type(default)(text)
        except ValueError as error:
            raise UserError(f"--set {name}={text}: expected {type(default).__name__}.") from error


@dataclass(frozen=True)
class Result:
    """What a model returns: values float32 (n_cells, d) in the order of counts.cell_id.

    genes_used of genes_total genes of the data set are known to the model; counts_used is the share of counts they carry.
    unembedded: number of all-NaN rows (cells in which the model finds no gene). extra: further provenance.
    """

    values: np.ndarray
    genes_used: int
    genes_total: int
    counts_used: float = 1.0
    unembedded: int = 0
    extra: dict = field(default_factory=dict)


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
    parser = _parser(model, known_settings)
    if takes_embedding:
        parser.add_argument("--embedding", type=Path, required=True, help="file that holds the embedding, keyed by cell id")
    arguments = parser.parse_args()
    options = _options(arguments, known_settings)
    _limit_threads(options.threads)
    start = time.monotonic()
    about = {"model": model} | {name: getattr(options, name) for name in ("variant", "seed", "fit_on", "settings")}
    counts = open_counts(arguments.counts)
    try:
        result = embed(counts, options)
    except NotApplicable as reason:
        print(f"not applicable: {reason}", file=sys.stderr)
        write_not_applicable(arguments.output, str(reason), about)
        return
    about |= {
        "genes_used": result.genes_used,
        "genes_total": result.genes_total,
        "counts_used": result.counts_used,
        "unembedded_cells": result.unembedded,
        **_cost(options, len(counts.cell_id), time.monotonic() - start),
        **result.extra,
    }
    write_embedding(arguments.output, counts.cell_id, result.values, about)
    speed = f"{about['seconds']:.1f} s, {about['cells_per_second']:.0f} cells/s"
    print(f"{model}: {len(counts.cell_id)} cells, {speed}", file=sys.stderr)


def _parser(model: str, known_settings: tuple[str, ...]) -> argparse.ArgumentParser:
    settings = f" Known: {', '.join(known_settings)}." if known_settings else ""
    parser = argparse.ArgumentParser(description=f"Embed the cells of a raw-count h5ad with {model}.")
    parser.add_argument("--counts", "--input", type=Path, required=True, help="h5ad with raw counts in X")
    parser.add_argument("--output", type=Path, required=True, help="embedding.npz; provenance goes to embedding.json beside it")
    parser.add_argument("--weights", type=Path, help="folder of the authors' checkpoint files")
    parser.add_argument("--variant", default=model, help="a row of assets/models.csv")
    parser.add_argument("--tables", type=Path, help="PREPARE's tables (splits, cells); needed to fit on the train split")
    parser.add_argument("--fit-on", default="all", help="cells a trained model is fitted on: train or all")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=f"a setting of the model.{settings}")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0, ...")
    parser.add_argument("--batch-size", type=int, default=0, help="cells a batch; 0 chooses from the memory")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser


def _options(arguments: argparse.Namespace, known: tuple[str, ...]) -> Options:
    settings = {}
    for pair in arguments.set:
        name, equals, value = pair.partition("=")
        if not equals or name not in known:
            raise UserError(f"--set {pair}: expected KEY=VALUE with KEY one of {', '.join(known) or '(this model has none)'}.")
        settings[name] = value
    a = arguments
    return Options(
        a.variant,
        a.weights,
        a.tables,
        a.fit_on,
        a.seed,
        a.device,
        a.batch_size,
        a.threads,
        settings,
        getattr(a, "embedding", None),
    )


def _limit_threads(threads: int) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    if "numba" in sys.modules:  # it refuses another value in the environment once its threads run
        numba = sys.modules["numba"]
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    else:
        os.environ["NUMBA_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    try:
        import threadpoolctl
    except ImportError:
        return
    threadpoolctl.threadpool_limits(threads)


def _peak_memory() -> int:
    """Peak resident bytes of this process. Linux: its own, as getrusage would include the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        peaks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if peaks:
            return int(peaks[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _cost(options: Options, n_cells: int, seconds: float) -> dict:
    cost = {
        "seconds": round(seconds, 3),
        "cells_per_second": round(n_cells / max(seconds, 1e-9), 2),
        "peak_memory_bytes": _peak_memory(),
        "threads": options.threads,
        "device": options.device,
        "hostname": platform.node(),
        "python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        cost["peak_gpu_memory_bytes"] = int(torch.cuda.max_memory_allocated())
        cost["gpu"] = torch.cuda.get_device_name()
    return cost
