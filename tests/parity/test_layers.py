"""Hidden states of one pass: those inside upstream's models (../shared), and of hooks that know nothing of ours."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from foundation import ATOL, columns, make_counts, named_as_they_stand, options

import embed_geneformer
import embed_nicheformer
import embed_scconcept
import embed_scfoundation
import embed_scgpt
import embed_state
import embed_tahoe_x1
import embed_transcriptformer
import embed_uce
from plumbline.common.errors import UserError
from plumbline.counts.reading import open_counts
from plumbline.embedding.contract import read_embedding
from plumbline.embedding.variants import read_variants
from plumbline.models.command import embed_to

torch = pytest.importorskip("torch")

SCRIPTS = {
    "geneformer": embed_geneformer,
    "scgpt": embed_scgpt,
    "uce": embed_uce,
    "scfoundation": embed_scfoundation,
    "tahoe_x1": embed_tahoe_x1,
    "transcriptformer": embed_transcriptformer,
    "scconcept": embed_scconcept,
    "nicheformer": embed_nicheformer,
    "state": embed_state,
}
WHOLE = {"geneformer": {"layer": "0"}}  # else it stops below its last layer, as upstream
# models whose embedding is the pooled last state, and what the others do behind it
BEHIND = {name: None for name in ("geneformer", "transcriptformer", "nicheformer")}
BEHIND |= dict.fromkeys(("scgpt", "scconcept"), lambda x: x / np.linalg.norm(x, axis=1, keepdims=True))
N_LAYERS = dict.fromkeys(SCRIPTS, 3) | {"uce": 2}


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Six cells of 1 to 40 of 40 genes, all counts different; the last has no count."""
    rng = np.random.default_rng(0)
    x = np.zeros((6, 40))
    for row, n in enumerate((40, 25, 12, 5, 1)):
        x[row, rng.choice(40, n, replace=False)] = 1 + rng.permutation(n)
    ensembl, symbol = ([f"{name}{7 * gene:011d}" for gene in range(40)] for name in ("ENSG", "GENE"))
    return make_counts(tmp_path_factory.mktemp("cells") / "counts.h5ad", x, ensembl, symbol)


def embedded(model: str, cells, batch_size: int = 0, **settings: object):
    told = WHOLE.get(model, {}) | {"untrained": "true"} | settings
    return SCRIPTS[model].embed(cells, options(f"{model}_untrained", None, batch_size=batch_size, **told))


def test_every_stack_of_layers_offers_them():
    with_layers = {path.stem.removeprefix("embed_") for path in Path(embed_uce.__file__).parent.glob("embed_*.py")
                   if "runtime.LAYERS" in path.read_text()}  # fmt: skip
    assert with_layers == set(SCRIPTS)
    foundation = {variant.model for variant in read_variants().values() if variant.role == "foundation"}
    # cells of CellPLM attend to each other; SCimilarity and gene vectors have no tokens
    assert foundation - with_layers == {"cellplm", "scimilarity", "gene_vectors"}


@pytest.mark.parametrize("model", SCRIPTS)
def test_states_are_those_of_an_independent_hook(model: str, cells, tmp_path) -> None:
    """A hook on all modules of torch and one cell, so that there is no padding; pooled here by hand."""
    seen: list[torch.Tensor] = []

    def note(module, args, out) -> None:
        if hasattr(module, "norm1") and hasattr(module, "norm2"):  # a layer, of whichever model
            seen.extend([args[0], out] if not seen else [out])

    numbers = "+".join(map(str, range(N_LAYERS[model] + 1)))
    single = columns(cells.path, tmp_path / "one.h5ad", rows=np.array([1]))
    hook = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        found = embedded(model, single, layers=numbers, layer_pooling="mean").layers
    finally:
        hook.remove()
    assert len(seen) == len(found) == N_LAYERS[model] + 1
    for (name, values), state in zip(found.items(), seen, strict=True):
        expected = state.double().mean(dim=1).numpy()
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("model", SCRIPTS)
def test_states_do_not_depend_on_batches_nor_the_embedding_on_states(model: str, cells) -> None:
    plain = embedded(model, cells).values
    numbers = "+".join(map(str, range(N_LAYERS[model] + 1)))
    whole, single = (embedded(model, cells, size, layers=numbers, layer_pooling="own+mean") for size in (0, 1))
    np.testing.assert_allclose(whole.values, plain, atol=1e-6)
    for name, values in whole.layers.items():
        np.testing.assert_allclose(values, single.layers[name], atol=ATOL)
        np.testing.assert_array_equal(np.isnan(values[:, 0]), np.isnan(plain[:, 0]))
    if model in BEHIND:
        last = whole.layers[f"layer{N_LAYERS[model]}"]
        np.testing.assert_allclose(BEHIND[model](last) if BEHIND[model] else last, plain, atol=1e-6)


# --- inside upstream's models ---


