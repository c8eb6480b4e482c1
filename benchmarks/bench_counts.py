#!/usr/bin/env python3
"""Seconds and peak memory of describe_counts.py on simulated counts, and its likelihoods compared with those of statsmodels.

    python benchmarks/bench_counts.py [--cells 20000,100000 --genes 8000 --threads 2] > benchmarks/counts.md

All cells are described, in 10 batches. Imports and the loading of compiled code count: they are part of every run.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bin"))


def make(folder: Path, n_cells: int, n_genes: int, density: float) -> None:
    """counts.h5ad (Poisson with a factor a cell, CSR, lzf) and the tables that describe_counts.py reads."""
    import numpy as np
    import pandas as pd
    from bench_pca import simulate

    from plumbline.counts.reading import open_counts

    folder.mkdir()
    simulate(folder / "counts.h5ad", n_cells, n_genes, density)
    depth = np.concatenate([np.asarray(block.sum(axis=1)).ravel() for _, block in open_counts(folder / "counts.h5ad").blocks()])
    names = np.array([f"c{i}" for i in range(n_cells)])
    cells = pd.DataFrame({"cell_id": names, "perturbation": "p", "is_control": False, "n_counts": depth})
    cells["batch"] = (np.arange(n_cells) % 10).astype(str)
    (folder / "tables").mkdir()
    cells.to_parquet(folder / "tables" / "cells.parquet")
    genes = [f"g{i}" for i in range(n_genes)]
    pd.DataFrame({"gene_id": genes, "symbol": genes}).to_parquet(folder / "tables" / "genes.parquet")
    (folder / "tables" / "dataset.json").write_text(json.dumps({"x_kind": "counts"}))


def against_statsmodels(folder: Path, output: Path, n_genes: int = 30) -> tuple[float, float]:
    """(seconds per gene of statsmodels' three fits, the largest excess of its NB log-likelihood over that of plumbline)."""
    import anndata as ad
    import numpy as np
    import pandas as pd
    import statsmodels.api as sm
    from statsmodels.discrete.count_model import ZeroInflatedNegativeBinomialP

    ours = pd.read_parquet(f"{output}.count_distribution.parquet")
    data, cells = ad.read_h5ad(folder / "counts.h5ad"), pd.read_parquet(folder / "tables" / "cells.parquet")
    picked = np.random.default_rng(0).choice(np.flatnonzero(ours["tested"]), n_genes, replace=False)
    depth, code = cells["n_counts"].to_numpy(float), cells["batch"].astype(int).to_numpy()
    difference, start = -np.inf, time.monotonic()
    for gene in picked:
        y = data.X[:, [gene]].toarray().ravel().astype(float)
        mu = depth * (np.bincount(code, y) / np.bincount(code, depth))[code]
        about = {"exog": np.ones((len(y), 1)), "offset": np.log(mu)}
        sm.Poisson(y, **about).fit(disp=0)
        nb = sm.NegativeBinomial(y, **about).fit(disp=0)
        ZeroInflatedNegativeBinomialP(y, **about).fit(disp=0)
        row = ours.iloc[gene]
        # its search often ends early (it says so); it must never exceed plumbline's
        difference = max(difference, nb.llf - row["log_likelihood_nb"])
    return (time.monotonic() - start) / n_genes, difference


def main() -> None:
    import warnings

    from bench_memory import measured

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", default="20000,100000")
    parser.add_argument("--genes", type=int, default=8_000)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    print("# Description of counts: time and memory\n")
    print(f"`python benchmarks/bench_counts.py --cells {args.cells} --genes {args.genes} --threads {args.threads}`\n")
    print(
        "Compared with the three fits of statsmodels 0.14 of 30 genes, dense in memory, one at a time, scaled to all genes, and"
    )
    print("the largest excess of its NB log-likelihood over plumbline's (its search often ends below).\n")
    print("| cells x genes | wall seconds | CPU seconds | peak memory | statsmodels, seconds | ratio | excess |")
    print("|---|---|---|---|---|---|---|")
    for n_cells in map(int, args.cells.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder, output = Path(name) / "data", Path(name) / "out"
            make(folder, n_cells, args.genes, args.density)
            command = [sys.executable, ROOT / "bin" / "describe_counts.py", "--counts", folder / "counts.h5ad", "--tables",
                       folder / "tables", "--threads", args.threads, "--output", output]  # fmt: skip
            wall, cpu, peak = measured(command)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                each, difference = against_statsmodels(folder, output)
            theirs = each * args.genes
            time_and_space = f"{wall:.0f} | {cpu:.0f} | {peak / 2**30:.2f} GB"
            comparison = f"{theirs:,.0f} | {theirs / wall:,.0f} | {difference:.1e}"
            print(f"| {n_cells:,} x {args.genes:,} | {time_and_space} | {comparison} |", flush=True)


if __name__ == "__main__":
    main()
