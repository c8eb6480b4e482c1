"""scGPT: cells embedded by the authors' checkpoints, zero-shot.

Source: Cui et al. 2024 (doi:10.1038/s41592-024-02201-0); embedding as the authors' embed_data: the <cls> position of the
encoder's output, divided by its length. There is no positional encoding. Both encoders in front of the transformer are
functions of one token or one bin, so they are tables here; the last layer is computed for <cls> only.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional as F

from plumbline.common.errors import UserError
from plumbline.embedding.checkpoints import fetch_hint, known_checkpoints
from plumbline.embedding.damage import understood
from plumbline.embedding.options import Options
from plumbline.embedding.weights import fill, load_tensors, open_file
from plumbline.models.runtime.batches import Ragged
from plumbline.models.runtime.encoder import Encoder, key_bias
from plumbline.models.scgpt.tokens import N_BINS, Tokenizer
from plumbline.models.shared.folders import weights_root

# trained with the model, not part of its embedding
UNUSED = ("decoder.", "mvc_decoder.", "cls_decoder.", "flag_encoder.")


@dataclass(frozen=True)
class Architecture:
    """The part of args.json that decides the forward pass. pad_value: the value <cls> and padding get."""

    width: int
    heads: int
    inner: int
    layers: int
    pad_value: float


class GeneEncoder(nn.Module):
    """Gene embedding, normalised."""

    def __init__(self, n_tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, width)
        self.enc_norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens (...) -> (..., width)."""
        return self.enc_norm(self.embedding(tokens))


class ValueEncoder(nn.Module):
    """An expression value (a bin, not rescaled) through a small network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(1, width)
        self.linear2 = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """values (...) -> (..., width)."""
        return self.norm(self.linear2(F.relu(self.linear1(values.clamp(max=512)[..., None]))))


class ScGPT(nn.Module):
    """The encoder, with the parameter names of the authors' TransformerModel."""

    def __init__(self, shape: Architecture, n_tokens: int) -> None:
        super().__init__()
        self.encoder = GeneEncoder(n_tokens, shape.width)
        self.value_encoder = ValueEncoder(shape.width)
        self.transformer_encoder = Encoder(shape.layers, shape.width, shape.heads, shape.inner)
        self.pad_value = shape.pad_value

    def tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(n_tokens, width) of every gene, (51, width) of every bin, bin 0 being the padding value."""
        with torch.inference_mode():
            device = self.encoder.embedding.weight.device
            bins = torch.arange(N_BINS, dtype=torch.float32, device=device)
            bins[0] = self.pad_value
            return self.encoder.enc_norm(self.encoder.embedding.weight), self.value_encoder(bins)


def find_folder(options: Options) -> Path:
    """The folder of args.json: --weights itself, its subfolder ``model_dir``, the one models.csv names, or its only one."""
    root = weights_root(options.weights, options.variant)
    if any((root / "scgpt").glob("*/args.json")):  # the folder that holds every fetched model
        root = root / "scgpt"
    if "model_dir" in options.settings:
        return root / options.settings["model_dir"]
    if (root / "args.json").is_file():
        return root
    checkpoint = known_checkpoints().get(options.variant)
    named = {(root / file.path).parent for file in checkpoint.files} if checkpoint else set()
    folders = [file.parent for file in sorted(root.glob("*/args.json"))]
    fitting = [folder for folder in folders if folder in named] or folders
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(folder.name for folder in folders) or "no args.json"
    raise UserError(
        f"{root} does not hold exactly one scGPT; found {found}. Say which: --set model_dir=NAME. {fetch_hint(options.variant)}"
    )


def read_args(folder: Path, variant: str) -> Architecture:
    """args.json. Raises UserError if it lacks a size or names another padding token than <pad>."""
    file = folder / "args.json"
    with open_file(file, variant) as stream, understood(file, "is no description of an scGPT model", variant):
        args = json.load(stream)
        sizes = [int(args[name]) for name in ("embsize", "nheads", "d_hid", "nlayers")]
        pad_value, pad_token = float(args["pad_value"]), args["pad_token"]
    if pad_token != "<pad>":
        raise UserError(f"{file}: the padding token is {pad_token!r}; only '<pad>' is known.")
    return Architecture(*sizes, pad_value)


def load_scgpt(folder: Path, variant: str, n_tokens: int) -> ScGPT:
    """The authors' best_model.pt, saved with or without flash-attention."""
    file = folder / "best_model.pt"
    with torch.device("meta"):
        model = ScGPT(read_args(folder, variant), n_tokens)
    fill(model, rename(load_tensors(file, variant)), file, variant, ignore=UNUSED)
    return model.eval()


def rename(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """flash-attention's parameter names -> torch's: the same numbers in the same order."""
    return {name.replace("._impl.", ".").replace(".Wqkv.", ".in_proj_"): tensor for name, tensor in tensors.items()}


class ScGPTCells:
    """scGPT as runtime.embed_cells wants it."""

    sort = True

    def __init__(self, model: ScGPT, tokenizer: Tokenizer, pad: int, device: str) -> None:
        self.tokenizer, self.known, self.fills = tokenizer, tokenizer.known, (pad, 0)
        self.genes, self.bins = (table.to(device) for table in model.tables())
        self.encoder = model.transformer_encoder.to(device)
        self.stack = self.encoder.layers
        self.dimension, self.max_length = self.genes.shape[1], tokenizer.max_length
        inner = max(layer.linear1.out_features for layer in self.encoder.layers)
        self.bytes_per_token = 4 * (8 * self.dimension + 2 * inner)

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Token ids and bins."""
        return self.tokenizer(rows, block)

    def forward(self, length: torch.Tensor, tokens: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, width) of length 1."""
        x = self.genes[tokens] + self.bins[bins]
        states = self.encoder(x, key_bias(length, tokens.shape[1]), queries=1)
        return F.normalize(self.pool(states, length).float(), dim=1)

    def pool(self, states: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """States (n, t, width) -> those of <cls> (n, width)."""
        return states[:, 0]
