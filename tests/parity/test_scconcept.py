"""scConcept against upstream's outputs (../shared), and by its own definition on an untrained checkpoint."""

import json
import pickle
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from foundation import ATOL, make_counts, options, sequences

import embed_scconcept
from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import open_counts

torch = pytest.importorskip("torch")
yaml = pytest.importorskip("yaml")
from plumbline.models.scconcept.tokens import Tokenizer

HUMAN, MULTI, VARIANT = "corpus-tiny-human", "corpus-tiny[multi-species]", "variant-value-post"
CASES = {
    "human_default": (HUMAN, {}),
    "human_batch64": (HUMAN, {"batch_size": 64}),
    "human_trunc40": (HUMAN, {"max_tokens": 40}),
    "human_top_with_zeros": (HUMAN, {"sampling": "top"}),
    "human_random_nonzero40": (HUMAN, {"sampling": "random-nonzero", "max_tokens": 40, "batch_size": 32}),
    "multi_default": (MULTI, {}),
    "multi_no_learnable": (MULTI, {"learnable": "false"}),
    "variant_default": (VARIANT, {}),
}


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    return shared / "fixtures/scconcept"


@pytest.mark.parametrize("case", CASES)
def test_embeddings_are_those_of_upstream(folder, case: str) -> None:
    model, settings = CASES[case]
    counts = open_counts(folder / "counts.h5ad")
    found = embed_scconcept.embed(counts, options("scconcept_x", folder / "hf_repo" / model, **settings)).values
    expected = np.load(folder / f"expected/{case}.npz")["emb"]
    empty = np.isnan(found[:, 0])  # upstream embeds <cls> alone
    assert empty.sum() == (0 if settings.get("sampling") == "top" else 2)
    np.testing.assert_allclose(found[~empty], expected[~empty], atol=ATOL, rtol=0)


@pytest.mark.parametrize("case", [case for case in CASES if case != "human_batch64"])
def test_tokens_and_counts_are_those_of_upstream(folder, case: str) -> None:
    from plumbline.models.scconcept.files import read_config, read_genes
    from plumbline.models.scconcept.tokens import Tokenizer, tokens_of

    model, settings = CASES[case]
    place, counts = folder / "hf_repo" / model, open_counts(folder / "counts.h5ad")
    token = tokens_of(counts.ensembl_id, counts.symbol, read_genes(place, "hsapiens", "x"), False)
    max_tokens = settings.get("max_tokens", read_config(place, "x").max_tokens)
    tokenizer = Tokenizer(token, max_tokens, settings.get("sampling", "top-nonzero"))
    expected = np.load(folder / f"expected/{case}.npz")
    for row, (tokens, values) in enumerate(sequences(tokenizer(next(counts.blocks())[1]))):
        inside = expected["tokens"][row] > 1
        np.testing.assert_array_equal(tokens[1:], expected["tokens"][row, inside])
        np.testing.assert_array_equal(values[1:], expected["values"][row, inside])
        assert not len(tokens) or (tokens[0], values[0]) == (0, -2)


def test_an_empty_cell_of_upstream_is_cls_alone_and_every_layer_is_that_of_upstream(folder) -> None:
    from plumbline.models.runtime.batches import pad
    from plumbline.models.runtime.encoder import key_bias
    from plumbline.models.scconcept import embedding, files, tokens

    place, counts = folder / "hf_repo" / HUMAN, open_counts(folder / "counts.h5ad")
    genes, config = files.read_genes(place, "hsapiens", "x"), files.read_config(place, "x")
    source = embedding.Source(folder=place, config=config, genes=genes, species="hsapiens", variant="x")
    tokenizer = tokens.Tokenizer(tokens.tokens_of(counts.ensembl_id, counts.symbol, genes, False), 120, "top-nonzero")
    model = embedding.build(source, tokenizer, True, "cpu")
    debug = np.load(folder / "expected/human_default.npz")
    cells = debug["dbg_cells"]
    ragged = model.encode(*next(counts.blocks(cells)))
    starts = np.concatenate([[0], np.cumsum(ragged.length)])
    length, *fields = (torch.from_numpy(array) for array in pad(ragged, starts, np.arange(len(cells)), model.fills))
    with torch.inference_mode():
        vectors = model.genes[fields[0].long()]
        inside = (np.arange(12) < length.numpy()[:, None])[..., None]  # padding is as it happens
        genes = inside & (np.arange(12) > 0)[:, None]
        np.testing.assert_allclose(vectors[:, :12] * genes, debug["dbg_gene_encoder_out"] * genes, atol=ATOL)
        x = model.network.start(vectors, fields[1])
        np.testing.assert_allclose(x[:, :12] * inside, debug["dbg_layer0_in"] * inside, atol=ATOL)
        for number, layer in enumerate(model.network.transformer_encoder.layers):
            x = layer(x, key_bias(length, x.shape[1]))
            np.testing.assert_allclose(x[:, :12] * inside, debug[f"dbg_layer{number}_out"] * inside, atol=ATOL)
        alone = model.forward(torch.tensor([1]), torch.tensor([[0]]), torch.tensor([[-2.0]]))
    empty = (debug["tokens"] <= 1).all(axis=1)
    np.testing.assert_allclose(alone.expand(int(empty.sum()), -1), debug["emb"][empty], atol=ATOL)


