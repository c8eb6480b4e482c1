"""scGPT against upstream's outputs (../shared), against torch's own TransformerEncoder, and by its own definition."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from foundation import ATOL, columns, make_counts, options, sequences

import embed_scgpt
from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import open_counts
from plumbline.embedding.contract import read_embedding

torch = pytest.importorskip("torch")

UPSTREAM = {"sampling": "upstream", "seed": 1234}
CASES = {"noties": {"layer": "no_ties"}, "counts": UPSTREAM, "sampled64": {**UPSTREAM, "layer": "no_ties", "max_length": 64}}
WIDTH, HEADS, INNER, LAYERS = 16, 2, 24, 2


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    return shared / "fixtures/geneformer_scgpt"


def rows_of(values: np.ndarray, counts, cell_id: np.ndarray) -> np.ndarray:
    place = {name: row for row, name in enumerate(counts.cell_id)}
    return values[[place[name] for name in cell_id]]


@pytest.mark.parametrize("case", CASES)
def test_tokens_and_bins_are_those_of_upstream(folder, case: str) -> None:
    from plumbline.models.scgpt.tokens import Tokenizer, load_vocabulary
    from plumbline.models.shared.chance import CellChance, UpstreamChance

    counts = open_counts(folder / "counts.h5ad")
    chance = UpstreamChance(1234) if "seed" in CASES[case] else CellChance(counts.cell_id, 0)
    vocabulary = load_vocabulary(folder / "scgpt/scGPT_tiny_plain/vocab.json", "scgpt")
    tokenizer = Tokenizer(counts.symbol, vocabulary, CASES[case].get("max_length", 1200), chance)
    rows, block = next((counts.layer("no_ties") if case != "counts" else counts).blocks())
    found = dict(zip(counts.cell_id, sequences(tokenizer(rows, block)), strict=True))
    expected = np.load(folder / f"scgpt/expected/{case}_tokens.npz")
    ends = np.cumsum(expected["length"])[:-1]
    for name, tokens, values in zip(
        expected["cell_id"], np.split(expected["genes"], ends), np.split(expected["values"], ends), strict=True
    ):
        np.testing.assert_array_equal(found[name][0], tokens)
        np.testing.assert_array_equal(found[name][1][1:], values[1:])
        assert (found[name][1][0], values[0]) == (0, -2)


@pytest.mark.parametrize("kind", ["flash", "plain"])
@pytest.mark.parametrize("case", CASES)
def test_embeddings_are_those_of_upstream(folder, case: str, kind: str) -> None:
    counts = open_counts(folder / "counts.h5ad")
    result = embed_scgpt.embed(counts, options("scgpt", folder / f"scgpt/scGPT_tiny_{kind}", **CASES[case]))
    cell_id = np.load(folder / f"scgpt/expected/{case}_tokens.npz")["cell_id"]
    expected = np.load(folder / f"scgpt/expected/{case}_embed.npy")
    np.testing.assert_allclose(rows_of(result.values, counts, cell_id), expected, atol=ATOL, rtol=0)
    assert result.unembedded == 2 == np.isnan(result.values).all(axis=1).sum()


def upstream_batch(folder, name: str) -> tuple:
    """(model, length, padded tokens, padded bins) of sequences captured inside upstream's model."""
    from plumbline.models.runtime.batches import Ragged, pad
    from plumbline.models.scgpt.network import ScGPTCells, load_scgpt
    from plumbline.models.scgpt.tokens import Tokenizer, load_vocabulary
    from plumbline.models.shared.chance import CellChance

    place = folder / "scgpt/scGPT_tiny_flash"
    vocabulary = load_vocabulary(place / "vocab.json", "scgpt")
    tokenizer = Tokenizer(np.array(["TP53"]), vocabulary, 1200, CellChance(np.array(["c"]), 0))
    model = ScGPTCells(load_scgpt(place, "scgpt", len(vocabulary)), tokenizer, vocabulary["<pad>"], "cpu")
    captured = np.load(folder / f"scgpt/expected/{name}.npz")
    if "pad_mask" in captured:
        inside = ~captured["pad_mask"]
        length, genes, values = inside.sum(axis=1), captured["genes"][inside], captured["values"][inside]
    else:
        length, genes, values = (captured[key] for key in ("length", "genes", "values"))
    ragged = Ragged(length, (genes, np.maximum(values, 0).astype(np.int32)))
    starts = np.concatenate([[0], np.cumsum(length)])
    return model, captured, [torch.from_numpy(array) for array in pad(ragged, starts, np.arange(len(length)), model.fills)]


