"""Where arrays are computed: by numpy on the CPU, by torch on a GPU."""

from collections.abc import Callable
from types import ModuleType

import numpy as np

from plumbline.common.devices import is_gpu


def arrays(device: str) -> tuple[ModuleType, Callable, Callable]:
    """The array library of a device, for lines that suit both, and the ways of a numpy array there and back."""
    if not is_gpu(device):
        return np, lambda array: array, lambda array: array
    import torch

    return torch, lambda array: torch.from_numpy(array).to(device), lambda tensor: tensor.cpu().numpy()
