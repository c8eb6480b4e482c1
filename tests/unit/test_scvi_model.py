"""scVI: the embedding is scvi-tools' own, repeats, needs no batch, and learns; small and few epochs."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from made_screen import made_counts, options, write_screen
from pretended_gpu import There, pretended_gpu

from plumbline.common.errors import OUT_OF_MEMORY, NotApplicable, UserError

pytest.importorskip("scvi")
from plumbline.models.scvi import scvi_model
from plumbline.models.scvi.training_matrix import stacked

SMALL = {"n_latent": 6, "n_hidden": 16, "n_hvg": 60}


@pytest.fixture
def counts(tmp_path):
    return write_screen(tmp_path, made_counts(300, 80, n_factors=2))


def test_the_embedding_is_the_posterior_mean_of_scvi_tools(tmp_path, counts):
    import anndata as ad
    import pandas as pd

    told = options(tmp_path / "tables", "train", max_epochs=3, **SMALL)
    plan = scvi_model.make_plan(counts, told)
    model, about = scvi_model.train(plan, told, "cpu")
    ours = scvi_model.encode(counts, plan, model, "cpu")
    dense = made_counts(300, 80, n_factors=2)[plan.part.rows][:, plan.genes]
    data = ad.AnnData(dense, obs=pd.DataFrame({"batch": plan.batch}, index=[str(i) for i in range(len(plan.part.rows))]))
    theirs = model.get_latent_representation(data, give_mean=True)
    np.testing.assert_allclose(ours[plan.part.rows], theirs, atol=1e-5)
    assert about["epochs"] == 3
    assert set(plan.batch) == {"b0", "b1", "b2"}  # b3 and b4 were embedded without having been trained on
    assert np.isfinite(ours).all()
    assert ours.std(axis=0).min() > 0


@pytest.mark.parametrize(
    ("likelihood", "values"), [("zinb", "counts"), ("nb", "counts"), ("poisson", "counts"), ("zinb", "lognorm")]
)
def test_every_likelihood_trains_and_repeats(tmp_path, counts, likelihood, values):
    told = options(tmp_path / "tables", "train", gene_likelihood=likelihood, input=values, max_epochs=2, **SMALL)
    first, second = scvi_model.embed(counts, told), scvi_model.embed(counts, told)
    np.testing.assert_array_equal(first.values, second.values)
    assert first.values.shape == (300, 6)
    assert first.extra["gene_likelihood"] == likelihood
    assert first.extra["n_fit_cells"] == 180
    assert first.extra["trained"] is True
    assert first.genes_used == 60


def test_training_finds_what_an_untrained_network_does_not_know(tmp_path, capsys):
    rng = np.random.default_rng(1)
    rate = rng.gamma(2, 1, 60)
    group = np.arange(300) % 2
    matrix = rng.poisson(rate * np.exp(group[:, None] * rng.normal(0, 1.0, 60))).astype(np.float32)
    counts = write_screen(tmp_path, sp.csr_matrix(matrix))
    trained = scvi_model.embed(counts, options(tmp_path / "tables", max_epochs=25, **SMALL))
    other_seed = scvi_model.embed(counts, options(tmp_path / "tables", max_epochs=1, seed=43, **SMALL))
    untrained = scvi_model.embed(counts, options(tmp_path / "tables", untrained="true", **SMALL))
    means = [trained.values[group == g].mean(axis=0) for g in (0, 1)]
    nearest = np.argmin([((trained.values - mean) ** 2).sum(axis=1) for mean in means], axis=0)
    assert (nearest == group).mean() > 0.95
    assert trained.extra["final"]["elbo_train"] < other_seed.extra["final"]["elbo_train"]
    assert untrained.extra["trained"] is False
    assert "epochs" not in untrained.extra
    assert np.abs(trained.values - untrained.values).max() > 0.1
    assert "epoch 25/25" in capsys.readouterr().err


@pytest.mark.parametrize(("largest", "dtype"), [(65_535, np.uint16), (65_536, np.float32)])
def test_the_training_matrix_is_that_of_all_cells_that_have_counts(largest, dtype):
    matrix = made_counts(300, 80, n_factors=2).tolil()
    matrix[[4, 250]] = 0
    matrix[200, 3] = largest
    matrix = matrix.tocsr()
    found, filled = stacked((matrix[i : i + 37] for i in range(0, 300, 37)), 80, whole=True)
    np.testing.assert_array_equal(filled, np.delete(np.arange(300), [4, 250]))
    np.testing.assert_array_equal(found.toarray(), matrix.toarray()[filled])
    assert (found.dtype, found.indices.dtype) == (dtype, np.int32)
    assert stacked(iter([matrix]), 80, whole=False)[0].dtype == np.float32


def test_the_training_matrix_is_held_once():
    import tracemalloc

    block = sp.random(2000, 1000, 0.5, format="csr", dtype=np.float32, random_state=0)
    block.data = np.ceil(block.data)
    tracemalloc.start()
    found, _ = stacked((block for _ in range(20)), 1000, whole=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.4 * (found.data.nbytes + found.indices.nbytes)


def test_training_repeats_when_other_processes_load_the_batches(tmp_path, counts, monkeypatch):
    told = options(tmp_path / "tables", "train", max_epochs=1, **SMALL)
    monkeypatch.setattr(scvi_model, "n_loaders", lambda *_: 1)
    first, second = scvi_model.embed(counts, told), scvi_model.embed(counts, told)
    np.testing.assert_array_equal(first.values, second.values)


def test_a_gpu_trains_and_embeds_as_the_cpu_does(tmp_path, counts, monkeypatch):
    """On a stand-in for one (tests/pretended_gpu.py), which Lightning is told to use; another process loads the batches."""
    import scvi

    generative, seen = scvi.module.VAE.generative, set()

    def noted(module, *args, **given):
        seen.add((type(next(module.parameters())), type(given["z"]), scvi.settings.dl_num_workers))
        return generative(module, *args, **given)

    told = replace(options(tmp_path / "tables", "train", max_epochs=1, **SMALL), threads=2)
    with monkeypatch.context() as changed:  # one process more draws other random numbers
        changed.setattr(scvi_model, "n_loaders", lambda *_: 1)
        on_cpu = scvi_model.embed(counts, told)
    monkeypatch.setattr(scvi.module.VAE, "generative", noted)
    with pretended_gpu():
        on_gpu = scvi_model.embed(counts, replace(told, device="cuda"))
    assert seen == {(There, There, 1)}
    assert on_gpu.extra["device"] == "cuda:0"
    np.testing.assert_array_equal(on_gpu.values, on_cpu.values)


def test_too_little_gpu_memory_ends_with_the_code_that_is_repeated(tmp_path, counts, monkeypatch, capsys):
    import torch
    from scvi.module import VAE

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(VAE, "generative", full)
    told = replace(options(tmp_path / "tables", "train", max_epochs=2, **SMALL), device="cuda")
    with pretended_gpu(), pytest.raises(SystemExit) as ended:
        scvi_model.embed(counts, told)
    assert ended.value.code == OUT_OF_MEMORY
    assert "scVI ran out of GPU memory at batch size 128" in capsys.readouterr().err


def test_only_a_gpu_has_batches_loaded_by_other_processes():
    assert [scvi_model.n_loaders("cuda", threads) for threads in (1, 4, 64)] == [0, 3, 8]
    assert scvi_model.n_loaders("cpu", 4) == 0


def test_epochs_follow_the_heuristic_of_scvi_tools():
    from scvi.model._utils import get_max_epochs_heuristic

    for n in (10, 20_000, 25_000, 1_300_000):
        assert scvi_model.heuristic_epochs(n) == get_max_epochs_heuristic(n)


@pytest.mark.parametrize("kind", ["log", "signed"])
def test_values_that_are_no_counts_are_not_applicable(tmp_path, kind):
    counts = write_screen(tmp_path, made_counts(40, 10), x_kind=kind)
    with pytest.raises(NotApplicable, match=f"a model of counts; this data set holds {kind}"):
        scvi_model.embed(counts, options(tmp_path / "tables"))


def test_too_few_cells_or_no_variation_are_not_applicable(tmp_path, counts):
    with pytest.raises(NotApplicable, match="fewer than 10 cells; the fitting part has 2"):
        scvi_model.embed(counts, options(tmp_path / "tables", "train@0.01"))
    same = write_screen(tmp_path / "same", sp.csr_matrix(np.ones((30, 5), np.float32)))
    with pytest.raises(NotApplicable, match="no gene varies"):
        scvi_model.embed(same, options())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gene_likelihood": "znb"}, "Did you mean .*'zinb'"),
        ({"n_latent": "0"}, "at least 1"),
        ({"input": "raw"}, "unknown value"),
    ],
)
def test_bad_settings_are_explained(counts, settings, message):
    with pytest.raises(UserError, match=message):
        scvi_model.embed(counts, options(**settings))
