"""Tahoe-x1 against upstream's outputs (../shared), against torch's own encoder layers, and by its own definition."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from foundation import ATOL, Hostile, columns, make_counts, options, sequences

import embed_tahoe_x1
from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts, open_counts

torch = pytest.importorskip("torch")
yaml = pytest.importorskip("yaml")
from plumbline.models.runtime.batches import Ragged, pad
from plumbline.models.runtime.encoder import key_bias
from plumbline.models.tahoe_x1.files import read_architecture, read_encoding
from plumbline.models.tahoe_x1.network import load_network
from plumbline.models.tahoe_x1.tokens import bin_values
from plumbline.models.tahoe_x1.untrained import write_checkpoint

UPSTREAM = {"sampling": "upstream", "gene_order": "file"}
CASES = {  # max_length of upstream's default: the number of columns that the vocabulary knows
    "full": {**UPSTREAM, "seed": 11, "max_length": 428},
    "full_bs1": {**UPSTREAM, "seed": 11, "max_length": 428, "batch_size": 1},
    "noties": {**UPSTREAM, "seed": 11, "max_length": 428, "layer": "no_ties"},
    "sampled64": {**UPSTREAM, "seed": 1234, "max_length": 64},
}
SIZES = ("70m", "3b")


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    return shared / "fixtures/tahoe_x1"


def expected(folder: Path, size: str, case: str) -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"expected/tx{size}_{case}.npz"))


def told(folder: Path, size: str, case: str):
    return options(f"tahoe_x1_{size}", folder / "hf_repo", **CASES[case])


@pytest.mark.parametrize("case", ["full", "noties", "sampled64"])
@pytest.mark.parametrize("size", SIZES)
def test_tokens_and_bins_are_those_of_upstream(folder, size: str, case: str) -> None:
    counts, wanted = open_counts(folder / "counts.h5ad"), expected(folder, size, case)
    options, how = embed_tahoe_x1.choose(told(folder, size, case))
    encoding = read_encoding(folder / f"hf_repo/{size}-model", options.variant)
    tokenizer = embed_tahoe_x1.make_tokenizer(counts, encoding, options, how)
    rows, block = next((counts.layer("no_ties") if case == "noties" else counts).blocks())
    found = sequences(tokenizer(rows, block))
    for row, tokens, values, padded in zip(
        wanted["cell"], wanted["tokens"], wanted["values"], wanted["padded_length"], strict=True
    ):
        n = len(found[row][0])
        assert (tokens[n:padded] == encoding.pad_token).all()
        assert (values[n:padded] == encoding.pad_value).all()
        np.testing.assert_array_equal(found[row][0], tokens[:n])
        np.testing.assert_array_equal(found[row][1], values[:n])
    assert {row for row, (tokens, _) in enumerate(found) if len(tokens)} == set(wanted["cell"]), "upstream stops at the others"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", SIZES)
def test_embeddings_are_those_of_upstream(folder, size: str, case: str) -> None:
    result = embed_tahoe_x1.embed(open_counts(folder / "counts.h5ad"), told(folder, size, case))
    wanted = expected(folder, size, case)
    np.testing.assert_allclose(result.values[wanted["cell"]], wanted["emb"], atol=ATOL, rtol=0)
    assert result.unembedded == np.isnan(result.values).all(axis=1).sum() == 64 - len(wanted["cell"])
    assert (result.genes_used, result.genes_total, result.extra["keep_first"]) == (428, 458, {"70m": 1, "3b": 2}[size])


@pytest.mark.parametrize("size", SIZES)
def test_in_bf16_the_difference_to_upstreams_bf16_is_smaller_than_bf16s_to_fp32(folder, size: str) -> None:
    settings = CASES["full"] | {"precision": "bf16"}
    found = embed_tahoe_x1.embed(
        open_counts(folder / "counts.h5ad"), options(f"tahoe_x1_{size}", folder / "hf_repo", **settings)
    )
    wanted = expected(folder, size, "full")
    rounding = np.abs(wanted["emb_bf16_autocast"] - wanted["emb"]).max()
    assert np.abs(found.values[wanted["cell"]] - wanted["emb_bf16_autocast"]).max() < rounding


@pytest.mark.parametrize("size", SIZES)
def test_every_stage_inside_the_model_is_that_of_upstream(folder, size: str) -> None:
    place = folder / f"hf_repo/{size}-model"
    network = load_network(place, f"tahoe_x1_{size}", read_encoding(place, f"tahoe_x1_{size}"))
    debug, full = expected(folder, size, "debug"), expected(folder, size, "full")
    row = [int(np.flatnonzero(full["cell"] == cell)[0]) for cell in debug["cell"]]
    length = np.array([int((full["tokens"][at] > 0).sum()) for at in row])
    ragged = Ragged(
        length,
        tuple(np.concatenate([full[key][at][:n] for at, n in zip(row, length, strict=True)]) for key in ("tokens", "values")),
    )
    batch = pad(ragged, np.concatenate([[0], np.cumsum(length)]), np.arange(len(row)), (0, -2.0))
    length, tokens, values = (torch.from_numpy(array) for array in batch)
    with torch.inference_mode():
        gene, value = network.gene_encoder(tokens), network.expression_encoder(values)
        np.testing.assert_allclose(gene[:, :10], debug["gene"], atol=ATOL)
        np.testing.assert_allclose(value[:, :10], debug["value"], atol=ATOL)
        x, bias = gene + value, key_bias(length, tokens.shape[1])
        for number, layer in enumerate(network.transformer_encoder.layers):
            x = layer(x, bias)
            np.testing.assert_allclose(x[:, :10], debug[f"layer{number}"], atol=ATOL)
        np.testing.assert_allclose(network.transformer_encoder.norm(x)[:, :10], debug["final"], atol=ATOL)


@pytest.mark.parametrize("size", SIZES)
def test_by_default_only_the_cells_that_lose_genes_and_the_first_gene_of_3b_differ_from_upstream(folder, size: str) -> None:
    counts, wanted = open_counts(folder / "counts.h5ad"), expected(folder, size, "full")
    result = embed_tahoe_x1.embed(counts, options(f"tahoe_x1_{size}", folder / "hf_repo"))
    kind = ad.read_h5ad(folder / "counts.h5ad").obs["kind"].to_numpy()
    assert set(kind[np.isnan(result.values).all(axis=1)]) == {"empty", "only_unknown"}
    kept = kind[wanted["cell"]] != "all_genes"
    difference = np.abs(result.values[wanted["cell"]] - wanted["emb"]).max(axis=1)
    if size == "70m":
        assert difference[kept].max() < ATOL
        assert difference[~kept].max() > 1e-4, "upstream leaves out one of its genes"
    else:
        assert 1e-3 < difference.max() < 0.1, "all genes are binned"


def test_the_older_training_checkpoint_gives_the_same(folder, tmp_path) -> None:
    """As composer saves it, with the state of random numbers and objects of its own."""
    for name in ("vocab.json", "model_config.yml", "collator_config.yml"):
        (tmp_path / name).symlink_to(folder / "hf_repo/70m-model" / name)
    saved = torch.load(folder / "hf_repo/70m-model/best-model.pt", weights_only=True)
    more = {"rng": [{"numpy": ("MT19937", np.arange(624, dtype=np.uint32), 1), "place": Hostile(tmp_path / "ran")}]}
    torch.save(saved | more, tmp_path / "best-model.pt")
    found = embed_tahoe_x1.embed(open_counts(folder / "counts.h5ad"), options("tahoe_x1_70m", tmp_path, **CASES["full"]))
    wanted = expected(folder, "70m", "full")
    np.testing.assert_allclose(found.values[wanted["cell"]], wanted["emb"], atol=ATOL, rtol=0)
    assert found.extra["weights"][0]["file"] == "best-model.pt"
    assert not (tmp_path / "ran").exists()


# --- without the reference outputs: a random model in the authors' format, against torch's own encoder ---

GENES = [f"ENSG{number:011d}" for number in np.random.default_rng(5).permutation(30)]
WIDTH, HEADS, LAYERS = 16, 2, 2


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A checkpoint with 30 genes and keep_first_n_tokens 2, as the 3B model's."""
    place = tmp_path_factory.mktemp("tahoe_x1") / "made"
    place.mkdir()
    write_checkpoint(place, GENES, 3, {"d_model": WIDTH, "n_heads": HEADS, "n_layers": LAYERS}, keep_first=2)
    return place