@pytest.mark.parametrize("case", ["noties", "counts", "sampled64", "verbatim_1worker"])
def test_the_forward_pass_alone_is_that_of_upstream(folder, case: str) -> None:
    model, _, batch = upstream_batch(folder, f"{case}_tokens")
    with torch.inference_mode():
        found = model.forward(*batch).numpy()
    np.testing.assert_allclose(found, np.load(folder / f"scgpt/expected/{case}_embed.npy"), atol=ATOL, rtol=0)


def test_every_stage_inside_the_model_is_that_of_upstream(folder) -> None:
    from plumbline.models.runtime.encoder import key_bias

    model, debug, (length, tokens, bins) = upstream_batch(folder, "debug_batch")
    with torch.inference_mode():
        np.testing.assert_allclose(model.genes[tokens[:, :8]], debug["gene_enc_first8"], atol=ATOL)
        np.testing.assert_allclose(model.bins[bins[:, :8]], debug["value_enc_first8"], atol=ATOL)
        x, bias = model.genes[tokens] + model.bins[bins], key_bias(length, tokens.shape[1])
        for number, layer in enumerate(model.encoder.layers):
            x = layer(x, bias)
            np.testing.assert_allclose(x[:, :8], debug[f"layer{number}_first8"], atol=ATOL)
        np.testing.assert_allclose(x[:, 0], debug["cls_before_l2"], atol=ATOL)


def test_the_script_gives_the_embeddings_of_upstream(folder, tmp_path, root) -> None:
    output = tmp_path / "embedding.npz"
    command = [sys.executable, root / "bin/embed_scgpt.py", "--counts", folder / "counts.h5ad", "--output", output]
    command += ["--weights", folder / "scgpt/scGPT_tiny_plain", "--device", "cpu", "--threads", "1", "--seed", "1234"]
    subprocess.run([*map(str, command), "--set", "sampling=upstream"], check=True, timeout=300)
    embedding, names = read_embedding(output), np.load(folder / "scgpt/expected/counts_tokens.npz")["cell_id"]
    expected = np.load(folder / "scgpt/expected/counts_embed.npy")
    np.testing.assert_allclose(rows_of(embedding.values, embedding, names), expected, atol=ATOL, rtol=0)
    assert embedding.provenance["unembedded_cells"] == 2
    assert embedding.provenance["sampling"] == "upstream"
    assert len(embedding.provenance["checkpoint_sha256"]) == 64


# --- without the reference outputs: a random model in the true format, against torch's own encoder ---


class Reference(torch.nn.Module):
    """The published architecture, put together from torch's own modules and under the published parameter names."""

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self.encoder = torch.nn.ModuleDict(
            {"embedding": torch.nn.Embedding(n_tokens, WIDTH), "enc_norm": torch.nn.LayerNorm(WIDTH)}
        )
        parts = {
            "linear1": torch.nn.Linear(1, WIDTH),
            "linear2": torch.nn.Linear(WIDTH, WIDTH),
            "norm": torch.nn.LayerNorm(WIDTH),
        }
        self.value_encoder = torch.nn.ModuleDict(parts)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, dropout=0.2, batch_first=True)
        self.transformer_encoder = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, tokens: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        value = self.value_encoder
        x = value["norm"](value["linear2"](torch.relu(value["linear1"](values[..., None]))))
        x = x + self.encoder["enc_norm"](self.encoder["embedding"](tokens))
        out = self.transformer_encoder(x)[:, 0]
        return out / out.norm(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Reference]:
    """A checkpoint folder with genes G0..G29 and the specials appended, and the reference with the same weights."""
    place = tmp_path_factory.mktemp("scgpt") / "scGPT_made"
    place.mkdir()
    (place / "vocab.json").write_text(json.dumps({f"G{number}": number for number in range(30)}))
    sizes = {"embsize": WIDTH, "nheads": HEADS, "d_hid": INNER, "nlayers": LAYERS}
    (place / "args.json").write_text(json.dumps({**sizes, "pad_token": "<pad>", "pad_value": -2, "n_bins": 7}))
    torch.manual_seed(0)
    reference = Reference(33).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tensors = {name.replace("in_proj_", "Wqkv."): tensor for name, tensor in reference.state_dict().items()}
    torch.save(
        tensors | {"decoder.fc.0.weight": torch.zeros(3), "cls_decoder.out_layer.bias": torch.zeros(5)}, place / "best_model.pt"
    )
    return place, reference


