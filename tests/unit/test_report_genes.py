"""What the report says about single perturbations: my gene, gains, pairs, and the same in the terminal."""

import base64
import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import show_gene
from plumbline.common.errors import UserError
from plumbline.report.gains import binned, gain_section
from plumbline.report.gene_section import gene_section, payload
from plumbline.report.gene_text import gene_text
from plumbline.report.genes import Perturbations, read_genes
from plumbline.report.maps import map_section
from plumbline.report.pairs import pair_section
from plumbline.report.run import Run

NAMES = [f"G{number:02d}" for number in range(40)]
PAIRS = {("G00", "G01"): ("corum", "signor"), ("G00", "G02"): ("corum",), ("G03", "G04"): ("signor",)}
HITS = {
    "pca": {("G00", "G01"): 1, ("G00", "G02"): 0, ("G03", "G04"): 0},
    "m": {("G00", "G01"): 1, ("G00", "G02"): 1, ("G03", "G04"): 0},
}


def items() -> pd.DataFrame:
    """AUROC 0.5 + number / 100, in model m a further 0.1 where the number is 20 or more; two seeds; other rows in between."""
    rows = []
    for variant, gain in (("pca", 0.0), ("m", 0.1)):
        key = {"dataset": "s", "variant": variant, "fit_on": "train", "protocol": "corrected", "postprocess": "selected"}
        for seed in (1, 2):
            for number, name in enumerate(NAMES):
                score = 0.5 + number / 100 + (gain if number >= 20 else 0.0) + (seed - 1.5) / 50
                about = {**key, "seed": seed, "unit": name, "unit2": "", "unit_kind": "perturbation"}
                rows.append(
                    {**about, "task": "separability", "metric": "auroc_control", "numerator": score, "denominator": 1.0}
                )
                rows.append({**about, "task": "magnitude", "metric": "magnitude_pct", "numerator": 1.0, "denominator": 1.0,
                             "value": 100.0 + number, "q": 0.01 if number > 30 else 0.5})  # fmt: skip
                if number == 7:  # the second of all
                    rows.append({**about, "task": "retrieval", "metric": "retrieval_mrr", "numerator": 0.5, "denominator": 1.0,
                                 "value": 0.5})  # fmt: skip
            for (one, two), sources in PAIRS.items():
                about = {
                    **key,
                    "seed": seed,
                    "unit": one,
                    "unit2": two,
                    "unit_kind": "pair",
                    "task": "recall",
                    "denominator": 1.0,
                }
                hit = HITS[variant][one, two]
                rows += [{**about, "metric": f"recall_{source}", "numerator": hit, "value": hit - 0.5} for source in sources]
                rows.append({**about, "metric": "recall_mean", "numerator": hit / 3})
    wrong = [{**rows[0], **change, "numerator": 99.0} for change in ({"protocol": "paper"}, {"postprocess": "none"},
             {"fit_on": "train@0.05#1"}, {"dataset": "other"})]  # fmt: skip
    return pd.DataFrame([*rows, *wrong]).assign(model="m", offset=0.0, scale=1.0)


