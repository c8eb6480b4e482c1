#!/usr/bin/env python3
"""Seconds and peak memory of every step on a simulated screen of 200,000 cells x 8,000 genes: a Markdown table.

    python benchmarks/bench_memory.py --workdir /tmp/big [--cells 200000 --genes 8000 --threads 2] > benchmarks/memory.md

Each step is the pipeline's own command in a process of its own; the peak is the operating system's (VmHWM of that process).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(__file__).resolve().parents[1] / "bin"
TASKS = ("batch_effect", "consistency", "magnitude", "recall", "separability", "reconstruction")


def steps(folder: Path, cells: int, genes: int, threads: int):
    """(name, command) of every step, in order."""
    row = {"name": "big", "perturbation_column": "perturbation", "control_label": "non-targeting", "batch_column": "batch"}
    (folder / "row.json").write_text(json.dumps(row | {"min_counts": 0, "perturbation_type": "crispri"}))
    n = min(1200, cells // 150)  # CORUM has disjoint complexes for no more; a tenth of all cells are controls
    k = cells * 9 // 10 // n
    yield "simulate", ["simulate_screen.py", "--n-perturbations", n, "--cells-per-perturbation", k, "--n-genes", genes,
                       "--n-batches", 40, "--output", folder / "big.h5ad"]  # fmt: skip
    prepare = ["--row", folder / "row.json", "--input", folder / "big.h5ad", "--outdir", folder / "prepared"]
    yield "PREPARE", ["prepare_dataset.py", *prepare]
    data = ["--counts", folder / "prepared/counts.h5ad", "--tables", folder / "prepared/tables", "--threads", threads]
    yield "EMBED pca", ["embed_pca.py", *data, "--fit-on", "train", "--seed", 42, "--output", folder / "pca.npz"]
    for task in TASKS:
        about = ["--embedding", folder / "pca.npz", "--task", task, "--seeds", "42", "--output", folder / task]
        yield f"EVALUATE {task}", ["evaluate_embedding.py", *data, *about]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=8_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    print(f"{arguments.cells:,} cells x {arguments.genes:,} genes, {arguments.threads} threads.\n")
    print("| step | wall seconds | CPU seconds | peak memory |\n|---|---|---|---|")
    for name, command in steps(arguments.workdir, arguments.cells, arguments.genes, arguments.threads):
        wall, cpu, peak = measured([sys.executable, BIN / command[0], *command[1:]])
        print(f"| {name} | {wall:.0f} | {cpu:.0f} | {peak / 2**30:.2f} GB |", flush=True)


def measured(command: list, accepted: tuple[int, ...] = (0,)) -> tuple[float, float, int]:
    """(wall seconds, CPU seconds, peak bytes) of one command, which must end with one of these codes."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(list(map(str, command)), stdout=sys.stderr) as child:
        peak = 0
        while child.poll() is None:
            peak = max(peak, high_water(child.pid))
            time.sleep(0.05)
    if child.returncode not in accepted:
        sys.exit(f"{command[1]} failed with exit code {child.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak


def high_water(pid: int) -> int:
    """VmHWM of a running process, bytes (Linux); 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    main()
