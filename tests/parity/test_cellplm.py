"""CellPLM against the authors' own code (PyPI cellplm 0.1.0.post2), both latent layers."""

import json
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from foundation import make_counts

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts, open_counts
from plumbline.embedding.options import Options

torch = pytest.importorskip("torch")
from plumbline.models.cellplm import cellplm
from plumbline.models.cellplm import checkpoints as cellplm_checkpoints
from plumbline.models.cellplm import network as cellplm_network

TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}  # the fixtures' README; 2e-6 is reached
BY = {"one_set": {}, "by_batch": {"set": "batch", "batch_column": "batch"}, "chunk16": {"set": "chunk", "chunk_size": 16}}
VARIANTS = {"vae": "cellplm", "gmvae": "cellplm_gmvae"}


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "fixtures" / "uce_cellplm"


@pytest.fixture(scope="module")
def counts(folder: Path) -> Counts:
    return open_counts(folder / "cells.h5ad")


def told(
    weights: Path, latent: str = "vae", seed: int = 42, tables: Path | None = None, batch_size: int = 0, **settings: object
) -> Options:
    pairs = {name: str(value) for name, value in settings.items()}
    return Options(
        variant=VARIANTS[latent],
        weights=weights,
        tables=tables,
        fit_on="none",
        seed=seed,
        device="cpu",
        batch_size=batch_size,
        threads=1,
        settings=pairs,
    )


@pytest.mark.parametrize("latent", ["vae", "gmvae"])
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("batch_size", [0, 7])
def test_embeddings_are_upstreams(folder: Path, counts: Counts, latent: str, number: int, batch_size: int) -> None:
    want = np.load(folder / "cellplm" / f"expected_{latent}.npz")
    name = list(BY)[number]
    options = told(
        folder / "cellplm", latent, int(want["torch_seed"]) + number, None, batch_size, component="upstream", **BY[name]
    )
    result = cellplm.embed(counts, options)
    np.testing.assert_allclose(result.values, want[name], **TOLERANCE)
    assert (result.genes_used, result.genes_total) == (len(want["gene_list_used"]), 600)
    assert result.extra["attends_across_cells"]
    assert result.extra["n_sets"] == (1, 3, 4)[number]


def test_intermediates_are_upstreams(folder: Path, counts: Counts) -> None:
    want = np.load(folder / "cellplm" / "expected_gmvae.npz")
    path, config = cellplm_checkpoints.find_checkpoint(told(folder / "cellplm", "gmvae"))
    network = cellplm_checkpoints.load_network(path, config, "cellplm_gmvae")
    model = cellplm.CellPLM(network, cellplm.match_genes(counts, config["gene_list"]), "cpu", 10)
    with torch.inference_mode():
        hidden, _ = model._read(counts, np.arange(64), None)
        np.testing.assert_allclose(hidden, want["one_set_embedder_out"], atol=1e-5)
        for layer in network.encoder.layers:
            cellplm_network.attend(layer, hidden, 10, "cpu")
        np.testing.assert_allclose(hidden, want["one_set_encoder_out"], atol=1e-5)
        given = torch.full((16, 16), 0.5)
        for component in range(16):  # noise so strong that it decides
            uniform = given.clone()
            uniform[:, component] = 1.0 - 1e-7
            noise = -torch.log(-torch.log(uniform + 1e-20) + 1e-20)
            assert (noise[:, component] > 15).all()
            out = network.read_out(torch.from_numpy(hidden[:16]), uniform)
            np.testing.assert_allclose(out, want["one_set_mu_given_component"][:, component], **TOLERANCE)


def test_component_default_is_the_likeliest(folder: Path, counts: Counts) -> None:
    want = np.load(folder / "cellplm" / "expected_gmvae.npz")
    mine = cellplm.embed(counts, told(folder / "cellplm", "gmvae")).values[:16]
    likeliest = want["one_set_logits"][:16].argmax(1)
    np.testing.assert_allclose(mine, want["one_set_mu_given_component"][np.arange(16), likeliest], **TOLERANCE)
    again = cellplm.embed(counts, told(folder / "cellplm", "gmvae", seed=7)).values[:16]
    np.testing.assert_array_equal(mine, again)


