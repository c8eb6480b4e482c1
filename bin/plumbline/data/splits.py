"""Train, test and validation cells of one split seed (arXiv 2410.13956, its data_split.py; docs/protocol.md, "Splits").

Batches and perturbations are shuffled by numpy's legacy generator, batches first, each in order of first appearance among
the perturbed cells: the draws are those of the paper's own code, so seed 42 gives the paper's split.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError
from plumbline.common.files import reading, write_parquet
from plumbline.data.facts import read_facts

PARTS = ("train", "test1", "test2", "validation")
LABELS = ("perturbation", "is_control", "batch")
TRAIN_SHARE = 0.7
DRAWS = 100  # shuffles of the test batches tried for a validation half that holds what the other half holds


@dataclass(frozen=True)
class Split:
    """One split. Boolean masks (n_cells,). test1 and test2 share the controls of the test batches (protocol, "Splits").

    validation: the part of the test cells that may be used to choose a post-processing (half of the test batches); the
    `corrected` protocol reports on the rest. by: 'batch', or 'cell' where the data set has fewer than two batches.
    """

    seed: int
    by: str
    train: np.ndarray
    test1: np.ndarray
    test2: np.ndarray
    validation: np.ndarray

    def take(self, rows: np.ndarray) -> "Split":
        """The same split on a subset of the cells."""
        parts = {name: getattr(self, name)[rows] for name in PARTS}
        return replace(self, **parts)


@dataclass(frozen=True)
class _Codes:
    """Integer codes (n_cells,), -1 for what does not take part: controls have no perturbation code."""

    perturbation: np.ndarray
    batch: np.ndarray
    is_control: np.ndarray
    n_perturbations: int
    n_batches: int


def split_by(is_control: np.ndarray, batch: np.ndarray) -> str:
    """'batch' if perturbed cells lie in two batches or more, else 'cell'."""
    perturbed = np.asarray(batch)[~np.asarray(is_control, dtype=bool)]
    return "batch" if len(pd.unique(perturbed)) > 1 else "cell"


def make_split(perturbation: np.ndarray, is_control: np.ndarray, batch: np.ndarray, seed: int, by: str) -> Split:
    """One split of the cells.

    perturbation, is_control, batch: (n_cells,). by 'batch': train = 70 % of batches x 70 % of perturbations, test1 = the other
    batches x the perturbations that train holds, test2 = the other batches x the held-out perturbations; the controls of a
    part's batches join it (controls of a batch without perturbed cells join none). by 'cell': the same with 70 % of each
    perturbation's cells in place of batches. A single perturbation is a train perturbation. ``validation``: half of the test
    batches (half of the test cells, stratified by perturbation, where batches cannot be halved), False everywhere if even
    that leaves one half without perturbed cells. Raises UserError if the cells cannot be split as asked.
    """
    cells = _encode(perturbation, is_control, batch)
    if by not in ("batch", "cell"):
        raise UserError(f"split by {by!r}: expected 'batch' or 'cell'.")
    if not cells.n_perturbations:
        raise UserError(
            "no perturbed cells to split: every cell is a control. Check the perturbation column and control label."
        )
    if by == "batch" and cells.n_batches < 2:
        raise UserError("a split by batch needs perturbed cells in at least two batches; this data set is to be split by cell.")
    random = np.random.RandomState(seed)
    train, test1, test2 = (_by_batch if by == "batch" else _by_cell)(cells, random)
    validation = _validation(cells, test1, test2, by, random)
    return Split(seed, by, train, test1, test2, validation)


def n_train(n: int) -> int:
    """How many of n batches, perturbations or cells of a perturbation are for training (the paper truncates); at least 1."""
    return max(1, int(TRAIN_SHARE * n))


def _encode(perturbation: np.ndarray, is_control: np.ndarray, batch: np.ndarray) -> _Codes:
    is_control = np.asarray(is_control, dtype=bool)
    batch_code, batch_names = pd.factorize(np.asarray(batch, dtype=object))
    seen = pd.unique(batch_code[~is_control])  # order of first appearance among perturbed cells
    renumber = np.full(len(batch_names), -1)
    renumber[seen] = np.arange(len(seen))
    code = np.full(len(is_control), -1)
    code[~is_control], names = pd.factorize(np.asarray(perturbation, dtype=object)[~is_control])
    return _Codes(code, renumber[batch_code], is_control, len(names), len(seen))


def _chosen(n: int, random: np.random.RandomState) -> np.ndarray:
    """Mask (n + 1,) of the train part of n things; the last entry stands for code -1 and is False."""
    mask = np.zeros(n + 1, dtype=bool)
    mask[random.permutation(n)[: n_train(n)]] = True
    return mask


def _by_batch(cells: _Codes, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    in_train_batch = _chosen(cells.n_batches, random)[cells.batch]
    in_test_batch = ~in_train_batch & (cells.batch >= 0)
    return _parts(cells, _chosen(cells.n_perturbations, random), in_train_batch, in_test_batch, in_test_batch)


def _by_cell(cells: _Codes, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    train_perturbation = _chosen(cells.n_perturbations, random)
    order = np.lexsort((random.permutation(len(cells.batch)), cells.perturbation))
    stratum = cells.perturbation[order] + 1  # controls are stratum 0
    sizes = np.bincount(stratum, minlength=cells.n_perturbations + 1)
    rank = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[stratum]
    for_train = np.zeros(len(order), dtype=bool)
    for_train[order] = rank < np.maximum(1, (TRAIN_SHARE * sizes).astype(int))[stratum]
    # a held-out perturbation is new whichever of its cells is looked at, so all of them are test2
    return _parts(cells, train_perturbation, for_train, ~for_train, ~(for_train & cells.is_control))


def _parts(
    cells: _Codes, train_perturbation: np.ndarray, for_train: np.ndarray, for_test1: np.ndarray, for_test2: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    seen = train_perturbation[cells.perturbation]
    train = for_train & (seen | cells.is_control)
    in_train = np.zeros(cells.n_perturbations + 1, dtype=bool)
    in_train[cells.perturbation[train & ~cells.is_control]] = True
    test1 = for_test1 & (in_train[cells.perturbation] | cells.is_control)
    test2 = for_test2 & ~seen
    if not (test2 & ~cells.is_control).any():
        test2 = np.zeros_like(test2)
    return train, test1, test2


def _validation(cells: _Codes, test1: np.ndarray, test2: np.ndarray, by: str, random: np.random.RandomState) -> np.ndarray:
    by_batch = _half_of_batches(cells, test1, test2, random) if by == "batch" else None
    if by_batch is not None:
        return by_batch
    test, perturbed = test1 | test2, (test1 | test2) & ~cells.is_control
    rows = np.flatnonzero(test)
    # every other cell in this order: each of controls, test1 and test2, and each perturbation of two cells, is in both halves
    order = np.lexsort((random.permutation(len(rows)), cells.perturbation[rows], test2[rows], cells.is_control[rows]))
    half = np.zeros(len(test), dtype=bool)
    half[rows[order[1::2]]] = True
    return half if (half & perturbed).any() and (~half & perturbed).any() else np.zeros(len(test), dtype=bool)


def _half_of_batches(cells: _Codes, test1: np.ndarray, test2: np.ndarray, random: np.random.RandomState) -> np.ndarray | None:
    """Half of the test batches; both halves hold perturbed test1 cells, and test2 cells if any. None if impossible."""
    test = test1 | test2
    perturbed = [part & ~cells.is_control for part in (test1, test2)]
    holds = np.array([np.bincount(cells.batch[part], minlength=cells.n_batches) > 0 for part in perturbed if part.any()])
    batches = np.unique(cells.batch[test])
    if len(batches) < 2 or not len(holds) or (holds.sum(axis=1) < 2).any():
        return None
    for _ in range(DRAWS):
        first, rest = np.split(random.permutation(batches), [len(batches) // 2])
        if holds[:, first].any(axis=1).all() and holds[:, rest].any(axis=1).all():
            return test & np.isin(cells.batch, first)
    return None


def read_split(tables: Path | str, seed: int) -> Split:
    """One seed's split of a prepared data set, in the order of cells.parquet: ``read_splits`` for one seed."""
    return read_splits(tables, [seed])[0]


