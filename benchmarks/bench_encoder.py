#!/usr/bin/env python3
"""Share of the GEMM limit on a CPU: of the encoder that Geneformer, scGPT, UCE and others have in common, and of whole runs.

python benchmarks/bench_encoder.py             # the encoder without padding: prints a table; seconds
python benchmarks/bench_encoder.py --whole     # reading counts, tokenising, batches, forward passes, writing; two minutes
The limit is the speed of one large matrix product, measured right before and after; operations are those that torch counts.
Loading a model is not timed: a run pays it once.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from bench_foundation import CHECKPOINTS, build_ours, clock, make_cells
from bench_foundation_further import gemm_limit

# name -> (layers, width, heads, inner, cells, tokens, queries of the last layer)
SHAPES = {
    "Geneformer V1, 2,048 tokens": (5, 256, 4, 512, 4, 2048, None),
    "Geneformer V1, 600 tokens": (5, 256, 4, 512, 16, 600, None),
    "scGPT, 1,200 tokens": (12, 512, 8, 512, 2, 1200, 1),
    "scGPT, 400 tokens": (12, 512, 8, 512, 6, 400, 1),
}

# name -> (kind, cells, fewest and most expressed genes a cell)
RUNS = {
    "scGPT, 200 to 2,500 genes": ("scgpt", 24, 200, 2500),
    "Geneformer V1, 300 to 2,500 genes": ("geneformer", 40, 300, 2500),
    "UCE (4 layers), 1,500 to 3,500 genes": ("uce", 8, 1500, 3500),
}


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="runs of models, not the encoder alone")
    whole = parser.parse_args().whole
    torch.set_num_threads(1)
    (runs if whole else encoders)()


def runs() -> None:
    """A row for each model: cells per CPU-second, and the share."""
    print("| run | cells | cells per CPU-second | share of the GEMM limit |\n|---|---|---|---|")
    for name, (kind, n, fewest, most) in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            CHECKPOINTS[kind](Path(folder))
            make_cells(Path(folder) / "counts.h5ad", n, fewest, most, whole=True)
            before = gemm_limit()
            seconds, flop = run(kind, Path(folder))
            limit = (before + gemm_limit()) / 2
        print(f"| {name} | {n} | {n / seconds:.2f} | {100 * flop / limit / seconds:.0f} % |", flush=True)


def run(kind: str, folder: Path) -> tuple[float, int]:
    """(CPU-seconds from counts to a written embedding, operations of its matrix products and of attention)."""
    from torch.utils.flop_counter import FlopCounterMode

    from plumbline.counts.reading import open_counts
    from plumbline.embedding.contract import write_embedding
    from plumbline.embedding.options import Options
    from plumbline.models.runtime.rows import embed_rows

    model = build_ours(kind, folder, open_counts(folder / "counts.h5ad"))("cpu")
    told = {"variant": kind, "weights": folder, "tables": None, "fit_on": "none", "seed": 42, "device": "cpu"}
    options = Options(**told, batch_size=0, threads=1, settings={})

    def embed() -> None:
        counts = open_counts(folder / "counts.h5ad")
        values = embed_rows(counts, options, lambda _: model, "cpu", np.arange(len(counts.cell_id))).values
        write_embedding(folder / "embedding.npz", counts.cell_id, values, {})

    start = clock()
    embed()
    seconds = clock()[0] - start[0]
    with FlopCounterMode(display=False) as flops:  # not while timing: it slows some operations down
        embed()
    return seconds, flops.get_total_flops()


def encoders() -> None:
    """A row for each shape."""
    import torch

    print("| encoder | CPU-seconds | share of the GEMM limit |\n|---|---|---|")
    for name, (layers, width, heads, inner, cells, tokens, queries) in SHAPES.items():
        limit = gemm_limit()
        seconds, flop = measured(layers, width, heads, inner, torch.randn(cells, tokens, width), queries)
        print(f"| {name} | {seconds:.2f} | {100 * flop / limit / seconds:.0f} % |", flush=True)


def measured(layers: int, width: int, heads: int, inner: int, x, queries: int | None) -> tuple[float, int]:
    """(CPU-seconds, operations of the matrix products and of attention) of one pass over ``x`` (cells, tokens, width)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from plumbline.models.runtime.encoder import Encoder

    encoder = Encoder(layers, width, heads, inner).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    with torch.inference_mode():
        encoder(x[:1], None, queries)
        start = clock()
        encoder(x, None, queries)
        seconds = clock()[0] - start[0]
        with FlopCounterMode(display=False) as flops:
            encoder(x, None, queries)
    return seconds, flops.get_total_flops()


if __name__ == "__main__":
    main()
