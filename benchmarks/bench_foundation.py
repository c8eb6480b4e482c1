#!/usr/bin/env python3
"""Cells per CPU-second and peak memory of our forward passes, against the upstream procedure, on the same cells and weights.

python benchmarks/bench_foundation.py --peers         # --peers installs scgpt 0.2.4 into a temporary folder
Weights are random, architectures are those of the published checkpoints. Start-up and loading are not timed. CPU-seconds of
the process and its children are compared, because a shared machine's wall clock is not. Writes benchmarks/foundation.md.
"""

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "bin")]

# kind -> (cells, fewest and most expressed genes a cell)
SETS = {
    "scgpt, cells at the context length": ("scgpt", 8, 1199, 1199),
    "scgpt, cells of 200 to 1,199 genes": ("scgpt", 24, 200, 1199),
    "geneformer V1 (6 layers), 2,048 genes": ("geneformer", 16, 2048, 2048),
    "geneformer V1 (6 layers), 300 to 2,048 genes": ("geneformer", 32, 300, 2048),
    "uce (4 layers), 1,024 genes drawn": ("uce", 4, 3000, 3000),
}
N_GENES = 20_000
NOTE = """
Geneformer's and UCE's own packages are not timed: the peer is their procedure on the same tokens. Where the time is saved: no
vocabulary head and no layer above the requested one (Geneformer), one query in the last layer and tables in place of the
gene and value encoders (scGPT), one query, one decoded position and one projection a gene (UCE), batches by length, fused
attention, and batches small enough for the caches.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="sets whose name holds this text")
    parser.add_argument("--peers", action="store_true", help="install the upstream packages that still install")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", nargs=4, metavar=("KIND", "SIDE", "FOLDER", "PACKAGES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker, arguments.threads)
        return
    with tempfile.TemporaryDirectory() as place:
        packages = install(Path(place) / "packages") if arguments.peers else ""
        chosen = {name: row for name, row in SETS.items() if arguments.only in name}
        rows = [compare(name, Path(place), packages, arguments.threads, row) for name, row in chosen.items()]
    table = report(rows, arguments.threads)
    print(table)
    if not arguments.only:
        (HERE / "foundation.md").write_text(table)


def install(target: Path) -> str:
    """scgpt without its dependencies, which no longer install together; '' if it cannot be had."""
    package = ["--quiet", "--no-deps", "--target", str(target), "scgpt==0.2.4"]
    installers = ([sys.executable, "-m", "pip", "install"], ["uv", "pip", "install", "--python", sys.executable])
    for installer in installers:
        with contextlib.suppress(OSError):
            if subprocess.run([*installer, *package], check=False).returncode == 0:
                return str(target)
    return ""


def compare(name: str, place: Path, packages: str, threads: int, row: tuple[str, int, int, int]) -> dict:
    """Time both sides, each in a process of its own, the peer first, and check that they agree."""
    kind, n, fewest, most = row

    folder = place / kind
    if not folder.exists():
        folder.mkdir()
        CHECKPOINTS[kind](folder)
    make_cells(folder / "counts.h5ad", n, fewest, most)
    sides = {}
    for side in ("peer", "ours"):
        command = [sys.executable, __file__, "--threads", str(threads), "--worker", kind, side, str(folder), packages]
        sides[side] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(name, side, sides[side], file=sys.stderr, flush=True)
    ours, peer = (np.load(folder / f"{side}.npy") for side in ("ours", "peer"))
    return {"name": name, "cells": n, **sides, "difference": float(np.abs(ours - peer).max())}


def work(kind: str, side: str, folder: str, packages: str, threads: int) -> None:
    """One side: print its figures, save its embedding."""
    import torch

    torch.set_num_threads(threads)
    place, about = Path(folder), "plumbline"
    if side == "ours":
        values, cpu, wall = run_ours(kind, place)
    else:
        import foundation_peers

        embed, about = getattr(foundation_peers, kind)(place, place / "counts.h5ad", Path(packages) if packages else None)
        with torch.inference_mode():
            start = clock()
            values = embed()
            cpu, wall = (end - begin for end, begin in zip(clock(), start, strict=True))
    np.save(place / f"{side}.npy", values)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"cpu": cpu, "wall": wall, "peak": peak, "about": about}))


def run_ours(kind: str, folder: Path) -> tuple[np.ndarray, float, float]:
    """(values, CPU-seconds, seconds) of reading, tokenising and embedding, from the moment the model is loaded."""
    from plumbline.counts.reading import open_counts
    from plumbline.embedding.options import Options
    from plumbline.models.runtime.rows import embed_rows

    counts, marks = open_counts(folder / "counts.h5ad"), []
    build = build_ours(kind, folder, counts)

    def timed(device: str):
        model = build(device)
        marks.append(clock())
        return model

    options = Options(
        variant=kind, weights=folder, tables=None, fit_on="all", seed=42, device="cpu", batch_size=0, threads=1, settings={}
    )
    done = embed_rows(counts, options, timed, "cpu", np.arange(len(counts.cell_id)))
    cpu, wall = (end - begin for end, begin in zip(clock(), marks[0], strict=True))
    return done.values, cpu, wall


def build_ours(kind: str, folder: Path, counts):
    """The function that loads our model onto a device."""
    from plumbline.embedding.options import Options

    options = Options(
        variant=kind, weights=folder, tables=None, fit_on="all", seed=42, device="cpu", batch_size=0, threads=1, settings={}
    )
    if kind == "scgpt":
        import embed_scgpt
        from plumbline.models.scgpt.tokens import load_vocabulary

        vocabulary = load_vocabulary(folder / "vocab.json", kind)
        return partial(embed_scgpt.build_model, folder, vocabulary, counts.symbol, counts.cell_id, options, 1200, "cell")
    if kind == "geneformer":
        import embed_geneformer
        from plumbline.models.geneformer.files import find_files

        files = find_files(options)
        tokenizer = embed_geneformer.build_tokenizer(counts.ensembl_id, counts.symbol, files, options)
        return partial(embed_geneformer.build_model, tokenizer, files, kind, "cell", -1)
    return partial(build_uce, folder, counts)


def build_uce(folder: Path, counts, device: str):
    """UCE whose genes lie on 24 chromosomes in the order of the file."""
    from plumbline.models.uce.network import build
    from plumbline.models.uce.tokens import Genome

    columns = np.arange(N_GENES)
    genome = Genome(columns, columns + 4, columns % 24, columns, N_GENES + 4)
    parts = {"genome": genome, "cell_id": counts.cell_id, "n_genes": N_GENES, "seed": 42, "padding": "mask", "sampling": "cell"}
    return build(device, folder / "4layer_model.torch", "uce_4l", **parts)


def clock() -> tuple[float, float]:
    """(CPU-seconds of this process and its finished children, seconds)."""
    use = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in use), time.monotonic()


def make_cells(path: Path, n: int, fewest: int, most: int, whole: bool = False) -> None:
    """n cells with values that never tie, so that both sides must give the same embedding. whole: whole numbers."""
    import anndata as ad
    import pandas as pd
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    sizes = rng.integers(fewest, most + 1, n)
    genes = [np.sort(rng.choice(N_GENES, size, replace=False)) for size in sizes]
    values = [rng.permutation(size) + (1.0 if whole else rng.uniform(0.5, 1.5, size)) for size in sizes]
    start = np.concatenate([[0], np.cumsum(sizes)])
    matrix = sp.csr_matrix((np.concatenate(values).astype(np.float32), np.concatenate(genes), start), shape=(n, N_GENES))
    obs = pd.DataFrame(index=[f"c{row}" for row in range(n)])
    names = [f"ENSG{gene:011d}" for gene in range(N_GENES)]
    var = pd.DataFrame({"ensembl_id": names, "symbol": [f"G{gene}" for gene in range(N_GENES)]}, index=names)
    ad.AnnData(matrix, obs=obs, var=var).write_h5ad(path)


def make_scgpt(folder: Path) -> None:
    """Whole-human sizes: 12 layers, 8 heads, 512, 60,697 tokens."""
    from plumbline.models.scgpt.network import Architecture
    from plumbline.models.scgpt.untrained import write_checkpoint

    write_checkpoint(folder, [f"G{number}" for number in range(60694)], 0, Architecture(512, 8, 512, 12, -2.0))


def make_geneformer(folder: Path) -> None:
    """V1 sizes: 6 layers, 4 heads, 256, feed-forward 512, 2,048 positions, 25,426 tokens."""
    from plumbline.models.geneformer.network import Architecture
    from plumbline.models.geneformer.untrained import write_checkpoint

    genes = [f"ENSG{gene:011d}" for gene in range(25424)]
    write_checkpoint(folder, genes, 0, Architecture(6, 256, 4, 512, 2048, 25426, 2, 1e-12))


def make_uce(folder: Path) -> None:
    """4-layer sizes: 20 heads, 1280, feed-forward 5120, protein vectors of 5120; a table of the genes of one species."""
    from plumbline.models.uce.untrained import Sizes, write_checkpoint

    write_checkpoint(folder / "4layer_model.torch", N_GENES, 0, Sizes(4, 1280, 5120, 5120, 1024, 1280))


CHECKPOINTS = {"scgpt": make_scgpt, "geneformer": make_geneformer, "uce": make_uce}


def report(rows: list[dict], threads: int) -> str:
    """The table as Markdown."""
    import torch

    lines = [
        "# Foundation models: plumbline compared with the upstream procedure, on a CPU",
        "",
        f"`python benchmarks/bench_foundation.py --peers`, {threads} threads, torch {torch.__version__.partition('+')[0]},",
        "float32. Random weights of the published sizes; values without ties, so that both sides must agree. Cells per",
        "CPU-second (process and children), loading not counted; memory is the peak of the process, weights included.",
        "",
        "| cells | n | plumbline, cells/CPU-s | peer, cells/CPU-s | ratio | plumbline, GB | peer, GB | largest difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, peer = (row["cells"] / row[side]["cpu"] for side in ("ours", "peer"))
        memory = " | ".join(f"{row[side]['peak'] / 1e9:.2f}" for side in ("ours", "peer"))
        figures = f"{ours:.2f} | {peer:.2f} | {ours / peer:.1f} | {memory} | {row['difference']:.1e}"
        lines.append(f"| {row['name']} | {row['cells']} | {figures} |")
    peers = {row["name"].split(",")[0]: row["peer"]["about"] for row in rows}
    return "\n".join([*lines, "", "Peers:", *(f"- {name}: {about}" for name, about in peers.items()), NOTE])


if __name__ == "__main__":
    main()
