"""A prepared data set as evaluation sees it: cells, splits, facts; counts only where a task needs them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plumbline.data.splits import Split


@dataclass(frozen=True)
class Screen:
    """Cells of a data set (arrays of length n_cells, strings and booleans) with the gene table and the facts.

    guide: '' for cells of which none is known; None where it is known of no cell.
    """

    cell_id: np.ndarray
    perturbation: np.ndarray
    is_control: np.ndarray
    batch: np.ndarray
    genes: pd.DataFrame
    facts: dict
    guide: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Screen":
        """A subset of the cells; genes and facts stay."""
        parts = {name: getattr(self, name)[rows] for name in ("cell_id", "perturbation", "is_control", "batch")}
        return replace(self, **parts, guide=None if self.guide is None else self.guide[rows])


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An embedding to be evaluated: its cells, before any split or post-processing.

    embedding: (n_cells, d), float32, without NaN. rows: for each cell its row in counts.h5ad. predictor: the name of a
    predictor, whose embedding has no column. n_draws: size of permutation nulls.
    """

    embedding: np.ndarray
    screen: Screen
    rows: np.ndarray
    counts: Path | None = None
    predictor: str = ""
    n_draws: int = 1000
    threads: int = 1
    device: str = "cpu"

    @staticmethod
    def of_embedded(values: np.ndarray, screen: Screen, **more: Any) -> "Subject":
        """The cells of ``screen`` that the model could embed: rows of ``values`` (n_cells, d) that are not NaN."""
        rows = np.flatnonzero(np.isfinite(values).all(axis=1))
        return Subject(embedding=values[rows], screen=screen.take(rows), rows=rows, **more)

    def view(self, split: Split, protocol: str) -> "View":
        """What a task sees of it under one split and protocol. ``split`` holds the cells of this subject."""
        shared = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return View(**shared, split=split, protocol=protocol, seed=split.seed)


@dataclass(frozen=True)
class View:
    """What a task sees: a post-processed embedding (n_cells, d), float32, of a screen's cells, and one split of them.

    rows: for each cell its row in counts.h5ad, so that a task that needs counts can stream them.
    seed: seeds every random draw of the task. n_draws: size of permutation nulls.
    compared: for metrics that compare cells with controls, makes the view without the controls that fitted the
    post-processing (they look unlike any other cell); None where no control has to be left out.
    """

    embedding: np.ndarray
    screen: Screen
    split: Split
    rows: np.ndarray
    protocol: str
    seed: int
    counts: Path | None = None
    predictor: str = ""
    n_draws: int = 1000
    threads: int = 1
    device: str = "cpu"
    compared: Callable[[], "View"] | None = None

    def take(self, rows: np.ndarray) -> "View":
        """The view on a subset of its cells (index array or mask)."""
        screen, split = self.screen.take(rows), self.split.take(rows)
        return replace(self, embedding=self.embedding[rows], rows=self.rows[rows], screen=screen, split=split)


def read_screen(tables: Path | str) -> Screen:
    """Read the tables folder that PREPARE writes (cells.parquet, genes.parquet, dataset.json); never the counts."""
    tables = Path(tables)
    cells = pd.read_parquet(tables / "cells.parquet")
    return Screen(
        cell_id=cells["cell_id"].to_numpy(dtype=str),
        perturbation=cells["perturbation"].to_numpy(dtype=str),
        is_control=cells["is_control"].to_numpy(dtype=bool),
        batch=cells["batch"].to_numpy(dtype=str),
        genes=pd.read_parquet(tables / "genes.parquet"),
        facts=json.loads((tables / "dataset.json").read_text()),
        guide=cells["guide"].to_numpy(dtype=str) if "guide" in cells else None,
    )
