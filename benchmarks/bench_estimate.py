#!/usr/bin/env python3
"""What the estimate says of tasks that were measured: rows of a Markdown table, and a run as a whole.

    python benchmarks/bench_estimate.py [--run RESULTS]

Without --run: the tasks of measured_costs.tsv (bench_evaluate.py made it), estimated from assets/costs.tsv, on this machine's
speed as recorded there. With it: all steps of a finished run (its steps.tsv), at the sizes that they had.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bin"))

from plumbline.experiments.cost import estimate, fit_costs

MEASURED = ("seconds", "cpu_seconds", "peak_memory_bytes")


def read_steps(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", dtype={"name": str}).fillna({"name": ""})


def estimated(steps: pd.DataFrame, below: float = float("inf")) -> pd.DataFrame:
    """``steps`` with cpu_seconds and peak_memory_bytes as estimated, from the recorded costs of fewer than ``below`` cells."""
    costs = read_steps(ROOT / "assets/costs.tsv")
    planned = steps.drop(columns=[name for name in MEASURED if name in steps]).assign(n_tasks=1)
    return estimate(fit_costs(costs[costs["n_cells"] < below]), planned)


def single_tasks() -> None:
    steps = read_steps(Path(__file__).with_name("measured_costs.tsv")).assign(step="EVALUATE", n_seeds=1, n_draws=1000)
    found = estimated(steps)
    for row, said in zip(steps.to_dict("records"), found.to_dict("records"), strict=True):
        size = f"{row['n_cells']:,} x {row['n_dimensions']} | {row['name']}"
        memory = [part["peak_memory_bytes"] / 2**30 for part in (row, said)]
        print(f"| {size} | {row['cpu_seconds']:.0f} | {said['cpu_seconds']:.0f} | {memory[0]:.2f} GB | {memory[1]:.2f} GB |")


def whole_run(results: Path) -> None:
    steps = read_steps(results / "steps.tsv")
    found = estimated(steps)
    for step in steps["step"].unique():
        own = steps["step"] == step
        cpu = [part.loc[own, "cpu_seconds"].sum() for part in (steps, found)]
        memory = [part.loc[own, "peak_memory_bytes"].max() / 2**30 for part in (steps, found)]
        print(f"| {step} | {own.sum()} | {cpu[0]:.0f} | {cpu[1]:.0f} | {memory[0]:.2f} GB | {memory[1]:.2f} GB |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="output folder of a run")
    results = parser.parse_args().run
    if results:
        whole_run(results)
    else:
        single_tasks()


if __name__ == "__main__":
    main()