def test_one_pass_gives_both_layers_that_geneformers_authors_can_be_asked_for(shared, tmp_path) -> None:
    folder = shared / "fixtures/geneformer_scgpt"
    var = ad.read_h5ad(folder / "counts.h5ad", backed="r").var
    keep = ~(var["is_alias_dup"] | var["is_exact_dup"]).to_numpy()
    columns(folder / "counts.h5ad", tmp_path / "counts.h5ad", keep)
    counts = named_as_they_stand(tmp_path / "counts.h5ad")
    told = options("geneformer_v1", folder / "geneformer/hf_repo", layer=0, layers="2+3")
    found = embed_geneformer.embed(counts, told)
    for name, file in (("layer2", "layer-1"), ("layer3", "layer0")):
        expected = np.load(folder / f"geneformer/expected/v1_nodup_cell_{file}.npy")
        np.testing.assert_allclose(found.layers[name], expected, atol=ATOL, rtol=0)


def test_states_are_those_inside_tahoe_x1_of_its_authors(shared) -> None:
    folder = shared / "fixtures/tahoe_x1"
    debug = np.load(folder / "expected/tx70m_debug.npz")
    how = {"sampling": "upstream", "gene_order": "file", "max_length": 428}
    told = options("tahoe_x1_70m", folder / "hf_repo", seed=11, layers="0+1+2+3", **how)
    found = embed_tahoe_x1.embed(open_counts(folder / "counts.h5ad"), told).layers
    np.testing.assert_allclose(found["layer0"][debug["cell"]], (debug["gene"] + debug["value"])[:, 0], atol=ATOL)
    for number in (1, 2, 3):
        np.testing.assert_allclose(found[f"layer{number}"][debug["cell"]], debug[f"layer{number - 1}"][:, 0], atol=ATOL)


def test_states_are_those_inside_scgpt_of_its_authors(shared) -> None:
    from test_scgpt import upstream_batch

    from plumbline.models.runtime.layers import Layers, layered

    model, debug, batch = upstream_batch(shared / "fixtures/geneformer_scgpt", "debug_batch")
    with torch.inference_mode():
        found = layered(lambda _: model, Layers((1, 2), ("own",)), "cpu").forward(*batch).numpy()
    np.testing.assert_allclose(found[:, 32:64], debug["layer0_first8"][:, 0], atol=ATOL)
    np.testing.assert_allclose(found[:, 64:], debug["cls_before_l2"], atol=ATOL)


def test_the_first_layer_is_that_which_nicheformers_authors_can_be_asked_for(shared) -> None:
    folder = shared / "fixtures/nicheformer"
    counts = named_as_they_stand(folder / "counts.h5ad").layer("no_ties")
    told = options("nicheformer", folder, assay="10x 3' v3", duplicates="first", layers="1+3")
    found, expected = embed_nicheformer.embed(counts, told).layers, np.load(folder / "expected/noties_roundedmean.npz")
    known = ~np.isnan(found["layer1"][:, 0])
    assert (~known).sum() == 2
    for name, key in (("layer1", "embeddings_layer0"), ("layer3", "embeddings")):
        np.testing.assert_allclose(found[name][known], expected[key][known], atol=ATOL, rtol=0)


# --- files and messages ---


def test_each_state_is_an_embedding_of_its_own_beside_the_models(cells, tmp_path) -> None:
    told = options("scgpt_untrained", None, untrained="true", layers="0+2")
    embed_to(tmp_path / "kang.scgpt.npz", "scgpt", embed_scgpt.embed, cells, told)
    assert {path.name for path in tmp_path.glob("*.npz")} == {
        "kang.scgpt.npz", "kang.scgpt.layer0.npz", "kang.scgpt.layer2.npz"
    }  # fmt: skip
    states = read_embedding(tmp_path / "kang.scgpt.layer2.npz")
    assert states.cell_id.tolist() == cells.cell_id.tolist()
    assert states.values.shape == (6, 64)
    about = json.loads((tmp_path / "kang.scgpt.layer2.json").read_text())
    assert (about["variant"], about["n_dimensions"], about["unembedded_cells"]) == ("scgpt_untrained.layer2", 64, 1)


@pytest.mark.parametrize(("settings", "message"), [
    ({"layers": "0+4"}, r"layers: 4 is no layer of this model, which computes 0 \(the input\) to 3"),
    ({"layers": "last"}, r"layers=last: expected numbers joined by \+"),
    ({"layers": "1+1"}, r"each once"),
    ({"layers": "1", "layer_pooling": "max"}, r"layer_pooling=max: expected own, mean, or own\+mean"),
    ({"layer_pooling": "mean"}, r"there are no layers to pool"),
    ({"layers": "1", "head": "contrastive"}, r"layers=1 cannot be combined with a head"),
])  # fmt: skip
def test_what_cannot_be_is_refused(cells, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        embedded("scgpt", cells, **settings)


def test_protein_sums_have_no_layers(cells) -> None:
    with pytest.raises(UserError, match="has no layers"):
        embedded("transcriptformer", cells, output="proteins", layers="1")
