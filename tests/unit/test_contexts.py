"""Cross-context: similarities and retrieval between data sets, on planted twins and strangers."""

import json

import numpy as np
import pandas as pd
import pytest
from made_screens import subject_of, view_of
from scipy.stats import kstest, spearmanr
from sklearn.metrics.pairwise import cosine_similarity

import compare_contexts
from plumbline.embedding.contract import write_embedding
from plumbline.experiments.contexts import COLUMNS, compare, context_of, found_again, similarity_agreement
from plumbline.metrics.retrieval import retrieve
from plumbline.report.experiments import cross_context
from plumbline.report.run import Run
from plumbline.scoring.scores import Items
from plumbline.scoring.stats import interval

N, D = 24, 10
GENES = pd.DataFrame({"gene_id": [], "symbol": [], "ensembl_id": []}, dtype=str)


def screen_of(effects, seed, cells=20, noise=1.0, missing=0):
    """A view of the perturbations of ``effects`` (N, D), without the first few, in two batches of another cell line."""
    rng = np.random.default_rng(seed)
    names = np.repeat([*(f"P{i:02d}" for i in range(missing, N)), "ctrl"], cells)
    shift = np.vstack([effects[missing:], np.zeros((1, D))])
    batch = np.arange(len(names)) % 2
    base = 3 * rng.normal(size=(1, D)) + rng.normal(size=(2, D))[batch]
    x = base + np.repeat(shift, cells, axis=0) + noise * rng.normal(size=(len(names), D))
    return view_of(x, names, batch, genes=GENES, organism="human")


def context(effects, seed, dataset, space="model", **more):
    return context_of(subject_of(screen_of(effects, seed, **more)), dataset, "model", space, 42)


def drawn(seed):
    return np.random.default_rng(seed).normal(size=(N, D))


def test_agreement_is_the_spearman_correlation_of_the_similarities():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 4))
    y = np.hstack([x + rng.normal(size=(12, 4)), rng.normal(size=(12, 3))])
    value, p, own = similarity_agreement(x, y, rng)
    pairs = np.triu_indices(12, 1)
    expected = spearmanr(cosine_similarity(x)[pairs], cosine_similarity(y)[pairs]).statistic
    assert value == pytest.approx(expected, abs=1e-6)
    assert own.mean() == pytest.approx(expected, abs=0.05)
    assert 0.001 <= p <= 1
    assert similarity_agreement(x, np.zeros((12, 2)), rng)[0] == 0


def test_permutation_p_values_are_uniform_without_a_relation():
    """As many pairs as there are, a p value of all pairs as if independent would be far too small."""
    p = [similarity_agreement(*np.random.default_rng(seed).normal(size=(2, 10, 3)), np.random.default_rng(seed))[1]
         for seed in range(60)]  # fmt: skip
    assert kstest(p, "uniform").pvalue > 0.01


def test_found_again_is_what_task_retrieval_finds():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(15, 5))
    y = x + rng.normal(size=(15, 5))
    found, ways = found_again(x, y, rng), retrieve(x, y)
    for name, attribute in {"pds": "pds", "top1": "top1", "mrr": "reciprocal_rank"}.items():
        expected = np.mean([getattr(way, attribute) for way in ways], axis=0)
        np.testing.assert_allclose(found[name][2], expected, atol=1e-9)
    same = found_again(np.zeros((9, 2)), np.zeros((9, 2)), rng)
    assert {name: (value, p) for name, (value, p, _) in same.items()} == {
        "pds": (0.5, 1.0), "top1": (pytest.approx(1 / 9), 1.0), "mrr": (0.2, 1.0)}  # fmt: skip


def test_twins_recover_their_effects_and_strangers_do_not():
    """Two cell lines with the same effects agree, in similarities and by retrieval; unrelated effects do not."""
    effects = drawn(0)
    contexts = [context(effects, 1, "a"), context(effects, 2, "b"), context(drawn(9), 3, "c")]
    table = compare(contexts, 42, n_boot=300)
    assert list(table.columns) == COLUMNS
    found = table.set_index(["dataset_a", "dataset_b", "measure"])
    assert found.loc[("a", "b", "rsa"), "value"] > 0.7
    assert found.loc[("a", "b", "pds"), "value"] > 0.95
    assert (found.loc[("a", "b"), "q"] < 0.01).all()
    assert (found.loc[("a", "b"), "ci_low"] > found.loc[("a", "b"), "chance"]).all()
    assert found.loc[("a", "b", "rsa"), "value"] <= found.loc[("a", "b", "rsa"), "attainable"] + 0.1
    for pair in (("a", "c"), ("b", "c")):
        assert (found.loc[pair, "q"] > 0.05).all()
        assert abs(found.loc[(*pair, "rsa"), "value"]) < 0.2
        assert found.loc[(*pair, "pds"), "value"] == pytest.approx(0.5, abs=0.17)
        assert found.loc[(*pair, "rsa"), "ci_low"] < 0 < found.loc[(*pair, "rsa"), "ci_high"]


