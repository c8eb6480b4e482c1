#!/usr/bin/env python3
"""CellPLM compared with its authors' package, and UCE in bfloat16 compared with float32, on a CPU: same weights, same cells.

    python benchmarks/bench_foundation_uce_cellplm.py            # installs cellplm 0.1.0.post2 into a temporary environment

Weights are random. Only embedding is timed, not loading; CPU-seconds are compared, because a shared machine's wall clock is
not. UCE compared with the steps of its authors' code is in bench_foundation.py. Writes benchmarks/foundation_uce_cellplm.md.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "bin")]
N_GENES, LATENT, DETECTED = 19_374, 512, 2_000
PEER = ("cellplm==0.1.0.post2", "einops", "torchmetrics", "hdf5plugin", "mygene", "biothings-client", "lightning-utilities")


def main() -> None:
    """Time every pair and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--uce-cells", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer-python", type=Path, help="a Python that has cellplm (default: one is made)")
    parser.add_argument("--worker", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(WORKERS[arguments.worker[0]](Path(arguments.worker[1]), arguments.threads)))
        return
    with tempfile.TemporaryDirectory() as place:
        rows = [bench_cellplm(Path(place), arguments), bench_uce_bf16(Path(place), arguments)]
    text = report(rows, arguments.threads)
    (HERE / "foundation_uce_cellplm.md").write_text(text)
    print(text)


def bench_cellplm(place: Path, arguments: argparse.Namespace) -> dict:
    """Ours against PyPI cellplm's CellEmbeddingPipeline: all cells see each other."""
    folder = place / "cellplm"
    folder.mkdir()
    make_cellplm(folder, arguments.cells)
    python = arguments.peer_python or make_peer(place / "peer")
    sides = {side: run_side(side, folder, arguments.threads, python) for side in ("cellplm_peer", "cellplm_ours")}
    ours, peer = (np.load(folder / f"{side}.npy") for side in ("cellplm_ours", "cellplm_peer"))
    difference = float(np.abs(ours - peer).max())
    name = f"CellPLM, {arguments.cells} cells: plumbline / cellplm 0.1.0.post2"
    return {"name": name, "cells": arguments.cells, "ours": sides["cellplm_ours"], "peer": sides["cellplm_peer"],
            "difference": difference}  # fmt: skip


def bench_uce_bf16(place: Path, arguments: argparse.Namespace) -> dict:
    """UCE in bfloat16 compared with float32."""
    from bench_foundation import make_cells, make_uce

    folder = place / "uce"
    folder.mkdir()
    make_uce(folder)
    make_cells(folder / "counts.h5ad", arguments.uce_cells, 3000, 3000)
    sides = {side: run_side(side, folder, arguments.threads, Path(sys.executable)) for side in ("uce_fp32", "uce_bf16")}
    ours, peer = (np.load(folder / f"{side}.npy") for side in ("uce_bf16", "uce_fp32"))
    difference = float(np.abs(ours - peer).max())
    name = f"UCE (4 layers), {arguments.uce_cells} cells: bf16 / fp32"
    return {"name": name, "cells": arguments.uce_cells, "ours": sides["uce_bf16"], "peer": sides["uce_fp32"],
            "difference": difference}  # fmt: skip


def run_side(side: str, folder: Path, threads: int, python: Path) -> dict:
    """CPU-seconds and peak memory of one side, in a process of its own."""
    command = [str(python), __file__, "--threads", str(threads), "--worker", side, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    print(side, done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def make_peer(folder: Path) -> Path:
    """A temporary environment: this one, and cellplm without its pinned dependencies."""
    venv.create(folder, with_pip=True)
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "these.pth").write_text(f"{site}\n")
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *PEER], check=True)
    return python


def make_cellplm(folder: Path, n_cells: int) -> None:
    """A checkpoint of the released sizes with random weights, and cells of DETECTED genes each."""
    import anndata as ad
    import pandas as pd
    import scipy.sparse as sp

    from plumbline.models.cellplm.untrained import Sizes, write_checkpoint

    genes = [f"ENSG{gene:011d}" for gene in range(N_GENES)]
    write_checkpoint(folder, "20231027_85M", genes, 0, Sizes(width=1024, layers=4, latent=LATENT))
    rng = np.random.default_rng(0)
    columns = np.concatenate([np.sort(rng.choice(N_GENES, DETECTED, replace=False)) for _ in range(n_cells)])
    values = (1 + rng.poisson(1.5, len(columns))).astype(np.float32)
    x = sp.csr_matrix((values, columns, np.arange(n_cells + 1) * DETECTED), shape=(n_cells, N_GENES))
    ad.AnnData(x, obs=pd.DataFrame(index=[f"c{n}" for n in range(n_cells)]), var=pd.DataFrame(index=genes)).write_h5ad(
        folder / "counts.h5ad"
    )


