"""The experiments' own numbers: learning curves, transfer, concordance, costs, held-out parts; planted answers and oracles."""

import json
import re
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
from made_scores import made_records, make_run
from made_screen import made_counts, write_screen
from scipy.stats import friedmanchisquare

import summarise_scores
from plumbline import tasks
from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import open_counts
from plumbline.experiments.cost import estimate, fit_costs, pareto_front
from plumbline.experiments.generality import concordance, kendalls_w
from plumbline.experiments.hold_out import held_out_rows
from plumbline.genes.relationships import known_symbols
from plumbline.report.experiments import generality, minimal_data, transfer
from plumbline.report.run import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A made run with the experiments minimal_data and transfer."""
    where = tmp_path_factory.mktemp("made")
    kept = ("pca", "scvi", "geneformer_v1", "uce_33", "random", "label_oracle")
    make_run(where, ("vcc_h1", "simulated"), seeds=(42,), posts=("none",), variants=kept, experiments=True)
    about = {name: where / name for name in ("scores", "items", "provenance")}
    about |= {"expected": where / "expected.json", "models": where / "models.csv", "published": None, "baseline": "pca"}
    about |= {"experiments": "minimal_data,transfer,generality,cost", "data_reports": where / "tables"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "records", made_records)
        summarise_scores.summarise(Namespace(**about, n_boot=200, n_draws=50, seed=0, outdir=where / "summary"))
    return read_run(where / "summary")


def test_the_main_run_is_what_it_is_without_experiments(run):
    assert not run.comparisons["fit_on"].str.contains("@").any()
    assert set(run.experiments["experiment"]) == {"minimal_data", "transfer"}
    assert set(run.experiment_cost["experiment"]) == {"minimal_data", "transfer"}
    assert run.datasets == ["simulated", "vcc_h1"]
    assert not run.comparisons["label"].str.contains("fitted on").any()


def test_a_run_of_an_experiment_is_compared_with_its_own_model(run):
    """The made scVI loses quality with 5 % of the cells and none with 50 %; PCA from elsewhere is worse."""
    made = run.experiments[(run.experiments["dataset"] == "simulated") & run.experiments["main"]]
    rows = made[(made["experiment"] == "minimal_data") & (made["task"] == "separability")]
    full = run.headline
    full = full[(full["dataset"] == "simulated") & (full["task"] == "separability") & (full["variant"] == "scvi")]
    assert np.allclose(rows.loc[rows["protocol"] == "corrected", "baseline_value"], full["value"].iloc[0])
    assert set(rows.loc[rows["fit_on"].str.contains("0.05"), "verdict"]) == {"worse"}
    assert set(rows.loc[rows["fit_on"].str.contains("0.5#"), "verdict"]) == {"tied"}
    moved = made[(made["experiment"] == "transfer") & (made["task"] == "recall")]
    assert set(moved["fit_on"]) == {"vcc_h1"}
    assert set(moved["verdict"]) == {"worse"}


def test_the_sections_say_what_the_numbers_say(run):
    (curves, overtaken), (matrix, listing) = minimal_data.sections(run, None), transfer.sections(run, None)
    assert re.search(r": 50 % of the training cells suffice \(no significant loss\) in \d+ of \d+ curves", curves["data"])
    assert "overtakes with" in overtaken["data"].lower()
    assert re.search(r"0 better, \d+ tied, \d+ worse", matrix["data"])
    assert "▼ worse" in listing["data"]


def test_sufficient_fractions_in_words():
    words = minimal_data.sufficient_fractions
    loss = "of the training cells suffice (no significant loss)"
    assert words([0.5, 0.5, 0.5, None]) == f"50 % {loss} in 3 of 4 curves; in 1, no tested fraction does."
    assert words([0.5, 0.05]) == f"5 % {loss} in 1 and 50 % in 1 of 2 curves."
    assert words([None, None]) == "no tested fraction of the training cells suffices in any of 2 curves."


def test_enough_is_the_smallest_share_from_which_on_nothing_is_worse():
    curve = pd.DataFrame(
        {"share": [0.01, 0.01, 0.1, 0.1, 0.5, 0.5], "verdict": ["tied", "worse", "tied", "tied", "tied", "better"]}
    )
    assert minimal_data._sufficient(curve) == 0.1
    curve.loc[4, "verdict"] = "worse"
    assert minimal_data._sufficient(curve) is None


def test_kendalls_w_is_friedmans_statistic_over_its_largest_value():
    rng = np.random.default_rng(0)
    for m, n, ties in ((3, 4, False), (8, 5, False), (6, 7, True)):
        scores = rng.normal(size=(m, n))
        scores = scores.round(0) if ties else scores
        oracle = friedmanchisquare(*scores.T).statistic / (m * (n - 1))
        assert kendalls_w(scores) == pytest.approx(oracle, abs=1e-12)
    assert kendalls_w(np.tile(np.arange(5), (4, 1))) == pytest.approx(1)
    assert np.isnan(kendalls_w(np.ones((3, 4))))


def test_concordance_knows_agreement_from_noise():
    rng = np.random.default_rng(1)
    alike = concordance(np.arange(6) + rng.normal(0, 0.3, (8, 6)))
    noise = concordance(rng.normal(size=(8, 6)))
    two = concordance(rng.normal(size=(2, 6)))
    assert alike.w > 0.9
    assert alike.p < 0.01
    assert alike.low > 0.7
    assert noise.p > 0.05
    assert np.isnan(two.low)
    p = [concordance(rng.normal(size=(5, 5)), 200, seed).p for seed in range(100)]
    assert np.mean(np.array(p) <= 0.05) < 0.12


def test_generality_needs_two_data_sets_and_names_the_order(run):
    agreement = generality.sections(run, None)[0]["data"]
    assert agreement.index("scVI") < agreement.index("geneformer")
    assert "2 data sets" in agreement


def test_cost_lines_are_recovered_and_extrapolated():
    cells = np.array([500, 2000, 10_000, 50_000])
    seconds = 3 + 0.002 * cells
    steps = pd.DataFrame({"step": "EMBED", "name": "scvi", "n_cells": cells, "seconds": seconds, "cpu_seconds": 2 * seconds})
    steps["peak_memory_bytes"] = 5e8 + 1e4 * cells
    fits = fit_costs(pd.concat([steps, steps.assign(name="pca", seconds=seconds / 10)]))
    line = fits.set_index("name").loc["scvi"]
    assert (line["seconds_base"], line["seconds_per_cell"]) == pytest.approx((3, 0.002))
    assert line["error"] < 1e-9
    work = pd.DataFrame({"step": "EMBED", "name": ["scvi", "pca", "unheard"], "n_cells": 1_000_000, "n_tasks": [2, 1, 1]})
    found = estimate(fits, work).set_index("name")
    assert found.loc["scvi", "seconds"] == pytest.approx(2 * 2003)
    assert found.loc["unheard", "seconds"] == pytest.approx(2003)
    assert found["known"].to_dict() == {"scvi": True, "pca": True, "unheard": False}
    assert found.loc["scvi", "peak_memory_bytes"] == pytest.approx(5e8 + 1e10)


def test_a_variant_without_timings_costs_what_its_kin_cost():
    steps = pd.DataFrame({"step": "EMBED", "name": ["pca", "scvi", "scvi"], "n_cells": [1000, 1000, 4000],
                          "seconds": [3.0, 100.0, 400.0], "cpu_seconds": 1.0, "peak_memory_bytes": 1e9})  # fmt: skip
    work = pd.DataFrame({"step": "EMBED", "name": ["pca_all", "scvi_all", "unheard"], "n_cells": 1000, "n_tasks": 1})
    module = {"pca": "pca", "pca_all": "pca", "scvi": "scvi", "scvi_all": "scvi", "unheard": "other"}
    found = estimate(fit_costs(steps), work, module).set_index("name")
    assert found["seconds"].round().tolist() == [3, 100, 102]  # the last: the largest start and the largest rate of the step
    assert not found["known"].any()


def test_cheap_baselines_have_timings(root):
    """hvg was taken for the most expensive model: 29 minutes and 22 GB for 1.3 seconds."""
    steps = pd.read_csv(root / "assets" / "costs.tsv", sep="\t")
    work = pd.DataFrame({"step": "EMBED", "name": ["hvg", "raw_counts", "scrambled_pca"], "n_cells": 20_000, "n_tasks": 1})
    found = estimate(fit_costs(steps), work)
    assert found["known"].all()
    assert (found["cpu_seconds"] < 60).all()
    assert (found["peak_memory_bytes"] < 2e9).all()


def test_one_size_still_gives_a_line():
    steps = pd.DataFrame(
        {
            "step": "EMBED",
            "name": "a",
            "n_cells": [1000, 1000],
            "seconds": [9.0, 11.0],
            "cpu_seconds": 10.0,
            "peak_memory_bytes": 1e9,
        }
    )
    line = fit_costs(steps).iloc[0]
    assert line["seconds_base"] + 1000 * line["seconds_per_cell"] == pytest.approx(10)
    assert line["seconds_per_cell"] > 0


def test_every_step_of_a_run_is_priced(run):
    evaluate = run.steps[run.steps["step"] == "EVALUATE"]
    assert np.allclose(evaluate["seconds"], 2 + 0.001 * evaluate["n_cells"])
    assert set(run.steps["step"]) == {"EMBED", "EVALUATE"}


def test_the_front_is_what_nothing_beats_in_both():
    rng = np.random.default_rng(2)
    cost, quality = rng.integers(0, 8, 40).astype(float), rng.integers(0, 8, 40).astype(float)
    front = pareto_front(cost, quality)
    points = set(zip(cost[front], quality[front], strict=True))
    for c, q in zip(cost, quality, strict=True):
        beaten = ((cost <= c) & (quality >= q) & ((cost < c) | (quality > q))).any()
        assert ((c, q) in points) == (not beaten)


@pytest.fixture
def prepared(tmp_path):
    """A prepared data set whose test2 part holds P6 and P7 in batches b3 and b4, with those batches' controls."""
    names = sorted(known_symbols())[:60]
    write_screen(tmp_path, made_counts(240, 60), var=names)
    cells, path = pd.read_parquet(tmp_path / "tables/cells.parquet"), tmp_path / "tables/splits.parquet"
    held = cells["batch"].isin(["b3", "b4"]) & (cells["perturbation"].isin(["P6", "P7"]) | cells["is_control"])
    pd.read_parquet(path).assign(test2_42=held, test2_43=held & cells["is_control"]).to_parquet(path)
    facts = {"name": "made", "x_kind": "counts", "organism": "human", "perturbation_type": "crispri", "split_by": "batch"}
    (tmp_path / "tables/dataset.json").write_text(json.dumps(facts))
    pd.DataFrame({"gene_id": names, "ensembl_id": "", "symbol": names}).to_parquet(tmp_path / "tables/genes.parquet")
    return tmp_path, held.to_numpy()


