"""Recall of a mouse screen: that of the same screen of human genes."""

import json
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from made_screens import view_of

from plumbline.counts.reading import open_counts
from plumbline.embedding.options import Options
from plumbline.genes import orthologs, relationships
from plumbline.genes.relationships import SOURCES, perturbed_genes
from plumbline.models import reference
from plumbline.tasks import recall


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(orthologs.TABLE, sep="\t", dtype=str, keep_default_na=False)


@pytest.fixture
def screen(table, tmp_path, monkeypatch):
    """40 human genes in groups that share an effect and are known pairs; (pairs of the table, embedding, gene of each cell)."""
    usable = table[(table["mouse_symbol"] != "") & (table["human_symbol"] != "")]
    differ = usable["mouse_symbol"].str.upper() != usable["human_symbol"]
    pairs = pd.concat([usable[differ].head(20), usable[~differ].head(20)]).sort_values("human_symbol", ignore_index=True)
    names = pairs["human_symbol"].to_numpy()
    known = [(a, b) for k in range(0, 40, 10) for i, a in enumerate(names[k : k + 10]) for b in names[k + i + 1 : k + 10]]
    for source in SOURCES:
        pd.DataFrame(known, columns=["entity1", "entity2"]).to_csv(tmp_path / f"{source}.txt", index=False)
    lines = [f"complex {k}\t{' '.join(names[k : k + 10])}" for k in range(0, 40, 10)]
    (tmp_path / "CORUM_clusters.tsv").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv(relationships.FOLDER_VARIABLE, str(tmp_path))
    rng = np.random.default_rng(0)
    gene = np.repeat(np.arange(40), 6)
    values = 0.4 * rng.normal(size=(240, 12)) + rng.normal(size=(4, 12))[gene // 10]
    return pairs, np.vstack([values, rng.normal(size=(30, 12))]), gene


def labels(names: pd.Series, gene: np.ndarray) -> np.ndarray:
    return np.append(names.to_numpy(str)[gene], ["ctrl"] * 30)


@pytest.mark.parametrize("protocol", ["paper", "corrected"])
@pytest.mark.parametrize("column", ["mouse_symbol", "mouse_ensembl"])
def test_recall_of_a_mouse_is_that_of_its_human_twin(screen, column, protocol):
    pairs, values, gene = screen
    batch = np.full(len(values), "a")
    mouse = view_of(values, labels(pairs[column], gene), batch, protocol=protocol, organism="mouse")
    human = view_of(values, labels(pairs["human_symbol"], gene), batch, protocol=protocol, organism="human")
    assert recall.not_applicable(mouse.screen.facts | {"perturbation_type": "crisprko"}) == ""
    for ours, theirs in zip(recall.run(mouse), recall.run(human), strict=True):
        assert (ours.metric, ours.value, ours.n) == (theirs.metric, pytest.approx(theirs.value, nan_ok=True), theirs.n)
        if ours.items is not None:
            assert ours.items.unit.tolist() == theirs.items.unit.tolist()
            np.testing.assert_allclose(ours.items.numerator, theirs.items.numerator)
    assert {s.metric: s.value for s in recall.run(mouse)}["recall_corum"] > 0.15
    reason = {s.metric: s.reason for s in recall.run(mouse)}["recall_mean"]
    assert reason == "40 of 40 perturbed mouse genes have a one-to-one human ortholog"
    assert not any("mouse" in s.reason for s in recall.run(human))


def test_a_mouse_gene_without_ortholog_stays_in_the_null_and_never_is_a_human_gene_by_its_name(screen):
    pairs, values, gene = screen
    names = pairs["mouse_symbol"].to_numpy(str)
    names[0], names[1] = pairs["human_symbol"][2] + "x", "TP53"  # no mouse gene, and the name of a human one
    assert "TP53" not in orthologs._by_mouse_name()
    with_more = view_of(values, labels(pd.Series(names), gene), np.full(len(values), "a"), organism="mouse")
    found, means = recall.gene_means(with_more.embedding, with_more.screen)
    assert len(found) == len(means) == 40
    assert {f"{names[0]} (mouse)", "TP53 (mouse)"} <= set(found)
    assert set(found) - {f"{names[0]} (mouse)", "TP53 (mouse)"} == set(pairs["human_symbol"][2:])
    mean = next(score for score in recall.run(with_more) if score.metric == "recall_mean")
    assert mean.reason.startswith("38 of 40 perturbed mouse genes")


def test_controls_combinations_and_old_symbols_are_read_as_before(screen):
    pairs, values, gene = screen
    names = pairs["mouse_symbol"].to_numpy(str)
    old = pd.DataFrame({"gene_id": ["a"], "ensembl_id": [pairs["mouse_ensembl"][0]], "symbol": ["4930562C15Old"]})
    names[0] = "4930562C15Old"  # the data set's own annotation says which gene that is
    all_labels = labels(pd.Series(names), gene)
    all_labels[-3:] = f"{names[1]}+{names[2]}"
    view = view_of(values, all_labels, np.full(len(values), "a"), genes=old, organism="mouse")
    found, means = recall.gene_means(view.embedding, view.screen)
    assert found.tolist() == sorted(pairs["human_symbol"])
    want = pd.DataFrame(values[:240]).groupby(pairs["human_symbol"].to_numpy()[gene]).mean()
    np.testing.assert_allclose(means, want.loc[found], atol=1e-5)
    as_human = replace(view, screen=replace(view.screen, facts={**view.screen.facts, "organism": "human"}))
    assert "ctrl" not in recall.gene_means(as_human.embedding, as_human.screen)[0]
    assert perturbed_genes(np.array([]), old, "mouse").tolist() == []


def test_the_label_oracle_of_a_mouse_is_that_of_its_human_twin(screen, tmp_path):
    pairs, _, gene = screen
    made = {}
    for organism in ("mouse", "human"):
        folder = tmp_path / organism
        folder.mkdir()
        ad.AnnData(np.ones((270, 2), np.float32)).write_h5ad(folder / "c.h5ad")
        counts = open_counts(folder / "c.h5ad")
        label = labels(pairs[f"{organism}_symbol"], gene)
        cells = {"cell_id": counts.cell_id, "perturbation": label, "is_control": label == "ctrl", "batch": "a"}
        pd.DataFrame(cells).to_parquet(folder / "cells.parquet")
        empty = pd.DataFrame({"ensembl_id": ["", ""], "symbol": ["a", "b"]})
        empty.to_parquet(folder / "genes.parquet")
        (folder / "dataset.json").write_text(json.dumps({"organism": organism}))
        made[organism] = reference.label_oracle(
            counts,
            Options(
                variant="label_oracle",
                weights=None,
                tables=folder,
                fit_on="none",
                seed=42,
                device="cpu",
                batch_size=0,
                threads=1,
                settings={},
            ),
        )
    np.testing.assert_array_equal(made["mouse"], made["human"])
