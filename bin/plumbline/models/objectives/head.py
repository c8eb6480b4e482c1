"""A head on any model: its embedding of the fitting cells, and their labels, train a small network that all cells go through.

Features are z-scored on the training cells. The head is linear by default: with tens of perturbations to learn from, a hidden
layer fits those and loses the held-out ones (docs/experiments.md). What the model below sees is not changed by the head.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from plumbline.common.errors import NotApplicable
from plumbline.counts.reading import Counts
from plumbline.counts.stacked import stack
from plumbline.embedding.options import Options, Result
from plumbline.models.objectives.labels import Labelled, labelled_cells
from plumbline.models.objectives.objective import Objective, Training, read_recipe
from plumbline.models.runtime.devices import pick_device
from plumbline.models.shared.fitting import at_least, fitting_part

MINIBATCH, LEARNING_RATE, WEIGHT_DECAY = 512, 1e-3, 1.0
BLOCK = 16_384  # cells that go through the head at once
Embed = Callable[[Counts, Options], Result]


class Head(nn.Module):
    """z-scores, then a linear map to ``width`` dimensions, with one hidden layer of ``hidden`` units before it if any."""

    def __init__(self, mean: np.ndarray, deviation: np.ndarray, hidden: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("deviation", torch.as_tensor(deviation, dtype=torch.float32))
        sizes = (len(mean), hidden, width) if hidden else (len(mean), width)
        layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.layers = nn.Sequential(layers[0], nn.ReLU(), layers[1]) if hidden else layers[0]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """features (n, d) -> (n, width)."""
        return self.layers((features - self.mean) / self.deviation)


def embed_with_head(embed: Embed, counts: Counts, options: Options) -> Result:
    """The head's output (n_cells, head_dim) on ``embed``'s embedding; NaN rows stay. Settings: see the --help of a script.

    The fitting cells of a source are embedded in one go with the cells of ``counts``, so a fitted model is fitted once.
    Raises NotApplicable where the fitting cells cannot train it (labels.py) or their embedding does not vary.
    """
    part = fitting_part(counts, options)
    stacked = stack((part.counts, part.rows), (counts, np.arange(len(counts.cell_id)))) if options.source else counts
    first = len(stacked.cell_id) - len(counts.cell_id)
    if "tune" in options.settings:  # the model brings the head along, trained together with it (tuning.py)
        result = embed(stacked, options)
        return _of_target(result, result.values[first:], result.extra)
    cells = labelled_cells(part, options)
    below = embed(stacked, options)
    known = np.isfinite(below.values).all(axis=1)
    device = pick_device(options.device)
    head, facts = train_head(below.values, cells.take(known[cells.rows]), options, device)
    values = apply_head(head, below.values[first:], device)
    return _of_target(below, values, {**below.extra, "head": {**facts, "features": below.values.shape[1]}})


def _of_target(result: Result, values: np.ndarray, extra: dict) -> Result:
    return replace(result, values=values, unembedded=int((~np.isfinite(values).all(axis=1)).sum()), extra=extra)


def train_head(values: np.ndarray, cells: Labelled, options: Options, device: str) -> tuple[Head, dict]:
    """The trained head for features ``values`` (n, d) of which ``cells.rows`` are labelled, and facts."""
    features = values[cells.rows]
    head = new_head(features[~cells.validation], options).to(device)
    recipe = read_recipe(options, device, MINIBATCH, LEARNING_RATE, WEIGHT_DECAY)
    objective = seeded(options.seed, lambda: Objective(recipe, at_least(options, "head_dim", 64, 1), len(cells.classes)))
    place = torch.as_tensor(features)
    data = hashlib.sha256(np.ascontiguousarray(features).tobytes()).hexdigest() + repr(head.layers)
    training = Training(head, objective, lambda cells: head(place[cells].to(device)), cells, data, device)
    return head, training.run() | {"hidden": at_least(options, "head_hidden", 0, 0)}


def new_head(features: np.ndarray, options: Options) -> Head:
    """A head that is not trained yet, for features like these (n, d): from the settings head_dim and head_hidden."""
    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    varies = deviation > 1e-6 * np.abs(mean)
    if not varies.any():
        raise NotApplicable("the embedding is the same for all cells to train on: there is nothing for a head to learn from.")
    width, hidden = at_least(options, "head_dim", 64, 1), at_least(options, "head_hidden", 0, 0)
    return seeded(options.seed, lambda: Head(mean, np.where(varies, deviation, 1.0), hidden, width))


def seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """What ``build`` returns, with initial weights that the seed decides; the caller's random numbers are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def apply_head(head: Head, values: np.ndarray, device: str) -> np.ndarray:
    """The head's output for features (n, d), float32 (n, width)."""
    head.eval()
    out = np.empty((len(values), head.width), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(values), BLOCK):
            block = torch.as_tensor(values[start : start + BLOCK]).to(device)
            out[start : start + BLOCK] = head(block).cpu().numpy()
    return out
