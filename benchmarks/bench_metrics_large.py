#!/usr/bin/env python3
"""Separability and batch effect at the size of the paper's data: what an approximation saves. Rows of a Markdown table.

    OMP_NUM_THREADS=1 python benchmarks/bench_metrics_large.py [--train 490000 --test 207000 --dimensions 256 --classes 6905]

The defaults are a screen of a million cells with the perturbations of Replogle et al. 2022. CPU-seconds of one thread. What is
too long to run, the recipe of the probe and the search of all test cells, is measured on a part (one update, 2,000 cells) and
multiplied; such numbers have a tilde.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy reads it

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))

from plumbline.metrics import probe
from plumbline.metrics.control_auroc import Cells, control_auroc
from plumbline.metrics.lisi import lisi
from plumbline.metrics.probe import knn_ranks
from plumbline.metrics.probe_budget import fit, plan
from plumbline.scoring.sampling import QUERIES

PART = 2_000  # test cells that a search is measured on


def seconds(function: Callable) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def trained(protocol: str, values: np.ndarray, code: np.ndarray, n_classes: int) -> tuple:
    """The probe of a protocol, and its recipe from the time of one update."""
    how, whole = (plan(protocol, len(code), values.shape[1], n_classes, exact=exact) for exact in (False, True))
    updates, rows = whole.schedule.epochs * probe.n_steps(len(code), whole.schedule), np.arange(whole.schedule.batch)
    layer = probe.initial(values.shape[1], n_classes, np.random.default_rng(0))
    inputs = probe.with_ones(values[rows])
    one = seconds(lambda: probe._gradient(np, layer, lambda part: (inputs[part], code[part]), rows, lambda array: array))
    return f"linear probe, `{protocol}`: {how.note}", updates * one, seconds(lambda: fit(values, code, n_classes, how, 0))


def searches(train: np.ndarray, code: np.ndarray, test: np.ndarray, test_code: np.ndarray) -> Iterator[tuple]:
    """kNN and iLISI for some of the test cells, in proportion."""
    ready = knn_ranks(train[:5000], code[:5000], test[:10], test_code[:10], 251, 1, "cpu")  # compiled
    fixed = seconds(lambda: knn_ranks(train, code, test[:10], test_code[:10], 251, 1, "cpu")) * len(ready) / 10
    part = seconds(lambda: knn_ranks(train, code, test[:PART], test_code[:PART], 251, 1, "cpu")) - fixed
    yield f"kNN of {len(test):,} cells; {QUERIES:,}", fixed + part * len(test) / PART, fixed + part * QUERIES / PART
    batch, asking = np.arange(len(test)) % 80, np.arange(PART)
    lisi(test[:3000], batch[:3000], 248, 83)
    part = seconds(lambda: lisi(test, batch, 248, 83, asking=asking))
    yield f"iLISI of {len(test):,} cells, all dimensions; {QUERIES:,}", part * len(test) / PART, part * QUERIES / PART


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, size in (("train", 490_000), ("test", 207_000), ("dimensions", 256), ("classes", 6_905)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--only", default="searches,auroc,paper,corrected")
    size = parser.parse_args()
    random = np.random.default_rng(0)
    n = size.train + size.test
    code = random.integers(0, size.classes, n)
    values = random.standard_normal((n, size.dimensions), dtype=np.float32)
    values += 0.3 * random.standard_normal((size.classes, size.dimensions), dtype=np.float32)[code]
    train, test = slice(0, size.train), slice(size.train, n)
    print("| computation | exact | approximated | ratio |\n|---|---|---|---|")
    parts = {
        "searches": lambda: searches(values[train], code[train], values[test], code[test]),
        "auroc": lambda: aurocs(values, code, size.classes, size.train),
        "paper": lambda: [trained("paper", values[train], code[train], size.classes)],
        "corrected": lambda: [trained("corrected", values[train], code[train], size.classes)],
    }
    for name in size.only.split(","):
        for what, exact, cut in parts[name]():
            times = (f"~ {exact:,.0f} s", f"{cut:,.0f} s", f"{exact / cut:.0f}x") if cut == cut else (f"{exact:,.0f} s", "", "")
            print(f"| {what} | {' | '.join(times)} |", flush=True)


def aurocs(values: np.ndarray, code: np.ndarray, n_classes: int, n_train: int) -> Iterator[tuple]:
    """AUROC against controls, which is not approximated."""
    control = np.random.default_rng(1).random(len(code)) < 0.04
    test = np.arange(len(code)) >= n_train
    batch = np.where(test, 186 + np.arange(len(code)) % 80, np.arange(len(code)) % 186)
    cells = Cells(values, np.where(control, -1, code), batch, test)
    yield f"AUROC against controls, {len(code):,} cells", seconds(lambda: control_auroc(cells, n_classes, 0)), float("nan")


if __name__ == "__main__":
    main()
