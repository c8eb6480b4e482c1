"""SCimilarity against upstream's outputs (../shared), against torch's own layers, and by its own definition."""

import json
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from foundation import ATOL, Hostile, columns, make_counts, options, sequences

import embed_scimilarity
from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts, open_counts
from plumbline.models.scimilarity.tokens import Tokenizer, read_genes

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    return shared / "fixtures/scimilarity"


def dense(ragged, n_genes: int) -> np.ndarray:
    """The network's input (n_cells, n_genes)."""
    out = np.zeros((len(ragged.length), n_genes), dtype=np.float32)
    for row, (genes, values) in enumerate(sequences(ragged)):
        out[row, genes] += values
    return out


def test_inputs_are_those_of_upstream(folder) -> None:
    counts, genes = open_counts(folder / "counts.h5ad"), read_genes(folder / "model_tiny/gene_order.tsv", "scimilarity")
    found = dense(Tokenizer(counts.symbol, genes)(*next(counts.blocks())), len(genes))
    np.testing.assert_allclose(found, np.load(folder / "expected/embeddings.npz")["input"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("layer", [{}, {"layer": "counts"}])
def test_embeddings_are_those_of_upstream_also_of_the_empty_cell(folder, layer: dict) -> None:
    counts = open_counts(folder / "counts.h5ad")
    result = embed_scimilarity.embed(counts, options("scimilarity", folder / "model_tiny", **layer))
    np.testing.assert_allclose(result.values, np.load(folder / "expected/embeddings.npz")["embeddings"], atol=ATOL, rtol=0)
    assert (result.genes_used, result.genes_total, result.unembedded) == (434, 500, 0)
    kind = ad.read_h5ad(folder / "counts.h5ad").obs["kind"].to_numpy()
    np.testing.assert_array_equal(result.values[kind == "empty"], result.values[kind == "only_unknown"])
    without = embed_scimilarity.embed(counts, options("scimilarity", folder / "model_tiny", **layer, empty="nan"))
    assert set(kind[np.isnan(without.values).all(axis=1)]) == {"empty", "only_unknown"}
    assert without.unembedded == 2


def test_genes_go_by_name_also_where_the_models_list_is_not_sorted(folder) -> None:
    """Upstream's alignment sorts the names: its input has the right values in the columns of other genes."""
    from plumbline.models.scimilarity.network import load_network

    counts, genes = open_counts(folder / "counts.h5ad"), read_genes(folder / "model_unsorted/gene_order.tsv", "scimilarity")
    assert genes != sorted(genes)
    upstream = np.load(folder / "expected/embeddings_unsorted.npz")
    right = upstream["input"][:, np.argsort(np.argsort(genes))]
    np.testing.assert_allclose(dense(Tokenizer(counts.symbol, genes)(*next(counts.blocks())), len(genes)), right, atol=1e-6)
    network = load_network(folder / "model_unsorted", len(genes), "scimilarity")
    found = embed_scimilarity.embed(counts, options("scimilarity", folder / "model_unsorted")).values
    with torch.inference_mode():
        np.testing.assert_allclose(found, network(network.first(torch.from_numpy(right))), atol=ATOL)
        wrong = network(network.first(torch.from_numpy(upstream["input"]))).numpy()
    np.testing.assert_allclose(wrong, upstream["embeddings"], atol=ATOL)
    assert np.abs(found - upstream["embeddings"]).max() > 0.5


# --- without the reference outputs: a random model in the authors' format ---

GENES = [f"G{number}" for number in np.random.default_rng(5).permutation(30)]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A model of genes G0..G29, in no order, with two hidden layers that have seen cells (running statistics, slopes)."""
    from plumbline.models.scimilarity.untrained import write_checkpoint

    place = tmp_path_factory.mktemp("scimilarity") / "model_made"
    place.mkdir()
    write_checkpoint(place, GENES, 3, (12, 10, 8))
    state = torch.load(place / "encoder.ckpt", weights_only=True)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in state["state_dict"].items():
        if "running" in name or name.endswith(("2.weight", "2.bias", "3.weight")):
            state["state_dict"][name] = torch.rand(tensor.shape, generator=generator) + 0.1
    torch.save(state, place / "encoder.ckpt")
    return place


@pytest.fixture
def cells(tmp_path) -> Counts:
    """Nine cells; column 30 is G3 once more, 31 and 32 are unknown. Cell 4 has unknown genes only."""
    matrix = np.random.default_rng(1).poisson(0.8, (9, 33)).astype(float)
    matrix[4, :31] = 0
    return make_counts(tmp_path / "counts.h5ad", matrix, [""] * 33, [*(f"G{number}" for number in range(30)), "G3", "XX", "g4"])


def by_definition(place: Path, row: np.ndarray) -> np.ndarray:
    """The embedding of a cell, layer by layer."""
    part = torch.load(place / "encoder.ckpt", weights_only=True)["state_dict"]
    counts = row[:30].copy()
    counts[3] += row[30]
    named = {f"G{number}": value for number, value in enumerate(counts)}
    x = np.log1p(1e4 * np.array([named[gene] for gene in GENES]) / max(counts.sum(), 1))
    for layer in range(2):
        p = {name.removeprefix(f"network.{layer}."): t.numpy().astype(np.float64) for name, t in part.items()}
        x = p["1.weight"] @ x + p["1.bias"]
        x = (x - p["2.running_mean"]) / np.sqrt(p["2.running_var"] + 1e-5) * p["2.weight"] + p["2.bias"]
        x = np.where(x > 0, x, p["3.weight"] * x)
    x = part["network.2.weight"].numpy() @ x + part["network.2.bias"].numpy()
    return x / np.linalg.norm(x)


def test_embeddings_by_definition_and_columns_of_one_gene_are_added(made, cells) -> None:
    found = embed_scimilarity.embed(cells, options("scimilarity", made))
    for row, counts in enumerate(next(cells.blocks())[1].toarray()):
        np.testing.assert_allclose(found.values[row], by_definition(made, counts), atol=ATOL)
    assert (found.genes_used, found.genes_total, found.unembedded) == (31, 33, 0)


def test_a_cell_does_not_depend_on_batch_order_neighbours_or_the_order_of_genes(made, cells, tmp_path) -> None:
    whole = embed_scimilarity.embed(cells, options("scimilarity", made)).values
    single = embed_scimilarity.embed(cells, options("scimilarity", made, batch_size=1)).values
    np.testing.assert_allclose(single, whole, atol=1e-6)
    order = np.array([8, 4, 0, 7, 2])
    some = columns(cells.path, tmp_path / "some.h5ad", np.random.default_rng(0).permutation(33), order)
    part = embed_scimilarity.embed(some, options("scimilarity", made, batch_size=2)).values
    np.testing.assert_allclose(part, whole[order], atol=1e-6)


def copy(made: Path, target: Path, change: Callable[[dict], object] = lambda state: None, **files: str) -> Path:
    """A copy of the model with its tensors changed in place and other text in some files."""
    target.mkdir(parents=True)
    state = torch.load(made / "encoder.ckpt", weights_only=True)
    change(state)
    torch.save(state, target / "encoder.ckpt")
    (target / "gene_order.tsv").write_bytes((made / "gene_order.tsv").read_bytes())
    for name, text in files.items():
        (target / name.replace("__", ".")).write_text(text)
    return target


FAULTS = {
    "no state": (lambda s: s.pop("state_dict"), r"is not a SCimilarity encoder .*state_dict.*plumb fetch scimilarity"),
    "no last": (lambda s: s["state_dict"].pop("network.2.weight"), "is not a SCimilarity encoder .*network.2.weight"),
    "missing": (lambda s: s["state_dict"].pop("network.1.2.running_var"), "1 missing: network.1.2.running_var.*plumb fetch"),
    "extra": (lambda s: s["state_dict"].update(more=torch.ones(1)), "1 unexpected: more"),
    "text": (lambda s: s["state_dict"].update(more="text"), "more than tensors"),
    "list": (lambda s: s.update(state_dict=[1]), "is not a SCimilarity encoder"),
    "vector": (lambda s: s["state_dict"].update({"network.0.1.weight": torch.ones(3)}), "not a matrix"),
    "misshapen": (
        lambda s: s["state_dict"].update({"network.1.1.weight": torch.ones(10, 5)}),
        "1 misshapen: network.1.1.weight",
    ),
    "other genes": (
        lambda s: s["state_dict"].update({"network.0.1.weight": torch.ones(12, 7)}),
        "reads 7 genes, but .* names 30",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_is_not_what_it_should_be_is_refused(made, cells, tmp_path, fault: str) -> None:
    change, message = FAULTS[fault]
    with pytest.raises(UserError, match=message):
        embed_scimilarity.embed(cells, options("scimilarity", copy(made, tmp_path / "bad", change)))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("gene_order__tsv", "G1\n\nG2\n", "one gene symbol, and no symbol twice"),
        ("gene_order__tsv", "G1\nG2\nG1\n", "one gene symbol, and no symbol twice"),
        ("gene_order__tsv", "", "is empty.*plumb fetch"),
        ("hyperparameters__json", "{", "is not a table of settings"),
        ("hyperparameters__json", "[1]", "is not a table of settings"),
        ("hyperparameters__json", json.dumps({"residual": True}), "residual connections"),
    ],
)
def test_damaged_descriptions_are_named(made, cells, tmp_path, file: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        embed_scimilarity.embed(cells, options("scimilarity", copy(made, tmp_path / "bad", **{file: text})))


def test_missing_truncated_and_hostile_files_are_refused(made, cells, tmp_path) -> None:
    with pytest.raises(UserError, match=r"needs --weights FOLDER.*plumb fetch scimilarity"):
        embed_scimilarity.embed(cells, options("scimilarity", None))
    with pytest.raises(UserError, match=r"found no encoder.ckpt.*plumb fetch scimilarity"):
        embed_scimilarity.embed(cells, options("scimilarity", tmp_path))
    whole = (made / "encoder.ckpt").read_bytes()
    bad = copy(made, tmp_path / "bad")
    for body in (whole[: len(whole) // 2], b"", b"text"):
        (bad / "encoder.ckpt").write_bytes(body)
        with pytest.raises(UserError, match=r"is (truncated|empty).*plumb fetch"):
            embed_scimilarity.embed(cells, options("scimilarity", bad))
    torch.save({"state_dict": Hostile(tmp_path / "ran")}, bad / "encoder.ckpt")
    with pytest.raises(UserError, match=r"holds Python objects besides tensors.*plumb fetch"):
        embed_scimilarity.embed(cells, options("scimilarity", bad))
    assert not (tmp_path / "ran").exists()
    (bad / "gene_order.tsv").unlink()
    with pytest.raises(UserError, match=r"gene_order.tsv does not exist.*plumb fetch"):
        embed_scimilarity.embed(cells, options("scimilarity", bad))


def test_the_folder_is_found_below_the_weights_or_asked_for(made, cells, tmp_path) -> None:
    copy(made, tmp_path / "scimilarity/model_v1.1")
    for weights in (tmp_path, tmp_path / "scimilarity"):
        assert embed_scimilarity.embed(cells, options("scimilarity", weights)).extra["checkpoint"] == "model_v1.1"
    copy(made, tmp_path / "other")
    with pytest.raises(UserError, match=r"found other, scimilarity/model_v1.1.*model_dir"):
        embed_scimilarity.embed(cells, options("scimilarity", tmp_path))
    assert embed_scimilarity.embed(cells, options("scimilarity", tmp_path, model_dir="other")).extra["checkpoint"] == "other"


def test_other_values_and_organisms_are_not_applicable(made, cells, tmp_path) -> None:
    (tmp_path / "dataset.json").write_text('{"organism": "human", "x_kind": "log"}')
    with pytest.raises(NotApplicable, match="needs counts and the data set holds log"):
        embed_scimilarity.embed(cells, options("scimilarity", made, tables=tmp_path))
    with pytest.raises(NotApplicable, match="knows human genes only"):
        embed_scimilarity.embed(cells, options("scimilarity", made, organism="zebrafish"))
    unknown = make_counts(tmp_path / "c.h5ad", np.ones((2, 2)), ["", ""], ["X1", "X2"])
    with pytest.raises(UserError, match="knows none of the 2 genes"):
        embed_scimilarity.embed(unknown, options("scimilarity", made))
    negative = make_counts(tmp_path / "n.h5ad", -np.ones((2, 2)), ["", ""], ["G1", "G2"])
    with pytest.raises(UserError, match="negative values"):
        embed_scimilarity.embed(negative, options("scimilarity", made))
