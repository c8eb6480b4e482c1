"""Foundation models without pre-training: made in the authors' format, read by the ordinary code, marked as what they are."""

import json
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import anndata as ad
import made_scores
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import embed_cellplm
import embed_gene_vectors
import embed_geneformer
import embed_nicheformer
import embed_scconcept
import embed_scfoundation
import embed_scgpt
import embed_scimilarity
import embed_state
import embed_tahoe_x1
import embed_transcriptformer
import embed_uce
import report_scores
import summarise_scores
from plumbline import tasks
from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts, open_counts
from plumbline.embedding.options import Options, Result
from plumbline.embedding.variants import read_variants
from plumbline.models.shared.untrained import is_untrained

torch = pytest.importorskip("torch")

from pretended_gpu import pretended_gpu

SCRIPTS = {"geneformer": embed_geneformer, "scgpt": embed_scgpt, "uce": embed_uce, "cellplm": embed_cellplm}
SCRIPTS |= {"scfoundation": embed_scfoundation, "scimilarity": embed_scimilarity, "tahoe_x1": embed_tahoe_x1}
SCRIPTS |= {
    "transcriptformer": embed_transcriptformer,
    "scconcept": embed_scconcept,
    "nicheformer": embed_nicheformer,
    "state": embed_state,
}
DIMENSIONS = dict.fromkeys(SCRIPTS, 64) | {"uce": 80}
N_CELLS, N_GENES = 12, 60


@pytest.fixture(scope="module")
def counts(tmp_path_factory) -> Counts:
    """Cells of 1 to about 50 genes; the last has no count at all."""
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(0.5, 2.0, N_GENES), (N_CELLS, N_GENES)).astype(np.float32)
    x[0, 1:], x[0, 0], x[-1] = 0, 3, 0
    return write(tmp_path_factory.mktemp("counts") / "counts.h5ad", x)


def write(path: Path, x: np.ndarray, cells: np.ndarray | None = None, genes: np.ndarray | None = None) -> Counts:
    """A file of counts with some cells and genes of ``x`` in some order."""
    cells = np.arange(len(x)) if cells is None else cells
    genes = np.arange(x.shape[1]) if genes is None else genes
    var = pd.DataFrame({"ensembl_id": [f"ENSG{7 * g:011d}" for g in genes], "symbol": [f"Gene{g}" for g in genes]})
    var.index, obs = [f"g{g}" for g in genes], pd.DataFrame(index=[f"c{c}" for c in cells])
    ad.AnnData(sp.csr_matrix(x[np.ix_(cells, genes)]), obs=obs, var=var).write_h5ad(path)
    return open_counts(path)


def matrix(counts: Counts) -> np.ndarray:
    return np.vstack([block.toarray() for _, block in counts.blocks()])


def told(
    model: str, seed: int = 42, weights: Path | None = None, batch_size: int = 0, device: str = "cpu", **settings: str
) -> Options:
    return Options(
        variant=f"{model}_untrained",
        weights=weights,
        tables=None,
        fit_on="none",
        seed=seed,
        device=device,
        batch_size=batch_size,
        threads=1,
        settings=settings,
    )


@pytest.fixture(scope="module")
def untrained(counts):
    """Embed ``counts`` (or other cells) with an untrained model."""

    def embed(model: str, cells: Counts = counts, **more) -> Result:
        return SCRIPTS[model].embed(cells, told(model, untrained="true", **more))

    return embed


@pytest.mark.parametrize("model", SCRIPTS)
def test_on_a_gpu_the_embedding_is_the_same(untrained, model):
    """On a stand-in for one: nothing of a model stays on the CPU, and nothing is read from where it is not."""
    with pretended_gpu():
        there = untrained(model, device="cuda")
    assert there.extra["devices"] == ["cuda:0"]
    np.testing.assert_allclose(there.values, untrained(model).values, atol=1e-6)


@pytest.mark.parametrize("model", SCRIPTS)
def test_embedding_is_finite_known_in_full_and_says_untrained(untrained, counts, model):
    result = untrained(model)
    assert result.values.shape == (N_CELLS, DIMENSIONS[model])
    assert np.isfinite(result.values[:-1]).all()
    n_empty = int(model != "scimilarity")  # to which a cell without counts is the image of zeros
    assert np.isnan(result.values[-1]).all() == bool(n_empty)
    assert (result.unembedded, result.genes_used, result.genes_total, result.counts_used) == (n_empty, N_GENES, N_GENES, 1.0)
    assert np.linalg.matrix_rank(result.values[:-1] - result.values[:-1].mean(axis=0), tol=1e-6) > 3  # cells differ
    about = result.extra
    assert (about["trained"], about["pretrained"], about["variant"]) == (False, False, f"{model}_untrained")
    assert about["checkpoint"].startswith("untrained")
    assert not any(file["known"] for file in about["weights"])