@pytest.fixture
def cells(tmp_path):
    matrix = np.random.default_rng(1).poisson(0.5, (9, 33)).astype(float) * 7
    matrix[:, :30] *= np.random.default_rng(2).uniform(0.5, 2, (9, 30))  # no ties
    matrix[4, :31] = 0  # only genes nobody knows
    return make_counts(tmp_path / "counts.h5ad", matrix, [""] * 33, [*(f"G{number}" for number in range(30)), "G3", "XX", "g4"])


def by_definition(row: np.ndarray) -> tuple[list[int], list[float]]:
    """Tokens and bins of a cell without ties, one gene at a time; column 30 is gene G3 once more."""
    token = {**{number: number for number in range(30)}, 30: 3}
    expressed = [column for column in token if row[column]]
    edges = np.quantile(row[expressed].astype(np.float32), np.linspace(0, 1, 50)) if expressed else []
    bins = [float(sum(edge <= row[column] for edge in edges)) for column in expressed]
    return [31, *(token[column] for column in expressed)], [-2.0, *bins]


def test_embeddings_are_those_of_torchs_transformer_encoder(made, cells) -> None:
    place, reference = made
    found = embed_scgpt.embed(cells, options("scgpt", place))
    (_, block) = next(cells.blocks())
    for row, values in enumerate(block.toarray()):
        tokens, bins = by_definition(values)
        if len(tokens) == 1:
            assert np.isnan(found.values[row]).all()
            continue
        with torch.no_grad():
            expected = reference(torch.tensor([tokens]), torch.tensor([bins]))[0]
        np.testing.assert_allclose(found.values[row], expected, atol=ATOL)
    assert (found.genes_used, found.genes_total, found.unembedded) == (31, 33, 1)


@pytest.mark.parametrize("max_length", [1200, 6])
def test_a_cell_does_not_depend_on_batch_order_or_neighbours(made, cells, tmp_path, max_length: int) -> None:
    """Also where its ties are broken and its genes are drawn by chance."""
    tied = make_counts(
        tmp_path / "tied.h5ad", np.random.default_rng(3).poisson(1, (9, 30)), [""] * 30, [f"G{n}" for n in range(30)]
    )
    for counts in (cells, tied):
        whole = embed_scgpt.embed(counts, options("scgpt", made[0], max_length=max_length)).values
        single = embed_scgpt.embed(counts, options("scgpt", made[0], max_length=max_length, batch_size=1)).values
        order = np.array([8, 4, 0, 7, 2])
        some = columns(counts.path, tmp_path / "some.h5ad", rows=order)
        part = embed_scgpt.embed(some, options("scgpt", made[0], max_length=max_length, batch_size=2)).values
        np.testing.assert_allclose(single, whole, atol=1e-6)
        np.testing.assert_allclose(part, whole[order], atol=1e-6)
    other = embed_scgpt.embed(tied, options("scgpt", made[0], seed=7, max_length=max_length)).values
    assert np.abs(other - whole).max() > 1e-4, "another seed breaks ties in another way"


def test_ties_are_spread_over_all_bins_they_span() -> None:
    from plumbline.models.scgpt.tokens import bin_values

    values = np.array([1.0] * 60 + [2.0] * 40, dtype=np.float32)
    draws = np.array([bin_values(values, np.random.default_rng(seed).random(100)) for seed in range(40)])
    ones, twos = draws[:, :60], draws[:, 60:]
    assert set(ones.ravel()) == set(range(1, 31))  # edges 0..29 lie at or below place 29 * 99 / 49 = 58.6 of the sorted values
    assert set(twos.ravel()) == set(range(31, 51))
    counts = np.bincount(ones.ravel())[1:]
    assert counts.std() / counts.mean() < 5 / np.sqrt(counts.mean()), "uniform"


def test_a_random_choice_of_genes_is_without_replacement_and_uniform() -> None:
    from plumbline.models.shared.chance import CellChance

    chance = CellChance(np.array([f"c{row}" for row in range(2000)]), seed=1)
    chosen = np.array([chance.subset(row, 10, 4) for row in range(2000)])
    assert all(len(set(row)) == 4 for row in chosen)
    share = np.bincount(chosen.ravel(), minlength=10) / 2000
    assert np.abs(share - 0.4).max() < 0.05
    assert not np.array_equal(chosen[0], chosen[1])


