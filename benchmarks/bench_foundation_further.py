#!/usr/bin/env python3
"""The seven further models: cells per CPU-second against the upstream procedure, and share of the GEMM limit.

python benchmarks/bench_foundation_further.py         # writes benchmarks/foundation_further.md
Random weights of the published sizes. Each side runs in a process of its own; loading is not timed. The peer is upstream's
procedure on the same weights and cells, written with torch's own modules. The GEMM limit is the CPU time that the
multiplications alone (counted by torch) would take at the speed of one large matrix product, measured right before.
"""

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from bench_foundation import HERE, clock, make_cells
from foundation_further_peers import BUILD, MAKE, PEERS

# model -> (cells, fewest and most expressed genes a cell)
SETS = {
    "scfoundation": (3, 1500, 1500),
    "scimilarity": (500, 800, 2500),
    "tahoe_x1": (24, 200, 2000),
    "transcriptformer": (1, 1000, 1000),
    "scconcept": (12, 200, 2000),
    "nicheformer": (2, 600, 1400),
    "nicheformer_mask": (4, 200, 1400),
    "state": (1, 1500, 1500),
}
NOTE = """
Peers: scFoundation one cell at a time, as its get_embedding.py; SCimilarity a dense matrix of all its genes, batches of 10,000;
Tahoe-x1 (70 M) batches of 8 in file order, padded, every position of every block computed, by torch's own layers with a padding
mask (upstream's attention kernels do not run on a CPU, so the ratio says little of a GPU); TranscriptFormer (Sapiens) one cell
at a time, padded to 2,047 positions, with its gene head and the network of gene vectors at every position; scConcept (30 M)
batches of 64 in file order, every position of the last layer; Nicheformer batches of 32, always 1,500 positions, which the
default needs as well (its mean includes padding; nicheformer_mask, --set padding=mask, does not: another embedding than the
peer's, so no difference is stated); STATE one cell at a time, every position of the last layer and of the decoder.

SCimilarity's first layer is a sum over the expressed genes here, so a share of the GEMM limit says nothing. scFoundation needs
every position of its last layer and upstream pads nothing; STATE's sentences are full by definition: on a CPU nothing is left
to save. One core of a shared, heavily loaded machine; CPU-seconds bear that, expect +-20 %. No GPU was at hand.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="one of the models")
    parser.add_argument("--worker", nargs=3, metavar=("MODEL", "SIDE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker, arguments.threads)
        return
    with tempfile.TemporaryDirectory() as place:
        rows = [compare(model, Path(place) / model, arguments.threads) for model in SETS if arguments.only in ("", model)]
    text = report(rows, arguments.threads)
    print(text)
    if not arguments.only:
        (HERE / "foundation_further.md").write_text(text)


def compare(model: str, folder: Path, threads: int) -> dict:
    """Time both sides, the peer first, and how far their embeddings differ."""
    import subprocess

    folder.mkdir()
    MAKE[model](folder)
    n, fewest, most = SETS[model]
    make_cells(folder / "counts.h5ad", n, fewest, most, whole=True)
    sides = {}
    for side in ("peer", "ours"):
        command = [sys.executable, __file__, "--threads", str(threads), "--worker", model, side, str(folder)]
        sides[side] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(model, side, sides[side], file=sys.stderr, flush=True)
    ours, peer = (np.load(folder / f"{side}.npy") for side in ("ours", "peer"))
    return {"model": model, "cells": n, **sides, "difference": float(np.abs(ours - peer).max() / np.abs(peer).max())}


def work(model: str, side: str, folder: str, threads: int) -> None:
    """One side: print CPU-seconds, operations of its matrix products and operations per CPU-second at the GEMM limit."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from plumbline.counts.reading import open_counts

    torch.set_num_threads(threads)
    place, limit = Path(folder), gemm_limit()
    counts = open_counts(place / "counts.h5ad")
    build = partial(BUILD[model], place, counts)
    torch.manual_seed(0)  # what a peer computes for nothing has weights of its own
    embed = ours(build, counts) if side == "ours" else PEERS[model](build("cpu"), counts)
    with torch.inference_mode():
        start = clock()
        values = embed()
        cpu = clock()[0] - start[0]
        with FlopCounterMode(display=False) as flops:  # not while timing: it slows some operations down
            if side == "ours" and model != "scimilarity":
                embed()
    np.save(place / f"{side}.npy", values)
    print(json.dumps({"cpu": cpu, "flop": flops.get_total_flops(), "limit": limit}))


def gemm_limit() -> float:
    """Operations per CPU-second of a matrix product of 4096 x 768 by 768 x 3072."""
    import torch

    a, b = torch.randn(4096, 768), torch.randn(768, 3072)
    a @ b
    start = clock()
    for _ in range(5):
        a @ b
    return 5 * 2 * 4096 * 768 * 3072 / (clock()[0] - start[0])


def ours(build, counts):
    """The run of embed_rows with a model that is loaded already."""
    from plumbline.embedding.options import Options
    from plumbline.models.runtime.rows import embed_rows

    model = build("cpu")
    told = {"variant": "own", "weights": None, "tables": None, "fit_on": "none", "seed": 42, "device": "cpu"}
    options = Options(**told, batch_size=0, threads=1, settings={})
    return lambda: embed_rows(counts, options, lambda _: model, "cpu", np.arange(len(counts.cell_id))).values


def report(rows: list[dict], threads: int) -> str:
    """The table as Markdown."""
    import torch

    lines = [
        "# The seven further models: plumbline against the upstream procedure, on a CPU",
        "",
        f"`python benchmarks/bench_foundation_further.py`, {threads} thread(s), torch {torch.__version__.partition('+')[0]},",
        "float32. Random weights of the published sizes. Cells per CPU-second, loading not counted.",
        "",
        "| model | cells | expressed genes | ours | peer | ratio | share of the GEMM limit | largest difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, peer = (row["cells"] / row[side]["cpu"] for side in ("ours", "peer"))
        share = row["ours"]["flop"] / row["ours"]["limit"] / row["ours"]["cpu"]
        shown = "" if row["model"] == "scimilarity" else f"{100 * share:.0f} %"
        _, fewest, most = SETS[row["model"]]
        genes = f"{fewest:,} to {most:,}" if most > fewest else f"{most:,}"
        differs = "–" if row["model"] == "nicheformer_mask" else f"{row['difference']:.1e}"  # of another embedding
        figures = f"{ours:.3g} | {peer:.3g} | {ours / peer:.1f} | {shown} | {differs}"
        lines.append(f"| {row['model']} | {row['cells']} | {genes} | {figures} |")
    return "\n".join([*lines, NOTE])


if __name__ == "__main__":
    main()
