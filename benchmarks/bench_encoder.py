#!/usr/bin/env python3
"""The encoder that Geneformer, scGPT, UCE and others share: its share of the GEMM limit on a CPU, without padding.

python benchmarks/bench_encoder.py     # prints a table; seconds
The limit is the speed of one large matrix product, measured right before; operations are those that torch counts.
"""

from bench_foundation import clock
from bench_foundation_further import gemm_limit

# name -> (layers, width, heads, inner, cells, tokens, queries of the last layer)
SHAPES = {
    "Geneformer V1, 2,048 tokens": (5, 256, 4, 512, 4, 2048, None),
    "Geneformer V1, 600 tokens": (5, 256, 4, 512, 16, 600, None),
    "scGPT, 1,200 tokens": (12, 512, 8, 512, 2, 1200, 1),
    "scGPT, 400 tokens": (12, 512, 8, 512, 6, 400, 1),
}


def main() -> None:
    import torch

    torch.set_num_threads(1)
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