def make_cells(path: Path, seed: int) -> Counts:
    """Nine cells; column 30 is column 3 once more, 31 and 32 are unknown. Cell 4 has unknown genes, cell 5 one gene only."""
    matrix = np.random.default_rng(seed).poisson(0.8, (9, 33)).astype(float)
    matrix[4, :31], matrix[5] = 0, 0
    matrix[5, 2] = 4
    names = [f"ENSG{number:011d}" for number in range(30)]
    return make_counts(path, matrix, [*names, names[3], "ENSG00000000001.7", "<cls>"], [""] * 33)


@pytest.fixture
def cells(tmp_path) -> Counts:
    return make_cells(tmp_path / "counts.h5ad", 1)


def lowest_bin(value: float, values: np.ndarray) -> int:
    """1 more than the number of edges below it; edges in exact arithmetic."""
    return 1 + sum(np.quantile(values.astype(np.float64), at / 49) < value - 1e-9 for at in range(50))


def by_definition(place: Path, tokens: list[int], values: list[float]) -> np.ndarray:
    """The embedding of one cell with torch's own encoder layers."""
    from safetensors.torch import load_file

    part = {name.removeprefix("model."): tensor for name, tensor in load_file(place / "model.safetensors").items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, (WIDTH,), part[f"{name}.weight"], part[f"{name}.bias"])

    value = torch.relu(
        torch.tensor(values)[:, None] @ part["expression_encoder.linear1.weight"].T + part["expression_encoder.linear1.bias"]
    )
    value = value @ part["expression_encoder.linear2.weight"].T + part["expression_encoder.linear2.bias"]
    x = norm(part["gene_encoder.embedding.weight"][tokens], "gene_encoder.enc_norm") + norm(value, "expression_encoder.norm")
    x = x[None]
    for number in range(LAYERS):
        layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, batch_first=True, norm_first=True).eval()
        start = f"transformer_encoder.layers.{number}."
        own = {"Wqkv.": "in_proj_", "up_proj": "linear1", "down_proj": "linear2"}
        state = {name.removeprefix(start): part[name] for name in part if name.startswith(start)}
        for theirs, torchs in own.items():
            state = {name.replace(theirs, torchs): tensor for name, tensor in state.items()}
        layer.load_state_dict(state)
        x = layer(x)
    cls = norm(x[0, 0], "transformer_encoder.norm").detach().numpy()
    return cls / np.linalg.norm(cls)


