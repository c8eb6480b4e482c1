"""STATE's input: <cls>, the genes of a cell by falling expression, and genes that it does not express to fill the sentence.

Adduri et al. 2025 (doi:10.1101/2025.06.26.661135). Ties are broken, and fillers drawn, by chance: here by random numbers of
the cell's own, from its id and the seed, over genes in the order of their tokens; upstream by one stream for all cells. The
value of a gene is its share of the cell's log1p counts. Upstream guesses cell by cell whether counts are logarithms already.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import UserError
from plumbline.models.runtime.batches import Ragged
from plumbline.models.shared.columns import Columns
from plumbline.models.state.files import Config

INPUTS, CLS_VALUES = ("counts", "log", "upstream"), ("zero", "upstream")
CLS, DATASET, FIRST_GENE = 0, 1, 2  # rows of the table of vectors: the order of a sentence does not matter to the network
RAW_MAX, RAW_SUM = 35, 5_000_000  # above either, upstream takes a cell for raw counts
SCALE = 100.0


def log_values(block: sp.csr_matrix, kind: str) -> sp.csr_matrix:
    """A block's values as logarithms, before genes are dropped. kind: one of INPUTS."""
    if len(block.data) and block.data.min() < 0:
        if kind == "counts":
            raise UserError("X holds negative values, but these were to be counts. Put the counts into X.")
        block = block.copy()
        block.data = np.maximum(block.data, 0)
    if kind == "log":
        return block
    raw = np.array([kind == "counts" or _is_raw(block[row].data) for row in range(block.shape[0])])
    logs = block.copy()
    logs.data = np.where(np.repeat(raw, np.diff(block.indptr)), np.log1p(block.data), block.data).astype(np.float32)
    return logs


def _is_raw(values: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool(len(values)) and bool(values.max() > RAW_MAX or np.expm1(values).sum() > RAW_SUM)


class Chance(Protocol):
    """Where a cell's random choices come from."""

    def rank(self, row: int, x: np.ndarray) -> np.ndarray:
        """The places of values ``x`` (genes,) from the largest on, ties in random order. Called once for each cell, first."""

    def fillers(self, row: int, n: int, size: int) -> np.ndarray:
        """``size`` of n genes, with replacement. Called, after ``rank``, where a sentence has room left."""

    def done(self, n_expressed: int, n_low: int) -> None:
        """A cell is done: it expresses so many genes, and of so many the value lies below 1."""


class CellChance:
    """Random numbers of each cell's own, from its id and the seed."""

    def __init__(self, cell_id: np.ndarray, seed: int) -> None:
        self.cell_id, self.seed = cell_id, seed

    def rank(self, row: int, x: np.ndarray) -> np.ndarray:
        order = self._stream(row, "order").permutation(len(x))
        return order[np.argsort(-x[order], kind="stable")]

    def fillers(self, row: int, n: int, size: int) -> np.ndarray:
        return self._stream(row, "fillers").integers(0, n, size)

    def done(self, n_expressed: int, n_low: int) -> None:
        """Nothing is left over."""

    def _stream(self, row: int, use: str) -> np.random.Generator:
        key = hashlib.blake2b(f"{self.seed}\0{use}\0{self.cell_id[row]}".encode(), digest_size=16)
        return np.random.Generator(np.random.PCG64(int.from_bytes(key.digest(), "little")))


class UpstreamChance:
    """Upstream's stream, cell after cell, as after torch.manual_seed(seed): one worker loads the cells."""

    def __init__(self, seed: int, config: Config) -> None:
        import torch

        first = torch.Generator().manual_seed(seed)
        base = torch.empty((), dtype=torch.int64).random_(generator=first).item()
        self.stream, self.config, self.n_done = torch.Generator().manual_seed(base), config, 0

    def rank(self, row: int, x: np.ndarray) -> np.ndarray:
        import torch

        if self.n_done % self.config.batch == 0:
            self._integers(self.config.n_tokens, self.config.draws[2])
        order = torch.randperm(len(x), generator=self.stream)
        # torch's sort, which is not stable, on purpose
        return order[torch.argsort(torch.from_numpy(x)[order], descending=True)].numpy()

    def fillers(self, row: int, n: int, size: int) -> np.ndarray:
        return self._integers(n, size)

    def done(self, n_expressed: int, n_low: int) -> None:
        """The draws for the tasks of the training, of which an embedding uses nothing."""
        import torch

        self.n_done += 1
        for n, size in ((n_expressed, self.config.draws[0]), (n_low, self.config.draws[1])):
            if n > size:
                torch.randperm(n, generator=self.stream)
            elif n:
                self._integers(n, size)

    def _integers(self, n: int, size: int) -> np.ndarray:
        import torch

        return torch.randint(0, n, (size,), generator=self.stream).numpy()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a sentence is made. length: positions with <cls>. kind: one of INPUTS. cls_column: whose value <cls> gets."""

    length: int
    kind: str
    cls_column: int | None


class Tokenizer:
    """Sentences of the cells of one file; a cell that expresses no known gene has none (length 0)."""

    def __init__(self, columns: Columns, rule: Rule, chance: Chance) -> None:
        self.columns, self.rule, self.chance = columns, rule, chance

    def __call__(self, rows: np.ndarray, block: sp.csr_matrix) -> Ragged:
        """Fields: row of the table of vectors (FIRST_GENE + the gene's place in ``columns``), value."""
        genes = self.columns.read(log_values(block, self.rule.kind))
        cells = [self._cell(int(row), genes[place].toarray()[0]) for place, row in enumerate(rows)]
        length = np.array([len(places) for places, _ in cells], dtype=np.int64)
        places, values = (np.concatenate([np.zeros(0), *field]) for field in zip(*cells, strict=True))
        return Ragged(length, (places.astype(np.int32), values.astype(np.float32)))

    def _cell(self, row: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = self.sentence(row, x)
        if not x.any():
            return np.zeros(0), np.zeros(0)
        values = x / x.sum() * np.float32(SCALE)
        cls = 0.0 if self.rule.cls_column is None else values[self.rule.cls_column]
        return np.concatenate([[CLS, DATASET], FIRST_GENE + places]), np.concatenate([[cls, 0.0], values[places]])

    def sentence(self, row: int, x: np.ndarray) -> np.ndarray:
        """Places of the genes of a cell with values ``x`` (genes,): by falling value, then fillers as far as there is room."""
        room, expressed = self.rule.length - 1, int((x > 0).sum())
        ranked = self.chance.rank(row, x)
        places = ranked[:room]
        if len(x) < room:
            silent = ranked[expressed:]
            drawn = silent[self.chance.fillers(row, len(silent), room - expressed)] if len(silent) else silent
            places = np.concatenate([ranked[:expressed], drawn])
        self.chance.done(expressed, int((x < 1).sum()))
        return places
