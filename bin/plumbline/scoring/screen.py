"""A prepared data set as evaluation sees it: cells, splits, facts; counts only where a task needs them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plumbline.common.files import read_json_object, reading
from plumbline.data.splits import Split
from plumbline.scoring.vectors import RowSource, Vectors


@dataclass(frozen=True)
class Screen:
    """Cells of a data set with the gene table and the facts.

    cell_id, perturbation, batch: strings, as objects where they come from a file; is_control: bool. All (n_cells,). guide: the
    same, '' for cells of which none is known; None where it is known of no cell.
    """

    cell_id: np.ndarray
    perturbation: np.ndarray
    is_control: np.ndarray
    batch: np.ndarray
    genes: pd.DataFrame
    facts: dict
    guide: np.ndarray | None = None

    @cached_property
    def treatment(self) -> np.ndarray:
        """Perturbation of each cell (n,); controls, which may have several labels, all have the first of these."""
        labels = pd.unique(self.perturbation[self.is_control].astype(object))
        return self.perturbation if len(labels) < 2 else np.where(self.is_control, labels.min(), self.perturbation)

    def take(self, rows: np.ndarray) -> "Screen":
        """A subset of the cells; genes and facts stay."""
        parts = {name: getattr(self, name)[rows] for name in ("cell_id", "perturbation", "is_control", "batch")}
        return replace(self, **parts, guide=None if self.guide is None else self.guide[rows])


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An embedding to be evaluated: its cells, before any split or post-processing.

    embedding: vectors (n_cells, d), float32, without NaN, or the array they come from. rows: for each cell its row in
    counts.h5ad. predictor: the name of a predictor, whose embedding has no column. n_draws: size of permutation nulls.
    exact: no approximation of large data. decoder_budget: multiplications and additions that one training of a decoder may
    take on a CPU. chance: the vectors know nothing of their cells, so that a floor may be the mean of several draws.
    """

    embedding: Vectors
    screen: Screen
    rows: np.ndarray
    counts: Path | None = None
    predictor: str = ""
    n_draws: int = 1000
    decoder_budget: float = 2e11
    threads: int = 1
    device: str = "cpu"
    exact: bool = False
    chance: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "embedding", Vectors.of(self.embedding))

    def redrawn(self, seed: int) -> "Subject":
        """The vectors dealt out anew among the cells, by their ids and the seed: of noise, another draw of it."""
        order = np.argsort(self.screen.cell_id)
        deal = np.empty_like(order)
        deal[order] = order[np.random.default_rng(seed).permutation(len(order))]
        return replace(self, embedding=self.embedding.take(deal))

    @staticmethod
    def of_embedded(values: Vectors | RowSource, screen: Screen, **more: Any) -> "Subject":
        """The cells of ``screen`` that the model could embed: rows of ``values`` (n_cells, d) that are not NaN."""
        vectors, embedded = Vectors.of(values), np.ones(len(screen.cell_id), dtype=bool)
        for positions, block in vectors.blocks():
            embedded[positions] = np.isfinite(block).all(axis=1)
        rows = np.flatnonzero(embedded)
        if embedded.all():
            return Subject(embedding=vectors, screen=screen, rows=rows, **more)
        return Subject(embedding=vectors.take(rows), screen=screen.take(rows), rows=rows, **more)

    def view(self, split: Split, protocol: str) -> "View":
        """What a task sees of it under one split and protocol. ``split`` holds the cells of this subject."""
        shared = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "chance"}
        return View(**shared, split=split, protocol=protocol, seed=split.seed)


@dataclass(frozen=True)
class View:
    """What a task sees: the post-processed vectors (n_cells, d), float32, of a screen's cells, and one split of them.

    embedding: ``[rows]`` and ``.blocks()`` give the vectors that are asked for (scoring/vectors.py); made of an array, too.
    rows: for each cell its row in counts.h5ad, so that a task that needs counts can stream them.
    seed: seeds every random draw of the task. n_draws: size of permutation nulls.
    exact: whether the task may not take an approximation that it would take of large data.
    decoder_budget: multiplications and additions that one training of a decoder may take on a CPU.
    compared: for metrics that compare cells with controls, makes the view without the controls that fitted the
    post-processing (they look unlike any other cell); None where no control has to be left out.
    """

    embedding: Vectors
    screen: Screen
    split: Split
    rows: np.ndarray
    protocol: str
    seed: int
    counts: Path | None = None
    predictor: str = ""
    n_draws: int = 1000
    decoder_budget: float = 2e11
    threads: int = 1
    device: str = "cpu"
    exact: bool = False
    compared: Callable[[], "View"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "embedding", Vectors.of(self.embedding))

    def take(self, rows: np.ndarray) -> "View":
        """The view on a subset of its cells (index array or mask)."""
        screen, split = self.screen.take(rows), self.split.take(rows)
        return replace(self, embedding=self.embedding.take(rows), rows=self.rows[rows], screen=screen, split=split)


def read_screen(tables: Path | str) -> Screen:
    """Read the tables folder that PREPARE writes (cells.parquet, genes.parquet, dataset.json); never the counts."""
    from pyarrow.parquet import read_schema

    tables = Path(tables)
    columns = ["cell_id", "perturbation", "is_control", "batch", "guide"]
    with reading(tables / "cells.parquet", "Run PREPARE again."):
        known = [name for name in read_schema(tables / "cells.parquet").names if name in columns]
        cells = pd.read_parquet(tables / "cells.parquet", columns=known)
    with reading(tables / "genes.parquet", "Run PREPARE again."):
        genes = pd.read_parquet(tables / "genes.parquet")
    return Screen(
        cell_id=cells["cell_id"].to_numpy(dtype=object),
        perturbation=_labels(cells["perturbation"]),
        is_control=cells["is_control"].to_numpy(dtype=bool),
        batch=_labels(cells["batch"]),
        genes=genes,
        facts=read_json_object(tables / "dataset.json", "Run PREPARE again."),
        guide=_labels(cells["guide"]) if "guide" in cells else None,
    )


def _labels(column: pd.Series) -> np.ndarray:
    """Labels (n,) as objects, each name held once: of text, numpy would make room for the longest name in every cell."""
    code, names = pd.factorize(column)
    return np.asarray(names, dtype=object)[code]
