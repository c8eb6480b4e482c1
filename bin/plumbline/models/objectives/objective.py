"""Supervised objectives (contrastive, classification) and their training loop: checkpointed, resumable, stopped early.

contrastive: the supervised contrastive loss of Khosla et al. 2020 (arXiv:2004.11362, equation 2), with positives from other
batches, so that what differs between batches cannot bring them together. classify: softmax over the perturbations.
"""

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from plumbline.common.devices import is_gpu
from plumbline.common.errors import UserError
from plumbline.common.files import whole_file
from plumbline.embedding.options import Options
from plumbline.models.objectives.labels import Labelled, minibatches
from plumbline.models.runtime.batches import autocast
from plumbline.models.shared.fitting import at_least, choice

PATIENCE = 10  # epochs without a better validation loss
Forward = Callable[[np.ndarray], torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """How an objective is trained. kind: 'contrastive' or 'classify'. minibatch: cells."""

    kind: str
    temperature: float
    epochs: int
    minibatch: int
    learning_rate: float
    weight_decay: float
    checkpoint: Path | None
    seed: int
    precision: torch.dtype


def read_recipe(options: Options, device: str, minibatch: int, learning_rate: float, weight_decay: float) -> Recipe:
    """From the settings head, head_temperature, head_epochs, head_learning_rate, head_weight_decay and head_checkpoint.

    On a GPU activations are bf16 (its range needs no scaling of the loss) unless precision=fp32; weights and loss are fp32.
    """
    kind, epochs = choice(options, "head", ("contrastive", "classify")), at_least(options, "head_epochs", 100, 1)
    half = is_gpu(device) and options.get("precision", "auto") != "fp32"
    path = options.get("head_checkpoint", "")
    positive = {"head_temperature": 0.2, "head_learning_rate": learning_rate}
    temperature, rate = (_positive(options, name, default) for name, default in positive.items())
    decay = float(options.get("head_weight_decay", weight_decay))
    precision = torch.bfloat16 if half else torch.float32
    return Recipe(kind, temperature, epochs, minibatch, rate, decay, Path(path) if path else None, options.seed, precision)


def _positive(options: Options, name: str, default: float) -> float:
    value = float(options.get(name, default))
    if not value > 0:
        raise UserError(f"--set {name}={value:g}: must be above 0.")
    return value


def contrastive_loss(embedding: torch.Tensor, code: torch.Tensor, batch: torch.Tensor, temperature: float) -> torch.Tensor:
    """Supervised contrastive loss of rows of length 1 (n, d), in nats per anchor; lower is better, nan without a positive.

    For anchor i: -1/|P(i)| sum over p in P(i) of log(exp(z_i z_p / t) / sum over a in A(i) of exp(z_i z_a / t)). P(i): cells of
    its class in other batches; where the mini-batch has none, cells of its class. A(i): P(i) and all cells of other classes.
    """
    same = code[:, None] == code
    other = ~same
    same = same & ~torch.eye(len(code), dtype=torch.bool, device=code.device)
    across = same & (batch[:, None] != batch)
    positive = torch.where(across.any(dim=1, keepdim=True), across, same)
    similarity = (embedding @ embedding.T / temperature).masked_fill(~(positive | other), -torch.inf)
    log_share = similarity - torch.logsumexp(similarity, dim=1, keepdim=True)
    n_positive = positive.sum(dim=1)
    per_anchor = -log_share.masked_fill(~positive, 0.0).sum(dim=1)[n_positive > 0] / n_positive[n_positive > 0]
    return per_anchor.mean()


class Objective(nn.Module):
    """The loss of an embedding (n, d); for 'classify' it holds the layer that scores the classes."""

    def __init__(self, recipe: Recipe, dimension: int, n_classes: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.scores = nn.Linear(dimension, n_classes) if recipe.kind == "classify" else None

    def forward(self, embedding: torch.Tensor, code: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        """Mean loss of a mini-batch, a scalar in fp32."""
        if self.scores is not None:
            return F.cross_entropy(self.scores(embedding).float(), code)
        return contrastive_loss(F.normalize(embedding.float(), dim=1), code, batch, self.recipe.temperature)


class Training:
    """The training of ``model`` by ``objective``: ``forward(positions)`` gives the embedding of the labelled cells at these
    positions, with gradients. data: what else the result depends on, so that a checkpoint of another run is refused.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, forward: Forward, cells: Labelled, data: str, device: str
    ) -> None:
        self.parts = nn.ModuleDict({"model": model, "objective": objective.to(device)})
        self.forward, self.cells, self.recipe, self.device = forward, cells, objective.recipe, device
        free = [value for value in self.parts.parameters() if value.requires_grad]
        self.optimiser = torch.optim.AdamW(free, lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay)
        self.done, self.best, self.history = 0, None, []
        self.key = _key(self.recipe, cells, data)

    def run(self) -> dict:
        """Train, from the checkpoint if there is one; the model ends with the weights of the best epoch. Returns facts."""
        resumed, start, last = self._load(), time.monotonic(), time.monotonic()
        while self.done < self.recipe.epochs and self.done - self._best_epoch() < PATIENCE:
            train = self._epoch()
            self._finish_epoch(train, self._validate())
            if time.monotonic() - last > 10:
                last = time.monotonic()
                self._report(start, resumed)
        self._report(start, resumed)
        self._set_weights(self.best["weights"])
        return self._facts(resumed)

    def _epoch(self) -> float:
        self.parts.train()
        rng, losses = np.random.default_rng((self.recipe.seed, self.done)), []
        for cells in self._batches(np.flatnonzero(~self.cells.validation), rng):
            loss = self._loss(cells)
            if loss.isfinite():  # a mini-batch in which no class has two cells has no contrastive loss
                self.optimiser.zero_grad()
                loss.backward()
                self.optimiser.step()
                losses.append(loss.item())
        if not losses:
            raise UserError(f"training failed in epoch {self.done + 1}: no finite loss. Lower head_learning_rate.")
        return float(np.mean(losses))

    def _validate(self) -> float:
        self.parts.eval()
        rng = np.random.default_rng(self.recipe.seed)  # the same mini-batches in every epoch
        with torch.no_grad():
            losses = [self._loss(cells).item() for cells in self._batches(np.flatnonzero(self.cells.validation), rng)]
        return float(np.nanmean(losses)) if np.isfinite(losses).any() else float("inf")

    def _batches(self, part: np.ndarray, rng: np.random.Generator):
        return (part[cells] for cells in minibatches(self.cells.code[part], self.cells.batch[part], self.recipe.minibatch, rng))

    def _loss(self, positions: np.ndarray) -> torch.Tensor:
        code, batch = (torch.as_tensor(array[positions], device=self.device) for array in (self.cells.code, self.cells.batch))
        with autocast(self.device, self.recipe.precision):
            embedding = self.forward(positions)
        return self.parts["objective"](embedding.float(), code, batch)

    def _finish_epoch(self, train: float, validation: float) -> None:
        self.done += 1
        self.history.append([train, validation])
        if self.best is None or validation < self.best["loss"]:
            self.best = {"loss": validation, "epoch": self.done, "weights": _copy(self._weights())}
        if self.recipe.checkpoint:
            save(self.recipe.checkpoint, {"key": self.key, "done": self.done, "best": self.best, "history": self.history,
                                          "weights": self._weights(), "optimiser": self.optimiser.state_dict()})  # fmt: skip

    def _load(self) -> int:
        path = self.recipe.checkpoint
        if path is None or not path.exists():
            return 0
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
            key = found["key"]
        except Exception as error:  # a damaged file fails in a dozen ways, each meaning the same
            raise UserError(f"--set head_checkpoint={path}: no checkpoint of a training ({error}). Delete it.") from error
        if key != self.key:
            raise UserError(f"--set head_checkpoint={path}: of other cells or settings. Delete it, or name another file.")
        self.done, self.best, self.history = found["done"], found["best"], found["history"]
        self._set_weights(found["weights"])
        self.optimiser.load_state_dict(found["optimiser"])
        return self.done

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in self.parts.named_parameters() if value.requires_grad}

    def _set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in self._weights().items():
                value.copy_(weights[name])

    def _best_epoch(self) -> int:
        return self.best["epoch"] if self.best else 0

    def _report(self, start: float, resumed: int) -> None:
        speed = (self.done - resumed) / max(time.monotonic() - start, 1e-9)
        train, validation = self.history[-1]
        text = f"loss {train:.3f}, validation {validation:.3f}, best in epoch {self._best_epoch()}; {speed:.2f} epochs/s"
        print(f"{self.recipe.kind}: epoch {self.done}/{self.recipe.epochs}, {text}", file=sys.stderr, flush=True)

    def _facts(self, resumed: int) -> dict:
        cells, recipe = self.cells, self.recipe
        return {"objective": recipe.kind, "epochs": self.done, "best_epoch": self.best["epoch"], "resumed_from_epoch": resumed,
                "validation_loss": self.best["loss"], "first_validation_loss": self.history[0][1], "validation_by": cells.by,
                "n_train_cells": int((~cells.validation).sum()), "n_validation_cells": int(cells.validation.sum()),
                "n_classes": len(cells.classes), "temperature": recipe.temperature, "weight_decay": recipe.weight_decay,
                "learning_rate": recipe.learning_rate, "minibatch": recipe.minibatch,
                "training_precision": str(recipe.precision).removeprefix("torch.")}  # fmt: skip


def save(path: Path, state: dict) -> None:
    """Write a checkpoint, whole or not at all."""
    with whole_file(path) as temporary:
        torch.save(state, temporary)


def _copy(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in weights.items()}


def _key(recipe: Recipe, cells: Labelled, data: str) -> str:
    settings = [value for name, value in vars(recipe).items() if name not in ("checkpoint", "epochs")]
    arrays = [cells.cell_id.astype(str), cells.code, cells.batch, cells.validation]
    parts = [repr(settings).encode(), data.encode(), *(np.ascontiguousarray(array).tobytes() for array in arrays)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
