"""Geneformer against upstream's outputs (../shared), against transformers' BERT, and by its own definition."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from foundation import ATOL, columns, make_counts, options

import embed_geneformer
from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import open_counts
from plumbline.embedding.contract import read_embedding
from plumbline.embedding.options import Result

torch = pytest.importorskip("torch")
from plumbline.models.geneformer.network import DEFAULTS

CASES = ("nodup", "full", "exactdup", "nodup_trunc128")
WIDTH, HEADS, INNER, LAYERS, POSITIONS = 16, 2, 24, 3, 12


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    return shared / "fixtures/geneformer_scgpt"


@pytest.fixture(scope="module")
def case_file(folder, tmp_path_factory):
    """The columns each case was run on, as a file."""
    var = ad.read_h5ad(folder / "counts.h5ad", backed="r").var
    place = tmp_path_factory.mktemp("cases")
    nodup = ~(var["is_alias_dup"] | var["is_exact_dup"]).to_numpy()
    keep = {"nodup": nodup, "full": slice(None), "exactdup": ~var["is_alias_dup"].to_numpy(), "nodup_trunc128": nodup}
    return {case: columns(folder / "counts.h5ad", place / f"{case}.h5ad", keep[case]) for case in CASES}


def case_settings(case: str) -> dict:
    return {"collapse": "upstream"} | ({"max_length": 128} if case.endswith("128") else {})


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("case", CASES)
def test_tokens_are_those_of_upstream(folder, case_file, version: str, case: str) -> None:
    from plumbline.models.geneformer.files import find_files

    counts = case_file[case]
    choice = options(f"geneformer_{version}", folder / "geneformer/hf_repo", **case_settings(case))
    tokenizer = embed_geneformer.build_tokenizer(counts.ensembl_id, counts.symbol, find_files(choice), choice)
    expected = np.load(folder / f"geneformer/expected/{version}_{case}_tokens.npz")
    (_, block) = next(counts.blocks())
    found = tokenizer(block)
    embedded = np.flatnonzero(found.length)
    assert counts.cell_id[embedded].tolist() == expected["cell_id"][expected["length"] > 0].tolist()
    assert found.length[embedded].tolist() == expected["length"][expected["length"] > 0].tolist()
    np.testing.assert_array_equal(found.fields[0], expected["input_ids"])


@pytest.mark.parametrize("layer", [-1, 0])
@pytest.mark.parametrize("pooling", ["cell", "cls"])
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("case", CASES)
def test_embeddings_are_those_of_upstream(folder, case_file, case: str, version: str, pooling: str, layer: int) -> None:
    file = folder / f"geneformer/expected/{version}_{case}_{pooling}_layer{layer}.npy"
    if version == "v1" and pooling == "cls":
        assert not file.exists(), "V1 has no <cls> token"
        return
    more = {"pooling": pooling, "layer": layer, **case_settings(case)}
    result = embed_geneformer.embed(case_file[case], options(f"geneformer_{version}", folder / "geneformer/hf_repo", **more))
    expected = np.load(file)
    assert result.unembedded == 2
    np.testing.assert_array_equal(np.isnan(result.values), np.isnan(expected))
    np.testing.assert_allclose(result.values, expected, atol=ATOL, rtol=0)


def test_the_script_gives_the_embeddings_of_upstream(folder, tmp_path, root) -> None:
    output = tmp_path / "embedding.npz"
    command = [sys.executable, root / "bin/embed_geneformer.py", "--counts", folder / "counts.h5ad", "--output", output]
    command += [
        "--weights",
        folder / "geneformer/hf_repo",
        "--variant",
        "geneformer_v2_104m",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    subprocess.run([*map(str, command), "--set", "pooling=cls", "--set", "layer=0"], check=True, timeout=300)
    embedding = read_embedding(output)
    expected = np.load(folder / "geneformer/expected/v2_full_cls_layer0.npy")
    np.testing.assert_allclose(embedding.values, expected, atol=ATOL, rtol=0)
    about = embedding.provenance
    assert about["checkpoint"] == "Geneformer-V2-tiny"
    assert len(about["checkpoint_sha256"]) == 64
    assert about["unembedded_cells"] == 2
    assert about["precision"] == "float32"
    assert not any(file["known"] for file in about["weights"]), "the tiny files are not the published ones"


def test_exact_duplicates_are_summed_unless_upstreams_quirk_is_asked_for(folder, case_file) -> None:
    weights = folder / "geneformer/hf_repo"
    sane = embed_geneformer.embed(case_file["exactdup"], options("geneformer_v1", weights))
    quirk = embed_geneformer.embed(case_file["exactdup"], options("geneformer_v1", weights, collapse="upstream"))
    both = ~np.isnan(sane.values).any(axis=1)
    assert np.abs(sane.values - quirk.values)[both].max() > 1e-3
    with pytest.raises(UserError, match="sum or upstream"):
        embed_geneformer.embed(case_file["exactdup"], options("geneformer_v1", weights, collapse="no"))


def test_each_part_of_a_weights_folder_can_be_given(folder, case_file, tmp_path) -> None:
    """The repository, the model's own folder, a folder with only the pytorch file, and one named by model_dir."""
    repository = folder / "geneformer/hf_repo"
    expected = np.load(folder / "geneformer/expected/v1_nodup_cell_layer-1.npy")
    alone = tmp_path / "alone"
    (alone / "Mine").mkdir(parents=True)
    for name in ("config.json", "pytorch_model.bin"):
        (alone / "Mine" / name).write_bytes((repository / "Geneformer-V1-tiny" / name).read_bytes())
    (alone / "gene_dictionaries_30m").symlink_to(repository / "geneformer/gene_dictionaries_30m")
    for weights, more in (
        (repository / "Geneformer-V1-tiny", {}),
        (alone, {}),
        (repository, {"model_dir": "Geneformer-V1-tiny"}),
    ):
        result = embed_geneformer.embed(case_file["nodup"], options("geneformer_v1", weights, **more))
        np.testing.assert_allclose(result.values, expected, atol=ATOL, rtol=0)


