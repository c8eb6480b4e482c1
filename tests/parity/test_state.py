"""STATE's cell embedding against upstream's outputs (../shared), and by its own definition on an untrained checkpoint."""

from pathlib import Path

import numpy as np
import pytest
from foundation import ATOL, columns, make_counts, options, sequences

import embed_state
from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import open_counts

torch = pytest.importorskip("torch")

RTOL = 2e-6
CODE = (
    2e-5  # of the data set's code, which goes up to 9 and is not of length 1; the same forward pass in float64 is within 3e-6
)
UPSTREAM = {"input": "upstream", "sampling": "upstream", "cls_value": "upstream", "duplicates": "keep", "dataset_code": "true"}
CASES = {
    "no_ties_pad97": {**UPSTREAM, "layer": "no_ties", "pad_length": 97},
    "counts": {**UPSTREAM, "seed": 1234},
    "pad512": {**UPSTREAM, "seed": 4321, "pad_length": 512},
}


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    return shared / "fixtures/state"


def cells_of(expected, counts) -> np.ndarray:
    """The rows of the file that a case holds."""
    names = expected.get("cell_id", counts.cell_id)
    place = {name: row for row, name in enumerate(counts.cell_id)}
    return np.array([place[name] for name in names])


@pytest.mark.parametrize("case", CASES)
def test_embeddings_are_those_of_upstream(folder, case: str) -> None:
    counts = open_counts(folder / "counts.h5ad")
    result = embed_state.embed(counts, options("state_se600m", folder / "SE-tiny", **CASES[case]))
    expected = np.load(folder / f"expected/{case}.npz")
    found = result.values[cells_of(expected, counts)]
    known = ~np.isnan(found[:, 0])  # upstream also embeds cells that express no known gene: equal weights of random genes
    assert (result.unembedded, (~known).sum()) == (2, 2 if case == "counts" else 0)
    wanted = expected["embeddings"][known]
    np.testing.assert_allclose(found[known, :24], wanted[:, :24], atol=ATOL, rtol=0)
    np.testing.assert_allclose(found[known, 24:], wanted[:, 24:], atol=CODE, rtol=0)
    assert result.extra["depends_on_gene_order"].startswith("as upstream")


def tokenizer_of(folder: Path, counts, case: str):
    from plumbline.models.state import embedding, files, tokens

    told = options("state_se600m", folder / "SE-tiny", **CASES[case])
    file = files.find_checkpoint(told)
    config, loaded = files.read_checkpoint(file, "x")
    place = {name: at for at, name in enumerate(files.read_proteins(file, loaded, config, "x"))}
    matched = embedding.match_columns(counts.symbol, place, embedding.choose(told))
    rule = tokens.Rule(length=int(told.get("pad_length", config.length)), kind="upstream", cls_column=config.cls_index)
    return tokens.Tokenizer(matched, rule, tokens.UpstreamChance(told.seed, config)), file


@pytest.mark.parametrize("case", CASES)
def test_tokens_and_values_are_those_of_upstream(folder, case: str) -> None:
    counts = open_counts(folder / "counts.h5ad")
    counts = counts.layer("no_ties") if "layer" in CASES[case] else counts
    tokenizer, _ = tokenizer_of(folder, counts, case)
    cells, expected = sequences(tokenizer(*next(counts.blocks()))), np.load(folder / f"expected/{case}.npz")
    for row, tokens, values in zip(cells_of(expected, counts), expected["tokens"], expected["values"], strict=True):
        if not len(cells[row][0]):
            continue
        np.testing.assert_array_equal(tokenizer.columns.token[cells[row][0][2:] - 2], tokens[1:])
        np.testing.assert_allclose(np.delete(cells[row][1], 1), values, atol=1e-6)


def test_every_layer_and_both_outputs_are_those_of_upstream(folder) -> None:
    from plumbline.models.runtime.batches import pad
    from plumbline.models.state.embedding import build

    counts = open_counts(folder / "counts.h5ad")
    tokenizer, file = tokenizer_of(folder, counts, "counts")
    model, debug = build(file, "x", tokenizer, True, False, "cpu"), np.load(folder / "expected/debug.npz")
    ragged = model.encode(*next(counts.blocks(debug["cells"])))
    starts = np.concatenate([[0], np.cumsum(ragged.length)])
    _, tokens, values = (torch.from_numpy(array) for array in pad(ragged, starts, np.arange(3), model.fills))
    genes = torch.tensor([0, *range(2, 25)])  # the token of the data set comes second here, last upstream
    with torch.inference_mode():
        x = model.start(tokens, values)
        np.testing.assert_allclose(x[:, genes], debug["encoder_input"], atol=ATOL, rtol=RTOL)
        for number, layer in enumerate(model.network.transformer_encoder.layers):
            x = layer(x, None)
            np.testing.assert_allclose(x[:, genes], debug[f"layer{number}"], atol=ATOL, rtol=RTOL)
        decoded = model.network.decoder(x[:, :2])
    np.testing.assert_allclose(decoded[:, 0], debug["cls_before_norm"], atol=ATOL, rtol=RTOL)
    np.testing.assert_allclose(decoded[:, 1], debug["dataset_out"], atol=ATOL, rtol=RTOL)