@pytest.mark.parametrize("gene_order", ["token", "file"])
def test_embeddings_are_those_of_torchs_encoder_layers(made, cells, gene_order: str) -> None:
    found = embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", made, gene_order=gene_order))
    token = {int(name[4:]): number for number, name in enumerate(GENES, 3)}
    for row, counts in enumerate(next(cells.blocks())[1].toarray()):
        expressed = [column for column in range(31) if counts[column]]
        if len(expressed) < (1 if gene_order == "token" else 2):
            assert np.isnan(found.values[row]).all()
            continue
        raw = counts[expressed]
        binned = [lowest_bin(value, raw) for value in raw]
        if gene_order == "file":  # the first keeps its count, the others are binned among themselves
            binned = [float(raw[0]), *(lowest_bin(value, raw[1:]) for value in raw[1:])]
        tokens = [1, *(token[3 if column == 30 else column] for column in expressed)]
        np.testing.assert_allclose(found.values[row], by_definition(made, tokens, [-2.0, *map(float, binned)]), atol=ATOL)
    assert (found.genes_used, found.genes_total, found.unembedded) == (31, 33, 1 if gene_order == "token" else 2)
    assert ("depends_on_gene_order" in found.extra) == (gene_order == "file")


@pytest.mark.parametrize("max_length", [2048, 6])
def test_a_cell_does_not_depend_on_batch_order_neighbours_or_the_order_of_genes(made, cells, tmp_path, max_length: int) -> None:
    whole = embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", made, max_length=max_length)).values
    single = embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", made, batch_size=1, max_length=max_length)).values
    np.testing.assert_allclose(single, whole, atol=1e-6)
    order = np.array([8, 4, 0, 7, 2])
    some = columns(cells.path, tmp_path / "some.h5ad", np.random.default_rng(0).permutation(33), order)
    part = embed_tahoe_x1.embed(some, options("tahoe_x1_3b", made, batch_size=2, max_length=max_length)).values
    np.testing.assert_allclose(part, whole[order], atol=1e-6)
    other = embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", made, seed=7, max_length=max_length)).values
    assert (np.nanmax(np.abs(other - whole)) > 1e-4) == (max_length == 6), "only the choice of genes is drawn"


