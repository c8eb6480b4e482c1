"""Nicheformer against upstream's outputs (../shared), and by its own definition on an untrained checkpoint."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from foundation import ATOL, make_counts, named_as_they_stand, options, sequences

import embed_nicheformer
from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import open_counts

torch = pytest.importorskip("torch")
from plumbline.models.nicheformer.tokens import divisors

UPSTREAM = {"assay": "10x 3' v3", "duplicates": "first"}
CASES = {
    "noties_roundedmean": {"ranking": "rounded"},
    "noties_rawmean": {"ranking": "raw"},
    "noties_cosmx_rawmean": {"ranking": "raw", "technology": "cosmx"},
    "counts_roundedmean": {"ranking": "rounded"},
    "counts_rawmean": {"ranking": "raw"},
}


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    return shared / "fixtures/nicheformer"


def opened(folder: Path, case: str):
    counts = named_as_they_stand(folder / "counts.h5ad")
    return counts.layer("no_ties") if case.startswith("noties") else counts


def embedded(folder: Path, case: str, **more: object):
    return embed_nicheformer.embed(opened(folder, case), options("nicheformer", folder, **UPSTREAM, **CASES[case], **more))


def test_means_are_rounded_half_up_and_none_is_zero() -> None:
    means = np.array([0.4, 0.5, 1.5, 2.5, 2.49, np.nan, 0.0])
    assert divisors(means, "rounded", 7).tolist() == [1, 1, 2, 3, 2, 1, 1]
    np.testing.assert_array_equal(divisors(means, "raw", 7), [0.4, 0.5, 1.5, 2.5, 2.49, np.nan, 1])
    assert divisors(None, "counts", 7).tolist() == [1] * 7


def test_states_of_little_variance_are_normalised_too() -> None:
    """The authors' layers have an epsilon of 1e-12, not torch's 1e-5."""
    from plumbline.models.nicheformer.network import EPS
    from plumbline.models.runtime.encoder import Encoder

    layer = Encoder(1, 8, 2, 8, EPS).layers[0]
    states = torch.linspace(-1, 1, 8)[None, None] * 1e-4
    with torch.no_grad():
        for parameter in (*layer.self_attn.parameters(), *layer.linear1.parameters(), *layer.linear2.parameters()):
            parameter.zero_()
        np.testing.assert_allclose(layer(states, None).std(unbiased=False), 1, rtol=1e-3)


@pytest.mark.parametrize(("key", "settings"), [
    ("embeddings", {}),
    ("embeddings", {"model_file": "nicheformer_legacy.ckpt"}),
    ("embeddings_layer0", {"layer": 0}),
    ("embeddings_with_context", {"with_context": "true"}),
])  # fmt: skip
def test_embeddings_are_those_of_upstream(folder, key: str, settings: dict) -> None:
    """By rounded means no cell has a token that is not its own, so that all but empty cells are compared."""
    found = embedded(folder, "noties_roundedmean", **settings).values
    expected = np.load(folder / "expected/noties_roundedmean.npz")[key]
    empty = np.isnan(found[:, 0])
    assert empty.sum() == 2
    np.testing.assert_allclose(found[~empty], expected[~empty], atol=ATOL, rtol=0)


def tokenizer_of(folder: Path, case: str):
    from plumbline.models.nicheformer.files import read_genes, read_means
    from plumbline.models.nicheformer.tokens import Tokenizer, divisors
    from plumbline.models.shared.columns import match

    ids = read_genes(folder / "model_means/model.h5ad", "x")
    means = read_means(folder / f"model_means/{CASES[case].get('technology', 'dissociated')}_mean_script.npy", len(ids), "x")
    columns = match(opened(folder, case).ensembl_id, {name: at for at, name in enumerate(ids)}, duplicates="first")
    return Tokenizer(columns, divisors(means, CASES[case]["ranking"], len(ids)), [5, 11, 3], 256, True)


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_those_of_upstream(folder, case: str) -> None:
    """Genes without a mean in any order, as numba's sort leaves them; of counts, which tie, those of each cell as a set."""
    tokenizer = tokenizer_of(folder, case)
    expected = np.load(folder / f"expected/{case}.npz")["model_tokens"]
    (_, block) = next(opened(folder, case).blocks())
    strange, n_compared = set(tokenizer.without_mean), 0
    for (found,), wanted in zip(sequences(tokenizer(block)), expected, strict=True):
        full = wanted[-1] != 1
        if not len(found) or (case.startswith("counts") and full):  # upstream cuts within ties
            continue
        n_compared += 1
        first = next((at for at, token in enumerate(wanted) if token in strange), len(wanted))
        if case.startswith("noties"):
            np.testing.assert_array_equal(found[:first], wanted[:first])
        else:
            np.testing.assert_array_equal(np.sort(found), np.sort(wanted))
        if not full:
            assert set(found) == set(wanted)
    assert n_compared >= 50