def made_run(title: str = "a screen") -> Run:
    columns = {"dataset": "s", "fit_on": "train", "protocol": "corrected", "main": True, "verdict": "tied", "calibrated": 0.5}
    named = (("pca", "PCA", "baseline"), ("m", "My <b>model</b>", "external"), ("random", "R", "floor"))
    rows = [
        {**columns, "variant": v, "label": label, "role": r, "metric": "recall_mean", "task": "recall"} for v, label, r in named
    ]
    about = {"baseline": "pca", "models": {"pca": {"title": "PCA"}}, "datasets": {"s": {"facts": {"title": title}}}}
    table = pd.DataFrame(rows)
    none = table[:0]
    return Run(about, none, table, none, none, none)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An output folder: items and maps."""
    where = tmp_path_factory.mktemp("run")
    items().to_parquet(where / "items.parquet")
    (where / "maps").mkdir()
    pd.DataFrame({"perturbation": NAMES, "n_cells": 30, "n_batches": 2, "expression": np.arange(40) / 10,
                  "strength": np.arange(40) / 40}).to_parquet(where / "maps/s.perturbations.parquet")  # fmt: skip
    key = {"variant": ["pca", "m"] * 2, "fit_on": "train"}
    pd.DataFrame({"perturbation": "G00", "neighbour": ["G01", "G02", "G03", "G04"], "rank": [1, 1, 2, 2], "cosine": 0.5,
                  **key}).to_parquet(where / "maps/s.neighbours.parquet")  # fmt: skip
    cells = {"cell_id": ["a", "b", "c"], "perturbation": ["ctrl", "G39", "</script>"], "is_control": [True, False, False],
             "batch": "b", "x": [0.0, 1.0, np.nan], "y": [0.0, 1.0, 2.0]}  # fmt: skip
    both = [pd.DataFrame({**cells, "variant": name, "fit_on": "train"}) for name in ("pca", "m")]
    pd.concat(both).to_parquet(where / "maps/s.cells.parquet")
    return where


@pytest.fixture(scope="module")
def genes(folder) -> Perturbations:
    found = read_genes(made_run(), folder, folder / "maps", "s")
    assert found is not None
    return found


def unpacked(page: str) -> dict:
    return json.loads(gzip.decompress(base64.b64decode(re.search(r'data-pl-data="([^"]+)"', page)[1])))


def test_items_are_read_one_model_and_metric_at_a_time(folder, genes, monkeypatch):
    """Of 9,866 perturbations, ten models and five seeds they are twenty million rows, which took more than 12 GB."""
    whole = pd.read_parquet

    def refuse(path, *args, **kwargs):
        assert "items" not in str(path), "the item table was read whole"
        return whole(path, *args, **kwargs)

    monkeypatch.setattr(pd, "read_parquet", refuse)
    found = read_genes(made_run(), folder, folder / "maps", "s")
    assert found is not None
    pd.testing.assert_frame_equal(found.pairs, genes.pairs)


def test_the_strongest_of_thousands_can_be_told_apart(genes):
    """Strength is a rank: of 9,866 perturbations the first fifty were all 1, and the list of them in the order of names."""
    names = [f"G{number:05d}" for number in range(9_866)]
    table = pd.DataFrame({"n_cells": 30.0, "strength": (np.arange(9_866) + 1) / 9_866, "expression": np.nan}, index=names)
    empty = pd.DataFrame(columns=["unit", "unit2", "sources", *genes.models])
    many = replace(genes, table=table, measures=[], values={}, q={}, nearest=pd.DataFrame(), pairs=empty)
    assert len(set(payload(many)["strength"])) == 9_866
    assert "strength 0.9999 (1 is the strongest)" in gene_text(made_run(), many, names[-2])


def test_a_measure_is_that_of_the_headline_over_seeds(genes):
    auroc = genes.values["auroc_control"]
    assert auroc.loc["G10", "PCA"] == pytest.approx(0.6)
    assert auroc.loc["G30", "My <b>model</b>"] == pytest.approx(0.9)
    assert genes.values["magnitude_pct"].loc["G05", "PCA"] == 105.0
    assert genes.q["magnitude_pct"].loc["G35", "PCA"] == 0.01
    assert [part.metric for part in genes.measures] == ["auroc_control", "magnitude_pct", "retrieval_mrr"]


def test_the_rank_of_retrieval_is_shown_as_a_rank(genes):
    assert genes.values["retrieval_mrr"].loc["G07", "PCA"] == 2.0
    assert np.isnan(genes.values["retrieval_mrr"].loc["G08", "PCA"])


def test_a_pair_is_one_row_with_all_its_sources(genes):
    pairs = genes.pairs.set_index(["unit", "unit2"])
    assert pairs["sources"].tolist() == ["CORUM, SIGNOR", "CORUM", "SIGNOR"]
    assert pairs["My <b>model</b>"].tolist() == [1.0, 1.0, 0.0]


def test_the_page_gets_names_as_data_and_never_as_html(genes):
    page = gene_section(made_run("<img onerror=x>"), [genes])[0]["data"]
    assert "<img" not in page
    assert "<b>model" not in page
    data = unpacked(page)
    assert data["models"] == ["PCA", "My <b>model</b>"]
    assert data["names"] == NAMES
    assert data["near"][1][0] == [2, 4]
    assert data["known"][:5] == [2, 1, 1, 1, 1]
    assert data["pairs"] == [[0, 1, "CORUM, SIGNOR", [0, 1]], [0, 2, "CORUM", [1]]]


def test_a_map_has_the_same_cells_once_and_their_places_per_model(folder):
    run = made_run()
    data = unpacked(map_section(run, folder / "maps")[0]["data"])
    assert data["models"] == ["PCA", "My <b>model</b>"]
    assert data["named"] == ["G39"]
    assert data["x"][0] == [0, 999, None]
    assert data["c"] == [1, 0, 0]
    assert map_section(run, None) == []


def test_the_terminal_shows_the_same_numbers(genes):
    text = gene_text(made_run(), genes, "G00")
    assert "G00 in a screen: 30 cells, strength 0.00" in text
    assert re.search(r"My <b>model</b> +0\.500 +100\.0 \(q 0\.500\)", text)
    assert "My <b>model</b>  2: G01 and G02" in text
    assert "Known partners recalled, of 2" in text
    assert "My <b>model</b>  G02, G04" in text


def test_an_unknown_gene_is_answered_with_near_ones(folder, monkeypatch):
    monkeypatch.setattr("plumbline.report.run.read_run", lambda _folder: made_run())
    assert show_gene.shown(folder, "g07").startswith("G07 in a screen")
    with pytest.raises(UserError, match=r"No perturbation 'G99'.*Did you mean"):
        show_gene.shown(folder, "G99")
    with pytest.raises(UserError, match="no data set 't'"):
        show_gene.shown(folder, "G01", "t")


def test_without_maps_and_items_nothing_is_made_up(folder, tmp_path):
    pd.DataFrame().to_parquet(tmp_path / "items.parquet")  # what a run without any score leaves
    assert read_genes(made_run(), tmp_path, None, "s") is None
    found = read_genes(made_run(), folder, None, "s")
    assert found.nearest.empty
    assert found.table["strength"].isna().all()
    assert payload(found)["near"] == []


def test_gain_is_found_where_it_was_planted(genes):
    gain = genes.values["auroc_control"]["My <b>model</b>"] - genes.values["auroc_control"]["PCA"]
    curve = binned(gain, genes.table["strength"])
    assert curve["mean"].round(6).tolist() == [0.0, 0.0, 0.1, 0.1]
    assert binned(gain, genes.table["n_cells"]).empty  # all have as many cells
    assert binned(gain[:20], genes.table["strength"][:20]).empty  # too few per group
    page = gain_section(made_run(), [genes])[0]["data"]
    assert "data:image/svg+xml" in page
    assert "cells per perturbation" not in page


def test_pairs_found_and_missed_name_their_source(genes):
    page = pair_section(made_run(), [genes])[0]["data"]
    numbers = re.search(r"<b>My &lt;b&gt;model&lt;/b&gt;</b></td>(.+?)</tr>", page)[1]
    assert re.findall(r">(\d+)<", numbers) == ["3", "1", "1", "0", "1"]
    assert "<td>G00 – G02</td><td>CORUM</td>" in page
    assert "missed by My" not in page