def test_the_held_out_part_is_prepared_as_a_data_set(prepared, root):
    folder, held = prepared
    call = ["--counts", folder / "counts.h5ad", "--tables", folder / "tables", "--name", "made.heldout"]
    _script(root, "hold_out_perturbations.py", *call, "--seed", "42", "--output", folder / "part")
    done = ["--row", folder / "part.row.json", "--input", folder / "part.h5ad", "--seeds", "42", "--outdir", folder / "new"]
    _script(root, "prepare_dataset.py", *done)
    cells = pd.read_parquet(folder / "new/tables/cells.parquet")
    facts = json.loads((folder / "new/tables/dataset.json").read_text())
    assert set(cells["cell_id"]) == set(open_counts(folder / "counts.h5ad").cell_id[held])
    assert set(cells.loc[~cells["is_control"], "perturbation"]) == {"P6", "P7"}
    assert set(cells["batch"]) == {"b3", "b4"}
    assert (facts["name"], facts["perturbation_type"], facts["n_cells"]) == ("made.heldout", "crispri", held.sum())
    old, new = (sum(block.sum() for _, block in open_counts(path).blocks(rows)) for path, rows in
                ((folder / "counts.h5ad", np.flatnonzero(held)), (folder / "new/counts.h5ad", None)))  # fmt: skip
    assert old == new


def test_nothing_held_out_is_not_applicable(prepared, root):
    folder, _ = prepared
    with pytest.raises(NotApplicable, match=r"0 perturbation\(s\) are held out"):
        held_out_rows(folder / "tables", 43)
    with pytest.raises(UserError, match="no split with seed 7"):
        held_out_rows(folder / "tables", 7)
    call = ["--counts", folder / "counts.h5ad", "--tables", folder / "tables", "--name", "made.heldout"]
    _script(root, "hold_out_perturbations.py", *call, "--seed", "43", "--output", folder / "none")
    about = json.loads((folder / "none.objectives.json").read_text())
    assert about["status"] == "not_applicable"
    assert not (folder / "none.h5ad").exists()


def _script(root, name, *arguments):
    subprocess.run([sys.executable, root / "bin" / name, *map(str, arguments)], check=True, capture_output=True, timeout=120)