@pytest.mark.parametrize("case", CASES)
def test_upstreams_tokens_give_upstreams_embeddings(folder, case: str) -> None:
    from plumbline.models.nicheformer.files import find_files
    from plumbline.models.nicheformer.network import build

    files = find_files(options("nicheformer", folder), "dissociated")
    model = build(files, "nicheformer", -1, False, tokenizer_of(folder, case), "cpu")
    stored = np.load(folder / f"expected/{case}.npz")
    tokens = torch.from_numpy(stored["model_tokens"])
    with torch.inference_mode():
        found = model.forward(torch.full((len(tokens),), 256), tokens)
        np.testing.assert_allclose(found, stored["embeddings"], atol=ATOL, rtol=0)
        if "dbg_hidden" in stored:
            cells = tokens[stored["dbg_cells"]].long()
            for n in range(4):
                model.network.encoder.layers, kept = model.network.encoder.layers[:n], model.network.encoder.layers
                states = model.network(cells)
                model.network.encoder.layers = kept
                np.testing.assert_allclose(states[:, :20], stored["dbg_hidden"][n], atol=ATOL)
                np.testing.assert_allclose(states[:, -6:], stored["dbg_hidden_last_positions"][n], atol=ATOL)


def test_masked_padding_is_the_mean_over_the_genes_alone_and_columns_do_not_enter(folder) -> None:
    whole, masked = embedded(folder, "noties_roundedmean"), embedded(folder, "noties_roundedmean", padding="mask")
    assert 0.1 < np.nanmax(np.abs(whole.values - masked.values)) < 0.67
    counts = open_counts(folder / "counts.h5ad")  # with ties and duplicates
    told = options("nicheformer", folder)
    order = np.random.default_rng(0).permutation(counts.shape[1])
    first, second = (embed_nicheformer.embed(one, told).values for one in (counts, counts.take_genes(order)))
    np.testing.assert_allclose(first, second, atol=ATOL)
    (single,) = sequences(tokenizer_of(folder, "noties_roundedmean")(next(counts.blocks(np.array([0])))[1]))
    assert len(single[0]) == 256


def test_organisms_and_values_it_cannot_take_and_settings_it_does_not_know(folder, tmp_path) -> None:
    counts = open_counts(folder / "counts.h5ad")
    with pytest.raises(NotApplicable, match="knows human genes only"):
        embed_nicheformer.embed(counts, options("nicheformer", folder, organism="zebrafish"))
    (tmp_path / "dataset.json").write_text('{"organism": "human", "x_kind": "log"}')
    with pytest.raises(NotApplicable, match="needs counts"):
        embed_nicheformer.embed(counts, options("nicheformer", folder, tables=tmp_path))
    for settings, message in (
        ({"assay": "10x"}, "assay=10x: unknown"),
        ({"layer": 3}, "layers 0 to 2"),
        ({"ranking": "best"}, "unknown value"),
        ({"model_file": "none.ckpt"}, r"say which with --set model_file=NAME"),
    ):
        with pytest.raises(UserError, match=message):
            embed_nicheformer.embed(counts, options("nicheformer", folder, **settings))


def test_a_mouse_gene_goes_by_its_human_ortholog_unless_it_is_on_the_list_itself(folder, tmp_path) -> None:
    from plumbline.models.nicheformer.embedding import genes_of
    from plumbline.models.nicheformer.files import read_genes

    ids = read_genes(folder / "model_means/model.h5ad", "x")
    own = next(name for name in ids if name.startswith("ENSMUSG"))
    ids_of_file = ["ENSMUSG00000059552", own, "ENSMUSG99999999999"]  # Trp53: TP53 is ENSG00000141510
    counts = make_counts(tmp_path / "mouse.h5ad", np.ones((1, 3)), ids_of_file, [""] * 3)
    found, species, about = genes_of(counts, ids, options("nicheformer", None, organism="mouse"))
    assert (found.ensembl_id.tolist(), species) == (["ENSG00000141510", own, ""], "mouse")
    assert about["orthologs"]["genes_mapped"] == 1