def test_symbols_are_looked_up_as_upstream_does(folder) -> None:
    from plumbline.models.scconcept.files import read_genes
    from plumbline.models.scconcept.tokens import tokens_of

    genes = read_genes(folder / "hf_repo" / HUMAN, "hsapiens", "x")
    symbols, ids = zip(*json.loads((folder / "expected/symbol_mapping.json").read_text()), strict=True)
    found = tokens_of(np.full(len(symbols), ""), np.array(symbols), genes, False)
    assert found.tolist() == [genes.token[gene] if gene else -1 for gene in ids]
    versioned = np.array([f"{ids[4]}.3"])
    assert tokens_of(versioned, np.array([""]), genes, False) == [-1]
    assert tokens_of(versioned, np.array([""]), genes, True) == [genes.token[ids[4]]]


def test_of_a_symbol_that_comes_twice_the_first_row_counts(tmp_path) -> None:
    from plumbline.models.scconcept.files import read_genes
    from plumbline.models.scconcept.tokens import tokens_of

    (tmp_path / "gene_mappings").mkdir()
    rows = ["gene_id,gene_name,token", "<cls>,,0", "<pad>,,1", "ENSG2,Twice,3", "ENSG1,TWICE,2"]
    (tmp_path / "gene_mappings/hsapiens.csv").write_text("\n".join(rows))
    genes = read_genes(tmp_path, "hsapiens", "x")
    assert tokens_of(np.array(["", "ENSG1"]), np.array(["twice", ""]), genes, False).tolist() == [3, 2]


def test_the_order_of_columns_does_not_enter(folder) -> None:
    counts = open_counts(folder / "counts.h5ad")
    order = np.random.default_rng(0).permutation(counts.shape[1])
    told = options("scconcept_x", folder / "hf_repo" / HUMAN)
    whole = embed_scconcept.embed(counts, told)
    np.testing.assert_allclose(embed_scconcept.embed(counts.take_genes(order), told).values, whole.values, atol=1e-6)
    assert (whole.extra["depends_on_order"], whole.unembedded, whole.extra["species"]) == (False, 2, "hsapiens")


def test_mouse_cells_by_their_own_genes_or_by_orthologs_and_what_is_not_applicable(folder, tmp_path) -> None:
    multi, human = (options("scconcept_x", folder / "hf_repo" / name, organism="mus_musculus") for name in (MULTI, HUMAN))
    human.settings["orthologs"] = "none"
    text = (folder / "hf_repo" / MULTI / "gene_mappings/mmusculus.csv").read_text().splitlines()[3:43]
    ids = [line.split(",")[0] for line in text]
    mouse = make_counts(tmp_path / "mouse.h5ad", np.random.default_rng(0).poisson(2, (3, 40)), ids, [""] * 40)
    result = embed_scconcept.embed(mouse, multi)
    assert (result.extra["species"], result.genes_used) == ("mmusculus", 40)
    with pytest.raises(NotApplicable, match="knows human genes only"):
        embed_scconcept.embed(mouse, human)
    with pytest.raises(NotApplicable, match="knows human genes only"):
        embed_scconcept.embed(mouse, options("scconcept_x", folder / "hf_repo" / MULTI, organism="yeast"))
    (tmp_path / "dataset.json").write_text('{"organism": "human", "x_kind": "log"}')
    with pytest.raises(NotApplicable, match="needs counts"):
        embed_scconcept.embed(mouse, options("scconcept_x", folder / "hf_repo" / HUMAN, tables=tmp_path))