def test_blocks_kept_or_computed_anew_are_one(folder: Path, counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cellplm.embed(counts, told(folder / "cellplm")).values
    monkeypatch.setattr(cellplm_network, "KEPT_CELLS", 0)
    monkeypatch.setattr(cellplm, "IN_MEMORY", 0)  # hidden states in a scratch file
    np.testing.assert_allclose(cellplm.embed(counts, told(folder / "cellplm", batch_size=9)).values, whole, atol=5e-6)


def test_order_of_cells_does_not_enter(folder: Path, counts: Counts) -> None:
    path, config = cellplm_checkpoints.find_checkpoint(told(folder / "cellplm"))
    network = cellplm_checkpoints.load_network(path, config, "cellplm")
    model = cellplm.CellPLM(network, cellplm.match_genes(counts, config["gene_list"]), "cpu", 0)
    straight, *_ = model.embed(counts, [np.arange(64)], None, 32)
    turned, *_ = model.embed(counts, [np.random.default_rng(0).permutation(64)], None, 32)
    np.testing.assert_allclose(turned, straight, atol=5e-6)
    half, *_ = model.embed(counts, [np.arange(32)], None, 32)
    assert np.abs(half[:32] - straight[:32]).max() > 0.01  # but the set does


def test_genes_by_id_without_version(counts: Counts) -> None:
    some = counts.ensembl_id[:3].tolist()
    versioned = Counts(counts.path, counts.cell_id, np.array([f"{gene}.7" for gene in some] + ["X"]), np.array([""] * 4))
    columns = cellplm.match_genes(versioned, some[::-1])
    assert (columns.known.tolist(), columns.token.tolist()) == ([True, True, True, False], [0, 1, 2])
    assert columns.gather.indices.tolist() == [2, 1, 0]
    with pytest.raises(NotApplicable, match="none of the 4 Ensembl ids"):
        cellplm.match_genes(versioned, ["ENSG1"])
    with pytest.raises(UserError, match="no human gene goes by A, B"):
        cellplm.match_genes(Counts(counts.path, counts.cell_id, np.array(["", ""]), np.array(["A", "B"])), some)


def test_counts_of_one_gene_are_added_before_their_logarithm(folder: Path, counts: Counts, tmp_path: Path) -> None:
    """A gene whose counts lie in two columns, one under a version of its id, is that gene with all its counts."""
    source = ad.read_h5ad(folder / "cells.h5ad")
    half = sp.csr_matrix(np.minimum(source.X.toarray(), 2))
    ids = counts.ensembl_id.tolist()
    split = make_counts(
        tmp_path / "split.h5ad",
        sp.hstack([half, source.X - half]).toarray(),
        [*ids, *(f"{name}.7" for name in ids)],
        [""] * 1200,
    )
    whole = cellplm.embed(counts, told(folder / "cellplm"))
    found = cellplm.embed(split, told(folder / "cellplm"))
    np.testing.assert_allclose(found.values, whole.values, atol=1e-5)
    assert (found.genes_used, found.counts_used) == (2 * whole.genes_used, pytest.approx(whole.counts_used))


def test_choice_of_sets(folder: Path, counts: Counts, tmp_path: Path) -> None:
    for settings, message in (
        ({"chunk_size": 5}, "chunk_size goes with"),
        ({"set": "batch"}, "needs --tables"),
        ({"set": "batch", "batch_column": "batc"}, "no obs column 'batc'. Did you mean 'batch'"),
        ({"set": "some"}, "set=some"),
    ):
        with pytest.raises(UserError, match=message):
            cellplm.cell_sets(counts, told(folder, **settings))
    sets, about = cellplm.cell_sets(counts, told(folder, set="batch", batch_column="batch", chunk_size=10))
    assert sorted(np.concatenate(sets)) == list(range(64))
    assert about["depends_on_order"]
    assert max(map(len, sets)) == 10
    (tmp_path / "dataset.json").write_text('{"x_kind": "signed"}')
    with pytest.raises(NotApplicable, match="raw counts"):
        cellplm.embed(counts, told(folder / "cellplm", tables=tmp_path))


def test_checkpoint_choice_and_damage(folder: Path, counts: Counts, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean '20231027_tiny'"):
        cellplm_checkpoints.find_checkpoint(told(folder / "cellplm", checkpoint="20231027_tini"))
    weights = tmp_path / "w"
    shutil.copytree(folder / "cellplm", weights)
    for path in [weights, *weights.iterdir()]:
        path.chmod(0o755)
    empty = ad.read_h5ad(folder / "cells.h5ad")
    empty.X[[2, 5]] = 0
    empty.write_h5ad(tmp_path / "empty.h5ad")
    assert cellplm.embed(open_counts(tmp_path / "empty.h5ad"), told(weights)).unembedded == 2
    config, checkpoint = weights / "20231027_tiny.config.json", weights / "20231027_tiny.best.ckpt"
    whole, tensors = checkpoint.read_bytes(), torch.load(checkpoint, weights_only=True)["model_state_dict"]
    cases = {
        "1 missing: encoder.layers.1.norm2.bias": {k: v for k, v in tensors.items() if k != "encoder.layers.1.norm2.bias"},
        "1 unexpected: more": tensors | {"more": torch.zeros(1)},
        "1 misshapen: embedder.feat_enc.emb": tensors | {"embedder.feat_enc.emb": torch.zeros(2, 2)},
    }
    for message, state in cases.items():
        torch.save({"model_state_dict": state}, checkpoint)
        with pytest.raises(UserError, match=message):
            cellplm.embed(counts, told(weights))
    checkpoint.write_bytes(whole[:-1000])
    with pytest.raises(UserError, match="truncated"):
        cellplm.embed(counts, told(weights))
    torch.save(tensors, checkpoint)
    with pytest.raises(UserError, match="no model_state_dict"):
        cellplm.embed(counts, told(weights))
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"cat_pe": True}))
    with pytest.raises(UserError, match="cat_pe=True"):
        cellplm.embed(counts, told(weights))
    for left_out, message in (("cat_pe", "cat_pe=True"), ("norm", "norm=layernorm"), ("enc_hid", "no 'enc_hid'")):
        config.write_text(json.dumps({name: value for name, value in settings.items() if name != left_out}))
        with pytest.raises(UserError, match=message):  # as upstream takes what is left out
            cellplm.embed(counts, told(weights))
    config.write_text(json.dumps(settings | {"enc_head": 5}))
    with pytest.raises(UserError, match="5 attention heads cannot share a width of 64"):
        cellplm.embed(counts, told(weights))
    config.write_text(json.dumps({name: value for name, value in settings.items() if name != "latent_mod"}))
    assert cellplm_checkpoints.find_checkpoint(told(weights))[1]["latent_mod"] == "vae"
    config.write_text("{")
    with pytest.raises(UserError, match="no CellPLM configuration"):
        cellplm.embed(counts, told(weights))
    config.unlink()
    with pytest.raises(UserError, match="0 checkpoints with a vae"):
        cellplm.embed(counts, told(weights))
