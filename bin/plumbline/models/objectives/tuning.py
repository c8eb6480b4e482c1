"""Fine-tuning of a foundation model by an objective with labels: its last layers, or LoRA, together with a head on top.

tune=last unfreezes the last ``tune_layers`` layers of the encoder. tune=lora freezes it all and adds low-rank terms of rank
``tune_rank`` (Hu et al. 2022, arXiv:2106.09685; by peft) to the output projection of attention and both feed-forward maps of
every layer. The head starts from the z-scores of the zero-shot embedding. Memory: the fitting cells' tokens, and the
activations of one mini-batch (``--batch-size`` cells, 64 by default). One device trains; all of them embed.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from plumbline.common.errors import OUT_OF_MEMORY, UserError
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.objectives.head import Head, new_head, seeded
from plumbline.models.objectives.labels import Labelled, labelled_cells
from plumbline.models.objectives.objective import Objective, Recipe, Training, read_recipe
from plumbline.models.runtime.batches import CellModel, Ragged, autocast, pad
from plumbline.models.runtime.devices import pick_device
from plumbline.models.shared.fitting import at_least, choice, fitting_part

KINDS = ("lora", "last")
TARGETS = ["out_proj", "linear1", "linear2"]
MINIBATCH, LEARNING_RATE, WEIGHT_DECAY = 64, 3e-4, 0.01
Build = Callable[[str], CellModel]


class TunedCells:
    """A model as runtime.embed_cells wants it, with a head on top."""

    def __init__(self, below: CellModel, head: Head) -> None:
        self.below, self.head = below, head
        self.fills, self.max_length, self.bytes_per_token = below.fills, below.max_length, below.bytes_per_token
        self.known, self.sort, self.dimension = below.known, below.sort, head.width

    def encode(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """As the model's own."""
        return self.below.encode(rows, block)

    def forward(self, length: torch.Tensor, *fields: torch.Tensor) -> torch.Tensor:
        """The head's output (n, width)."""
        return self.head(self.below.forward(length, *fields).float())


def tuned(build: Build, counts: Counts, options: Options) -> tuple[Build, dict]:
    """``build``, but for the model after training on the fitting cells among ``counts``; and facts about the training.

    Raises UserError for a setting without meaning, and as labelled_cells does. Ends the process with OUT_OF_MEMORY if the
    GPU cannot hold a mini-batch.
    """
    if "head" not in options.settings:
        raise UserError("--set tune requires an objective: add --set head=contrastive or head=classify.")
    kind, device = choice(options, "tune", KINDS), pick_device(options.device)
    amount = at_least(options, "tune_rank", 8, 1) if kind == "lora" else at_least(options, "tune_layers", 1, 1)
    recipe = read_recipe(options, device, options.batch_size or MINIBATCH, LEARNING_RATE, WEIGHT_DECAY)
    model = build(device)
    adapt(model.encoder, kind, amount, options.seed)
    try:
        head, facts = _train(model, recipe, counts, options, device, f"{kind} {amount}")
    except torch.cuda.OutOfMemoryError as error:
        print(f"ERROR: tuning ran out of GPU memory at {recipe.minibatch} cells a mini-batch: {error}", file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)
    weights = {name: value.detach().cpu() for name, value in free_weights(model.encoder).items()}
    facts |= {"tune": kind, "tune_amount": amount, "n_trained_weights": sum(value.numel() for value in weights.values())}
    return partial(_rebuild, build, kind, amount, weights, head.cpu()), facts


def adapt(encoder: nn.Module, kind: str, amount: int, seed: int) -> None:
    """Freeze an encoder (encoder.py) but for its last ``amount`` layers, or for low-rank terms of rank ``amount``."""
    encoder.requires_grad_(False)
    if kind == "last":
        for layer in encoder.layers[-amount:]:
            layer.requires_grad_(True)
        return
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=amount, lora_alpha=2 * amount, lora_dropout=0.0, target_modules=TARGETS)
    seeded(seed, lambda: inject_adapter_in_model(config, encoder))


def free_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes."""
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def _rebuild(build: Build, kind: str, amount: int, weights: dict, head: Head, device: str) -> TunedCells:
    """The tuned model on another device, or in another process."""
    model = build(device)
    adapt(model.encoder, kind, amount, 0)
    with torch.no_grad():
        for name, value in free_weights(model.encoder).items():
            value.copy_(weights[name])
    return TunedCells(model, head.to(device))


def _train(model: CellModel, recipe: Recipe, counts: Counts, options: Options, device: str, how: str) -> tuple[Head, dict]:
    cells = labelled_cells(fitting_part(counts, options), options)
    ragged = encode_cells(model, counts, cells.rows)
    known = ragged.length > 0
    ragged, cells = _take(ragged, known), _renumbered(cells, known)
    starts = np.concatenate([[0], np.cumsum(ragged.length)])

    def embed(positions: np.ndarray) -> torch.Tensor:
        padded = pad(ragged, starts, cells.rows[positions], model.fills)
        return model.forward(*(torch.from_numpy(array).to(device) for array in padded)).float()

    with torch.no_grad(), autocast(device, recipe.precision):
        seen = np.array_split(np.flatnonzero(~cells.validation), max(1, round((~cells.validation).sum() / recipe.minibatch)))
        features = np.concatenate([embed(part).cpu().numpy() for part in seen])
    head = new_head(features, options).to(device)
    objective = seeded(options.seed, lambda: Objective(recipe, head.width, len(cells.classes)))
    parts = nn.ModuleDict({"encoder": model.encoder, "head": head})
    data = f"{options.variant} {how} {head.layers!r} {float(np.abs(features).sum()):.3f}"
    return head, Training(parts, objective, lambda positions: head(embed(positions)), cells, data, device).run()


def encode_cells(model: CellModel, counts: Counts, rows: np.ndarray) -> Ragged:
    """Token sequences of the cells ``rows``, all in memory."""
    parts = [model.encode(chunk, block) for chunk, block in counts.blocks(rows)]
    fields = tuple(np.concatenate(field) for field in zip(*(part.fields for part in parts), strict=True))
    return Ragged(np.concatenate([part.length for part in parts]), fields)


def _take(ragged: Ragged, keep: np.ndarray) -> Ragged:
    """Cells without a token leave nothing behind."""
    return Ragged(ragged.length[keep], ragged.fields)


def _renumbered(cells: Labelled, known: np.ndarray) -> Labelled:
    """The cells that have tokens, their rows counted among these."""
    place = np.cumsum(known) - 1
    return replace(cells, rows=place).take(known)