BAD = [
    ({"max_tokens": 256}, "has positions for 255 genes"),
    ({"learnable": "false"}, "has no pretrained gene vectors"),
    ({"sampling": "best"}, "unknown value"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_settings_are_named(folder, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        embed_scconcept.embed(open_counts(folder / "counts.h5ad"), options("x", folder / "hf_repo" / HUMAN, **settings))


# --- files, on an untrained checkpoint ---


@pytest.fixture
def made(tmp_path) -> tuple[Path, object]:
    """A checkpoint folder and counts of its genes."""
    from plumbline.models.scconcept.untrained import make_checkpoint

    ids = [f"ENSG{number:011d}" for number in range(20)]
    counts = make_counts(tmp_path / "counts.h5ad", np.random.default_rng(0).poisson(1, (4, 20)), ids, [""] * 20)
    place = tmp_path / "made[1]"
    place.mkdir()
    make_checkpoint(place, counts, options("scconcept_untrained", None))
    return place, counts


class Call:
    """What a hostile pickle is made of."""

    def __reduce__(self):
        return print, ("run",)


MAPPING = "gene_mappings/hsapiens.csv"


def say(file: Path, train: dict | None = None, model: dict | None = None, **data: object) -> None:
    """Change config.yaml: its section datamodule, the section train in it, its section model."""
    described = yaml.safe_load(file.read_text())
    described["datamodule"] |= data
    described["datamodule"]["dataset"]["train"] |= train or {}
    described["model"] |= model or {}
    file.write_text(yaml.safe_dump(described))


@pytest.mark.parametrize(("data", "train", "sampling"), [
    ({}, {}, "top-nonzero"),
    ({"gene_sampling_strategy": "top"}, {}, "top"),
    ({"gene_sampling_strategy": "top"}, {"gene_sampling_strategy": "random-nonzero"}, "random-nonzero"),
])  # fmt: skip
def test_genes_are_sampled_as_the_configuration_says_unless_a_setting_does(made, data, train, sampling: str) -> None:
    place, counts = made
    asked = options("scconcept_30m", place, max_tokens=5, sampling=sampling)
    wanted = embed_scconcept.embed(counts, asked).values
    say(place / "config.yaml", train, **data)
    found = embed_scconcept.embed(counts, options("scconcept_30m", place, max_tokens=5))
    np.testing.assert_array_equal(found.values, wanted)
    assert found.extra["sampling"] == sampling
    other = embed_scconcept.embed(counts, options("scconcept_30m", place, max_tokens=5, sampling="top-nonzero"))
    assert np.array_equal(other.values, wanted) == (sampling != "random-nonzero"), "no cell has fewer than 5 genes"


def test_normalisation_and_the_value_of_cls_are_those_of_the_configuration(folder, tmp_path) -> None:
    place = tmp_path / VARIANT
    shutil.copytree(folder / "hf_repo" / VARIANT, place, copy_function=shutil.copyfile)
    place.chmod(0o755)
    source = ad.read_h5ad(folder / "counts.h5ad")
    matrix = source.X.toarray()
    names = [source.var[name].tolist() for name in ("ensembl_id", "gene_symbol")]
    logs, counts = (make_counts(tmp_path / f"{at}.h5ad", x, *names) for at, x in enumerate((np.log1p(matrix), matrix)))
    by_hand, raw = (embed_scconcept.embed(some, options("scconcept_x", place)).values for some in (logs, counts))
    say(place / "config.yaml", normalization="log1p")
    found = embed_scconcept.embed(counts, options("scconcept_x", place)).values
    np.testing.assert_allclose(found, by_hand, atol=ATOL)
    assert np.nanmax(np.abs(found - raw)) > 1e-3
    say(place / "config.yaml", model={"cls_value": 7})
    assert np.nanmax(np.abs(embed_scconcept.embed(counts, options("scconcept_x", place)).values - found)) > 1e-3
    tokenizer = Tokenizer(np.array([5, 3]), 9, "top-nonzero", log=True, cls_value=7.0)
    tokens, values = sequences(tokenizer(sp.csr_matrix([[1.0, 3.0]], dtype=np.float32)))[0]
    assert tokens.tolist() == [0, 3, 5]
    np.testing.assert_allclose(values, [7, np.log(4), np.log(2)], rtol=1e-6)


@pytest.mark.parametrize(("name", "damage", "message"), [
    ("model.ckpt", Path.unlink, "does not hold exactly one such model"),
    ("config.yaml", Path.unlink, "does not exist"),
    ("model.ckpt", lambda path: path.write_bytes(path.read_bytes()[:5000]), "truncated or damaged"),
    ("model.ckpt", lambda path: path.write_bytes(pickle.dumps(Call())), "truncated or damaged|Python objects"),
    ("model.ckpt", lambda path: torch.save({"a": torch.zeros(1)}, path), "neither state_dict nor model"),
    ("model.ckpt", lambda path: torch.save({"model": {"a": torch.zeros(1)}}, path), "has no genes of hsapiens"),
    ("config.yaml", lambda path: path.write_text("[1, 2"), "no description of an scConcept"),
    ("config.yaml", lambda path: path.write_text("model: !!python/object/apply:print [run]"), "no description of an scConcept"),
    ("config.yaml", lambda path: path.write_text(path.read_text().replace("dim_hid", "dim")), "no description of an scConcept"),
    ("config.yaml", lambda path: path.write_text(path.read_text().replace("gelu", "tanh")), "activation is 'tanh'"),
    (MAPPING, lambda path: path.write_text("a,b\n1,2\n"), "no table of gene_id"),
    (MAPPING, lambda path: path.write_text(path.read_text().splitlines()[0]), "does not begin with <cls>"),
    (MAPPING, lambda path: path.write_text(path.read_text() + "ENSG1,X,99\n"), "tokens of genes are not 2 to 22"),
    (MAPPING, lambda path: path.write_text(path.read_text() + "ENSG1,X,22\n"), "has 22 genes and .* 23"),
    (MAPPING, lambda path: path.write_text("\n".join(path.read_text().splitlines()[:-1])), "has 22 genes and .* 21"),
    ("config.yaml", lambda path: say(path, model={"dim_gene_embs": 9}), r"\(22, 64\)"),
    ("config.yaml", lambda path: say(path, normalization="totalcount"), "normalization is 'totalcount'; known are raw, log1p"),
    ("config.yaml", lambda path: say(path, gene_sampling_strategy="random"), "is 'random'; known are top-nonzero, top, "),
])  # fmt: skip
def test_damaged_files_are_refused_with_the_next_command(made, name: str, damage, message: str) -> None:
    place, counts = made
    damage(place / name)
    with pytest.raises(UserError, match=rf"({message}).*plumb fetch scconcept_30m"):
        embed_scconcept.embed(counts, options("scconcept_30m", place))


def test_tensors_missing_or_surplus_are_refused(made) -> None:
    place, counts = made
    state = torch.load(place / "model.ckpt", weights_only=True)["state_dict"]
    missing = "transformer_encoder.layers.0.linear1.weight"
    for changed, message in (
        ({name: tensor for name, tensor in state.items() if name != missing}, f"1 missing: {missing}"),
        ({**state, "new.weight": torch.zeros(2)}, "1 unexpected: new.weight"),
    ):
        torch.save({"model": changed}, place / "model.ckpt")  # Fabric's layout
        with pytest.raises(UserError, match=message):
            embed_scconcept.embed(counts, options("scconcept_30m", place.parent))


@pytest.mark.parametrize("change", ["missing", "longer", "wider", "whole numbers", "pretrained longer"])
def test_tables_of_gene_vectors_must_fit_as_every_other_tensor(folder, tmp_path, change: str) -> None:
    place = tmp_path / MULTI
    shutil.copytree(folder / "hf_repo" / MULTI, place, copy_function=shutil.copyfile)
    place.chmod(0o755)
    state = torch.load(place / "model.ckpt", weights_only=True)["model"]
    learnable, pretrained = (f"gene_token_encoder.{kind}_embs.hsapiens.weight" for kind in ("learnable", "pretrained"))
    changed = {
        "missing": {learnable: None},
        "longer": {name: torch.cat([state[name]] * 2) for name in (learnable, pretrained)},
        "wider": {learnable: torch.cat([state[learnable]] * 2, dim=1)},
        "whole numbers": {learnable: state[learnable].long()},
        "pretrained longer": {pretrained: torch.cat([state[pretrained]] * 2)},
    }[change]
    kept = {name: tensor for name, tensor in (state | changed).items() if tensor is not None}
    torch.save({"model": kept}, place / "model.ckpt")
    with pytest.raises(
        UserError, match=r"(has no genes of hsapiens|has 964 genes and|tables of gene vectors of shape).*plumb fetch"
    ):
        embed_scconcept.embed(open_counts(folder / "counts.h5ad"), options("scconcept_170m", place))
