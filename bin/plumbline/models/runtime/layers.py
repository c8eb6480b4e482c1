"""Several layers of a network in one pass: its hidden states, pooled over a cell's positions, beside its embedding.

--set layers=0+2+4 asks for hidden states by number: 0 is what the first layer reads, n the output of the n-th layer.
--set layer_pooling says how positions become one vector: own (the model's way, as in its embedding; default), mean (over all
of a cell's positions, special tokens included), or own+mean. What the model does behind its last layer (norm, decoder,
projection, unit length) belongs to its embedding and is left out, so that all layers are read alike.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from plumbline.common.errors import UserError
from plumbline.embedding.options import Options
from plumbline.models.runtime.batches import CellModel, Ragged

POOLINGS = ("own", "mean")


@dataclass(frozen=True)
class Layers:
    """Which hidden states, and how their positions become one vector."""

    numbers: tuple[int, ...]
    poolings: tuple[str, ...]

    def names(self) -> list[str]:
        """layer4, layer4_mean, ... in the order of their columns."""
        return [f"layer{number}{'' if how == 'own' else f'_{how}'}" for number in self.numbers for how in self.poolings]


def read_layers(options: Options) -> Layers | None:
    """What the settings ask for; None for no layer. Raises UserError for anything but numbers and poolings joined by +."""
    text, how = str(options.get("layers", "")), str(options.get("layer_pooling", "own"))
    if not text:
        if "layer_pooling" in options.settings:
            raise UserError(f"--set layer_pooling={how}: there are no layers to pool. Add --set layers=0+1+2.")
        return None
    if "head" in options.settings:
        raise UserError(f"--set layers={text} cannot be combined with a head, which reads the model's embedding. Remove one.")
    if not re.fullmatch(r"\d+(\+\d+)*", text) or len(set(text.split("+"))) < len(text.split("+")):
        raise UserError(f"--set layers={text}: expected numbers joined by +, each once, such as 0+3+6 (0: what layer 1 reads).")
    poolings = tuple(how.split("+"))
    if not set(poolings) <= set(POOLINGS) or len(set(poolings)) < len(poolings):
        raise UserError(f"--set layer_pooling={how}: expected own, mean, or own+mean.")
    return Layers(tuple(int(number) for number in text.split("+")), poolings)


def layered(build: Callable[[str], CellModel], wanted: Layers, device: str) -> "LayeredCells":
    """The model on one device, with its layers (picklable with functools.partial: every GPU's process calls it)."""
    return LayeredCells(build(device), wanted)


class LayeredCells:
    """A model as runtime.embed_cells wants it, whose embedding is followed by pooled hidden states of the same pass.

    parts: name -> number of columns, the model's own first. ``below`` brings ``stack``, its layers in order, and ``pool``.
    """

    def __init__(self, below: CellModel, wanted: Layers) -> None:
        self.below, self.wanted, self.length = below, wanted, torch.zeros(0)
        self.fills, self.max_length, self.bytes_per_token = below.fills, below.max_length, below.bytes_per_token
        self.known, self.sort, self.pooled = below.known, below.sort, {}
        if not hasattr(below, "stack"):
            raise UserError("--set layers: what is computed here has no layers (output=proteins of TranscriptFormer).")
        last = len(below.stack)
        above = [number for number in wanted.numbers if number > last]
        if above:
            raise UserError(
                f"--set layers: {above[0]} is no layer of this model, which computes 0 (the input) to {last}. "
                "The settings may stop below its last layer (layer=-1 of Geneformer)."
            )
        for number in wanted.numbers:
            self._watch(number)
        if "mean" in wanted.poolings:
            see_every_position(below.stack[-1])
        self.parts = {"": below.dimension} | dict(zip(wanted.names(), self._widths() * len(wanted.numbers), strict=True))
        self.dimension = sum(self.parts.values())

    def _widths(self) -> list[int]:
        """Columns of each pooling, found on a few empty states."""
        states = torch.zeros(1, 4, self.below.stack[0].norm1.normalized_shape[0])
        length = torch.tensor([4])
        return [self._pool(how)(states, length).shape[1] for how in self.wanted.poolings]

    def _pool(self, how: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        return self.below.pool if how == "own" else mean

    def _watch(self, number: int) -> None:
        """Pool hidden state ``number`` as it passes, so that no batch holds more than one layer at once."""
        if number:
            self.below.stack[number - 1].register_forward_hook(lambda _layer, _args, out: self._keep(number, out))
        else:
            self.below.stack[0].register_forward_pre_hook(lambda _layer, args: self._keep(0, args[0]))

    def _keep(self, number: int, states: torch.Tensor) -> None:
        for how in self.wanted.poolings:
            self.pooled[number, how] = self._pool(how)(states.float(), self.length)

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """As the model's own."""
        return self.below.encode(rows, block)

    def forward(self, length: torch.Tensor, *fields: torch.Tensor) -> torch.Tensor:
        """The model's embedding and the pooled states side by side (n, dimension)."""
        self.length = length
        own = self.below.forward(length, *fields).float()
        keys = [(number, how) for number in self.wanted.numbers for how in self.wanted.poolings]
        return torch.cat([own, *(self.pooled.pop(key) for key in keys)], dim=1)


def mean(states: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """The mean (n, width) over the first ``length`` positions of states (n, t, width)."""
    inside = (torch.arange(states.shape[1], device=states.device) < length[:, None]).float()
    return torch.einsum("ntd,nt->nd", states, inside) / length[:, None]


def see_every_position(layer: nn.Module) -> None:
    """Let a layer compute all positions, where the model itself asks it for the first ``queries`` alone."""
    names = list(inspect.signature(layer.forward).parameters)
    if "queries" not in names:
        return
    at = names.index("queries")

    def without_limit(_layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        told = {name: value for name, value in kwargs.items() if name != "queries"}
        return tuple(None if number == at else value for number, value in enumerate(args)), told

    layer.register_forward_pre_hook(without_limit, with_kwargs=True)