# --- without the reference outputs: a random model in the true format, against transformers ---


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A repository with one V2-like random model and its dictionaries: genes ENSG0..ENSG29, symbols G0..G29."""
    from safetensors.torch import save_file

    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("hf")
    genes = [f"ENSG{number}" for number in range(30)]
    token = {name: number for number, name in enumerate(["<pad>", "<mask>", "<cls>", "<eos>", *genes])}
    median = {gene: np.float64(1 + number % 7 + number / 97) for number, gene in enumerate(genes)}
    mapping = {gene: gene for gene in genes} | {f"G{number}": gene for number, gene in enumerate(genes)} | {"OLD3": "ENSG3"}
    (root / "geneformer").mkdir()
    kinds = {"token_dictionary": token, "gene_median_dictionary": median, "ensembl_mapping_dict": mapping}
    for kind, value in kinds.items():
        (root / f"geneformer/{kind}_gcX.pkl").write_bytes(pickle.dumps(value, protocol=4))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(token), hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=INNER, hidden_act="relu", max_position_embeddings=POSITIONS, initializer_range=0.3,
    )  # fmt: skip
    bert = transformers.BertForMaskedLM(config).eval()
    (root / "Geneformer-V2-made").mkdir()
    (root / "Geneformer-V2-made/config.json").write_text(json.dumps(config.to_dict()))
    tensors = {name: tensor.clone() for name, tensor in bert.state_dict().items() if "decoder" not in name}
    save_file(tensors, root / "Geneformer-V2-made/model.safetensors")
    bert.save_pretrained(root / "reference")
    (root / "reference/config.json").rename(root / "reference.json")
    return root


@pytest.fixture
def cells(tmp_path):
    rng = np.random.default_rng(1)
    matrix = rng.poisson(0.4, (9, 32))
    matrix[4] = 0
    names = [f"ENSG{number}" for number in range(29)]
    return make_counts(tmp_path / "counts.h5ad", matrix, [*names, "", "OLD3", "ENSG3.7"], ["x"] * 29 + ["g29", "y", "z"])


def ranks(cells, median) -> list[list[int]]:
    """Token ids by the definition, gene by gene: OLD3 is ENSG3, the empty id falls back to symbol g29, ENSG3.7 is lost."""
    (_, block) = next(cells.blocks())
    out = []
    for row in block.toarray():
        count = {number: float(row[number]) for number in range(30)}
        count[3] += row[30]
        value = {number: n / median[f"ENSG{number}"] for number, n in count.items() if n}
        ranked = sorted(value, key=lambda number: -value[number])[: POSITIONS - 2]
        out.append([2, *(number + 4 for number in ranked), 3] if ranked else [])
    return out


def test_hidden_states_are_those_of_transformers_bert(made, cells) -> None:
    import transformers

    reference = transformers.BertForMaskedLM(transformers.BertConfig.from_json_file(made / "reference.json")).eval()
    from safetensors.torch import load_file

    reference.load_state_dict(load_file(made / "Geneformer-V2-made/model.safetensors"), strict=False)
    median = pickle.loads((made / "geneformer/gene_median_dictionary_gcX.pkl").read_bytes())
    for layer in (-1, 0):
        mean = embed_geneformer.embed(cells, options("geneformer_v2_104m", made, pooling="cell", layer=layer)).values
        cls = embed_geneformer.embed(cells, options("geneformer_v2_104m", made, layer=layer)).values
        for row, tokens in enumerate(ranks(cells, median)):
            if not tokens:
                assert np.isnan(mean[row]).all()
                assert np.isnan(cls[row]).all()
                continue
            with torch.no_grad():
                states = reference(torch.tensor([tokens]), output_hidden_states=True).hidden_states[LAYERS + layer][0]
            np.testing.assert_allclose(cls[row], states[0], atol=ATOL)
            np.testing.assert_allclose(mean[row], states[1:-1].mean(dim=0), atol=ATOL)


def test_a_cell_does_not_depend_on_batch_order_or_neighbours(made, cells, tmp_path) -> None:
    whole = embed_geneformer.embed(cells, options("geneformer_v2_104m", made, pooling="cell")).values
    single = embed_geneformer.embed(cells, options("geneformer_v2_104m", made, pooling="cell", batch_size=1)).values
    order = np.array([8, 4, 0, 7, 2])
    some = columns(cells.path, tmp_path / "some.h5ad", rows=order)
    part = embed_geneformer.embed(some, options("geneformer_v2_104m", made, pooling="cell", batch_size=2)).values
    np.testing.assert_allclose(single, whole, atol=1e-6)
    np.testing.assert_allclose(part, whole[order], atol=1e-6)


def test_versions_are_stripped_on_request(made, cells) -> None:
    plain: Result = embed_geneformer.embed(cells, options("geneformer_v2_104m", made))
    stripped: Result = embed_geneformer.embed(cells, options("geneformer_v2_104m", made, strip_versions=True))
    assert (plain.genes_used, stripped.genes_used, plain.genes_total) == (31, 32, 32)
    assert plain.counts_used < 1.0 == stripped.counts_used


BAD = {
    "pooling=mean": ({"pooling": "mean"}, "cell or cls"),
    "layer=1": ({"layer": 1}, "layers -3 .* to 0"),
    "layer=-4": ({"layer": -4}, "layers -3 .* to 0"),
    "layer=last": ({"layer": "last"}, "expected int"),
    "max_length=13": ({"max_length": 13}, "takes 3 to 12 tokens"),
    "model_dir=none": ({"model_dir": "none"}, "config.json does not exist"),
    "precision=fp8": ({"precision": "fp8"}, "one of auto, fp32"),
    "precision=fp16 on a CPU": ({"precision": "fp16"}, "needs a GPU"),
    "device=tpu": ({"device": "tpu"}, "this machine offers cpu"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_settings_are_named(made, cells, bad: str) -> None:
    settings, message = BAD[bad]
    with pytest.raises(UserError, match=message):
        embed_geneformer.embed(cells, options("geneformer_v2_104m", made, **settings))


def test_what_is_missing_is_named_with_where_to_get_it(made, cells, tmp_path) -> None:
    with pytest.raises(UserError, match=r"needs --weights.*plumb fetch geneformer_v1$"):
        embed_geneformer.embed(cells, options("geneformer_v1", None))
    with pytest.raises(UserError, match=r"not a folder.*plumb fetch"):
        embed_geneformer.embed(cells, options("geneformer_v1", tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"exactly a V1 model; found Geneformer-V2-made.*model_dir"):
        embed_geneformer.embed(cells, options("geneformer_v1", made))
    lone = tmp_path / "lone"
    lone.mkdir()
    (lone / "config.json").write_bytes((made / "Geneformer-V2-made/config.json").read_bytes())
    with pytest.raises(UserError, match="No token dictionary of 34 entries"):
        embed_geneformer.embed(cells, options("own", lone))


def test_cls_pooling_needs_a_cls_token(folder, case_file) -> None:
    with pytest.raises(UserError, match="no <cls> token"):
        embed_geneformer.embed(case_file["nodup"], options("geneformer_v1", folder / "geneformer/hf_repo", pooling="cls"))


def test_mouse_and_values_that_are_no_counts_do_not_apply(made, cells, tmp_path) -> None:
    def with_facts(**facts: str) -> Path:
        (tmp_path / "dataset.json").write_text(json.dumps(facts))
        return tmp_path

    with pytest.raises(NotApplicable, match="human genes only and the data set is mouse"):
        embed_geneformer.embed(cells, options("geneformer_v2_104m", made, tables=with_facts(organism="mouse")))
    with pytest.raises(NotApplicable, match="holds log values"):
        embed_geneformer.embed(cells, options("geneformer_v2_104m", made, tables=with_facts(organism="human", x_kind="log")))
    mouse = make_counts(tmp_path / "mouse.h5ad", np.ones((2, 3)), ["ENSMUSG1", "ENSMUSG2", "ENSMUSG3"], ["A", "B", "C"])
    with pytest.raises(NotApplicable, match="orthologs=FILE"):
        embed_geneformer.embed(mouse, options("geneformer_v2_104m", made))


def test_a_table_of_orthologs_makes_mouse_genes_human(made, tmp_path) -> None:
    matrix = np.random.default_rng(2).poisson(2, (3, 4))
    mouse = make_counts(tmp_path / "m.h5ad", matrix, ["ENSMUSG1", "ENSMUSG2", "", "ENSMUSG9"], ["a", "b", "Gg", "z"])
    human = make_counts(tmp_path / "h.h5ad", matrix, ["ENSG5", "ENSG6", "ENSG7", ""], ["", "", "", ""])
    table = tmp_path / "orthologs.csv"
    table.write_text("ENSMUSG1,ENSG5\nENSMUSG2,G6\nGg,ENSG7\n")
    ours = embed_geneformer.embed(mouse, options("geneformer_v2_104m", made, orthologs=table))
    theirs = embed_geneformer.embed(human, options("geneformer_v2_104m", made))
    assert ours.genes_used == theirs.genes_used == 3
    np.testing.assert_allclose(ours.values, theirs.values, atol=1e-6)
    for text, message in (("a,b,c\n", "two columns"), ("ENSMUSG1,ENSG5\nENSMUSG1,ENSG6\n", "second human ortholog")):
        table.write_text(text)
        with pytest.raises(UserError, match=message):
            embed_geneformer.embed(mouse, options("geneformer_v2_104m", made, orthologs=table))
    with pytest.raises(UserError, match="cannot be read"):
        embed_geneformer.embed(mouse, options("geneformer_v2_104m", made, orthologs=tmp_path / "none.csv"))


def test_a_file_without_one_known_gene_is_an_error_not_a_table_of_nan(made, tmp_path) -> None:
    counts = make_counts(tmp_path / "c.h5ad", np.ones((2, 2)), ["X1", "X2"], ["", ""])
    with pytest.raises(UserError, match="knows none of the 2 genes \\(first: X1, X2\\)"):
        embed_geneformer.embed(counts, options("geneformer_v2_104m", made))


def test_dictionaries_of_different_corpora_are_refused(made, cells, tmp_path) -> None:
    (tmp_path / "geneformer").mkdir()
    (tmp_path / "Geneformer-V2-made").symlink_to(made / "Geneformer-V2-made")
    for file in (made / "geneformer").iterdir():
        (tmp_path / "geneformer" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "geneformer/gene_median_dictionary_gcX.pkl").write_bytes(pickle.dumps({"ENSG0": 1.0}))
    with pytest.raises(UserError, match="no median for 29 genes"):
        embed_geneformer.embed(cells, options("geneformer_v2_104m", tmp_path))


def test_only_the_bert_that_geneformer_is_can_be_loaded(made, cells, tmp_path) -> None:
    config = json.loads((made / "Geneformer-V2-made/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
    with pytest.raises(UserError, match="hidden_act is 'gelu'"):
        embed_geneformer.embed(cells, options("own", tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="no configuration of a BERT model"):
        embed_geneformer.embed(cells, options("own", tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({name: config[name] for name in config if name != "hidden_act"}))
    with pytest.raises(UserError, match="hidden_act is 'gelu'"):  # what BERT has where nothing is said
        embed_geneformer.embed(cells, options("own", tmp_path))
    for heads in (0, 3):
        linked = linked_model(made, tmp_path / str(heads), config | {"num_attention_heads": heads})
        with pytest.raises(UserError, match=f"a width of 16, which {heads} attention heads cannot share"):
            embed_geneformer.embed(cells, options("geneformer_v2_104m", linked))
    assert open_counts(cells.path).shape == cells.shape


def linked_model(made: Path, root: Path, config: dict) -> Path:
    """The same repository with another config.json."""
    (root / "Geneformer-V2-made").mkdir(parents=True)
    (root / "geneformer").symlink_to(made / "geneformer")
    (root / "Geneformer-V2-made/model.safetensors").symlink_to(made / "Geneformer-V2-made/model.safetensors")
    (root / "Geneformer-V2-made/config.json").write_text(json.dumps(config))
    return root


def test_what_the_configuration_leaves_out_is_as_in_transformers(made, cells, tmp_path) -> None:
    import transformers

    config, told = json.loads((made / "Geneformer-V2-made/config.json").read_text()), transformers.BertConfig().to_dict()
    left_out = {name for name in config if name in DEFAULTS and config[name] == told[name]}
    assert {"layer_norm_eps", "type_vocab_size"} <= left_out
    assert {name: told[name] for name in DEFAULTS if name in told} == {
        name: value for name, value in DEFAULTS.items() if name in told
    }
    short = linked_model(made, tmp_path / "hf", {name: value for name, value in config.items() if name not in left_out})
    found = embed_geneformer.embed(cells, options("geneformer_v2_104m", short)).values
    np.testing.assert_array_equal(found, embed_geneformer.embed(cells, options("geneformer_v2_104m", made)).values)


def test_of_two_dictionaries_of_one_size_the_one_of_the_models_generation_is_read(made, cells, tmp_path) -> None:
    """A size alone does not tell which genes are meant, and wrong ones would go unnoticed."""
    config = json.loads((made / "Geneformer-V2-made/config.json").read_text())
    root = linked_model(made, tmp_path / "hf", config)
    (root / "geneformer").unlink()
    shutil.copytree(made / "geneformer", root / "geneformer")
    wanted = embed_geneformer.embed(cells, options("geneformer_v2_104m", made)).values
    shutil.copytree(made / "geneformer", root / "geneformer/gene_dictionaries_30m")
    np.testing.assert_array_equal(embed_geneformer.embed(cells, options("geneformer_v2_104m", root)).values, wanted)
    of_v1 = root / "geneformer/gene_dictionaries_30m/token_dictionary_gcX.pkl"
    token = pickle.loads(of_v1.read_bytes())
    names = [name.replace("<cls>", "ENSG0").replace("<eos>", "ENSG1") for name in token if name not in ("ENSG0", "ENSG1")]
    other = {name: number for number, name in enumerate([*names, "<more>", "<other>"])}
    of_v1.write_bytes(pickle.dumps(other))
    (root / "geneformer/token_dictionary_gcX.pkl").rename(root / "geneformer/token_dictionary_z.pkl")
    for kind in ("gene_median_dictionary", "ensembl_mapping_dict"):
        (root / f"geneformer/{kind}_gcX.pkl").rename(root / f"geneformer/{kind}_z.pkl")
    for file in sorted(of_v1.parent.iterdir()):
        shutil.copy(file, root / "geneformer" / file.name.replace("gcX", "a"))
    np.testing.assert_array_equal(embed_geneformer.embed(cells, options("geneformer_v2_104m", root)).values, wanted)
    (root / "Geneformer-V2-made").rename(root / "mine")
    with pytest.raises(UserError, match=r"token_dictionary_a.pkl and .*token_dictionary_z.pkl both fit mine by their size"):
        embed_geneformer.embed(cells, options("own", root, model_dir="mine"))


@pytest.mark.parametrize(("name", "message"), [("<pad>", "has no token <pad>"), ("<eos>", "has one of <cls> and <eos>")])
def test_a_dictionary_without_a_special_token_is_refused(made, cells, tmp_path, name: str, message: str) -> None:
    config = json.loads((made / "Geneformer-V2-made/config.json").read_text())
    root = linked_model(made, tmp_path / "hf", config)
    (root / "geneformer").unlink()
    shutil.copytree(made / "geneformer", root / "geneformer")
    file = root / "geneformer/token_dictionary_gcX.pkl"
    token = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps({key.replace(name, "<gap>"): number for key, number in token.items()}))
    with pytest.raises(UserError, match=rf"{message}.*plumb fetch geneformer_v2_104m"):
        embed_geneformer.embed(cells, options("geneformer_v2_104m", root))
