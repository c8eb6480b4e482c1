"""scFoundation against upstream's outputs (../shared), against torch's own encoder layers, and by its own definition."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from foundation import ATOL, Hostile, columns, make_counts, options, sequences

import embed_scfoundation
from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts, open_counts
from plumbline.models.scfoundation.tokens import GENES, Tokenizer, read_genes, read_target

torch = pytest.importorskip("torch")

CASES = {
    "t4": {},
    "t4_max": {"pool": "max"},
    "f1_rde": {"tgthighres": "f1", "version": "rde"},
    "a5_rde": {"tgthighres": "a5", "version": "rde"},
    "t4_preT": {"pre_normalized": "true"},
}


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    return shared / "fixtures/scfoundation"


def log_normalised(folder: Path, target: Path) -> Counts:
    """The fixture's cells as log1p of counts per 10,000 over the listed genes."""
    cells, listed = ad.read_h5ad(folder / "counts.h5ad"), set(read_genes(GENES, "scfoundation_t4"))
    x = cells.X.toarray().astype(np.float64) * np.isin(cells.var["gene_name"], list(listed))
    cells.X = sp.csr_matrix(np.log1p(1e4 * x / np.maximum(x.sum(axis=1, keepdims=True), 1)), dtype=np.float32)
    cells.write_h5ad(target)
    return open_counts(target)


@pytest.mark.parametrize("case", CASES)
def test_embeddings_are_those_of_upstream(folder, tmp_path, case: str) -> None:
    counts = log_normalised(folder, tmp_path / "log.h5ad") if case == "t4_preT" else open_counts(folder / "counts.h5ad")
    result = embed_scfoundation.embed(counts, options("scfoundation_t4", folder / "models", **CASES[case]))
    expected = np.load(folder / "expected/embeddings.npz")
    place = {name: row for row, name in enumerate(counts.cell_id)}
    rows = [place[name] for name in expected["cell_id"]]
    np.testing.assert_allclose(result.values[rows], expected[case], atol=ATOL, rtol=0)
    missing = np.isnan(result.values).all(axis=1)
    kind = ad.read_h5ad(folder / "counts.h5ad").obs["kind"].to_numpy()
    stopped = {"empty", "only_unknown"} if case == "t4_preT" else {"empty", "only_unknown", "one_count"}
    assert set(kind[missing]) == stopped, "upstream stops at these; in logs a single count is not 1"
    assert result.unembedded == missing.sum() == len(stopped)
    assert result.genes_used == 410
    assert result.extra["gene_list_sha256"] == "bb337ea195d94e7b033543abc02a42e7060d6562eba97deb077f7dcecec62661"


@pytest.mark.parametrize(("variant", "case"), [("scfoundation_t4", "t4"), ("scfoundation_a5", "a5_rde")])
def test_the_rows_of_the_table_are_cases_of_upstream(variant: str, case: str) -> None:
    from plumbline.embedding.variants import read_variants

    assert read_variants()[variant].settings == {"tgthighres": "t4", "version": "ce", "pool": "all"} | CASES[case]


@pytest.mark.parametrize(
    ("text", "wanted"), [("t4", 4), ("t3.5", 3.5), ("f1", 2), ("f20", np.log10(2000)), ("a0", 2), ("a5", 7)]
)
def test_the_depth_that_is_asked_for_is_a_logarithm_to_base_10(text: str, wanted: float) -> None:
    """T of a cell of 100 counts."""
    block = sp.csr_matrix(np.array([[60, 40]], dtype=np.float32))
    tokens, values = sequences(Tokenizer(np.array(["B", "A"]), ["A", "B"], read_target(text), False)(np.arange(1), block))[0]
    assert tokens.tolist() == [3, 2, 0, 1]
    np.testing.assert_allclose(values, [2, wanted, np.log1p(4000), np.log1p(6000)], rtol=1e-6)