def read_splits(tables: Path | str, seeds: list[int]) -> list[Split]:
    """The split of every seed, in the order of cells.parquet.

    A splits.parquet in the folder (columns train_42, test1_42, ...) is used for the seeds that it holds. All others are made
    here, from the cells and the seed alone: a further seed asks nothing of what was prepared before. The order of the cells
    enters, as in the paper, unless dataset.json says ``split_order: id``.
    """
    given, labels = _given(Path(tables)), _labels(Path(tables))
    if len(given.columns) and len(given) != len(labels[0]):
        raise UserError(f"{tables}/splits.parquet has {len(given):,} rows, cells.parquet {len(labels[0]):,}: they are of "
                        "different runs. Copy the whole folder, or run again with -resume.")  # fmt: skip
    by, order = split_by(*labels[1:]), _order(Path(tables), len(labels[0]))
    ordered, back = tuple(label[order] for label in labels), np.argsort(order)
    return [
        _one_given(given, seed, by) if f"train_{seed}" in given else make_split(*ordered, seed, by).take(back) for seed in seeds
    ]


def split_seeds(tables: Path | str) -> list[int]:
    """Seeds of the splits that the folder's splits.parquet holds; none without such a file."""
    return [int(name.removeprefix("train_")) for name in _given(Path(tables)) if name.startswith("train_")]


