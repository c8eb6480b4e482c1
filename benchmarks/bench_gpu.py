#!/usr/bin/env python3
"""What EVALUATE computes on a GPU, compared with the CPU and timed: a Markdown table. benchmarks/gpu.sh runs it.

    python benchmarks/bench_gpu.py --device cuda       # at the sizes of the paper's data where only the device is timed
    python benchmarks/bench_gpu.py --device cpu        # a dry run: tiny, on the stand-in for a GPU of tests/pretended_gpu.py

Each line is a check with its tolerance; the exit code is 1 if one fails. The CPU computes on small parts only, so that the
whole takes minutes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np

BIN = Path(__file__).resolve().parents[1] / "bin"
sys.path[:0] = [str(BIN), str(Path(__file__).resolve().parent), str(BIN.parent / "tests")]

import big_screen
from pretended_gpu import pretended_gpu

from plumbline.metrics import neighbours
from plumbline.metrics.cosine import matched_null
from plumbline.metrics.energy import matched_test
from plumbline.metrics.probe import Schedule, fit_linear
from plumbline.metrics.probe_budget import plan

OUT_OF_MEMORY = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from plumbline.common.errors import run_script
run_script(lambda: torch.empty(2**45, dtype=torch.uint8, device="cuda"))
"""


def cells(n: int, d: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cells (n, d) of classes that overlap, and their classes."""
    random = np.random.default_rng(seed)
    code = random.integers(0, n_classes, n)
    values = random.standard_normal((n, d), dtype=np.float32)
    values += 0.5 * np.random.default_rng(99).standard_normal((n_classes, d), dtype=np.float32)[code]
    return values, code


def timed(function: Callable) -> tuple[object, float]:
    """The result of a call and its seconds; what the device computed comes back as numpy arrays, so that it has ended."""
    start = time.monotonic()
    return function(), time.monotonic() - start


def searches(device: str, tiny: bool) -> Iterator[tuple]:
    """The neighbours themselves; in the dry run and on a GPU by the same lines."""
    n, asking = (3_000, 300) if tiny else (200_000, 5_000)
    for d in (32, 256):
        points, queries = cells(n, d, 100)[0], cells(asking, d, 100, 1)[0]
        ours, seconds = timed(lambda points=points, queries=queries: neighbours.nearest(points, 251, queries, 1, device))
        on_cpu, cpu = timed(lambda points=points, queries=queries: neighbours.nearest(points, 251, queries, 1, "cpu"))
        share = float((ours[1] == on_cpu[1]).mean())
        yield f"251 neighbours among {n:,} x {d}, {asking:,} queries", f"{share:.6f} the same", share >= 0.9999, cpu, seconds
    if not tiny:
        points = cells(1_000_000, 32, 100)[0]
        _, seconds = timed(lambda: neighbours.nearest(points, 251, points[:20_000], 1, device))
        yield "251 neighbours among 1,000,000 x 32, 20,000 queries", "timed", True, float("nan"), seconds


def probes(device: str, tiny: bool) -> Iterator[tuple]:
    """Weights after a short training; then some epochs of the paper's recipe at its own size."""
    n, d, n_classes = (1_000, 16, 10) if tiny else (20_000, 128, 300)
    values, code = cells(n, d, n_classes)
    schedule = Schedule(n // 4, 10)
    ours, seconds = timed(lambda: fit_linear(values, code, n_classes, schedule, 0, device=device))
    on_cpu, cpu = timed(lambda: fit_linear(values, code, n_classes, schedule, 0))
    away = float(np.abs(ours.weight - on_cpu.weight).max())
    yield f"linear probe, {n:,} x {d}, {n_classes} classes, 40 updates", f"weights within {away:.0e}", away < 1e-4, cpu, seconds
    if tiny:
        return
    values, code = cells(970_000, 256, 6_905)
    whole = plan("paper", len(code), 256, 6_905, device).schedule
    epochs = 5
    _, seconds = timed(lambda: fit_linear(values, code, 6_905, Schedule(whole.batch, epochs, True), 0, device=device))
    name = f"linear probe, 970,000 x 256, 6,905 classes, {whole.epochs} epochs (from {epochs})"
    yield name, "timed", True, float("nan"), seconds * whole.epochs / epochs


def nulls(device: str, tiny: bool) -> Iterator[tuple]:
    """Null draws of consistency and magnitude; on the device alone at the size of the paper's data."""
    for function, name in ((consistency, "null draws of consistency"), (magnitude, "energy distances and their null draws")):
        n, d, few = (600, 40, 5) if tiny else (100_000, 256, 20)
        ours, seconds = timed(lambda n=n, d=d, few=few, function=function: function(n, d, few, device))
        on_cpu, cpu = timed(lambda n=n, d=d, few=few, function=function: function(n, d, few, "cpu"))
        away = max(float(np.nanmax(np.abs(one - other))) for one, other in zip(ours, on_cpu, strict=True))
        yield f"{name}, {few} of {n:,} x {d}, 1,000 draws", f"within {away:.0e}", away < 1e-4, cpu, seconds
        if not tiny:
            _, seconds = timed(lambda function=function: function(300_000, 1_280, 200, device))
            yield f"{name}, 200 of 300,000 x 1,280, 1,000 draws", "timed", True, float("nan"), seconds


def consistency(n: int, d: int, few: int, device: str) -> tuple[np.ndarray, ...]:
    """Observed and null values of some perturbations of about 100 cells."""
    values, code = cells(n, d, max(few + 1, n // 100))
    names, batch = np.char.add("p", code.astype(str)), (np.arange(n) % 20).astype(str)
    tested = np.array([f"p{number}" for number in range(1, few + 1)])
    return matched_null(values, _names(n), names, batch, tested, 1000, 0, device=device)[:2]


def magnitude(n: int, d: int, few: int, device: str) -> tuple[np.ndarray, ...]:
    """The same of energy distances in float32; the first perturbation stands for the controls."""
    values, code = cells(n, d, max(few + 1, n // 100))
    names, batch = np.char.add("p", code.astype(str)), (np.arange(n) % 20).astype(str)
    tested = np.array([f"p{number}" for number in range(1, few + 1)])
    how = {"precision": np.float32, "device": device}
    found = matched_test(values, _names(n), names, code == 0, batch, tested, 1000, 0, **how)
    return found.observed, found.null


def _names(n: int) -> np.ndarray:
    return np.char.add("c", np.arange(n).astype(str))


def decoders(device: str, tiny: bool) -> Iterator[tuple]:
    """The decoder of reconstruction, on counts of its own."""
    import scipy.sparse as sp
    import torch

    from plumbline.metrics.decoder import Plan, train_decoder

    n, genes = (600, 50) if tiny else (20_000, 2_000)
    values = cells(n, 32, 20)[0]
    table = np.random.default_rng(1).poisson(np.exp(values[:, :1] / 2 + np.linspace(-1, 1, genes))).astype(np.float32)

    def trained(where: str) -> np.ndarray:
        expression = Expression(sp.csr_matrix(np.log1p(table)))
        decoder = train_decoder(
            values, expression, genes, Plan("corrected", (32, 32, 32), 10, n), 0, where, torch.get_num_threads()
        )
        return decoder.predict(values[:500], slice(0, genes))

    ours, seconds = timed(lambda: trained(device))
    on_cpu, cpu = timed(lambda: trained("cpu"))
    away = float(np.abs(ours - on_cpu).mean())
    yield (
        f"decoder, {n:,} cells, {genes:,} genes, 10 epochs",
        f"predictions within {away:.0e} (mean)",
        away < 0.02,
        cpu,
        seconds,
    )


class Expression:
    """Log-normalised expression in memory, in shuffled batches: what train_decoder asks of its cells."""

    def __init__(self, table) -> None:
        self.table = table

    def mean(self) -> np.ndarray:
        """Of each gene."""
        return np.asarray(self.table.mean(axis=0)).ravel()

    def n_batches(self, size: int) -> int:
        """In an epoch."""
        return -(-self.table.shape[0] // size)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions and their dense expression."""
        order = rng.permutation(self.table.shape[0])
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield rows, self.table[rows].toarray()


def whole(device: str) -> Iterator[tuple]:
    """EVALUATE as a process on the device and on the CPU, of the same small data: every score of the tasks that use one."""
    import pandas as pd

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "CORUM.txt").write_text("gene\nA\n")  # so that the screen needs no package of relationships
        os.environ["PLUMBLINE_RELATIONSHIPS"] = place
        random = np.random.default_rng(0)
        table = big_screen.cell_table(4_000, 20, 10, 0.1, random)
        big_screen.write_tables(folder / "tables", table, big_screen.gene_table(20, 100, random))
        big_screen.write_embedding(folder / "embedding.npz", table, 32, random)
        for task in ("batch_effect", "separability", "consistency", "magnitude"):
            tables, seconds = zip(*(_evaluated(folder, task, where) for where in (device, "cpu")), strict=True)
            there, here = (pd.to_numeric(one["value"]) for one in tables)
            away, same = float((there - here).abs().max()), list(tables[0]["metric"]) == list(tables[1]["metric"])
            right = same and away < 0.02 and bool((there.isna() == here.isna()).all())
            yield (
                f"EVALUATE {task}, 4,000 x 32, start included",
                f"{len(there)} scores within {away:.0e}",
                right,
                *seconds[::-1],
            )


def _evaluated(folder: Path, task: str, device: str) -> tuple:
    """The score table of one process, and its seconds."""
    import pandas as pd

    data = ["--embedding", folder / "embedding.npz", "--tables", folder / "tables", "--task", task, "--seeds", "42"]
    command = [sys.executable, BIN / "evaluate_embedding.py", *data, "--n-boot", "10", "--device", device]
    start = time.monotonic()
    subprocess.run([*map(str, command), "--output", str(folder / device)], check=True, stdout=sys.stderr)
    return pd.read_parquet(folder / f"{device}.scores.parquet"), time.monotonic() - start


def warm(device: str) -> None:
    """Compile what is compiled at its first call, and load the device's libraries: neither is timed."""
    points, code = cells(600, 8, 2)
    for where in (device, "cpu"):
        neighbours.nearest(points, 5, None, 1, where)
        fit_linear(points, code, 2, Schedule(300, 1), 0, device=where)


def memory(device: str) -> Iterator[tuple]:
    """Too little memory on the device ends a script with the exit code that Nextflow repeats on the CPU."""
    if device == "cuda":
        code = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY, BIN], capture_output=True).returncode
        yield "out of GPU memory", f"exit code {code}", code == 66, float("nan"), float("nan")


def checks(tiny: bool) -> Iterator[tuple]:
    """All lines; of a dry run on the stand-in, but for whole processes, which run on the CPU."""
    with pretended_gpu() if tiny else nullcontext():
        warm("cuda")
        for part in (searches, probes, nulls, decoders):
            yield from part("cuda", tiny)
    yield from whole("cpu" if tiny else "cuda")
    yield from memory("cpu" if tiny else "cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    tiny = parser.parse_args().device == "cpu"
    print("| computation | check | CPU, one thread | device |\n|---|---|---|---|", flush=True)
    failed = 0
    for name, found, right, cpu, seconds in checks(tiny):
        failed += not right
        times = (f"{value:.2f} s" if value == value else "" for value in (cpu, seconds))
        print(f"| {name} | {'' if right else 'FAILED: '}{found} | {' | '.join(times)} |", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