def test_tokens_are_positions_in_the_list_and_depth_by_definition(folder) -> None:
    counts, genes = open_counts(folder / "counts.h5ad"), read_genes(GENES, "scfoundation_t4")
    rows, block = next(counts.blocks())
    place = {name: number for number, name in enumerate(genes)}
    found = sequences(Tokenizer(counts.symbol, genes, read_target("a5"), False)(rows, block))
    for (tokens, values), row in zip(found, block.toarray().astype(np.float64), strict=True):
        expressed = {place[name]: value for name, value in zip(counts.symbol, row, strict=True) if value and name in place}
        total = sum(expressed.values())
        if total <= 1:
            assert len(tokens) == 0
            continue
        assert tokens.tolist() == [19265, 19264, *sorted(expressed)]
        depth, shares = np.log10(total), [1e4 * expressed[gene] / total for gene in sorted(expressed)]
        np.testing.assert_allclose(values, [depth, depth + 5, *np.log1p(shares)], rtol=1e-6)


def test_the_list_of_genes_is_the_authors() -> None:
    from plumbline.common.files import sha256

    assert sha256(GENES) == "bb337ea195d94e7b033543abc02a42e7060d6562eba97deb077f7dcecec62661"
    assert len(read_genes(GENES, "scfoundation_t4")) == 19_264


# --- without the reference outputs: a random model in the authors' format ---


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A checkpoint of genes G0..G29, with larger weights than it starts with."""
    from plumbline.models.scfoundation.untrained import TINY, write_checkpoint

    place = tmp_path_factory.mktemp("scfoundation")
    write_checkpoint(place, [f"G{number}" for number in range(30)], 3, TINY)
    return place


@pytest.fixture
def cells(tmp_path) -> Counts:
    """Nine cells; column 30 is G3 once more, 31 and 32 are unknown. Cell 4 has unknown genes only, cell 5 one count."""
    matrix = np.random.default_rng(1).poisson(0.8, (9, 33)).astype(float)
    matrix[4, :31], matrix[5] = 0, 0
    matrix[5, 2] = 1
    return make_counts(tmp_path / "counts.h5ad", matrix, [""] * 33, [*(f"G{number}" for number in range(30)), "G3", "XX", "g4"])


def by_definition(place: Path, row: np.ndarray) -> np.ndarray:
    """The embedding of a cell with torch's own encoder layers, one gene at a time."""
    part = torch.load(place / "models.ckpt", weights_only=True)["cell"]["state_dict"]
    part = {name.removeprefix("model."): tensor for name, tensor in part.items()}
    counts = row[:30].copy()
    counts[3] += row[30]
    genes = np.flatnonzero(counts)
    values = np.log1p(counts[genes] / counts.sum() * 1e4)
    tokens = torch.tensor([*genes, 30, 31])
    values = torch.tensor([*values, 4.0, np.log10(counts.sum())], dtype=torch.float32)
    hidden = torch.nn.functional.leaky_relu(values[:, None] @ part["token_emb.mlp.weight"].T + part["token_emb.mlp.bias"], 0.1)
    share = torch.softmax(hidden + hidden @ part["token_emb.mlp2.weight"].T + part["token_emb.mlp2.bias"], dim=1)
    x = (share @ part["token_emb.emb.weight"] + part["pos_emb.weight"][tokens])[None]
    for number in range(3):
        layer = torch.nn.TransformerEncoderLayer(16, 4, 64, batch_first=True).eval()
        start = f"encoder.transformer_encoder.{number}."
        layer.load_state_dict({name.removeprefix(start): part[name] for name in part if name.startswith(start)})
        x = layer(x)
    x = torch.nn.functional.layer_norm(x[0], (16,), part["encoder.norm.weight"], part["encoder.norm.bias"])
    return torch.cat([x[-1], x[-2], x[:-2].amax(dim=0), x[:-2].mean(dim=0)]).detach().numpy()


