"""What every model gets and returns: ``embed(counts: Counts, options: Options) -> Result``."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from plumbline.common.errors import UserError
from plumbline.counts.reading import Counts


@dataclass(frozen=True, kw_only=True)
class Source:
    """Another prepared data set, to fit on: its counts, restricted to the genes shared with the data set, and its tables."""

    counts: Counts
    tables: Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a model gets. ``settings`` are the --set pairs; ``tables`` is PREPARE's folder (None outside the pipeline).

    source: what --source gave to fit on in place of the data set itself.
    """

    variant: str
    weights: Path | None
    tables: Path | None
    fit_on: str
    seed: int
    device: str
    batch_size: int
    threads: int
    settings: dict[str, str]
    source: Source | None = None

    def get(self, name: str, default: str | int | float | bool) -> str | int | float | bool:
        """One setting, converted to the type of its default. Raises UserError on a value that does not convert."""
        if name not in self.settings:
            return default
        text = self.settings[name]
        try:
            return text.lower() in ("1", "true", "yes") if isinstance(default, bool) else type(default)(text)
        except ValueError as error:
            raise UserError(f"--set {name}={text}: expected {type(default).__name__}.") from error


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a model returns: values float32 (n_cells, d) in the order of counts.cell_id.

    genes_used of genes_total genes of the data set are known to the model; counts_used is the share of counts they carry.
    unembedded: number of all-NaN rows (cells in which the model finds no gene). extra: further provenance.
    layers: further embeddings (n_cells, ...) of the same cells by name (layer4: a hidden state), each written beside the first.
    """

    values: np.ndarray
    genes_used: int
    genes_total: int
    counts_used: float = 1.0
    unembedded: int = 0
    layers: dict[str, np.ndarray] = field(default_factory=dict)
    extra: dict = field(default_factory=dict)