def test_another_space_has_similarities_alone_and_a_rotation_does_not_matter():
    effects = drawn(0)
    turned = effects @ np.linalg.qr(np.random.default_rng(5).normal(size=(D, D)))[0]
    table = compare([context(effects, 1, "a"), context(turned, 2, "b", space="")], 42, n_boot=100)
    assert table["measure"].tolist() == ["rsa"]
    assert table["value"].item() > 0.7


def test_what_noise_leaves_of_the_agreement_is_foretold():
    effects, values = drawn(0), []
    for seed in range(4):
        pair = [context(effects, 10 + 2 * seed + i, name, noise=1.5) for i, name in enumerate("ab")]
        row = compare(pair, 42, n_boot=50).set_index("measure").loc["rsa"]
        values.append((row["value"], row["attainable"]))
    value, attainable = np.mean(values, axis=0)
    assert 0.3 < value < 0.9
    assert attainable == pytest.approx(value, abs=0.07)


def test_intervals_of_the_agreement_hold_that_of_many_perturbations():
    """Perturbations are drawn from a population, whose own agreement is known from a large sample."""

    def pair(rng, n):
        x = rng.normal(size=(n, 6))
        return x, x + rng.normal(size=(n, 6))

    truth = similarity_agreement(*pair(np.random.default_rng(99), 250), np.random.default_rng(0))[0]
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        own = similarity_agreement(*pair(rng, 30), rng)[2]
        low, high = interval(Items("gene", np.arange(30).astype(str), own, np.ones(30)), 300, 0)
        held += low <= truth <= high
    assert held >= 51  # of 60 at 95 %: fewer has probability 0.001


def test_too_few_in_common_is_said():
    effects = drawn(0)
    table = compare([context(effects, 1, "a"), context(effects, 2, "b", missing=N - 5)], 42)
    assert table["status"].tolist() == ["not_applicable"]
    assert table["reason"].item() == "5 perturbations in common; 8 are needed"


def test_script_joins_cells_by_id_and_leaves_out_what_has_no_controls(tmp_path, monkeypatch):
    effects, about = drawn(0), []
    for seed, name in enumerate(("a", "b", "bare")):
        view = screen_of(effects, seed)
        tables = tmp_path / "tables" / str(seed) / "tables"
        tables.mkdir(parents=True)
        cells = {key: getattr(view.screen, key) for key in ("cell_id", "perturbation", "is_control", "batch")}
        facts = view.screen.facts | {"name": name, "has_controls": name != "bare"}
        pd.DataFrame(cells).to_parquet(tables / "cells.parquet")
        GENES.to_parquet(tables / "genes.parquet")
        (tables / "dataset.json").write_text(json.dumps(facts))
        order = np.random.default_rng(seed).permutation(len(view.rows))
        (tmp_path / "embeddings").mkdir(exist_ok=True)
        write_embedding(tmp_path / "embeddings" / f"{name}.npz", view.screen.cell_id[order], view.embedding[order], {})
        about.append({"file": f"{name}.npz", "dataset": name, "variant": "uce", "fit_on": "none"})
    (tmp_path / "about.json").write_text(json.dumps(about))
    command = ["x", "--output", tmp_path / "contexts.parquet", "--n-boot", 50]
    command += [
        part for name in ("embeddings", "tables", "about.json") for part in (f"--{name.removesuffix('.json')}", tmp_path / name)
    ]
    monkeypatch.setattr("sys.argv", [str(part) for part in command])
    compare_contexts.main()
    table = pd.read_parquet(tmp_path / "contexts.parquet")
    assert set(zip(table["dataset_a"], table["dataset_b"], strict=True)) == {("a", "b")}
    assert table.set_index("measure").loc["pds", "value"] > 0.9


def test_the_report_says_who_agrees_with_whom(tmp_path):
    effects = drawn(0)
    contexts = [context(effects, 1, "a"), context(effects, 2, "b"), context(drawn(9), 3, "c", space="")]
    compare([*contexts, context(effects, 4, "d", missing=N - 3)], 42, n_boot=50).to_parquet(tmp_path / "cross_context.parquet")
    none = pd.DataFrame()
    run = Run({"models": {"model": {"title": "Model <1>"}}, "datasets": {}}, none, none, none, none, none)
    matrix, listing = cross_context.sections(run, tmp_path)
    assert "1 of 3 pairs of embeddings of different data sets agree" in matrix["data"]
    assert "most, Model &lt;1&gt; on a and Model &lt;1&gt; on b: 0." in matrix["data"]
    assert "found again in the other data set in 1 of 1 common spaces (Model &lt;1&gt;)." in matrix["data"]
    assert matrix["data"].count("<img") == 1
    assert listing["data"].count("<tr>") == 1 + 3 + 3 + 3
    assert "3 perturbations in common; 8 are needed" in listing["data"]
    assert cross_context.sections(run, tmp_path / "none") == []
