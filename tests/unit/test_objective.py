"""Objectives with the perturbation in them: the loss, the cells it is given, stopping and going on, what may be read."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_screen import HEAD, made_counts, options, relabel, with_head, write_screen

from plumbline.common.errors import NotApplicable, UserError
from plumbline.embedding.options import Source
from plumbline.models.objectives.labels import MIN_CELLS, labelled_cells, minibatches, validation_part
from plumbline.models.pca import pca
from plumbline.models.shared.fitting import fitting_part

torch = pytest.importorskip("torch")
from plumbline.models.objectives import objective
from plumbline.models.objectives.head import embed_with_head


def brute_force_contrastive(z, code, batch, t):
    """Khosla et al. 2020, equation 2, cell by cell; positives from other batches where there are any."""
    total, anchors = 0.0, 0
    for i in range(len(z)):
        same = [p for p in range(len(z)) if p != i and code[p] == code[i]]
        positives = [p for p in same if batch[p] != batch[i]] or same
        if not positives:
            continue
        against = positives + [a for a in range(len(z)) if code[a] != code[i]]
        share = sum(math.exp(z[i] @ z[a] / t) for a in against)
        total += -sum(math.log(math.exp(z[i] @ z[p] / t) / share) for p in positives) / len(positives)
        anchors += 1
    return total / anchors


@pytest.fixture
def counts(tmp_path):
    return write_screen(tmp_path, made_counts(300, 80))


@pytest.mark.parametrize("n_batches", [1, 2, 4])
def test_the_contrastive_loss_is_the_formula(n_batches):
    rng = np.random.default_rng(n_batches)
    z = rng.normal(size=(30, 4))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    code, batch = rng.integers(0, 7, 30), rng.integers(0, n_batches, 30)
    code[0] = 99  # a class of one cell: no anchor, but what the others are told from
    ours = objective.contrastive_loss(*map(torch.as_tensor, (z, code, batch)), 0.3).item()
    assert ours == pytest.approx(brute_force_contrastive(z, code, batch, 0.3), rel=1e-9)


def test_the_loss_sees_classes_and_not_batches():
    points = torch.eye(2, dtype=torch.float64)
    code, batch = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    by_class = objective.contrastive_loss(points[code], code, batch, 0.2)
    by_batch = objective.contrastive_loss(points[batch], code, batch, 0.2)
    assert by_class < 0.02 < 3 < by_batch


def test_one_class_of_single_cells_has_no_loss():
    z = torch.eye(3, dtype=torch.float64)
    assert objective.contrastive_loss(z, torch.arange(3), torch.zeros(3), 0.2).isnan()


def test_minibatches_hold_every_cell_once_and_bring_batches_together():
    rng = np.random.default_rng(0)
    code, batch = rng.integers(0, 20, 700), rng.integers(0, 4, 700)
    parts = list(minibatches(code, batch, 100, np.random.default_rng(1)))
    assert sorted(np.concatenate(parts)) == list(range(700))
    assert {len(part) for part in parts} == {100}
    mates = [(code[part][:, None] == code[part]) & (batch[part][:, None] != batch[part]) for part in parts]
    assert np.mean(np.concatenate([found.any(axis=1) for found in mates])) > 0.9


def test_validation_is_by_batch_where_there_are_three():
    code, batch = np.repeat(np.arange(6), 20), np.tile(np.arange(5), 24)
    mask, by = validation_part(code, batch, 42)
    assert by == "batch"
    assert len(np.unique(batch[mask])) == 1
    assert not set(batch[mask]) & set(batch[~mask])
    mask, by = validation_part(code, batch % 2, 42)
    assert by == "cell"
    np.testing.assert_array_equal(np.bincount(code[mask]), np.full(6, 4))


def test_only_train_cells_and_their_labels_are_used(tmp_path, counts):
    cells = labelled_cells(fitting_part(counts, with_head(tmp_path)), with_head(tmp_path))
    table = pd.read_parquet(tmp_path / "tables" / "cells.parquet").set_index("cell_id").loc[cells.cell_id]
    assert set(table["batch"]) == {"b0", "b1", "b2"}
    assert list(counts.cell_id[cells.rows]) == list(cells.cell_id) == sorted(cells.cell_id)
    names = np.where(table["is_control"], "", table["perturbation"])
    np.testing.assert_array_equal(cells.classes[cells.code], names)


def test_a_killed_run_goes_on_to_the_same_result(tmp_path, counts, monkeypatch):
    whole = embed_with_head(pca.embed, counts, with_head(tmp_path)).values
    path, save, written = tmp_path / "head.pt", objective.save, []

    def dies(target, state):
        save(target, state)
        written.append(state["done"])
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(objective, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        embed_with_head(pca.embed, counts, with_head(tmp_path, head_checkpoint=path))
    monkeypatch.setattr(objective, "save", save)
    resumed = embed_with_head(pca.embed, counts, with_head(tmp_path, head_checkpoint=path))
    np.testing.assert_array_equal(resumed.values, whole)
    assert resumed.extra["head"]["resumed_from_epoch"] == 3
    finished = embed_with_head(pca.embed, counts, with_head(tmp_path, head_checkpoint=path))
    np.testing.assert_array_equal(finished.values, whole)
    assert finished.extra["head"]["resumed_from_epoch"] == 8


def test_a_checkpoint_of_something_else_is_refused(tmp_path, counts):
    path = tmp_path / "head.pt"
    embed_with_head(pca.embed, counts, with_head(tmp_path, head_checkpoint=path, head_epochs=1))
    with pytest.raises(UserError, match="of other cells or settings"):
        embed_with_head(pca.embed, counts, with_head(tmp_path, head_checkpoint=path, head="classify"))
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="no checkpoint of a training"):
        embed_with_head(pca.embed, counts, with_head(tmp_path, head_checkpoint=path))


def test_training_stops_early_and_keeps_the_best_epoch(tmp_path, counts, capsys):
    relabel(tmp_path, lambda cells: cells.assign(perturbation=np.random.default_rng(0).permutation(cells["perturbation"])))
    about = embed_with_head(pca.embed, counts, with_head(tmp_path, head_epochs=200, head_learning_rate=0.05)).extra["head"]
    assert about["epochs"] == about["best_epoch"] + objective.PATIENCE < 200
    assert about["validation_loss"] <= about["first_validation_loss"]
    assert f"epoch {about['epochs']}/200" in capsys.readouterr().err


@pytest.mark.parametrize("fit_on", ["all", "none", "all@0.5"])
def test_labels_that_are_scored_are_not_trained_on(tmp_path, counts, fit_on):
    with pytest.raises(UserError, match="trained on the cells it is scored on"):
        embed_with_head(pca.embed, counts, with_head(tmp_path, fit_on))


def test_missing_labels_are_explained(tmp_path, counts):
    relabel(tmp_path, lambda cells: cells.drop(columns="is_control"))
    with pytest.raises(UserError, match=r"is_control.*Run PREPARE again"):
        embed_with_head(pca.embed, counts, with_head(tmp_path))
    source = Source(counts=counts, tables=None)
    with pytest.raises(UserError, match="give --tables"):
        embed_with_head(pca.embed, counts, replace(options(None, "screen", **HEAD), source=source))


def test_a_label_that_is_missing_is_explained(tmp_path, counts):
    relabel(tmp_path, lambda cells: cells.assign(perturbation=cells["perturbation"].where(cells["cell_id"] != "cell1")))
    with pytest.raises(UserError, match="no perturbation for 1 of the fitting cells"):
        embed_with_head(pca.embed, counts, with_head(tmp_path))


def test_one_perturbation_is_not_applicable(tmp_path, counts):
    relabel(tmp_path, lambda cells: cells.assign(perturbation=np.where(cells["is_control"], "control", "P1")))
    with pytest.raises(NotApplicable, match=f"1 of the fitting part's have {MIN_CELLS} cells; 2 are needed"):
        embed_with_head(pca.embed, counts, with_head(tmp_path))