def test_the_context_holds_cls_and_one_gene_less_than_its_length() -> None:
    from plumbline.models.scgpt.tokens import Tokenizer
    from plumbline.models.shared.chance import CellChance

    vocabulary = {name: number for number, name in enumerate(["A", "B", "C", "D", "<pad>", "<cls>", "<eoc>"])}
    block = sp.csr_matrix(np.array([[1, 2, 0, 0], [1, 2, 3, 0], [1, 2, 3, 4]], dtype=np.float32))
    chance = CellChance(np.array(["a", "b", "c"]), 1)
    tokenizer = Tokenizer(np.array(["A", "B", "C", "D"]), vocabulary, 4, chance)
    tokens = [cell[0].tolist() for cell in sequences(tokenizer(np.arange(3), block))]
    assert tokens[:2] == [[5, 0, 1], [5, 0, 1, 2]]
    assert len(tokens[2]) == len(set(tokens[2])) == 4


BAD = {
    "sampling=any": ({"sampling": "any"}, "cell or upstream"),
    "max_length=1": ({"max_length": 1}, "at least 2"),
    "layer=none": ({"layer": "none"}, "no layer 'none'"),
    "model_dir=none": ({"model_dir": "none"}, r"vocab.json does not exist.*plumb fetch scgpt"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_settings_are_named(made, cells, bad: str) -> None:
    settings, message = BAD[bad]
    with pytest.raises(UserError, match=message):
        embed_scgpt.embed(cells, options("scgpt", made[0], **settings))


def copy(source: Path, target: Path, **changed: bytes) -> Path:
    """A checkpoint folder with some of its files changed."""
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(changed.get(file.stem, file.read_bytes()))
    return target


def test_a_vocabulary_of_another_size_is_refused_not_replaced_by_random_numbers(made, cells, tmp_path) -> None:
    vocabulary = json.dumps({f"G{number}": number for number in range(29)}).encode()
    with pytest.raises(UserError, match=r"encoder.embedding.weight \(33, 16\) instead of \(32, 16\)"):
        embed_scgpt.embed(cells, options("scgpt", copy(made[0], tmp_path / "other", vocab=vocabulary)))


def test_damaged_descriptions_are_named(made, cells, tmp_path) -> None:
    bad = {"vocab": [b"[1]", b'{"A": 5}', b"{"], "args": [b"{}", b'{"embsize": 16', b"[]"]}
    for stem, texts in bad.items():
        for number, text in enumerate(texts):
            place = copy(made[0], tmp_path / f"{stem}{number}", **{stem: text})
            with pytest.raises(UserError, match=r"json.*plumb fetch scgpt"):
                embed_scgpt.embed(cells, options("scgpt", place))
    args = json.loads((made[0] / "args.json").read_text()) | {"pad_token": "[PAD]"}
    with pytest.raises(UserError, match="padding token"):
        embed_scgpt.embed(cells, options("scgpt", copy(made[0], tmp_path / "token", args=json.dumps(args).encode())))


def test_the_folder_is_found_below_the_weights_or_asked_for(made, cells, tmp_path) -> None:
    result = embed_scgpt.embed(cells, options("scgpt", made[0].parent))
    assert result.extra["checkpoint"] == "scGPT_made"
    copy(made[0], tmp_path / "one")
    copy(made[0], tmp_path / "two")
    with pytest.raises(UserError, match=r"found one, two.*model_dir"):
        embed_scgpt.embed(cells, options("scgpt", tmp_path))
    (tmp_path / "two").rename(tmp_path / "scGPT_human")
    assert embed_scgpt.embed(cells, options("scgpt", tmp_path)).extra["checkpoint"] == "scGPT_human"
    (tmp_path / "all").mkdir()
    (tmp_path / "all/scgpt").symlink_to(tmp_path)
    assert embed_scgpt.embed(cells, options("scgpt", tmp_path / "all")).extra["checkpoint"] == "scGPT_human", "as fetched"
    with pytest.raises(UserError, match="needs --weights FOLDER"):
        embed_scgpt.embed(cells, options("scgpt", tmp_path / "nowhere"))


def test_signed_values_and_unknown_genes(made, cells, tmp_path) -> None:
    (tmp_path / "dataset.json").write_text('{"organism": "human", "x_kind": "signed"}')
    with pytest.raises(NotApplicable, match="needs counts or log"):
        embed_scgpt.embed(cells, options("scgpt", made[0], tables=tmp_path))
    strange = make_counts(tmp_path / "c.h5ad", np.ones((2, 2)), ["", ""], ["X1", "X2"])
    with pytest.raises(UserError, match="knows none of the 2 genes"):
        embed_scgpt.embed(strange, options("scgpt", made[0]))