@pytest.mark.parametrize("model", SCRIPTS)
def test_it_is_the_ordinary_model_with_the_made_checkpoint(untrained, counts, model, tmp_path):
    module = __import__(f"plumbline.models.{model}.untrained", fromlist=["make_checkpoint"])
    module.make_checkpoint(tmp_path, counts, told(model))
    ordinary = SCRIPTS[model].embed(counts, told(model, weights=tmp_path))
    np.testing.assert_array_equal(ordinary.values, untrained(model).values)
    assert "trained" not in ordinary.extra


def test_one_rule_for_cells_without_a_known_gene_over_the_registry(counts, tmp_path):
    """A row of NaN, counted, for a cell without counts and for one whose genes the model does not know."""
    foundation = {variant.model for variant in read_variants().values() if variant.role == "foundation"}
    assert foundation == {*SCRIPTS, "gene_vectors"}
    x = np.vstack([matrix(counts), np.zeros((1, N_GENES))]).astype(np.float32)
    x[-1, :2], x[:-1, :2] = 7, 0  # the first cell, which has gene 0 alone, is left with nothing
    cells, vocabulary = write(tmp_path / "cells.h5ad", x), counts.take_genes(np.arange(2, N_GENES))
    vectors = np.random.default_rng(0).normal(size=(N_GENES - 2, 4)).astype(np.float32)
    np.savez(tmp_path / "vectors.npz", gene=vocabulary.symbol, vector=vectors)
    found = {"gene_vectors": embed_gene_vectors.embed(cells, told("gene_vectors", weights=tmp_path / "vectors.npz"))}
    for model, script in SCRIPTS.items():
        module = __import__(f"plumbline.models.{model}.untrained", fromlist=["make_checkpoint"])
        place = tmp_path / model
        place.mkdir()
        module.make_checkpoint(place, vocabulary, told(model))
        options = told(model, weights=place)
        if model == "scimilarity":  # by default it repeats upstream's image of zeros
            options = replace(options, settings={**options.settings, "empty": "nan"})
        found[model] = script.embed(cells, options)
    for model, result in found.items():
        without = np.isnan(result.values).any(axis=1)
        assert np.flatnonzero(without).tolist() == [0, N_CELLS - 1, N_CELLS], model
        assert np.isnan(result.values[without]).all(), model
        assert (result.unembedded, result.genes_used) == (3, N_GENES - 2), model


@pytest.mark.parametrize("model", SCRIPTS)
def test_the_seed_decides(untrained, model):
    first, torch_state = untrained(model).values, torch.get_rng_state()
    np.testing.assert_array_equal(untrained(model).values, first)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.nanmax(np.abs(untrained(model, seed=43).values - first)) > 0.01


@pytest.mark.parametrize("model", SCRIPTS)
def test_neither_batches_nor_the_order_of_cells_and_genes_matter(untrained, counts, model, tmp_path):
    rng, first = np.random.default_rng(1), untrained(model).values
    for size in (1, 5):
        np.testing.assert_allclose(untrained(model, batch_size=size).values, first, atol=1e-5)
    cells, genes = rng.permutation(N_CELLS), rng.permutation(N_GENES)
    shuffled = untrained(model, write(tmp_path / "cells.h5ad", matrix(counts), cells)).values
    np.testing.assert_allclose(shuffled, first[cells], atol=1e-5)
    if model not in ("scgpt", "uce"):  # these draw random numbers gene after gene, in the order of the file
        other = untrained(model, write(tmp_path / "genes.h5ad", matrix(counts), None, genes)).values
        np.testing.assert_allclose(other, first, atol=1e-5)


@pytest.mark.parametrize("model", SCRIPTS)
def test_weights_or_settings_of_their_files_beside_it_are_refused(counts, model, tmp_path):
    options = told(model, untrained="true")
    with pytest.raises(UserError, match=r"makes its own random weights, and --weights .* cannot be combined with it"):
        SCRIPTS[model].embed(counts, replace(options, weights=tmp_path))
    with pytest.raises(UserError, match="and --set checkpoint=20231027_85M cannot be combined"):
        SCRIPTS[model].embed(counts, replace(options, settings={"untrained": "true", "checkpoint": "20231027_85M"}))


