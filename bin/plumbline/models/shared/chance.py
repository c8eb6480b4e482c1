"""Where the random choices of a cell come from, in models that break ties between bins and draw genes (scGPT, Tahoe-x1)."""

from typing import Protocol

import numpy as np

from plumbline.common.random import generator_of


class Chance(Protocol):
    """Where the two random choices of a cell come from."""

    def uniform(self, row: int, n: int) -> np.ndarray:
        """n numbers in [0, 1) that break ties between bins. Called once for each cell."""

    def subset(self, row: int, n: int, keep: int) -> np.ndarray:
        """``keep`` of n genes, without replacement. Called, after ``uniform``, for the cells that exceed the context."""


class CellChance:
    """A stream for each cell, from its id and the seed: what a cell gets does not depend on the cells around it."""

    def __init__(self, cell_id: np.ndarray, seed: int) -> None:
        self.cell_id, self.seed = cell_id, seed

    def uniform(self, row: int, n: int) -> np.ndarray:
        return self._stream(row, "ties").random(n)

    def subset(self, row: int, n: int, keep: int) -> np.ndarray:
        return self._stream(row, "genes").choice(n, keep, replace=False, shuffle=False)

    def _stream(self, row: int, use: str) -> np.random.Generator:
        return generator_of(f"{self.seed}\0{use}\0{self.cell_id[row]}")


class UpstreamChance:
    """The streams upstream draws from without loader workers, cell after cell: np.random.seed and torch.manual_seed before."""

    def __init__(self, seed: int) -> None:
        import torch

        self.numpy = np.random.RandomState(seed)
        self.torch = torch.Generator().manual_seed(seed)
        torch.empty((), dtype=torch.int64).random_(generator=self.torch)  # the data loader's own draw

    def uniform(self, row: int, n: int) -> np.ndarray:
        return self.numpy.rand(n)

    def subset(self, row: int, n: int, keep: int) -> np.ndarray:
        import torch

        return torch.randperm(n, generator=self.torch)[:keep].numpy()
