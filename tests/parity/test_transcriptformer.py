"""TranscriptFormer against upstream's outputs (../shared), and by its own definition on an untrained checkpoint."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from foundation import ATOL, columns, make_counts, options, sequences

import embed_transcriptformer
from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import open_counts

torch = pytest.importorskip("torch")

UPSTREAM = {"gene_order": "file", "duplicates": "first", "assay": "obs"}
MOUSE = {**UPSTREAM, "organism": "mouse"}
SURGERY = {**MOUSE, "pretrained_embedding": "all_embeddings/mus_musculus_gene.h5", "special_tokens": "upstream"}
CASES = {
    "sapiens": ("tf_sapiens", "counts", UPSTREAM),
    "sapiens_clip3": ("tf_sapiens", "counts", {**UPSTREAM, "clip_counts": 3}),
    "exemplar_human": ("tf_exemplar", "counts", UPSTREAM),
    "exemplar_mouse": ("tf_exemplar", "mouse_counts", MOUSE),
    "sapiens_mouse_surgery": ("tf_sapiens", "mouse_counts", SURGERY),
    "esm2ce": ("tf_sapiens", "counts", {**UPSTREAM, "output": "proteins"}),
}


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    return shared / "fixtures/transcriptformer"


@pytest.mark.parametrize("case", CASES)
def test_embeddings_are_those_of_upstream(folder, case: str) -> None:
    model, file, settings = CASES[case]
    counts = open_counts(folder / f"{file}.h5ad")
    found = embed_transcriptformer.embed(counts, options("transcriptformer_x", folder / model, **settings)).values
    expected = np.load(folder / f"expected/{case}.npz")["embeddings"]
    empty = np.isnan(found[:, 0])  # cells without a known gene: upstream gives them the vector of [START] alone
    assert empty.sum() == (1 if file == "mouse_counts" else 2)
    np.testing.assert_allclose(found[~empty], expected[~empty], atol=ATOL, rtol=0)


def upstream_model(folder, model: str, counts, order: str = "file"):
    """The model with upstream's choices, on the CPU."""
    from plumbline.models.shared.columns import match
    from plumbline.models.transcriptformer import checkpoint, files, network, tokens

    place = folder / model
    config = files.read_config(place, "x")
    vocabulary = checkpoint.own_vocabulary(place, config, "x")
    ids = np.char.partition(counts.ensembl_id.astype(str), ".")[:, 0]
    matched = match(ids, vocabulary.token, order, "first")
    assay = embed_transcriptformer_assays(counts, place, config)
    tokenizer = tokens.Tokenizer(matched, vocabulary.start, config.context, 30, assay)
    weights, table = checkpoint.load_network(place, config, "x")
    read = checkpoint.read_tokens(table, np.arange(len(vocabulary.token)), vocabulary, config, "x")
    return network.TranscriptFormerCells(weights, config, read, tokenizer, "cpu"), vocabulary


def embed_transcriptformer_assays(counts, place, config) -> np.ndarray:
    from plumbline.models.transcriptformer.embedding import read_assay

    return read_assay(counts, place, config, options("x", None, assay="obs"))


@pytest.mark.parametrize(("model", "file", "case"), [
    ("tf_sapiens", "counts", "sapiens"),
    ("tf_exemplar", "counts", "exemplar_human"),
    ("tf_exemplar", "mouse_counts", "exemplar_mouse"),
])  # fmt: skip
def test_tokens_counts_and_assays_are_those_of_upstream(folder, model: str, file: str, case: str) -> None:
    counts = open_counts(folder / f"{file}.h5ad")
    cells, vocabulary = upstream_model(folder, model, counts)
    rows, block = next(counts.blocks())
    expected = np.load(folder / f"expected/{case}.npz")
    for row, (tokens, values) in enumerate(sequences(cells.tokenizer(rows, block))):
        genes = expected["gene_token_indices"][row]
        n = int((genes != vocabulary.pad).sum())
        if not n:
            assert not len(tokens)
            continue
        n = min(n, len(genes) - 1)  # the last of a full context never enters
        np.testing.assert_array_equal(tokens, [expected["aux_token_indices"][row, 0], vocabulary.start, *genes[:n]])
        np.testing.assert_array_equal(values, [1, 1, *np.minimum(expected["gene_counts"][row, :n], 30)])


def test_upstreams_sorted_tokens_give_upstreams_embeddings_and_an_empty_cell_is_start_alone(folder) -> None:
    cells, vocabulary = upstream_model(folder, "tf_sapiens", open_counts(folder / "counts.h5ad"))
    for case in ("sapiens_sorted", "sapiens"):
        stored = np.load(folder / f"expected/{case}.npz")
        genes, counts = stored["gene_token_indices"][:, :-1], np.minimum(stored["gene_counts"][:, :-1], 30)
        length = torch.from_numpy((genes != vocabulary.pad).sum(axis=1)) + 2
        front = np.hstack([stored["aux_token_indices"], np.full((len(genes), 1), vocabulary.start)])
        tokens = torch.from_numpy(np.hstack([front, genes]))
        with torch.inference_mode():
            found = cells.forward(length, tokens, torch.from_numpy(np.hstack([np.ones_like(front), counts])).float()).numpy()
        np.testing.assert_allclose(found, stored["embeddings"], atol=ATOL, rtol=0)


