"""scANVI and contrastiveVI: what scvi-tools gives, without a batch; planted structure; nothing read that is not trained on."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from made_screen import made_counts, options, relabel, write_screen
from pretended_gpu import pretended_gpu
from sklearn.linear_model import LogisticRegression

from plumbline.common.errors import NotApplicable, UserError
from plumbline.embedding.options import Source

pytest.importorskip("scvi")
from plumbline.models.scvi import labelled as scvi_labelled
from plumbline.models.scvi import scvi_model

SMALL = {"n_latent": 6, "n_hidden": 16, "n_hvg": 60, "max_epochs": 3}
BOTH = pytest.mark.parametrize("architecture", ["scanvi", "contrastivevi"])


@pytest.fixture
def counts(tmp_path):
    return write_screen(tmp_path, made_counts(300, 80, n_factors=2))


def told(folder, architecture, fit_on="train", **settings):
    return options(folder / "tables", fit_on, **{**SMALL, "architecture": architecture, **settings})


@BOTH
def test_it_trains_repeats_and_embeds_cells_of_unseen_batches(tmp_path, counts, architecture):
    first, second = (scvi_labelled.embed(counts, told(tmp_path, architecture)) for _ in range(2))
    np.testing.assert_array_equal(first.values, second.values)
    assert first.values.shape == (300, 6 if architecture == "scanvi" else 3)
    assert np.isfinite(first.values).all()
    assert (first.extra["architecture"], first.extra["n_fit_cells"], first.extra["n_fit_batches"]) == (architecture, 180, 3)


@BOTH
def test_a_gpu_trains_and_embeds_as_the_cpu_does(tmp_path, counts, architecture):
    """On a stand-in for one (tests/pretended_gpu.py)."""
    asked = told(tmp_path, architecture, max_epochs=1)
    on_cpu = scvi_labelled.embed(counts, asked)
    with pretended_gpu():
        on_gpu = scvi_labelled.embed(counts, replace(asked, device="cuda"))
    assert on_gpu.extra["device"] == "cuda:0"
    np.testing.assert_array_equal(on_gpu.values, on_cpu.values)


@pytest.mark.parametrize("latent", ["salient", "both"])
def test_the_embedding_is_that_of_scvi_tools(tmp_path, counts, latent):
    asked = told(tmp_path, "contrastivevi", latent=latent)
    plan = scvi_model.make_plan(counts, asked)
    label = pd.read_parquet(tmp_path / "tables" / "cells.parquet")["is_control"].to_numpy()[plan.part.rows]
    label = np.where(label, "", "P")
    scvi_model.libraries(asked)
    model, encoders, _ = scvi_labelled._contrastivevi(plan, label, asked, "cpu")
    ours = scvi_model.encode(counts, plan, model, "cpu", encoders)[plan.part.rows]
    kinds = ("salient", "background") if latent == "both" else ("salient",)
    theirs = [model.get_latent_representation(representation_kind=kind) for kind in kinds]
    np.testing.assert_allclose(ours, np.hstack(theirs), atol=1e-5)


def test_scanvi_is_that_of_scvi_tools(tmp_path, counts):
    asked = told(tmp_path, "scanvi")
    plan = scvi_model.make_plan(counts, asked)
    scvi_model.libraries(asked)
    label = np.array(["", "P1", "P2"])[np.arange(len(plan.part.rows)) % 3]
    model, encoders, facts = scvi_labelled._scanvi(plan, label, asked, "cpu")
    ours = scvi_model.encode(counts, plan, model, "cpu", encoders)[plan.part.rows]
    np.testing.assert_allclose(ours, model.get_latent_representation(), atol=1e-5)
    assert (facts["epochs_scvi"], facts["n_classes"]) == (3, 3)


def two_kinds(folder, seed=0):
    """A screen whose loudest variation is the same in all cells, and whose perturbations P0..P7 are of two kinds."""
    rng = np.random.default_rng(seed)
    write_screen(folder, made_counts(400, 5))  # for its labels
    cells = pd.read_parquet(folder / "tables" / "cells.parquet")
    kind = np.where(cells["is_control"], 0.0, np.where(cells["perturbation"].isin(["P0", "P2", "P4", "P6"]), 1.0, -1.0))
    loud, quiet = rng.normal(0, 0.5, (2, 60)), np.where(np.arange(60) < 20, 0.7, 0.0)
    state = rng.normal(size=(400, 2))
    rate = rng.gamma(2, 2, 60) * np.exp(state @ loud + kind[:, None] * quiet)
    return write_screen(folder, sp.csr_matrix(rng.poisson(rate).astype(np.float32))), kind


@BOTH
def test_the_planted_kinds_are_read_in_unseen_batches(tmp_path, architecture):
    counts, kind = two_kinds(tmp_path)
    values = scvi_labelled.embed(counts, told(tmp_path, architecture, max_epochs=200, n_hidden=32)).values
    batch = pd.read_parquet(tmp_path / "tables" / "cells.parquet")["batch"]
    train, test = batch.isin(["b0", "b1", "b2"]) & (kind != 0), ~batch.isin(["b0", "b1", "b2"]) & (kind != 0)
    scale = values.std(axis=0)
    probe = LogisticRegression().fit(values[train] / scale, kind[train])
    assert probe.score(values[test] / scale, kind[test]) > 0.85


@BOTH
def test_labels_of_other_cells_are_not_read(tmp_path, counts, architecture):
    before = scvi_labelled.embed(counts, told(tmp_path, architecture)).values
    relabel(tmp_path, lambda cells: cells.assign(
        perturbation=cells["perturbation"].where(cells["batch"].isin(["b0", "b1", "b2"]), "other"),
        is_control=cells["is_control"] & cells["batch"].isin(["b0", "b1", "b2"])))  # fmt: skip
    np.testing.assert_array_equal(scvi_labelled.embed(counts, told(tmp_path, architecture)).values, before)


@BOTH
def test_it_is_fitted_on_a_source(tmp_path, counts, architecture):
    other = write_screen(tmp_path / "other", made_counts(50, 80, seed=5))
    source = Source(counts=counts, tables=tmp_path / "tables")
    asked = replace(told(tmp_path / "other", architecture, "screen:train"), source=source)
    found = scvi_labelled.embed(other, asked)
    assert found.values.shape[0] == 50
    assert found.extra["n_fit_cells"] == 180


@BOTH
def test_what_cannot_be_trained_says_so(tmp_path, counts, architecture):
    with pytest.raises(UserError, match="trained on the cells it is scored on"):
        scvi_labelled.embed(counts, told(tmp_path, architecture, "all"))
    with pytest.raises(UserError, match="only scvi can be left untrained"):
        scvi_labelled.embed(counts, told(tmp_path, architecture, untrained="true"))
    relabel(tmp_path, lambda cells: cells.assign(perturbation="P1", is_control=architecture == "scanvi"))
    with pytest.raises(NotApplicable, match=r"has 0 perturbation|needs 10 of each; the fitting part has 180 and 0"):
        scvi_labelled.embed(counts, told(tmp_path, architecture))


def test_values_that_are_no_counts_are_not_applicable(tmp_path):
    logs = write_screen(tmp_path, made_counts(40, 10), x_kind="log")
    with pytest.raises(NotApplicable, match="a model of counts"):
        scvi_labelled.embed(logs, told(tmp_path, "scanvi"))


def test_a_mistyped_latent_space_is_explained(tmp_path, counts):
    with pytest.raises(UserError, match="Did you mean 'salient'"):
        scvi_labelled.embed(counts, told(tmp_path, "contrastivevi", latent="salent"))
