#!/usr/bin/env python3
"""scFoundation, SCimilarity and Tahoe-x1: cells per CPU-second against the upstream procedure, and share of the GEMM limit.

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
from bench_foundation import HERE, N_GENES, clock, make_cells

# model -> (cells, fewest and most expressed genes a cell)
SETS = {
    "scfoundation": (3, 1500, 1500),
    "scimilarity": (500, 800, 2500),
    "tahoe_x1": (24, 200, 2000),
}
NOTE = """
Peers: scFoundation one cell at a time, as its get_embedding.py; SCimilarity a dense matrix of all its genes, batches of 10,000;
Tahoe-x1 (70 M) batches of 8 in file order, padded, every position of every block computed, by torch's own layers with a padding
mask (upstream's attention kernels do not run on a CPU, so the ratio says little of a GPU). SCimilarity's first layer is a sum
over the expressed genes here, so a share of the GEMM limit says nothing. scFoundation needs every position of its last layer
and upstream pads nothing: on a CPU nothing is left to save. Two cores of a shared, heavily loaded machine; CPU-seconds bear
that, expect +-20 %. No GPU was at hand.
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
        rows = [compare(model, Path(place) / model, arguments.threads) for model in SETS if arguments.only in model]
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
    make_cells(folder / "counts.h5ad", n, fewest, most)
    sides = {}
    for side in ("peer", "ours"):
        command = [sys.executable, __file__, "--threads", str(threads), "--worker", model, side, str(folder)]
        sides[side] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(model, side, sides[side], file=sys.stderr, flush=True)
    ours, peer = (np.load(folder / f"{side}.npy") for side in ("ours", "peer"))
    return {"model": model, "cells": n, **sides, "difference": float(np.abs(ours - peer).max())}


def work(model: str, side: str, folder: str, threads: int) -> None:
    """One side: print CPU-seconds, operations of its matrix products and operations per CPU-second at the GEMM limit."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from plumbline.counts.reading import open_counts

    torch.set_num_threads(threads)
    place, limit = Path(folder), gemm_limit()
    counts = open_counts(place / "counts.h5ad")
    build = partial(BUILD[model], place, counts)
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


def make_scfoundation(folder: Path) -> None:
    """12 layers of 768, 12 heads, 100 bins."""
    from plumbline.models.scfoundation.network import Architecture
    from plumbline.models.scfoundation.untrained import write_checkpoint

    shape = Architecture(width=768, heads=12, layers=12, bins=100, alpha=1.0)
    write_checkpoint(folder, [f"G{number}" for number in range(N_GENES)], 0, shape)


def make_scimilarity(folder: Path) -> None:
    """28,231 genes, three layers of 1024, 128 dimensions."""
    from plumbline.models.scimilarity.untrained import write_checkpoint

    write_checkpoint(folder, [f"G{number}" for number in range(28231)], 0, (1024, 1024, 1024, 128))


def make_tahoe_x1(folder: Path) -> None:
    """70 M parameters: 12 layers of 512, 8 heads."""
    from plumbline.models.tahoe_x1.untrained import write_checkpoint

    genes = [f"ENSG{number:011d}" for number in range(62717)]
    write_checkpoint(folder, genes, 0, {"d_model": 512, "n_heads": 8, "n_layers": 12})


def build_scfoundation(folder: Path, counts, device: str):
    import embed_scfoundation
    from plumbline.models.scfoundation import tokens

    names = tokens.read_genes(tokens.gene_file(folder), "own")
    tokenizer = tokens.Tokenizer(counts.symbol, names, tokens.read_target("t4"), False)
    return embed_scfoundation.build_model(folder / "models.ckpt", "cell", "own", len(names), tokenizer, "all", device)


def build_scimilarity(folder: Path, counts, device: str):
    import embed_scimilarity
    from plumbline.models.scimilarity.tokens import Tokenizer, read_genes

    names = read_genes(folder / "gene_order.tsv", "own")
    return embed_scimilarity.build_model(folder, len(names), "own", Tokenizer(counts.symbol, names), device)


def build_tahoe_x1(folder: Path, counts, device: str):
    import embed_tahoe_x1
    from plumbline.models.shared.chance import CellChance
    from plumbline.models.tahoe_x1.files import read_encoding
    from plumbline.models.tahoe_x1.tokens import Tokenizer

    encoding = read_encoding(folder, "own")
    tokenizer = Tokenizer(counts.ensembl_id, encoding, 2048, "token", CellChance(counts.cell_id, 42))
    return embed_tahoe_x1.build_model(folder, "own", encoding, tokenizer, device)


def torch_layers(layers, norm_first: bool, names: dict[str, str]) -> list:
    """torch's own encoder layers with the weights of ``layers``."""
    from torch import nn

    made = []
    for layer in layers:
        width, heads = layer.norm1.weight.shape[0], layer.self_attn.heads
        inner = next(tensor for name, tensor in layer.named_parameters() if name.startswith(("up_proj.w", "linear1.w"))).shape[
            0
        ]
        state = {f"{names.get(name.split('.')[0], name.split('.')[0])}.{name.partition('.')[2]}": tensor
                 for name, tensor in layer.state_dict().items()}  # fmt: skip
        new = nn.TransformerEncoderLayer(width, heads, inner, batch_first=True, norm_first=norm_first).eval()
        new.load_state_dict(state)
        made.append(new)
    return made


def batches(model, counts, size: int) -> list[list]:
    """Padded batches of ``size`` cells in file order."""
    import torch

    from plumbline.models.runtime.batches import pad

    ragged = model.encode(*next(counts.blocks()))
    starts, cells = np.concatenate([[0], np.cumsum(ragged.length)]), np.arange(len(ragged.length))
    parts = np.split(cells, range(size, len(cells), size))
    return [[torch.from_numpy(array) for array in pad(ragged, starts, part, model.fills)] for part in parts]


def peer_scfoundation(model, counts):
    """One cell at a time through torch.nn.TransformerEncoderLayer."""
    import torch

    network = model.network
    layers = torch_layers(network.encoder.layers, False, {})

    def embed() -> np.ndarray:
        out = []
        for _, tokens, values in batches(model, counts, 1):
            x = network.token_emb(values) + network.pos_emb(tokens)
            for layer in layers:
                x = layer(x)
            x = network.encoder.norm(x)[0]
            out.append(torch.cat([x[0], x[1], x[2:].amax(dim=0), x[2:].mean(dim=0)]))
        return torch.stack(out).numpy()

    return embed


def peer_scimilarity(model, counts):
    """A dense matrix of all genes, normalised, through the network."""
    import torch

    def embed() -> np.ndarray:
        out = []
        for _, block in counts.blocks():
            dense = torch.from_numpy((block @ model.tokenizer.to_list).toarray().astype(np.float32))
            dense = torch.log1p(dense / dense.sum(dim=1, keepdim=True) * 1e4)
            out.append(torch.nn.functional.normalize(model.network.network(dense), dim=1))
        return torch.cat(out).numpy()

    return embed


def peer_tahoe_x1(model, counts):
    """Batches of 8 in file order, every position of every block."""
    import torch

    network, names = model.network, {"up_proj": "linear1", "down_proj": "linear2"}
    layers = torch_layers(network.transformer_encoder.layers, True, names)

    def embed() -> np.ndarray:
        out = []
        for length, tokens, values in batches(model, counts, 8):
            x = network.gene_encoder(tokens) + network.expression_encoder(values)
            padding = torch.arange(x.shape[1]) >= length[:, None]
            for layer in layers:
                x = layer(x, src_key_padding_mask=padding)
            out.append(torch.nn.functional.normalize(network.transformer_encoder.norm(x)[:, 0], dim=1))
        return torch.cat(out).numpy()

    return embed


MAKE = {"scfoundation": make_scfoundation, "scimilarity": make_scimilarity, "tahoe_x1": make_tahoe_x1}
BUILD = {"scfoundation": build_scfoundation, "scimilarity": build_scimilarity, "tahoe_x1": build_tahoe_x1}
PEERS = {"scfoundation": peer_scfoundation, "scimilarity": peer_scimilarity, "tahoe_x1": peer_tahoe_x1}


def report(rows: list[dict], threads: int) -> str:
    """The table as Markdown."""
    import torch

    lines = [
        "# scFoundation, SCimilarity, Tahoe-x1: ours against the upstream procedure, on a CPU",
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
        figures = f"{ours:.3g} | {peer:.3g} | {ours / peer:.1f} | {shown} | {row['difference']:.1e}"
        lines.append(f"| {row['model']} | {row['cells']} | {genes} | {figures} |")
    return "\n".join([*lines, NOTE])


if __name__ == "__main__":
    main()