def test_untrained_false_is_the_trained_model(counts):
    options = told("scgpt", untrained="false")
    assert not is_untrained(options)
    with pytest.raises(UserError, match="needs --weights"):
        embed_scgpt.embed(counts, options)


def test_a_variant_of_another_name_gets_a_name_that_says_it(counts):
    result = embed_scgpt.embed(counts, replace(told("scgpt", untrained="true"), variant="scgpt"))
    assert result.extra["variant"] == "scgpt_untrained"


def test_of_mouse_cells_uce_takes_the_genes_themselves_and_others_their_orthologs(counts):
    for model in ("geneformer", "scgpt"):  # these genes are human: none has a mouse gene's name
        with pytest.raises(NotApplicable, match="knows human genes only"):
            SCRIPTS[model].embed(counts, told(model, untrained="true", organism="mouse"))
    mouse = embed_uce.embed(counts, told("uce", untrained="true", species="mouse"))
    assert mouse.extra["species"] == "mouse"
    assert np.isfinite(mouse.values[:-1]).all()


def test_a_head_on_top_is_trained_and_the_provenance_says_so_of_fine_tuning_alone(counts):
    from plumbline.models.shared.untrained import embed_untrained

    def embed(counts: Counts, options: Options) -> Result:
        assert options.settings == {"tune": "last", "checkpoint": "own"}
        return Result(values=np.zeros((N_CELLS, 1), np.float32), genes_used=1, genes_total=1)

    done = embed_untrained(embed, lambda *_: None, counts, told("scgpt", untrained="true", tune="last"))
    assert (done.extra["trained"], done.extra["pretrained"]) == (True, False)


def test_the_script_takes_the_settings_of_its_row(counts, root, tmp_path):
    row = read_variants()["cellplm_untrained"]
    settings = [word for name, value in row.settings.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, root / "bin" / "embed_cellplm.py", "--counts", counts.path, "--variant", row.id]
    subprocess.run([*command, "--threads", "1", *settings, "--output", tmp_path / "e.npz"], check=True, capture_output=True)
    about = json.loads((tmp_path / "e.json").read_text())
    assert (about["variant"], about["trained"], about["settings"]["untrained"]) == ("cellplm_untrained", False, "true")


def test_rows_are_floors_without_weights_whose_titles_say_untrained(root):
    variants = read_variants()
    for model in SCRIPTS:
        row = variants[f"{model}_untrained"]
        assert (row.role, row.fit_on, row.settings["untrained"]) == ("floor", "none", "true")
        assert "untrained" in row.title
        assert not any(row.row[column] for column in row.row if column.startswith("weights_"))
        script = (root / "bin" / f"embed_{model}.py").read_text()
        assert "*untrained.SETTINGS" in script
        assert all(f'"{name}"' in script for name in row.settings if name != "untrained")


def test_report_never_lists_them_among_the_candidates(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "records", made_scores.made_records)
    monkeypatch.setitem(made_scores.MODELS, "scgpt_untrained", ("scgpt", "floor", -2.0))
    made_scores.make_run(tmp_path, ("vcc_h1",), (42,), ("none",), ("pca", "scvi", "random", "label_oracle", "scgpt_untrained"))
    files = {name: tmp_path / name for name in ("scores", "items", "provenance")}
    files |= {"expected": tmp_path / "expected.json", "models": tmp_path / "models.csv", "data_reports": tmp_path / "tables"}
    how = {"published": None, "baseline": "pca", "experiments": "", "n_boot": 50, "seed": 0, "outdir": tmp_path / "summary"}
    how |= {"plans": None, "n_draws": 50, "decoder_budget": 200, "exact": "false"}
    summarise_scores.summarise(Namespace(**files, **how))
    report_scores.report(tmp_path / "summary", None, tmp_path / "report")
    text = {name: (tmp_path / "report" / f"plumbline_{name}_mqc.json").read_text()
            for name in ("verdict", "leaderboard_all", "leaderboard_ranks", "recall_heatmap")}  # fmt: skip
    for name in ("verdict", "leaderboard_all", "leaderboard_ranks"):
        assert "scVI (ZINB)" in text[name]
        assert "scgpt untrained" not in text[name]
    shown = json.loads(text["recall_heatmap"])["ycats"]
    assert shown.index("scgpt untrained") > shown.index("scVI (ZINB)")  # after the candidates, among the controls
    comparisons = pd.read_parquet(tmp_path / "summary" / "comparisons.parquet").query("variant == 'scgpt_untrained'")
    assert set(comparisons["verdict"]) <= {"not tested"}