def test_bins_of_equal_values_are_the_lowest_they_span() -> None:
    grid = torch.linspace(0, 1, 50)
    assert bin_values(np.array([5.0], np.float32), grid).tolist() == [1]
    assert bin_values(np.full(7, 2.0, np.float32), grid).tolist() == [1] * 7
    ties = bin_values(np.array([1.0] * 60 + [2.0] * 40, dtype=np.float32), grid)
    # rank 29 is place 29 * 99 / 49 = 58.6, the last edge at 1; rank 30 is place 60.6, at 2
    assert set(ties[:60]) == {1}
    assert set(ties[60:]) == {31}
    untied = bin_values(np.arange(50, dtype=np.float32), grid)
    assert np.abs(untied - np.arange(1, 51)).max() == 1, "edges are float32: some lie just below the value they equal"
    assert (untied.min(), untied.max()) == (1, 50)


BAD = {
    "sampling=any": "unknown value",
    "gene_order=name": "unknown value.*",
    "max_length=2": "at least 3",
    "layer=none": "no layer 'none'",
    "model_dir=none": r"collator_config.yml does not exist.*plumb fetch tahoe_x1_3b",
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_settings_are_named(made, cells, bad: str) -> None:
    name, _, value = bad.partition("=")
    with pytest.raises(UserError, match=BAD[bad]):
        embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", made, **{name: value}))


def copy(made: Path, target: Path) -> Path:
    """A copy of the model's folder."""
    target.mkdir(parents=True)
    for file in made.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


SETTINGS = {
    ("model_config.yml", "n_layers", 10**9): "holds 2 layers .* says 1000000000",
    ("model_config.yml", "d_model", 10**9): r"gene table of \(33, 16\).* says 2 and \(33, 1000000000\)",
    ("model_config.yml", "vocab_size", 7): r"token ids up to 32, but a gene table of 7 rows.*plumb fetch",
    ("model_config.yml", "vocab_size", 99): r"gene table of \(33, 16\).*says 2 and \(99, 16\).*plumb fetch",
    ("model_config.yml", "expansion_ratio", 2): "misshapen",
    ("model_config.yml", "n_heads", 3): "width 16, heads 3",
    ("model_config.yml", "n_heads", float("inf")): "does not describe a Tahoe-x1",
    ("model_config.yml", "norm_scheme", "post"): "norm_scheme is 'post'; only 'pre'",
    ("model_config.yml", "use_glu", True): "use_glu is True",
    ("model_config.yml", "transformer_activation", "swiglu"): "swiglu.*known: relu, gelu",
    ("model_config.yml", "cell_emb_style", "avg-pool"): "cell_emb_style is 'avg-pool'",
    ("model_config.yml", "norm_config", "{eps: 1.0}"): "does not describe a Tahoe-x1 .*norm_type.*plumb fetch",
    ("model_config.yml", "norm_config", "{norm_type: rmsnorm}"): "norm_type rmsnorm; known: layernorm, low",
    ("model_config.yml", "gene_encoder", None): "gene_encoder.use_norm is False; only True",
    ("collator_config.yml", "sampling", False): "sampling is False; only True",
    ("collator_config.yml", "right_binning", True): "right_binning is True",
    ("collator_config.yml", "num_bins", 1): "num_bins 1",
    ("collator_config.yml", "keep_first_n_tokens", 9): "keep_first_n_tokens 9",
    ("collator_config.yml", "pad_token_id", -1): "pad_token_id -1",
    ("collator_config.yml", "pad_value", float("nan")): "pad_value nan",
    ("collator_config.yml", "pad_value", None): "does not describe the input",
}


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_configuration_that_is_not_implemented_or_does_not_fit_is_refused(made, cells, tmp_path, setting: tuple) -> None:
    (name, key, value), bad = setting, copy(made, tmp_path / "bad")
    config = yaml.safe_load((bad / name).read_text()) | {key: yaml.safe_load(value) if isinstance(value, str) else value}
    (bad / name).write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=SETTINGS[setting]):
        embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", bad))


