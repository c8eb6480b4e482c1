"""The maps of one data set: where the same cells lie in every embedding, and which perturbations lie near which.

``cells``: positions of a few thousand cells. ``neighbours``: per embedding and perturbation the most similar other ones.
``perturbations``: cells, expression of the target and strength of each perturbation.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from plumbline.common.files import read_json_object
from plumbline.common.labels import among
from plumbline.common.random import hashes
from plumbline.embedding.contract import open_embedding, provenance_path, rows_of
from plumbline.metrics.groups import Groups, group_by, group_means
from plumbline.metrics.layout import umap_layout
from plumbline.scoring.alignment import Standardise
from plumbline.scoring.screen import Screen, read_screen
from plumbline.scoring.vectors import Vectors

NAMES = ["variant", "fit_on"]
NEAREST = 5  # neighbours kept per perturbation
NAMED = 8  # strongest perturbations, of which the map shows more cells
SHARE_NAMED, SHARE_CONTROL = 0.3, 0.15  # of the drawn cells
BLOCK = 2048  # perturbations compared at a time


class Maps(NamedTuple):
    """Three tables; ``cells`` and ``neighbours`` have the columns variant and fit_on of the embedding."""

    cells: pd.DataFrame
    neighbours: pd.DataFrame
    perturbations: pd.DataFrame


class _Effects(NamedTuple):
    """names (p,): perturbations. direction (p, d): unit mean effects. strength (p,): squared length, in control variance."""

    names: np.ndarray
    direction: np.ndarray
    strength: np.ndarray


def map_dataset(tables: Path, embeddings: list[Path], n_cells: int, seed: int = 0) -> Maps:
    """The maps of a data set. tables: PREPARE's folder. embeddings: embedding.npz files, their provenance beside them.

    An embedding that does not apply to the data set is left out.
    """
    screen = read_screen(tables)
    about = {path: read_json_object(provenance_path(path)) for path in embeddings}
    names = {path: {key: facts[key] for key in NAMES} for path, facts in about.items() if facts["status"] == "ok"}
    effects = {path: _effects(_values(path, screen), screen) for path in names}
    perturbations = _perturbations(screen, list(effects.values()))
    rows = drawn_cells(screen, perturbations, n_cells)
    cells = [_placed(_values(path, screen)[rows], screen.take(rows), seed).assign(**name) for path, name in names.items()]
    neighbours = [_neighbours(effects[path]).assign(**name) for path, name in names.items()]
    none = [pd.DataFrame(columns=NAMES)]
    return Maps(pd.concat(cells or none), pd.concat(neighbours or none), perturbations)


def drawn_cells(screen: Screen, perturbations: pd.DataFrame, n_cells: int) -> np.ndarray:
    """Row numbers of the cells to show, drawn by cell id: some of the strongest perturbations, some controls, any others."""
    order = np.argsort(hashes(screen.cell_id, "map"), kind="stable")
    strongest = perturbations.nlargest(NAMED, "strength")["perturbation"].to_numpy(dtype=str)
    is_named = among(screen.perturbation[order], strongest) & ~screen.is_control[order]
    is_control = screen.is_control[order]
    first = [order[is_named][: round(SHARE_NAMED * n_cells)], order[is_control][: round(SHARE_CONTROL * n_cells)]]
    others = order[~np.isin(order, np.concatenate(first))]
    free = n_cells - sum(map(len, first))
    return np.sort(np.concatenate([*first, others[: max(free, 0)]]))


def _values(path: Path, screen: Screen) -> Vectors:
    """The embedding in the order of the screen; a large one stays in its file."""
    embedding = open_embedding(path)
    rows, values = rows_of(embedding.cell_id, screen.cell_id, path.name), Vectors.of(embedding.values)
    return values if rows is None else values.take(rows)


def _effects(values: Vectors, screen: Screen) -> _Effects:
    """Mean of each perturbation's cells after centring on the controls of their batches (without controls: on all cells)."""
    is_known = _of_rows(values, lambda block: np.isfinite(block).all(axis=1), bool)
    if not is_known.all():
        values, screen = values.take(is_known), screen.take(is_known)
    aligned_on = screen.is_control if screen.is_control.any() else np.ones(len(values), dtype=bool)
    centred = _centred(values, aligned_on, screen.batch)
    squares = _of_rows(centred, lambda block: (block.astype(np.float64) ** 2).sum(axis=1), float)
    noise = float(squares[aligned_on].mean()) or 1.0
    perturbed = np.flatnonzero(~screen.is_control)
    groups = group_by(screen.perturbation[perturbed])
    means = group_means(centred.take(perturbed), groups)
    strength = _without_noise(squares[perturbed], means, groups) / noise
    length = np.linalg.norm(means, axis=1, keepdims=True)
    return _Effects(groups.names, (means / np.where(length > 0, length, 1.0)).astype(np.float32), strength)


