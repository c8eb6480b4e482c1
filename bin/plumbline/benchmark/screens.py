"""The screen that embeddings are scored on: an AnnData that goes through PREPARE, or a folder that PREPARE wrote."""

import tempfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from plumbline.benchmark.given import seeds_of, several, whole
from plumbline.benchmark.writing import write_input
from plumbline.common.errors import UserError
from plumbline.common.random import hashes
from plumbline.counts.frames import as_text
from plumbline.data.catalogue import resolve
from plumbline.data.cells import named_controls
from plumbline.data.facts import read_facts
from plumbline.data.harmonise import prepare, staged
from plumbline.data.splits import split_seeds, write_splits
from plumbline.embedding.contract import plain_ids

if TYPE_CHECKING:
    from anndata import AnnData

DROPPED = "dropped_cells.txt"  # PREPARE's list of the cells it filtered out


class Screen:
    """A prepared perturbation screen. Make one with ``Screen.from_anndata`` or ``Screen.read``.

    Attributes
    ----------
    name
        Name of the data set.
    facts
        What PREPARE found out about it (``dataset.json``): numbers of cells, perturbations, batches, controls.
    tables
        Folder with ``cells.parquet``, ``genes.parquet``, ``splits.parquet`` and ``dataset.json``.
    counts
        ``counts.h5ad``, or None where the folder holds only tables.
    cell_id
        The cells in the order in which ``Benchmark.evaluate`` expects the rows of an array.
    """

    def __init__(self, folder: Path | str, adata: "AnnData | None" = None, row: dict | None = None) -> None:
        self.folder = Path(folder)
        self.tables = self.folder / "tables"
        if not (self.tables / "dataset.json").is_file():
            raise UserError(f"{self.folder} is not a prepared data set: it has no tables/dataset.json. Give the folder that "
                            "PREPARE wrote, such as results/data/NAME, or use Screen.from_anndata.")  # fmt: skip
        counts = self.folder / "counts.h5ad"
        self.counts = counts if counts.is_file() else None
        self.facts = read_facts(self.tables)
        self.name = str(self.facts["name"])
        self.seeds = split_seeds(self.tables) or [42]
        self._adata, self._row = adata, row
        self._temporary: tempfile.TemporaryDirectory | None = None

    @classmethod
    def from_anndata(  # noqa: PLR0913 - the columns of a sheet's row
        cls,
        adata: "AnnData",
        perturbation: str,
        control: str | Iterable[str] | None,
        batch: str | None = None,
        *,
        organism: str = "human",
        layer: str | None = None,
        x_kind: str = "counts",
        min_counts: float = 0,
        seeds: int | Iterable[int] = (42,),
        split_order: str = "file",
        name: str = "screen",
        folder: Path | str | None = None,
        **columns: Any,
    ) -> "Screen":
        """Check and harmonise the cells of an AnnData, exactly as the pipeline's PREPARE does.

        Parameters
        ----------
        adata
            Cells in rows, raw counts in ``X`` or in ``layer``. It is not changed, and its ``obsm`` can be evaluated by key.
        perturbation, batch
            Columns of ``adata.obs``. ``batch`` is None where all cells were processed together.
        control
            Label, or labels, of control cells in the column ``perturbation``, as text or as the number or truth value that
            stands there; None for a screen without controls.
        organism
            'human', 'mouse' or 'other'.
        layer
            Where the values are, if not in ``X``: 'raw', or the name of a layer.
        x_kind
            'counts' (raw), 'log' (log-normalised) or 'signed' (such as z-scores).
        min_counts
            Cells with at most so many counts are left out; the pipeline's own default is 1000.
        seeds
            Split seeds that can be scored.
        split_order
            'file' (the paper's rule) or 'id': the order in which splits meet the cells; the pipeline's ``--split_order``.
        name
            Name of the data set in every table.
        folder
            Where ``counts.h5ad`` and ``tables/`` go, to be kept; by default a folder that disappears with this object.
        **columns
            Further columns of the sheet of data sets (docs/datasets.md), such as ``perturbation_type='crispri'``.

        Returns
        -------
        Screen
            The prepared screen.
        """
        labels = [str(label) for label in several(control, "control")]  # numbers and truth values are labels, too
        given: dict[str, Any] = {
            "perturbation_column": perturbation,
            "control_label": ";".join(labels) or "none",
            "batch_column": batch,
        }
        given |= {"name": name, "organism": organism, "x_kind": x_kind, "min_counts": min_counts, "split_order": split_order}
        given |= columns
        return cls._prepared(adata, given, seeds_of(seeds), layer, folder)

    @classmethod
    def _prepared(cls, adata: "AnnData", row: dict, seeds: list[int], layer: str | None, folder: Path | str | None) -> "Screen":
        dataset = resolve(row, {})
        temporary = tempfile.TemporaryDirectory(prefix="plumbline_") if folder is None else None
        target = Path(temporary.name if temporary else str(folder))
        with staged(target) as made:
            source = made / f"{dataset.name}.h5ad"
            write_input(source, adata, dataset, layer)
            prepare(dataset, source, None, made)
            write_splits(made / "tables", seeds, made / "tables/splits.parquet")
        screen = cls(target, adata, row | {"layer_name": layer})
        screen._temporary = temporary
        return screen

    @classmethod
    def read(cls, folder: Path | str) -> "Screen":
        """Read a folder that PREPARE wrote, such as ``results/data/rpe1`` of a run.

        A run keeps the tables and the embeddings, not the counts: then the baseline is the run's own embedding
        (``results/embeddings``), and tasks that read expression cannot be scored.

        Parameters
        ----------
        folder
            It holds ``tables/`` and, if it was kept, ``counts.h5ad``.

        Returns
        -------
        Screen
            The prepared screen.
        """
        return cls(folder)

    @cached_property
    def adata(self) -> "AnnData":
        """The cells as an AnnData: the one given, or ``counts.h5ad``."""
        if self._adata is not None:
            return self._adata
        if self.counts is None:
            raise UserError(f"{self.folder} holds no counts.h5ad, so there is no AnnData to embed. Give the embedding itself.")
        from anndata import read_h5ad

        return read_h5ad(self.counts)

    @property
    def run(self) -> Path | None:
        """The output folder of the run that the screen was read from, results/data/NAME; None for an AnnData."""
        return None if self._temporary else self.folder.parent.parent

    @cached_property
    def prepared_id(self) -> np.ndarray:
        """Ids of the cells that PREPARE kept, (n,) strings, in its order."""
        return pd.read_parquet(self.tables / "cells.parquet", columns=["cell_id"])["cell_id"].to_numpy(dtype=str)

    @property
    def cell_id(self) -> np.ndarray:
        """Ids of the cells in the order of an embedding's rows, (n_cells,) strings: the AnnData's own, as it is now."""
        return self.prepared_id if self._adata is None else plain_ids(self._adata.obs_names)

    @cached_property
    def dropped_id(self) -> np.ndarray:
        """Ids of the cells that PREPARE left out, (n,) strings."""
        path = self.tables / DROPPED
        return np.array(path.read_text().splitlines() if path.is_file() else [], dtype=str)

    def sample(self, n_cells: int, seed: int = 0) -> "Screen":
        """A screen of at most ``n_cells`` cells, drawn by their ids: the same cells in any order of the file.

        Parameters
        ----------
        n_cells
            How many cells to keep.
        seed
            Seed of the draw.

        Returns
        -------
        Screen
            The screen itself if it is not larger, else a smaller one, prepared anew.
        """
        if whole(n_cells, "n_cells", 1, 2**63) >= len(self.prepared_id):
            return self
        kept = self.prepared_id[np.argsort(hashes(self.prepared_id, f"sample {seed}"), kind="stable")[:n_cells]]
        adata = self.adata[np.isin(plain_ids(self.adata.obs_names), kept)].to_memory()
        cells = pd.read_parquet(self.tables / "cells.parquet", columns=["cell_id", "is_control"])
        if self.facts["has_controls"] and not cells.loc[cells["cell_id"].isin(kept), "is_control"].any():
            raise UserError(f"a sample of {n_cells} of {len(cells)} cells holds no control. Take more cells.")
        row = dict(self._row or self._row_of_facts())
        row["control_label"] = _controls_of(adata, row)
        return self._prepared(adata, row, self.seeds, row.pop("layer_name", None), None)

    def _row_of_facts(self) -> dict:
        """The sheet's row that prepares ``counts.h5ad`` again."""
        cells = pd.read_parquet(self.tables / "cells.parquet")
        controls = cells.loc[cells["is_control"], "perturbation"].unique()
        row = {name: self.facts[name] for name in ("name", "organism", "x_kind", "perturbation_type")}
        row |= {name: self.facts[name] for name in ("unexpressed_threshold", "unexpressed_scale", "min_counts")}
        row["split_order"] = self.facts.get("split_order", "file")
        batch = "batch" if self.facts["has_batches"] else None
        labels = ";".join(map(str, controls)) or "none"
        row["guide_column"] = "guide" if "guide" in cells else None
        return row | {"perturbation_column": "perturbation", "control_label": labels, "batch_column": batch}

    def __repr__(self) -> str:
        facts = self.facts
        return (f"Screen {self.name!r}: {facts['n_cells']} cells, {facts['n_perturbations']} perturbations, "
                f"{facts['n_controls']} controls, {facts['n_batches']} batches")  # fmt: skip


def _controls_of(adata: "AnnData", row: dict) -> str:
    """The control labels of a sheet's row that some of these cells bear: of many, a sample may have none of a rare one."""
    dataset = resolve(row, {})
    occurring = as_text(adata.obs[row["perturbation_column"]], dataset.kept_labels).dropna().unique().tolist()
    named = named_controls(dataset.control_label, occurring)
    return ";".join(label for label, found in named.items() if found) or row["control_label"]