def timed(work) -> tuple[np.ndarray, dict]:
    """(values, CPU-seconds, seconds and peak memory) of a call."""
    begin, wall = time.process_time(), time.monotonic()
    values = work()
    cpu, wall = time.process_time() - begin, time.monotonic() - wall
    return values, {"cpu": cpu, "wall": wall, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def cellplm_peer(folder: Path, threads: int) -> dict:
    """The authors' pipeline."""
    import anndata as ad
    import torch
    from CellPLM.pipeline.cell_embedding import CellEmbeddingPipeline

    torch.set_num_threads(threads)
    pipeline = CellEmbeddingPipeline("20231027_85M", str(folder))
    values, cost = timed(lambda: pipeline.predict(ad.read_h5ad(folder / "counts.h5ad")).numpy())
    np.save(folder / "cellplm_peer.npy", values)
    return cost


def cellplm_ours(folder: Path, threads: int) -> dict:
    """Ours, from the file."""
    import torch

    from plumbline.counts.reading import open_counts
    from plumbline.models.cellplm.cellplm import CellPLM, match_genes
    from plumbline.models.cellplm.checkpoints import load_network

    torch.set_num_threads(threads)
    config = json.loads((folder / "20231027_85M.config.json").read_text())
    network, counts = load_network(folder / "20231027_85M.best.ckpt", config, "cellplm"), open_counts(folder / "counts.h5ad")
    model = CellPLM(network, match_genes(counts, config["gene_list"]), "cpu", 0)
    values, cost = timed(lambda: model.embed(counts, [np.arange(counts.shape[0])], None, LATENT)[0])
    np.save(folder / "cellplm_ours.npy", values)
    return cost


def uce_side(precision: str):
    """UCE in one number format."""

    def work(folder: Path, threads: int) -> dict:
        import torch
        from bench_foundation import build_ours

        from plumbline.counts.reading import open_counts
        from plumbline.embedding.options import Options
        from plumbline.models.runtime.rows import embed_rows

        torch.set_num_threads(threads)
        counts = open_counts(folder / "counts.h5ad")
        model = build_ours("uce", folder, counts)("cpu")
        options = Options(
            variant="uce_4l",
            weights=folder,
            tables=None,
            fit_on="none",
            seed=42,
            device="cpu",
            batch_size=0,
            threads=threads,
            settings={"precision": precision},
        )
        rows = np.arange(counts.shape[0])
        values, cost = timed(lambda: embed_rows(counts, options, lambda device: model, "cpu", rows).values)
        np.save(folder / f"uce_{precision}.npy", values)
        return cost

    return work


WORKERS = {
    "cellplm_peer": cellplm_peer,
    "cellplm_ours": cellplm_ours,
    "uce_fp32": uce_side("fp32"),
    "uce_bf16": uce_side("bf16"),
}


def report(rows: list[dict], threads: int) -> str:
    """The table as Markdown."""
    import torch

    lines = [
        "# CellPLM compared with its authors' package, UCE in bf16 compared with fp32, on a CPU",
        "",
        f"`python benchmarks/bench_foundation_uce_cellplm.py`, {threads} thread(s), torch {torch.__version__.split('+')[0]}.",
        "Random weights of the published sizes; the same weights and cells on both sides. Cells per CPU-second of embedding,",
        "loading not counted; memory is the peak of the process, weights included. UCE compared with its authors' steps: see",
        "foundation.md.",
        "",
        "| what | first, cells/CPU-s | second, cells/CPU-s | ratio | first, GB | second, GB | largest difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, peer = (row["cells"] / row[side]["cpu"] for side in ("ours", "peer"))
        memory = [f"{row[side]['peak'] / 1e9:.2f}" for side in ("ours", "peer")]
        lines.append(f"| {row['name']} | {ours:.2f} | {peer:.2f} | {ours / peer:.1f} | {' | '.join(memory)} | "
                     f"{row['difference']:.1e} |")  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