def test_embeddings_are_those_of_torchs_encoder_layers_and_columns_of_one_gene_are_added(made, cells) -> None:
    found = embed_scfoundation.embed(cells, options("scfoundation_t4", made))
    for row, counts in enumerate(next(cells.blocks())[1].toarray()):
        if row in (4, 5):
            assert np.isnan(found.values[row]).all()
        else:
            np.testing.assert_allclose(found.values[row], by_definition(made, counts), atol=ATOL)
    assert (found.genes_used, found.genes_total, found.unembedded) == (31, 33, 2)


def test_a_cell_does_not_depend_on_batch_order_neighbours_or_the_order_of_genes(made, cells, tmp_path) -> None:
    for pool in ("all", "max"):
        whole = embed_scfoundation.embed(cells, options("scfoundation_t4", made, pool=pool)).values
        single = embed_scfoundation.embed(cells, options("scfoundation_t4", made, batch_size=1, pool=pool)).values
        np.testing.assert_allclose(single, whole, atol=1e-6)
        order = np.array([8, 4, 0, 7, 2])
        some = columns(cells.path, tmp_path / "some.h5ad", np.random.default_rng(0).permutation(33), order)
        part = embed_scfoundation.embed(some, options("scfoundation_t4", made, batch_size=2, pool=pool)).values
        np.testing.assert_allclose(part, whole[order], atol=1e-6)


