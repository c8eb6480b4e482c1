"""SCimilarity's encoder, a network of dense layers (Heimberg et al. 2025, doi:10.1038/s41586-024-08411-y).

Trained by a triplet loss on cell-type labels: scores that have to do with cell types are not zero-shot. The first layer is a
sum of the expressed genes' rows, so the matrix of cells by genes never exists in full.
"""

import json
from itertools import count, pairwise, takewhile
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional as F

from plumbline.common.errors import UserError
from plumbline.embedding.damage import understood
from plumbline.embedding.options import Options
from plumbline.embedding.weights import fetch_hint, fill, load_tensors, open_file
from plumbline.models.runtime.batches import Ragged
from plumbline.models.scimilarity.tokens import Tokenizer
from plumbline.models.shared.folders import weights_root

FILE, GENES = "encoder.ckpt", "gene_order.tsv"


class Network(nn.Module):
    """Hidden layers (linear, batch norm, PReLU) and a linear one, with the authors' parameter names.

    sizes: genes, hidden widths, latent dimensions.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        hidden = (
            # Identity: the authors' dropout, which is off, keeps its number
            nn.Sequential(nn.Identity(), nn.Linear(a, b), nn.BatchNorm1d(b), nn.PReLU())
            for a, b in pairwise(sizes[:-1])
        )
        self.network = nn.Sequential(*hidden, nn.Linear(*sizes[-2:]))

    def forward(self, first: torch.Tensor) -> torch.Tensor:
        """Output of the first linear layer (n, width) -> embeddings (n, latent) of length 1."""
        if len(self.network) == 1:
            return F.normalize(first, dim=1)
        return F.normalize(self.network[1:](self.network[0][2:](first)), dim=1)

    @property
    def first(self) -> nn.Linear:
        """The linear layer that reads the genes."""
        return self.network[0][1] if len(self.network) > 1 else self.network[0]


def find_folder(options: Options) -> Path:
    """The folder of encoder.ckpt: --weights itself or one below it. Raises UserError if there is none, or are several."""
    root = weights_root(options.weights, options.variant)
    if "model_dir" in options.settings:
        return root / options.settings["model_dir"]
    found = [file.parent for pattern in ("", "*/", "scimilarity/*/") for file in sorted(root.glob(pattern + FILE))]
    if found and (len(found) == 1 or found[0] == root):
        return found[0]
    names = ", ".join(str(folder.relative_to(root)) for folder in found) or f"no {FILE}"
    raise UserError(
        f"{root} does not hold exactly one SCimilarity model; found {names}. Say which: --set model_dir=NAME. "
        f"{fetch_hint(options.variant)}"
    )


def load_network(folder: Path, n_genes: int, variant: str) -> Network:
    """The authors' encoder.ckpt; its sizes are read from the tensors. Raises UserError unless it reads ``n_genes`` genes."""
    _refuse_residual(folder / "hyperparameters.json", variant)
    file = folder / FILE
    with understood(file, "is not a SCimilarity encoder", variant):
        tensors = dict(load_tensors(file, variant)["state_dict"])
        if not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
            raise ValueError("state_dict holds more than tensors")
        sizes = _sizes(tensors)
    if sizes[0] != n_genes:
        raise UserError(f"{file} reads {sizes[0]} genes, but {GENES} names {n_genes}. {fetch_hint(variant)}")
    with torch.device("meta"):
        network = Network(sizes)
    fill(network, tensors, file, variant)
    return network.eval()


def _sizes(tensors: dict[str, torch.Tensor]) -> tuple[int, ...]:
    """(genes, hidden ..., latent)."""
    names = [f"network.{number}.1.weight" for number in takewhile(lambda n: f"network.{n}.1.weight" in tensors, count())]
    weights = [tensors[name] for name in (*names, f"network.{len(names)}.weight")]
    if any(weight.ndim != 2 for weight in weights):
        raise ValueError("a weight is not a matrix")
    return (weights[0].shape[1], *(weight.shape[0] for weight in weights))


def _refuse_residual(file: Path, variant: str) -> None:
    """Raises UserError if the model was trained with residual connections, which no tensor shows and no published one has."""
    if not file.is_file():
        return
    with open_file(file, variant) as stream, understood(file, "is not a table of settings", variant):
        residual = json.load(stream).get("residual", False)
    if residual:
        raise UserError(f"{file} describes a model with residual connections, which is not implemented.")


class SCimilarityCells:
    """SCimilarity as runtime.embed_cells wants it."""

    sort = True
    fills = (0, 0.0)

    def __init__(self, network: Network, tokenizer: Tokenizer, device: str) -> None:
        self.network, self.tokenizer, self.known = network.to(device), tokenizer, tokenizer.known
        self.table, self.bias = network.first.weight.T.contiguous(), network.first.bias
        self.dimension = network.network[-1].out_features
        self.max_length, self.bytes_per_token = tokenizer.max_length, 64

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Genes and values."""
        return self.tokenizer(rows, block)

    def forward(self, length: torch.Tensor, genes: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, dimension) of length 1; padding is a gene of value 0."""
        first = F.embedding_bag(genes, self.table, per_sample_weights=values, mode="sum")
        return self.network((first + self.bias).float())