# --- files, on an untrained checkpoint ---


@pytest.fixture
def made(tmp_path) -> tuple[Path, object]:
    """A checkpoint folder and counts of its genes."""
    from plumbline.models.nicheformer.untrained import make_checkpoint

    ids = [f"ENSG{number:011d}" for number in range(20)]
    counts = make_counts(tmp_path / "counts.h5ad", np.random.default_rng(0).poisson(1, (4, 20)), ids, [""] * 20)
    place = tmp_path / "made"
    place.mkdir()
    make_checkpoint(place, counts, options("nicheformer_untrained", None))
    return place, counts


class Call:
    """What a hostile pickle is made of."""

    def __reduce__(self):
        return Path("/tmp/plumbline_was_here").touch, ()


MEANS = "dissociated_mean_script.npy"


@pytest.mark.parametrize(("name", "damage", "message"), [
    ("untrained.ckpt", Path.unlink, r"holds no file like \*.ckpt"),
    ("untrained.ckpt", lambda path: path.write_bytes(path.read_bytes()[:5000]), "truncated or damaged"),
    ("untrained.ckpt", lambda path: path.write_bytes(pickle.dumps(Call())), "truncated or damaged"),
    ("untrained.ckpt", lambda path: torch.save(Call(), path), "truncated or damaged|not a checkpoint"),
    ("untrained.ckpt", lambda path: torch.save({"state_dict": {}}, path), "no Nicheformer checkpoint"),
    ("model.h5ad", Path.unlink, "does not exist"),
    ("model.h5ad", lambda path: path.write_bytes(path.read_bytes()[:900]), "cannot be read"),
    (MEANS, Path.unlink, "does not exist"),
    (MEANS, lambda path: path.write_bytes(path.read_bytes()[:90]), "truncated or no array"),
    (MEANS, lambda path: np.save(path, np.array([Call()] * 20, dtype=object), allow_pickle=True), "truncated or no array"),
    (MEANS, lambda path: np.save(path, np.ones(19)), r"has shape \(19,\) for 20 genes"),
])  # fmt: skip
def test_damaged_files_are_refused_with_the_next_command(made, name: str, damage, message: str) -> None:
    place, counts = made
    damage(place / name)
    with pytest.raises(UserError, match=rf"({message}).*plumb fetch nicheformer"):
        embed_nicheformer.embed(counts, options("nicheformer", place))
    assert not Path("/tmp/plumbline_was_here").exists()


def test_objects_beside_the_weights_are_not_made_and_tensors_must_fit(made) -> None:
    place, counts = made
    good = embed_nicheformer.embed(counts, options("nicheformer", place)).values
    loaded = torch.load(place / "untrained.ckpt", weights_only=True)
    torch.save({**loaded, "callbacks": Call()}, place / "untrained.ckpt")
    np.testing.assert_array_equal(embed_nicheformer.embed(counts, options("nicheformer", place)).values, good)
    assert not Path("/tmp/plumbline_was_here").exists()
    state, missing = loaded["state_dict"], "encoder.layers.0.linear1.weight"
    for changed, message in (
        ({name: tensor for name, tensor in state.items() if name != missing}, f"1 missing: {missing}"),
        ({**state, "new.weight": torch.zeros(2)}, "1 unexpected: new.weight"),
    ):
        torch.save({**loaded, "state_dict": changed}, place / "untrained.ckpt")
        with pytest.raises(UserError, match=message):
            embed_nicheformer.embed(counts, options("nicheformer", place))
    for name in ("batch_first", "learnable_pe"):
        torch.save({**loaded, "hyper_parameters": loaded["hyper_parameters"] | {name: False}}, place / "untrained.ckpt")
        with pytest.raises(UserError, match=r"only models with (batch_first|learned positions) are known.*plumb fetch"):
            embed_nicheformer.embed(counts, options("nicheformer", place))
    told = {**loaded["hyper_parameters"], "n_tokens": 99}
    torch.save({**loaded, "hyper_parameters": told}, place / "untrained.ckpt")
    with pytest.raises(UserError, match=r"99 tokens.*do not belong together"):
        embed_nicheformer.embed(counts, options("nicheformer", place))
