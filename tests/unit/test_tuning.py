"""Fine-tuning of scGPT and Geneformer, with tiny checkpoints: what is trained, what is not, and that it comes back the same."""

import json
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from made_screen import options, write_given_splits

import embed_geneformer
import embed_scgpt
from plumbline.common.errors import UserError
from plumbline.counts.reading import Counts, open_counts
from plumbline.embedding.options import Source

torch = pytest.importorskip("torch")
from pretended_gpu import pretended_gpu

from plumbline.models.objectives import objective
from plumbline.models.objectives.head import embed_with_head
from plumbline.models.objectives.tuning import adapt, free_weights
from plumbline.models.runtime.encoder import Encoder

SCRIPTS = {"scgpt": embed_scgpt, "geneformer_v1": embed_geneformer}
KINDS = ("last", "lora")


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "fixtures" / "geneformer_scgpt"


@pytest.fixture
def screen(folder, tmp_path) -> Counts:
    """200 cells of the fixtures' genes: 4 perturbations and controls in 5 batches, each perturbation with genes of its own."""
    genes = ad.read_h5ad(folder / "counts.h5ad").var.drop_duplicates("ensembl_id").iloc[:200]
    rng, n = np.random.default_rng(0), 200
    which, batch = np.arange(n) % 5, np.arange(n) // 5 % 5
    rate = np.full((n, len(genes)), 0.5)
    for p in range(1, 5):
        rate[which == p, 30 * p : 30 * p + 30] = 6.0
    names = np.array(["ctrl", "P1", "P2", "P3", "P4"])[which]
    cells = pd.DataFrame(
        {"cell_id": [f"c{i}" for i in range(n)], "perturbation": names, "batch": np.char.add("b", batch.astype(str))}
    )
    cells["is_control"] = which == 0
    tables = tmp_path / "tables"
    tables.mkdir()
    cells.to_parquet(tables / "cells.parquet")
    write_given_splits(tables, {42: batch < 4})
    (tables / "dataset.json").write_text(json.dumps({"x_kind": "counts"}))
    matrix = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
    ad.AnnData(matrix, obs=pd.DataFrame(index=cells["cell_id"].to_numpy()), var=genes).write_h5ad(tmp_path / "counts.h5ad")
    return open_counts(tmp_path / "counts.h5ad")


def told(folder, tmp_path, variant, fit_on="train", **settings):
    weights = {"scgpt": folder / "scgpt" / "scGPT_tiny_plain", "geneformer_v1": folder / "geneformer" / "hf_repo"}[variant]
    wanted = {"head": "contrastive", "head_epochs": 4, "head_dim": 6, "checkpoint": "own"} | settings
    found = options(tmp_path / "tables", fit_on, **wanted)
    return replace(found, variant=variant, weights=weights, batch_size=32)


def embed(variant, counts, asked):
    return embed_with_head(SCRIPTS[variant].embed, counts, asked)


def need(kind):
    if kind == "lora":
        pytest.importorskip("peft")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", list(SCRIPTS))
def test_training_lowers_the_loss_and_repeats(folder, tmp_path, screen, variant, kind):
    need(kind)
    asked = told(folder, tmp_path, variant, tune=kind, head_epochs=8, head_learning_rate=0.001)
    first, second = embed(variant, screen, asked), embed(variant, screen, asked)
    np.testing.assert_array_equal(first.values, second.values)
    assert first.values.shape == (200, 6)
    about = first.extra["tuning"]
    assert about["validation_loss"] < about["first_validation_loss"]
    assert (about["tune"], about["n_classes"], about["minibatch"]) == (kind, 5, 32)
    frozen = embed(variant, screen, told(folder, tmp_path, variant, head_epochs=8)).values
    assert np.abs(first.values - frozen).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_result(folder, tmp_path, screen, kind, monkeypatch):
    need(kind)
    whole = embed("scgpt", screen, told(folder, tmp_path, "scgpt", tune=kind)).values
    asked, save = told(folder, tmp_path, "scgpt", tune=kind, head_checkpoint=tmp_path / "tuned.pt"), objective.save

    def dies(path, state):
        save(path, state)
        if state["done"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(objective, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        embed("scgpt", screen, asked)
    monkeypatch.setattr(objective, "save", save)
    resumed = embed("scgpt", screen, asked)
    np.testing.assert_array_equal(resumed.values, whole)
    assert resumed.extra["tuning"]["resumed_from_epoch"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_training_goes_the_same_way(folder, tmp_path, screen, kind):
    """On a stand-in for one (tests/pretended_gpu.py), with the precision of the CPU; the checkpoint is read there, too."""
    need(kind)
    asked = told(folder, tmp_path, "scgpt", tune=kind, precision="fp32", head_epochs=2)
    here = embed("scgpt", screen, asked)
    with pretended_gpu():
        there = embed("scgpt", screen, replace(asked, device="cuda"))
    np.testing.assert_allclose(here.values, there.values, atol=1e-5)


def test_labels_of_test_cells_change_nothing(folder, tmp_path, screen):
    asked = told(folder, tmp_path, "geneformer_v1", tune="last", head_epochs=2)
    before = embed("geneformer_v1", screen, asked).values
    path = tmp_path / "tables" / "cells.parquet"
    cells = pd.read_parquet(path)
    cells.loc[cells["batch"] == "b4", "perturbation"] = "other"
    cells.to_parquet(path)
    np.testing.assert_array_equal(embed("geneformer_v1", screen, asked).values, before)


def test_a_source_trains_the_model_that_embeds_another_screen(folder, tmp_path, screen):
    asked = told(folder, tmp_path, "scgpt", "screen:train", tune="last", head_epochs=2)
    asked = replace(asked, source=Source(counts=screen, tables=tmp_path / "tables"))
    here = embed("scgpt", screen, told(folder, tmp_path, "scgpt", tune="last", head_epochs=2)).values
    np.testing.assert_allclose(embed("scgpt", screen, asked).values, here, atol=1e-5)


@pytest.mark.parametrize(("kind", "amount", "layers"), [("last", 1, {"1"}), ("last", 2, {"0", "1"}), ("lora", 3, {"0", "1"})])
def test_only_what_is_asked_for_is_trained(kind, amount, layers):
    need(kind)
    encoder = Encoder(2, 16, 2, 32)
    for value in encoder.parameters():
        torch.nn.init.normal_(value, std=0.1)
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))
    before = encoder(x, None).detach()
    adapt(encoder, kind, amount, 1)
    free = free_weights(encoder)
    assert {name.split(".")[1] for name in free} == layers
    assert all("lora" in name for name in free) == (kind == "lora")
    if kind == "lora":  # (inputs + outputs) x rank, of the three maps of each layer
        assert sum(value.numel() for value in free.values()) == 2 * amount * ((16 + 16) + (16 + 32) + (32 + 16))
    torch.testing.assert_close(encoder(x, None), before)  # nothing has changed before training does


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"tune": "laast"}, "Did you mean 'last'"), ({"tune": "lora", "tune_rank": 0}, "at least 1")],
)
def test_bad_settings_are_explained(folder, tmp_path, screen, settings, message):
    with pytest.raises(UserError, match=message):
        embed("scgpt", screen, told(folder, tmp_path, "scgpt", **settings))


def test_tuning_without_an_objective_is_explained(folder, tmp_path, screen):
    asked = told(folder, tmp_path, "scgpt", tune="last")
    plain = replace(asked, settings={name: text for name, text in asked.settings.items() if not name.startswith("head")})
    with pytest.raises(UserError, match="requires an objective: add --set head=contrastive"):
        embed_scgpt.embed(screen, plain)