LEFT_OUT = {  # by a section's name; what each then is, is what the random model has
    "": ["norm_scheme", "cell_emb_style", "use_glu", "norm_config"],
    "expression_encoder": ["input_emb_style", "max_value", "activation"],
    "collator": ["do_binning", "right_binning", "num_bins"],
}


def test_what_the_configurations_leave_out_is_as_upstream_takes_it(made, cells, tmp_path) -> None:
    short = copy(made, tmp_path / "short")
    config, collator = (yaml.safe_load((short / name).read_text()) for name in ("model_config.yml", "collator_config.yml"))
    for section, names in LEFT_OUT.items():
        place = {"": config, "collator": collator}.get(section) or config[section]
        for name in names:
            del place[name]
    (short / "model_config.yml").write_text(yaml.safe_dump(config))
    (short / "collator_config.yml").write_text(yaml.safe_dump(collator))
    whole = embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", made)).values
    np.testing.assert_array_equal(embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", short)).values, whole)
    del config["transformer_activation"]
    (short / "model_config.yml").write_text(yaml.safe_dump(config | {"expansion_ratio": 4.0, "norm_config": None}))
    assert read_architecture(short, "x").activation == "gelu"
    assert read_architecture(short, "x").inner == 4 * WIDTH


FILES = {
    "vocab.json": ["[1]", "{", '{"<cls>": 1, "A": 1}', '{"A": 1}', '{"<cls>": -1}', '{"<cls>": "x"}'],
    "model_config.yml": ["[1]", "a: [", "!!python/object/apply:os.getcwd []", "d_model: 16"],
    "collator_config.yml": ["text", "{", "num_bins: 51"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in FILES.items() for text in texts])
def test_damaged_and_hostile_descriptions_are_named(made, cells, tmp_path, name: str, text: str) -> None:
    bad = copy(made, tmp_path / "bad")
    (bad / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name}(.|\n)*plumb fetch tahoe_x1_3b"):
        embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", bad))
    (bad / name).unlink()
    with pytest.raises(UserError, match=rf"({name} does not exist|found no {name}).*plumb fetch tahoe_x1_3b"):
        embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", bad))


def test_a_token_beyond_the_gene_table_is_refused(made, cells, tmp_path) -> None:
    bad = copy(made, tmp_path / "bad")
    vocabulary = json.loads((bad / "vocab.json").read_text()) | {GENES[0]: 33}
    (bad / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(UserError, match=r"token ids up to 33.*33 rows.*plumb fetch"):
        embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", bad))


def test_missing_truncated_changed_and_hostile_weights_are_refused(made, cells, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=rf"{message}.*plumb fetch tahoe_x1_3b"):
            embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", bad))

    bad = copy(made, tmp_path / "bad")
    file, old, tensors = bad / "model.safetensors", bad / "best-model.pt", load_file(made / "model.safetensors")
    whole = file.read_bytes()
    for body, message in ((whole[: len(whole) // 2], "is truncated"), (b"", "is empty"), (b"text" * 9, "is truncated")):
        file.write_bytes(body)
        refused(message)
    save_file({name: tensors[name] for name in tensors if not name.endswith("encoder.norm.bias")}, file)
    refused("2 missing: expression_encoder.norm.bias, transformer_encoder.norm.bias")
    save_file(tensors | {"model.more": torch.ones(1)}, file)
    refused("1 unexpected: more")
    file.unlink()
    refused("model.safetensors does not exist")
    for content, message in (
        ({"state": 1}, "is not a checkpoint"),
        ({"state": {"model": {"model.a": "b"}}}, "more than tensors"),
    ):
        torch.save(content, old)
        refused(message)
    torch.save({"state": {"model": Hostile(tmp_path / "ran")}}, old)
    refused("is not a checkpoint")
    assert not (tmp_path / "ran").exists()


def test_the_folder_is_found_below_the_weights_or_asked_for(made, cells, tmp_path) -> None:
    copy(made, tmp_path / "tahoe_x1/70m-model")
    copy(made, tmp_path / "tahoe_x1/3b-model")
    for weights in (tmp_path, tmp_path / "tahoe_x1"):
        for size in SIZES:
            assert embed_tahoe_x1.embed(cells, options(f"tahoe_x1_{size}", weights)).extra["checkpoint"] == f"{size}-model"
    with pytest.raises(
        UserError, match=r"does not hold 1b-model; found 3b-model, 70m-model.*model_dir.*plumb fetch tahoe_x1_1b"
    ):
        embed_tahoe_x1.embed(cells, options("tahoe_x1_1b", tmp_path / "tahoe_x1"))
    found = embed_tahoe_x1.embed(cells, options("tahoe_x1_1b", tmp_path / "tahoe_x1", model_dir="3b-model"))
    assert found.extra["checkpoint"] == "3b-model"
    with pytest.raises(UserError, match=r"needs --weights FOLDER.*plumb fetch tahoe_x1_1b"):
        embed_tahoe_x1.embed(cells, options("tahoe_x1_1b", tmp_path / "nowhere"))


def test_other_values_and_organisms_are_not_applicable(made, cells, tmp_path) -> None:
    (tmp_path / "dataset.json").write_text('{"organism": "human", "x_kind": "log"}')
    with pytest.raises(NotApplicable, match="needs counts and the data set holds log"):
        embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", made, tables=tmp_path))
    with pytest.raises(NotApplicable, match="knows human genes only"):
        embed_tahoe_x1.embed(cells, options("tahoe_x1_3b", made, organism="zebrafish"))
    unknown = make_counts(tmp_path / "c.h5ad", np.ones((2, 2)), ["X1", "X2"], ["", ""])
    with pytest.raises(UserError, match="knows none of the 2 genes"):
        embed_tahoe_x1.embed(unknown, options("tahoe_x1_3b", made))
    negative = make_counts(tmp_path / "n.h5ad", -np.ones((2, 2)), GENES[:2], ["", ""])
    with pytest.raises(UserError, match="negative values"):
        embed_tahoe_x1.embed(negative, options("tahoe_x1_3b", made))
