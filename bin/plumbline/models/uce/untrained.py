"""A UCE of random weights in the authors' files: a model, species_chrom.csv, species_offsets.pkl and a species' proteins.

Neither proteins nor a genome are made up to be right: protein vectors are random, as everything else, and gene k of the sorted
symbols starts at k on chromosome k mod 24.
"""

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.objectives.head import seeded
from plumbline.models.shared.genes import named
from plumbline.models.shared.untrained import start_attention, vocabulary
from plumbline.models.uce.network import Network
from plumbline.models.uce.tokens import CLS, SPECIES, organism

N_CHROMOSOMES = 24


@dataclass(frozen=True)
class Sizes:
    """Sizes of a network; the number of heads is that of every UCE. protein: width of the protein vectors."""

    layers: int
    width: int
    inner: int
    protein: int
    hidden: int
    output: int
    positions: int = 1536


TINY = Sizes(layers=2, width=80, inner=320, protein=64, hidden=64, output=80)


def make_checkpoint(folder: Path, counts: Counts, options: Options) -> None:
    """A tiny model that knows every symbol of ``counts``. Raises NotApplicable as the trained model does."""
    species = organism(counts, options)
    genes = vocabulary(str(name).upper() for name in named(counts, "symbol", species)[0].symbol)
    write_checkpoint(folder / "untrained.torch", len(genes), options.seed, TINY)
    write_positions(folder / "species_chrom.csv", species, genes)
    (folder / "species_offsets.pkl").write_bytes(pickle.dumps({species: CLS + 1}))
    proteins = dict(zip(genes, torch.zeros(len(genes), 1), strict=True))  # only names are read from this file
    torch.save(proteins, folder / f"{SPECIES[species]}.untrained.gene_symbol_to_embedding_ESM2.pt")


def write_positions(path: Path, species: str, genes: Sequence[str]) -> None:
    """A row for each gene; every chromosome has one, if there are fewer genes a nameless one."""
    at = np.arange(max(len(genes), N_CHROMOSOMES))
    names = [*genes, *[""] * (len(at) - len(genes))]
    table = {"species": species, "gene_symbol": names, "chromosome": at % N_CHROMOSOMES, "start": at}
    pd.DataFrame(table).to_csv(path, index=False)


def write_checkpoint(path: Path, n_genes: int, seed: int, sizes: Sizes) -> None:
    """A model of ``sizes`` whose token table has 4 special rows, ``n_genes`` rows and 24 chromosomes."""
    model = seeded(seed, lambda: start(sizes, CLS + 1 + n_genes + N_CHROMOSOMES))
    torch.save(model.state_dict(), path)


def start(sizes: Sizes, n_tokens: int) -> Network:
    """Initial weights as torch, and so the authors, start them; sines as positions; a normal token table."""
    network = Network(shapes(sizes))
    start_attention(network.transformer_encoder)
    place = torch.arange(sizes.positions)[:, None]
    angle = place * torch.exp(torch.arange(0, sizes.width, 2) * (-math.log(10000.0) / sizes.width))
    network.pos_encoder.pe[:, 0, 0::2], network.pos_encoder.pe[:, 0, 1::2] = angle.sin(), angle.cos()
    network.pe_embedding = nn.Embedding(n_tokens, sizes.protein)
    return network


def shapes(sizes: Sizes) -> dict[str, torch.Tensor]:
    """Tensors without numbers, from which Network reads its sizes."""
    wanted = {
        "encoder.0.weight": (sizes.width, sizes.protein),
        "decoder.0.0.weight": (sizes.hidden, sizes.width),
        "decoder.3.weight": (sizes.output, sizes.output),
        "pos_encoder.pe": (sizes.positions, 1, sizes.width),
    }
    wanted |= {f"transformer_encoder.layers.{at}.linear1.weight": (sizes.inner, sizes.width) for at in range(sizes.layers)}
    return {name: torch.empty(shape, device="meta") for name, shape in wanted.items()}