BAD = {
    "tgthighres=5": "t4 .T = 4",
    "tgthighres=t0": "t4 .T = 4",
    "tgthighres=f0.5": "at least 1",
    "tgthighres=t102": "t4 .T = 4",
    "version=rce": "unknown value.*'rde'",
    "pool=mean": "unknown value",
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_settings_are_named(made, cells, bad: str) -> None:
    name, _, value = bad.partition("=")
    with pytest.raises(UserError, match=BAD[bad]):
        embed_scfoundation.embed(cells, options("scfoundation_t4", made, **{name: value}))


def changed(made: Path, target: Path, change: Callable[[dict], object]) -> Path:
    """A copy of the checkpoint with the model of its key ``cell`` changed in place."""
    target.mkdir()
    models = torch.load(made / "models.ckpt", weights_only=True)
    models["cell"] = {"config": models["cell"]["config"], "state_dict": dict(models["cell"]["state_dict"])}
    change(models)
    torch.save(models, target / "models.ckpt")
    (target / GENES.name).write_bytes((made / GENES.name).read_bytes())
    return target


def encoder(models: dict) -> dict:
    return models["cell"]["config"]["model_config"]["mae_autobin"]["encoder"]


FAULTS = {
    "no key": (lambda m: m.pop("cell"), r"has no model 'cell' .found: rde.*plumb fetch scfoundation_t4"),
    "no config": (lambda m: m["cell"].pop("config"), r"cell is not an scFoundation model .*config.*plumb fetch"),
    "deeper": (lambda m: encoder(m).update(depth=10**9), "layers: 1000000000 in its configuration, 3 in its tensors"),
    "heads": (lambda m: encoder(m).update(heads=3), "heads 3"),
    "no heads": (lambda m: encoder(m).update(heads=0), "heads 0"),
    "endless heads": (lambda m: encoder(m).update(heads=float("inf")), "is not an scFoundation model"),
    "pre-norm": (lambda m: encoder(m).update(norm_first=True), "norm_first True"),
    "wider": (lambda m: encoder(m).update(hidden_dim=10**9), r"width: 1000000000 in its.*plumb fetch"),
    "missing": (lambda m: m["cell"]["state_dict"].pop("model.encoder.norm.bias"), "1 missing: encoder.norm.bias"),
    "extra": (lambda m: m["cell"]["state_dict"].update({"model.more": torch.ones(1)}), "1 unexpected: more"),
    "text": (lambda m: m["cell"]["state_dict"].update({"model.more": "text"}), "more than tensors"),
    "list": (lambda m: m.update(cell=[1]), "is not an scFoundation model"),
    "misshapen": (
        lambda m: m["cell"]["state_dict"].update({"model.pos_emb.weight": torch.ones(9, 16)}),
        "1 misshapen: pos_emb",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_is_not_what_it_should_be_is_refused(made, cells, tmp_path, fault: str) -> None:
    change, message = FAULTS[fault]
    with pytest.raises(UserError, match=message):
        embed_scfoundation.embed(cells, options("scfoundation_t4", changed(made, tmp_path / "bad", change)))


def test_a_configuration_that_does_not_mention_pre_norm_is_one_without(made, cells, tmp_path) -> None:
    short = changed(made, tmp_path / "short", lambda models: encoder(models).pop("norm_first"))
    found = embed_scfoundation.embed(cells, options("scfoundation_t4", short)).values
    np.testing.assert_array_equal(found, embed_scfoundation.embed(cells, options("scfoundation_t4", made)).values)


def test_missing_truncated_and_hostile_files_are_refused(made, cells, tmp_path) -> None:
    with pytest.raises(UserError, match=r"needs --weights FOLDER.*plumb fetch scfoundation_t4"):
        embed_scfoundation.embed(cells, options("scfoundation_t4", None))
    with pytest.raises(UserError, match=r"holds no models.ckpt.*plumb fetch scfoundation_t4"):
        embed_scfoundation.embed(cells, options("scfoundation_t4", tmp_path))
    whole = (made / "models.ckpt").read_bytes()
    for name, body in {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"models"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "models.ckpt").write_bytes(body)
        (tmp_path / name / GENES.name).write_bytes((made / GENES.name).read_bytes())
        with pytest.raises(UserError, match=r"is (truncated|empty).*plumb fetch"):
            embed_scfoundation.embed(cells, options("scfoundation_t4", tmp_path / name))
    torch.save({"cell": Hostile(tmp_path / "ran")}, tmp_path / "text/models.ckpt")
    with pytest.raises(UserError, match=r"holds Python objects besides tensors.*plumb fetch"):
        embed_scfoundation.embed(cells, options("scfoundation_t4", tmp_path / "text"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("rows", ["", "G0\t1\n", "G0\t0\nG0\t1\n", "G0\tx\n", "G0\n"])
def test_a_bad_list_of_genes_is_refused(tmp_path, rows: str) -> None:
    (tmp_path / GENES.name).write_text(f"gene_name\tindex\n{rows}" if rows else "G0\nG1\n")
    with pytest.raises(UserError, match="index"):
        read_genes(tmp_path / GENES.name, "scfoundation_t4")


def test_the_checkpoint_is_found_where_the_authors_code_and_plumb_fetch_put_it(made, cells, tmp_path) -> None:
    for place in ("scfoundation", "models"):
        (tmp_path / place).mkdir()
        (tmp_path / place / place).symlink_to(made)
        assert embed_scfoundation.embed(cells, options("scfoundation_t4", tmp_path / place)).genes_used == 31


def test_log_values_and_other_organisms_are_not_applicable(made, cells, tmp_path) -> None:
    (tmp_path / "dataset.json").write_text('{"organism": "human", "x_kind": "log"}')
    with pytest.raises(NotApplicable, match="needs counts and the data set holds log"):
        embed_scfoundation.embed(cells, options("scfoundation_t4", made, tables=tmp_path))
    told = options("scfoundation_t4", made, tables=tmp_path, pre_normalized="true")
    assert embed_scfoundation.embed(cells, told).extra["pre_normalized"]
    with pytest.raises(NotApplicable, match="knows human genes only"):
        embed_scfoundation.embed(cells, options("scfoundation_t4", made, organism="zebrafish"))
    unknown = make_counts(tmp_path / "c.h5ad", np.ones((2, 2)), ["", ""], ["X1", "X2"])
    with pytest.raises(UserError, match="knows none of the 2 genes"):
        embed_scfoundation.embed(unknown, options("scfoundation_t4", made))
    negative = make_counts(tmp_path / "n.h5ad", -np.ones((2, 2)), ["", ""], ["G1", "G2"])
    with pytest.raises(UserError, match="negative values"):
        embed_scfoundation.embed(negative, options("scfoundation_t4", made))