def test_every_layer_is_that_of_upstream(folder) -> None:
    from plumbline.models.runtime.batches import pad

    counts = open_counts(folder / "counts.h5ad")
    cells, _ = upstream_model(folder, "tf_sapiens", counts)
    debug = np.load(folder / "expected/sapiens_debug.npz")
    ragged = cells.encode(*next(counts.blocks(debug["cells"])))
    starts = np.concatenate([[0], np.cumsum(ragged.length)])
    batch = [torch.from_numpy(array) for array in pad(ragged, starts, np.arange(3), cells.fills)]
    layers = cells.network.transformer_encoder["encoder_layers"]
    with torch.inference_mode():
        for number in range(3):
            cells.network.transformer_encoder["encoder_layers"] = layers[: number + 1]
            np.testing.assert_allclose(cells.states(*batch)[:, :48], debug[f"layer{number}"], atol=ATOL)


def test_by_default_neither_columns_nor_the_technology_enter(folder, tmp_path) -> None:
    counts = open_counts(folder / "counts.h5ad")
    embed = partial(embed_transcriptformer.embed, options=options("transcriptformer_sapiens", folder))
    whole = embed(counts)
    order = np.random.default_rng(0).permutation(counts.shape[1])
    rows = np.array([17, 3, 40, 2])
    part = embed(columns(counts.path, tmp_path / "part.h5ad", order, rows)).values
    np.testing.assert_allclose(part, whole.values[rows], atol=ATOL)
    assert (whole.extra["assay"], whole.extra["depends_on_gene_order"], whole.unembedded) == ("unknown", "", 2)
    assert len(whole.extra["checkpoint_sha256"]) == 64
    named = options("transcriptformer_sapiens", folder, assay="10x 3' v3", gene_order="file")
    other = embed_transcriptformer.embed(counts, named)
    assert np.nanmax(np.abs(other.values - whole.values)) > 0.1
    assert other.extra["depends_on_gene_order"] == "tokens in file order"


def test_the_repaired_table_of_another_species_is_not_upstreams(folder) -> None:
    counts = open_counts(folder / "mouse_counts.h5ad")
    repaired = options("transcriptformer_sapiens", folder, **{**SURGERY, "special_tokens": "repaired"})
    found = embed_transcriptformer.embed(counts, repaired)
    expected = np.load(folder / "expected/sapiens_mouse_surgery.npz")["embeddings"]
    assert 1 < np.nanmax(np.abs(found.values - expected)) < 6
    assert found.extra["species"] == "mus_musculus"


def test_species_and_values_a_model_cannot_take(folder, tmp_path) -> None:
    counts = open_counts(folder / "mouse_counts.h5ad")
    with pytest.raises(NotApplicable, match="knows human genes only"):
        embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", folder, organism="mouse", orthologs="none"))
    through = embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", folder, organism="mouse"))
    assert through.extra["orthologs"]["genes_mapped"] > 0
    surgery = {key: value for key, value in SURGERY.items() if key != "organism"}
    with pytest.raises(NotApplicable, match="has tokens of mus_musculus here and the data set is human"):
        embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", folder, organism="human", **surgery))
    (tmp_path / "dataset.json").write_text('{"organism": "human", "x_kind": "log"}')
    with pytest.raises(NotApplicable, match="needs counts"):
        embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", folder, tables=tmp_path))
    strange = make_counts(tmp_path / "c.h5ad", np.ones((2, 2)), ["X1", "X2"], ["", ""])
    with pytest.raises(UserError, match="knows none of the 2 genes"):
        embed_transcriptformer.embed(strange, options("transcriptformer_sapiens", folder))


# --- files, on an untrained checkpoint ---


@pytest.fixture
def made(tmp_path) -> tuple[Path, object]:
    """A checkpoint folder and counts of its genes."""
    from plumbline.models.transcriptformer.untrained import make_checkpoint

    ids = [f"ENSG{number:011d}" for number in range(20)]
    counts = make_counts(tmp_path / "counts.h5ad", np.random.default_rng(0).poisson(1, (4, 20)), ids, [""] * 20)
    place = tmp_path / "tf_made"
    place.mkdir()
    make_checkpoint(place, counts, options("transcriptformer_untrained", None))
    return place, counts


def hostile(path: Path) -> None:
    """A pickle that would run code."""
    import pickle

    class Call:
        def __reduce__(self):
            return print, ("run",)

    path.write_bytes(pickle.dumps(Call()))