def test_by_default_neither_columns_nor_neighbours_nor_the_data_sets_code_enter(folder, tmp_path) -> None:
    counts = open_counts(folder / "counts.h5ad")
    told = options("state_se600m", folder / "SE-tiny")
    whole = embed_state.embed(counts, told)
    order, rows = np.random.default_rng(0).permutation(counts.shape[1]), np.array([40, 7, 22])
    part = embed_state.embed(columns(counts.path, tmp_path / "part.h5ad", order, rows), told)
    np.testing.assert_allclose(part.values, whole.values[rows], atol=1e-6)
    assert (whole.values.shape[1], whole.extra["depends_on_gene_order"], whole.extra["depends_on_order"]) == (24, "", False)
    with_code = embed_state.embed(counts, options("state_se600m", folder / "SE-tiny", dataset_code="true"))
    np.testing.assert_array_equal(with_code.values[:, :24], whole.values)
    assert with_code.values.shape[1] == 34
    other = embed_state.embed(counts, options("state_se600m", folder / "SE-tiny", seed=7))
    assert np.nanmax(np.abs(other.values - whole.values)) > 1e-3, "another seed draws other fillers"


def test_counts_are_logarithms_by_default_for_shallow_cells_too() -> None:
    import scipy.sparse as sp

    from plumbline.models.state.tokens import log_values

    shallow, deep = [3.0, 0.0, 1.0], [36.0, 0.0, 1.0]
    block = sp.csr_matrix(np.array([shallow, deep, [0, 0, 0], [16.0, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(log_values(block, "counts").toarray(), np.log1p(block.toarray()), rtol=1e-6)
    guessed = log_values(block, "upstream").toarray()
    np.testing.assert_allclose(guessed[0], shallow)
    np.testing.assert_allclose(guessed[1], np.log1p(deep), rtol=1e-6)
    np.testing.assert_allclose(guessed[3, 0], np.log(17), rtol=1e-6)  # the sum of e^16 - 1 is above five million
    np.testing.assert_allclose(log_values(block, "log").toarray(), block.toarray())
    block.data[0] = -1
    with pytest.raises(UserError, match="negative"):
        log_values(block, "counts")
    assert log_values(block, "upstream").toarray()[0, 0] == 0


def test_organisms_and_values_it_cannot_take(folder, tmp_path) -> None:
    counts = open_counts(folder / "counts.h5ad")
    with pytest.raises(NotApplicable, match="knows human genes only"):
        embed_state.embed(counts, options("state_se600m", folder / "SE-tiny", organism="mouse", orthologs="none"))
    for kind, kept in (("log", "log"), ("counts", "counts")):
        (tmp_path / "dataset.json").write_text(f'{{"organism": "human", "x_kind": "{kind}"}}')
        told = options("state_se600m", folder / "SE-tiny", tables=tmp_path, pad_length=20)
        assert embed_state.embed(counts, told).extra["input"] == kept
    (tmp_path / "dataset.json").write_text('{"organism": "human", "x_kind": "signed"}')
    with pytest.raises(NotApplicable, match="needs counts or log"):
        embed_state.embed(counts, options("state_se600m", folder / "SE-tiny", tables=tmp_path))
    strange = make_counts(tmp_path / "c.h5ad", np.ones((2, 2)), ["", ""], ["X1", "X2"])
    with pytest.raises(UserError, match="knows none of the 2 genes"):
        embed_state.embed(strange, options("state_se600m", folder / "SE-tiny"))


# --- files, on an untrained checkpoint ---


@pytest.fixture
def made(tmp_path) -> tuple[Path, object]:
    """A checkpoint folder and counts of its genes; fewer genes than a sentence has room for, one cell expresses them all."""
    from plumbline.models.state.untrained import make_checkpoint

    matrix = np.random.default_rng(0).poisson(1, (4, 20))
    matrix[2] += 1
    counts = make_counts(tmp_path / "counts.h5ad", matrix, [""] * 20, [f"G{number}" for number in range(20)])
    place = tmp_path / "made"
    place.mkdir()
    make_checkpoint(place, counts, options("state_untrained", None))
    return place, counts


MARK = Path("/tmp/plumbline_state_was_here")


class Call:
    """What a hostile pickle is made of."""

    def __reduce__(self):
        return MARK.touch, ()


@pytest.mark.parametrize(("name", "damage", "message"), [
    ("untrained.ckpt", Path.unlink, r"holds no file like \*.ckpt"),
    ("untrained.ckpt", lambda path: path.write_bytes(path.read_bytes()[:5000]), "truncated or damaged"),
    ("untrained.ckpt", lambda path: torch.save(Call(), path), "truncated or damaged|not a checkpoint"),
    ("untrained.ckpt", lambda path: torch.save({"state_dict": {}}, path), "no STATE checkpoint"),
    ("untrained.ckpt", lambda path: torch.jit.script(torch.nn.Linear(1, 1)).save(path), "a program"),
    ("config.yaml", Path.unlink, "does not exist or is empty"),
    ("config.yaml", lambda path: path.write_text("a: [1"), "is no yaml"),
    ("config.yaml", lambda path: path.write_text("a: !!python/object/apply:print [run]"), "is no yaml"),
    ("config.yaml", lambda path: path.write_text(path.read_text().replace("pad_length", "pad")), "describes no STATE model"),
    ("protein_embeddings.pt", Path.unlink, "does not exist"),
    ("protein_embeddings.pt", lambda path: path.write_bytes(path.read_bytes()[:900]), "truncated or damaged"),
    ("protein_embeddings.pt", lambda path: torch.save({"G1": Call()}, path), "Python objects"),
    ("protein_embeddings.pt", lambda path: torch.save({"G1": torch.zeros(7)}, path), "does not hold vectors of 32"),
])  # fmt: skip
def test_damaged_files_are_refused_with_the_next_command(made, name: str, damage, message: str) -> None:
    place, counts = made
    damage(place / name)
    with pytest.raises(UserError, match=rf"({message}).*plumb fetch state_se600m"):
        embed_state.embed(counts, options("state_se600m", place))
    assert not MARK.exists()


def test_objects_in_a_checkpoint_are_not_made_and_newer_checkpoints_bring_their_own_files(made) -> None:
    place, counts = made
    good = embed_state.embed(counts, options("state_se600m", place)).values
    assert np.isfinite(good).all()
    loaded = torch.load(place / "untrained.ckpt", weights_only=True)
    proteins = torch.load(place / "protein_embeddings.pt", weights_only=True)
    text = (place / "config.yaml").read_text()
    torch.save({**loaded, "collater": Call(), "cfg_yaml": text, "protein_embeds_dict": proteins}, place / "untrained.ckpt")
    (place / "config.yaml").unlink()
    (place / "protein_embeddings.pt").unlink()
    np.testing.assert_array_equal(embed_state.embed(counts, options("state_se600m", place)).values, good)
    assert not MARK.exists()


def test_tensors_must_fit_and_of_several_checkpoints_one_is_named(made) -> None:
    place, counts = made
    loaded = torch.load(place / "untrained.ckpt", weights_only=True)
    state, missing = loaded["state_dict"], "cls_token"
    for changed, message in (
        ({name: tensor for name, tensor in state.items() if name != missing}, f"1 missing: {missing}"),
        ({**state, "new.weight": torch.zeros(2)}, "1 unexpected: new.weight"),
    ):
        torch.save({**loaded, "state_dict": changed}, place / "untrained.ckpt")
        with pytest.raises(UserError, match=message):
            embed_state.embed(counts, options("state_se600m", place))
    torch.save(loaded, place / "untrained.ckpt")
    torch.save(loaded, place / "other.ckpt")
    with pytest.raises(UserError, match=r"holds other.ckpt, untrained.ckpt: say which with --set model_file=NAME"):
        embed_state.embed(counts, options("state_se600m", place))
    (place / "other.ckpt").rename(place / "se600m_epoch16.ckpt")
    assert embed_state.embed(counts, options("state_se600m", place)).extra["checkpoint"] == "se600m_epoch16.ckpt"
    one = make_counts(place / "one.h5ad", np.ones((2, 1)), [""], ["G1"])
    with pytest.raises(UserError, match="needed"):
        embed_state.embed(one, options("state_se600m", place, cls_value="upstream"))
