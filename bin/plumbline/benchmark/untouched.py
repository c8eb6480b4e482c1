"""What an evaluation during training leaves as it was: random numbers, modes of torch modules, gradients."""

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """The training draws the same random numbers with and without this block (Python, numpy, and torch on every device)."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the state is that of somebody else's code
    torch = sys.modules.get("torch")
    state = torch.get_rng_state() if torch else None
    cuda = torch.cuda.get_rng_state_all() if torch and torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        if torch:
            torch.set_rng_state(state)
            if cuda:
                torch.cuda.set_rng_state_all(cuda)


@contextmanager
def evaluation_mode(*arguments: Any) -> Iterator[None]:
    """Torch modules among ``arguments`` in evaluation mode and without gradients; each part gets its own mode back.

    Part by part, because a frozen part may be in evaluation mode while the rest is trained.
    """
    torch = sys.modules.get("torch")
    if not torch:
        yield
        return
    parts = [part for one in arguments if isinstance(one, torch.nn.Module) for part in one.modules()]
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def is_first_process() -> bool:
    """False on the processes of a distributed training but that of rank 0, once torch has made them a group."""
    torch = sys.modules.get("torch")
    group = torch.distributed if torch and torch.distributed.is_available() else None
    return not (group and group.is_initialized()) or group.get_rank() == 0


def is_started_first() -> bool:
    """The same before there is a group, by what the launcher sets. A guess: whoever relies on it must work either way."""
    ranks = [os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")]
    return next((rank for rank in ranks if rank is not None), "0") == "0"
