"""The decoder of the reconstruction task: an MLP from an embedding to the log-normalised expression of all genes.

PAPER: three hidden layers whose widths run linearly from d to G, ReLU, MSE, batches of 512, 30 epochs, AdamW 1e-4 with a
warm-up of 10 epochs from 3e-5, a cosine to 0, and a weight decay of 1e-6 (Bendidi et al. 2024 and its configuration files).
It is meant for a million cells: on a few thousand it makes 150 steps and learns less than the mean of each gene. CORRECTED is
the same network and loss on standardised inputs, its output starting at the mean of each gene, with AdamW 1e-3, a cosine to
0 and a weight decay of 1e-2. On a CPU the paper's widths are out of reach for thousands of genes (d = 256, G = 8,000: 83
million weights): there the hidden layers are narrowed and, if that is not enough, epochs and cells are cut, until a training
costs at most a budget of operations; every score says what was done. On a GPU nothing is cut. CORRECTED makes
at least MIN_STEPS, if the budget allows.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from plumbline.counts.expression import ShuffledExpression
from plumbline.metrics.probe import learning_rates

if TYPE_CHECKING:
    import torch

BATCH, EPOCHS, WARM_UP, MIN_EPOCHS, MIN_STEPS, MIN_WIDTH = 512, 30, 10, 10, 300, 32
DECAY = {"paper": 1e-6, "corrected": 1e-2}
_PER_VALUE = 100.0  # measured: reading, loss and gradient of one expression value take as long as so many operations


@dataclass(frozen=True)
class Plan:
    """How a decoder is trained: recipe, hidden widths, epochs, number of train cells used. ``note`` says what was cut."""

    recipe: str
    widths: tuple[int, ...]
    epochs: int
    n_cells: int
    note: str = ""


def plan(protocol: str, d: int, n_genes: int, n_cells: int, device: str, budget: float) -> Plan:
    """The training a protocol asks for, or the part of it that fits a CPU.

    budget: multiplications and additions of one training on a CPU; 2e11 take a few seconds on one core.
    A narrowed decoder is trained by the recipe of `corrected` in both protocols: 1e-4 is the rate of a wide one.
    """
    widths = tuple(int(width) for width in np.linspace(d, n_genes, 5)[1:4])
    paper = Plan("paper", widths, EPOCHS, n_cells)
    if protocol == "paper" and (device != "cpu" or operations(d, n_genes, paper) <= budget):
        return paper
    full = Plan("corrected", widths, max(EPOCHS, -(-MIN_STEPS // -(-n_cells // BATCH))), n_cells)
    if device != "cpu" or operations(d, n_genes, full) <= budget:
        return full
    cap = max(widths)
    while cap > MIN_WIDTH and operations(d, n_genes, _narrowed(full, cap)) > budget:
        cap = max(MIN_WIDTH, int(cap * 0.9))
    narrow = _narrowed(full, cap)
    over = max(1.0, operations(d, n_genes, narrow) / budget)
    epochs = max(MIN_EPOCHS, int(full.epochs / over))
    cells = min(n_cells, max(4 * BATCH, int(n_cells * full.epochs / epochs / over)))
    cut = f", {epochs} epochs, {cells} of {n_cells} train cells" if over > 1 else ""
    note = f"decoder narrowed to {cap} hidden units{cut} to fit a CPU (up to {max(widths)} units on a GPU)"
    return Plan("corrected", narrow.widths, epochs, cells, note)


def operations(d: int, n_genes: int, size: Plan) -> float:
    """Multiplications and additions of a training: 6 per weight, cell and epoch, and what loss and data cost per value."""
    layers = (d, *size.widths, n_genes)
    weights = sum(a * b for a, b in pairwise(layers))
    return (6.0 * weights + _PER_VALUE * n_genes) * size.n_cells * size.epochs


def _narrowed(full: Plan, cap: int) -> Plan:
    return Plan(full.recipe, tuple(min(cap, width) for width in full.widths), full.epochs, full.n_cells)


@dataclass(frozen=True)
class Decoder:
    """A trained decoder: ``network`` ends in the last hidden layer; ``weight`` (G, width) and ``bias`` (G,) read it out."""

    network: "torch.nn.Sequential"
    weight: "torch.Tensor"
    bias: "torch.Tensor"
    centre: np.ndarray
    spread: np.ndarray
    note: str

    def predict(self, embedding: np.ndarray, genes: slice, block: int = 8192) -> np.ndarray:
        """Predicted expression of some genes, float32 (genes, n). embedding: (n, d)."""
        import torch

        weight, bias = self.weight[genes], self.bias[genes]
        result = np.empty((len(weight), len(embedding)), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(embedding), block):
                x = torch.as_tensor((embedding[start : start + block] - self.centre) / self.spread, device=weight.device)
                result[:, start : start + block] = (weight @ self.network(x).T + bias[:, None]).cpu().numpy()
        return result

    @property
    def n_bytes(self) -> int:
        """Memory of the weights."""
        tensors = [self.weight, self.bias, *self.network.parameters()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def train_decoder(
    embedding: np.ndarray, expression: ShuffledExpression, n_genes: int, how: Plan, seed: int, device: str, threads: int
) -> Decoder:
    """Train on the cells of ``expression``, whose position i has the embedding ``embedding[i]``, (n, d) float32."""
    import torch

    torch.set_num_threads(threads)
    corrected = how.recipe == "corrected"
    centre, spread = _scale(embedding) if corrected else (np.float32(0), np.float32(1))
    model = _network(embedding.shape[1], n_genes, how, seed).to(device)
    if corrected:
        model[1].bias.data[:] = torch.as_tensor(expression.mean(), dtype=torch.float32)
    optimiser = AdamW(list(model.parameters()), DECAY[how.recipe])
    inputs, rng = torch.as_tensor((embedding - centre) / spread, device=device), np.random.default_rng(seed)
    rates = iter(_rates(how, expression.n_batches(BATCH)).tolist())
    for _ in range(how.epochs):
        for position, target in expression.batches(BATCH, rng):
            predicted = model(inputs[torch.as_tensor(position, device=device)])
            loss = torch.nn.functional.mse_loss(predicted, torch.as_tensor(target).to(device))
            model.zero_grad()
            loss.backward()
            optimiser.step(next(rates))
    return Decoder(model[0], model[1].weight.detach(), model[1].bias.detach(), centre, spread, how.note)


def _rates(how: Plan, steps: int) -> np.ndarray:
    """The rate of every step, ``steps`` of them in an epoch."""
    total = how.epochs * steps
    if how.recipe == "paper":
        return learning_rates(steps, how.epochs, peak=1e-4, warm_up=WARM_UP / EPOCHS)
    return 1e-3 * 0.5 * (1 + np.cos(np.pi * np.arange(total) / total))


class AdamW:
    """torch's AdamW at a rate given per step, by its functional form: the first use of the class ``torch.optim.AdamW`` imports
    torch's compiler, which takes as long as a small training."""

    def __init__(self, parameters: "list[torch.Tensor]", decay: float = 1e-2) -> None:
        import torch

        self.parameters, self.decay = parameters, decay
        self.mean, self.square = ([torch.zeros_like(one) for one in parameters] for _ in range(2))
        self.steps = [torch.zeros((), device=one.device) for one in parameters]

    def step(self, rate: float) -> None:
        """Move the parameters by their gradients."""
        import torch
        from torch.optim.adamw import adamw

        gradients = [one.grad for one in self.parameters]
        constants = {"beta1": 0.9, "beta2": 0.999, "weight_decay": self.decay, "eps": 1e-8, "amsgrad": False, "maximize": False}
        with torch.no_grad():
            adamw(self.parameters, gradients, self.mean, self.square, [], self.steps, fused=True, lr=rate, **constants)


def _scale(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each dimension (1 where it does not vary), float32 (d,)."""
    spread = embedding.std(axis=0, dtype=np.float64)
    spread[spread <= 1e-6 * np.abs(embedding).max(initial=0)] = 1
    return embedding.mean(axis=0, dtype=np.float64).astype(np.float32), spread.astype(np.float32)


def _network(d: int, n_genes: int, how: Plan, seed: int) -> "torch.nn.Sequential":
    """(hidden layers, read-out), initialised on the CPU so that every device starts from the same weights."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in zip((d, *how.widths[:-1]), how.widths, strict=True):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(nn.Sequential(*layers), nn.Linear(how.widths[-1], n_genes))