def _of_rows(values: Vectors, number: Callable[[np.ndarray], np.ndarray], kind: type) -> np.ndarray:
    """A number per row (n,), from blocks of rows."""
    found = np.zeros(len(values), dtype=kind)
    for positions, block in values.blocks():
        found[positions] = number(block)
    return found


def _centred(values: Vectors, aligned_on: np.ndarray, batch: np.ndarray) -> Vectors:
    """Less the mean of the batch's cells ``aligned_on``, or of all such cells where a batch has none."""
    codes, names = pd.factorize(np.asarray(batch, dtype=object))
    rows = np.flatnonzero(aligned_on)
    groups = group_by(codes[rows].astype(str))
    means = group_means(values.take(rows), groups)
    centre = np.tile(groups.sizes @ means / len(rows), (len(names), 1))
    centre[groups.names.astype(int)] = means
    return values.mapped(Standardise(centre.astype(np.float32)), codes)


def _without_noise(squares: np.ndarray, means: np.ndarray, groups: Groups) -> np.ndarray:
    """Squared lengths of means (g, d), less what noise of a few cells adds; one cell has none. squares (n,): of the cells."""
    mean_square = group_means(squares[:, None], groups)[:, 0]
    length, n = (means**2).sum(axis=1), groups.sizes
    return np.where(n > 1, length - (mean_square - length) / np.maximum(n - 1, 1), 0.0)


def _neighbours(effects: _Effects) -> pd.DataFrame:
    """perturbation, rank, neighbour, cosine: the most similar mean effects."""
    k, parts = min(NEAREST, len(effects.names) - 1), []
    for start in range(0, len(effects.names) if k > 0 else 0, BLOCK):
        cosine = effects.direction[start : start + BLOCK] @ effects.direction.T
        rows = np.arange(len(cosine))
        cosine[rows, start + rows] = -np.inf
        near = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        parts.append(pd.DataFrame({
            "perturbation": np.repeat(effects.names[start : start + BLOCK], k), "rank": np.tile(np.arange(1, k + 1), len(rows)),
            "neighbour": effects.names[near].ravel(), "cosine": np.take_along_axis(cosine, near, axis=1).ravel(),
        }))  # fmt: skip
    return pd.concat(parts) if parts else pd.DataFrame(columns=["perturbation", "rank", "neighbour", "cosine"])


def _perturbations(screen: Screen, effects: list[_Effects]) -> pd.DataFrame:
    """perturbation, n_cells, n_batches, expression, strength (0..1).

    expression: mean log-normalised value of the perturbed gene, where it is measured. strength: the perturbation's rank by
    the length of its mean effect, as a fraction, mean over the embeddings, so that none of them defines what is strong.
    """
    cells = pd.DataFrame({"perturbation": screen.perturbation, "batch": screen.batch})[~screen.is_control]
    table = cells.groupby("perturbation")["batch"].agg(n_cells="size", n_batches="nunique").reset_index()
    ranks = [pd.Series(part.strength, index=part.names).rank(pct=True).reindex(table["perturbation"]) for part in effects]
    table["strength"] = pd.concat(ranks, axis=1).mean(axis=1).fillna(0.0).to_numpy() if ranks else 0.0
    level = pd.concat([pd.Series(screen.genes["mean_lognorm"].to_numpy(), index=screen.genes[key].astype(str))
                       for key in ("symbol", "ensembl_id")])  # fmt: skip
    level = level[level.index != ""].groupby(level=0).max()
    return table.assign(expression=level.reindex(table["perturbation"]).to_numpy())


def _placed(values: np.ndarray, shown: Screen, seed: int) -> pd.DataFrame:
    """Positions of the shown cells with embedding ``values`` (n, d); NaN where the model could not embed one."""
    is_known, places = np.isfinite(values).all(axis=1), np.full((len(values), 2), np.nan, dtype=np.float32)
    places[is_known] = umap_layout(values[is_known], seed)
    columns = {name: getattr(shown, name) for name in ("cell_id", "perturbation", "is_control", "batch")}
    return pd.DataFrame({**columns, "x": places[:, 0], "y": places[:, 1]})
