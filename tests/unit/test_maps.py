"""Maps: the same cells in every embedding, and the perturbations that lie near each other."""

import json

import numpy as np
import pandas as pd
import pytest

from plumbline.embedding.contract import write_embedding, write_not_applicable
from plumbline.scoring import vectors
from plumbline.scoring.screen import read_screen
from plumbline.summary import maps as maps_module
from plumbline.summary.maps import drawn_cells, map_dataset

N, PERTURBED = 400, ["A1", "A2", "B1", "B2", "weak"]
DIRECTION = {"A1": (6, 0, 0), "A2": (5, 1, 0), "B1": (0, 6, 0), "B2": (1, 5, 0), "weak": (0, 0, 0), "ctrl": (0, 0, 0)}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """PREPARE's folder of a screen of two batches, four strong perturbations and one without effect."""
    folder = tmp_path_factory.mktemp("tables")
    names = np.array(["ctrl", *PERTURBED])[np.arange(N) % 6]
    cells = pd.DataFrame({"cell_id": [f"c{i:03d}" for i in range(N)], "perturbation": names, "is_control": names == "ctrl",
                          "batch": np.where(np.arange(N) < N // 2, "b1", "b2")})  # fmt: skip
    cells.to_parquet(folder / "cells.parquet")
    genes = pd.DataFrame({"symbol": ["A1", "B1"], "ensembl_id": ["", ""], "mean_lognorm": [0.5, 2.0]})
    genes.to_parquet(folder / "genes.parquet")
    (folder / "dataset.json").write_text(json.dumps({"name": "s"}))
    return folder


def planted(tables, batch_shift=20.0):
    """Cells at their perturbation's place, far apart by batch."""
    screen = read_screen(tables)
    place = np.array([DIRECTION[name] for name in screen.perturbation], dtype=float)
    noise = np.random.default_rng(0).normal(size=(N, 3))
    return place + noise + batch_shift * (screen.batch == "b2")[:, None]


@pytest.fixture(scope="module")
def maps(tables, tmp_path_factory):
    folder, screen = tmp_path_factory.mktemp("embeddings"), read_screen(tables)
    order = np.random.default_rng(1).permutation(N)  # rows are joined by id
    write_embedding(folder / "a.npz", screen.cell_id[order], planted(tables)[order], {"variant": "good", "fit_on": "train"})
    gaps = planted(tables)
    gaps[:7] = np.nan
    write_embedding(folder / "b.npz", screen.cell_id, gaps, {"variant": "gaps", "fit_on": "none", "unembedded_cells": 7})
    write_not_applicable(folder / "c.npz", "no genes", {"variant": "none", "fit_on": "none"})
    return map_dataset(tables, sorted(folder.glob("*.npz")), 120)


def test_a_large_embedding_is_read_in_blocks(tables, tmp_path, monkeypatch):
    """A million cells x 256 dimensions took 5.2 GB. The same numbers, whatever lies in memory."""
    screen, path, read = read_screen(tables), tmp_path / "a.npz", []
    values = planted(tables)
    values[3] = np.nan
    write_embedding(path, screen.cell_id[::-1], values[::-1], {"variant": "a", "fit_on": "none", "unembedded_cells": 1})
    wanted = maps_module._effects(maps_module._values(path, screen), screen)
    rows = vectors.Vectors.__getitem__
    monkeypatch.setattr(vectors.Vectors, "__getitem__", lambda self, of: read.append((found := rows(self, of)).nbytes) or found)
    monkeypatch.setattr(vectors, "HELD_BYTES", 0)
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 12 * 50)  # 50 rows of three dimensions
    found = maps_module._effects(maps_module._values(path, screen), screen)
    assert sum(read) >= 2 * 12 * N
    assert max(read) <= 12 * 50
    for one, other in zip(found, wanted, strict=True):
        assert (one == other).all() if one.dtype.kind == "U" else np.allclose(one, other, rtol=1e-6)


def test_every_panel_has_the_same_cells(maps):
    shown = maps.cells.groupby("variant")["cell_id"].agg(list)
    assert set(shown.index) == {"good", "gaps"}
    assert shown["good"] == shown["gaps"]
    assert len(shown["good"]) == 120


def test_cells_without_an_embedding_have_no_place(maps):
    gone = maps.cells[maps.cells["x"].isna()]
    assert set(gone["variant"]) == {"gaps"}
    assert set(gone["cell_id"]) <= {f"c{i:03d}" for i in range(7)}


def test_the_map_keeps_apart_what_is_apart(maps):
    """Batches are 20 standard deviations apart: of a cell's five nearest in the map, none is of the other batch."""
    rows = maps.cells[maps.cells["variant"] == "good"]
    places = rows[["x", "y"]].to_numpy()
    near = ((places[:, None] - places[None]) ** 2).sum(axis=2).argsort(axis=1)[:, 1:6]
    batch = rows["batch"].to_numpy()
    assert (batch[near] == batch[:, None]).mean() > 0.98


def test_the_most_similar_perturbation_is_the_planted_one_whatever_the_batch(maps):
    first = maps.neighbours[maps.neighbours["rank"] == 1].set_index(["variant", "perturbation"])["neighbour"]
    for variant in ("good", "gaps"):
        assert [first[variant, name] for name in ("A1", "A2", "B1", "B2")] == ["A2", "A1", "B2", "B1"]
    assert not (maps.neighbours["perturbation"] == maps.neighbours["neighbour"]).any()


def test_strength_expression_and_cells_of_a_perturbation(maps):
    table = maps.perturbations.set_index("perturbation")
    assert "ctrl" not in table.index
    assert table["strength"].idxmin() == "weak"
    assert table.loc["A1", "expression"] == 0.5
    assert np.isnan(table.loc["A2", "expression"])
    assert table["n_cells"].sum() == N - np.ceil(N / 6)
    assert (table["n_batches"] == 2).all()


def test_drawn_cells_depend_on_their_ids_alone(tables, maps):
    screen = read_screen(tables)
    turned = screen.take(np.arange(N)[::-1])
    drawn = [set(part.cell_id[drawn_cells(part, maps.perturbations, 50)]) for part in (screen, turned)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 50
    assert len(drawn_cells(screen, maps.perturbations, 10_000)) == N