@pytest.mark.parametrize(("name", "damage", "message"), [
    ("model_weights.pt", Path.unlink, "does not exist"),
    ("model_weights.pt", lambda path: path.write_bytes(path.read_bytes()[:5000]), "truncated or damaged"),
    ("model_weights.pt", hostile, "truncated or damaged|Python objects"),
    ("model_weights.pt", lambda path: torch.save({"a": torch.zeros(1)}, path), "no TranscriptFormer checkpoint"),
    ("config.json", lambda path: path.write_text("{}"), "no description of a TranscriptFormer"),
    ("config.json", lambda path: path.write_text(path.read_text().replace("gelu", "relu")), "only gelu is known"),
    ("vocabs/homo_sapiens_gene.h5", Path.unlink, "does not exist"),
    ("vocabs/homo_sapiens_gene.h5", lambda path: path.write_bytes(path.read_bytes()[:600]), "cannot be read"),
])  # fmt: skip
def test_damaged_files_are_refused_with_the_next_command(made, name: str, damage, message: str) -> None:
    place, counts = made
    damage(place / name)
    with pytest.raises(UserError, match=rf"({message}).*plumb fetch transcriptformer_sapiens"):
        embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", place))


def test_tensors_missing_or_surplus_and_a_table_of_other_genes_are_refused(made) -> None:
    place, counts = made
    tensors = torch.load(place / "model_weights.pt", weights_only=True)
    linear = "transformer_encoder.encoder_layers.0.linear1.weight"
    for changed, message in (
        ({name: tensor for name, tensor in tensors.items() if name != linear}, f"1 missing: {linear}"),
        ({**tensors, "new.weight": torch.zeros(2)}, "1 unexpected: new.weight"),
        ({**tensors, "gene_embeddings.embedding.weight": torch.zeros(9, 32)}, "has 9 tokens.*do not belong together"),
    ):
        torch.save(changed, place / "model_weights.pt")
        with pytest.raises(UserError, match=message):
            embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", place))


def change(file: Path, **network: object) -> None:
    """Change the network's part of config.json; None takes a key out."""
    described = json.loads(file.read_text())
    told = described["model"]["model_config"] | network
    described["model"]["model_config"] = {name: value for name, value in told.items() if value is not None}
    file.write_text(json.dumps(described))


def test_a_cap_of_attention_that_is_left_out_is_the_authors(made) -> None:
    place, counts = made
    given = {}
    for cap in (10, None, 0, 0.1):
        change(place / "config.json", softcap=cap)
        given[cap] = embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", place)).values
    np.testing.assert_array_equal(given[None], given[10])
    assert np.abs(given[0.1] - given[10]).max() > 1e-5 < np.abs(given[0.1] - given[0]).max()
    change(place / "config.json", num_heads=5)
    with pytest.raises(UserError, match=r"5 attention heads cannot share a width of 64.*plumb fetch"):
        embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", place))


def test_a_vocabulary_of_more_technologies_than_vectors_is_refused(made) -> None:
    place, counts = made
    (place / "vocabs/assay_vocab.json").write_text('{"unknown": 0, "new": 1}')
    with pytest.raises(UserError, match=r"number 1, but the checkpoint vectors for 1.*plumb fetch transcriptformer_sapiens"):
        embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", place, assay="new"))


def test_the_folder_is_the_variants_or_asked_for(made, tmp_path) -> None:
    place, counts = made
    shutil.copytree(place, tmp_path / "two/tf_one")
    shutil.copytree(place, tmp_path / "two/tf_other")
    with pytest.raises(UserError, match=r"tf_one, tf_other.*model_dir"):
        embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", tmp_path / "two"))
    chosen = embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", tmp_path / "two", model_dir="tf_one"))
    (tmp_path / "two/tf_other").rename(tmp_path / "two/tf_sapiens")
    fetched = embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", tmp_path / "two"))
    np.testing.assert_array_equal(chosen.values, fetched.values)
    assert (chosen.extra["checkpoint"], fetched.extra["checkpoint"]) == ("tf_one", "tf_sapiens")
    with pytest.raises(UserError, match="needs --weights FOLDER"):
        embed_transcriptformer.embed(counts, options("transcriptformer_sapiens", None))


def test_deep_cells_lose_the_last_genes_of_the_vocabulary_and_columns_of_one_gene_are_added(made) -> None:
    from plumbline.models.shared.columns import match
    from plumbline.models.transcriptformer.tokens import Tokenizer

    token = {"A": 7, "B": 3, "C": 5}
    columns_of = match(np.array(["A", "X", "B", "A", "C"]), token, "vocabulary", "sum")
    import scipy.sparse as sp

    block = sp.csr_matrix(np.array([[1, 9, 2, 1, 40], [0, 9, 0, 0, 0]], dtype=np.float32))
    (tokens, counts), _ = sequences(Tokenizer(columns_of, 2, 3, 30)(np.arange(2), block))
    assert (tokens.tolist(), counts.tolist()) == ([2, 3, 5], [1, 2, 30])
    (tokens, counts), _ = sequences(Tokenizer(columns_of, 2, 9, 30)(np.arange(2), block))
    assert (tokens.tolist(), counts.tolist()) == ([2, 3, 5, 7], [1, 2, 30, 2])
    in_file = match(np.array(["A", "X", "B", "A", "C"]), token, "file", "first")
    (tokens, counts), _ = sequences(Tokenizer(in_file, 2, 9, 30)(np.arange(2), block))
    assert (tokens.tolist(), counts.tolist()) == ([2, 7, 3, 5], [1, 1, 2, 30])
    assert in_file.known.tolist() == [True, False, True, False, True]