def write_splits(tables: Path | str, seeds: list[int], path: Path) -> list[dict]:
    """Write the splits of all seeds as one table; returns of every seed the numbers of cells and perturbations by part."""
    splits = read_splits(tables, seeds)
    write_parquet(path, pd.DataFrame({f"{part}_{split.seed}": getattr(split, part) for split in splits for part in PARTS}))
    perturbation, is_control, _ = _labels(Path(tables))
    return [_sizes(split, perturbation, ~is_control) for split in splits]


def split_warnings(sizes: list[dict]) -> list[str]:
    """What cannot be scored under some seeds, in plain words; empty if everything can."""
    unsplit = [row["seed"] for row in sizes if not (row["perturbations"]["train"] and row["perturbations"]["test1"])]
    unseen = [row["seed"] for row in sizes if not row["perturbations"]["test2"]]
    told = {
        f"Seeds {unsplit}: train or test1 holds no perturbed cell; tasks that need both are not applicable.": bool(unsplit),
        f"Seeds {unseen}: no held-out perturbation (test2); reconstruction is not applicable.": bool(unseen),
    }
    return [text for text, applies in told.items() if applies]


def _sizes(split: Split, perturbation: np.ndarray, perturbed: np.ndarray) -> dict:
    masks = {part: getattr(split, part) for part in PARTS}
    names = {part: int(pd.Series(perturbation[mask & perturbed]).nunique()) for part, mask in masks.items()}
    return {"seed": split.seed, "cells": {part: int(mask.sum()) for part, mask in masks.items()}, "perturbations": names}


def _labels(tables: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with reading(tables / "cells.parquet", "Run PREPARE again."):
        cells = pd.read_parquet(tables / "cells.parquet", columns=list(LABELS))
    return tuple(cells[name].to_numpy() for name in LABELS)


def _order(tables: Path, n: int) -> np.ndarray:
    """Row numbers in which the n cells are met: as they lie in the file, or by their ids."""
    if read_facts(tables).get("split_order", "file") == "file":
        return np.arange(n)
    with reading(tables / "cells.parquet", "Run PREPARE again."):
        return np.argsort(pd.read_parquet(tables / "cells.parquet", columns=["cell_id"])["cell_id"].to_numpy(dtype=str))


def _given(tables: Path) -> pd.DataFrame:
    path = tables / "splits.parquet"
    if not path.exists():
        return pd.DataFrame()
    with reading(path):
        return pd.read_parquet(path)


def _one_given(given: pd.DataFrame, seed: int, by: str) -> Split:
    return Split(seed, by, *(given[f"{part}_{seed}"].to_numpy(dtype=bool) for part in PARTS))
