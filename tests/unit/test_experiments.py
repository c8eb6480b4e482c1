"""The experiments' own numbers: learning curves, transfer, concordance, costs, held-out parts; planted answers and oracles."""

import json
import re
import subprocess
import sys
from argparse import Namespace

import anndata
import numpy as np
import pandas as pd
import pytest
from made_scores import made_records, make_run
from made_screen import made_counts, write_screen
from scipy.stats import friedmanchisquare

import estimate_cost
import summarise_scores
from plumbline import tasks
from plumbline.common import usage
from plumbline.common.errors import NotApplicable
from plumbline.common.usage import machine_seconds
from plumbline.counts.reading import open_counts
from plumbline.data.catalogue import read_catalogue, resolve
from plumbline.data.harmonise import prepare
from plumbline.experiments.cost import at_cells, estimate, fit_costs, pareto_front
from plumbline.experiments.generality import concordance, kendalls_w
from plumbline.experiments.hold_out import held_out_rows
from plumbline.experiments.planned import dataset_sizes, planned_tasks
from plumbline.experiments.work import work
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
        settings = {"n_boot": 200, "n_draws": 50, "decoder_budget": 200, "exact": "false", "seed": 0}
        summarise_scores.summarise(Namespace(**about, **settings, plans=None, outdir=where / "summary"))
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


def made_steps(step, name, sizes, base=1.5, rate=2e-6, noise=0.0):
    """Steps of these sizes that cost what the formulas say, with a relative error."""
    rows = pd.DataFrame(sizes).assign(step=step, name=name)
    random = np.random.default_rng(0)
    for scale, factor in (("seconds", 1.0), ("cpu_seconds", 2.0), ("peak_memory_bytes", 1e8)):
        exact = factor * (base + rate * work(step, name, rows, scale))
        rows[scale] = exact * np.exp(noise * random.normal(size=len(rows)))
    return rows


SIZES = [
    {"n_cells": n, "n_fit_cells": n // 2, "n_genes": 2000, "n_dimensions": d} for n, d in ((600, 32), (6000, 64), (14_000, 64))
]
LARGE = {"n_cells": 1_000_000, "n_fit_cells": 500_000, "n_genes": 8000, "n_dimensions": 256, "n_seeds": 5}


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("PREPARE", ""),
        ("EMBED", "pca"),
        ("REPORT", "MAP"),
        ("EXPERIMENT", "HOLD_OUT"),
        *(("EVALUATE", task) for task in (*sorted(tasks.names()), "a_new_task")),
    ],
)
def test_costs_follow_the_work_to_seventy_times_the_size(step, name):
    """Recovered exactly without noise; within a factor of two with tasks that vary by 20 %."""
    large = made_steps(step, name, [LARGE]).iloc[0]
    planned = pd.DataFrame([LARGE | {"step": step, "name": name, "n_tasks": 3}])
    exact = estimate(fit_costs(made_steps(step, name, SIZES)), planned).iloc[0]
    assert exact["cpu_seconds"] == pytest.approx(3 * large["cpu_seconds"], rel=1e-3)
    assert exact["peak_memory_bytes"] == pytest.approx(large["peak_memory_bytes"], rel=1e-3)
    noisy = estimate(fit_costs(made_steps(step, name, 5 * SIZES, noise=0.2)), planned).iloc[0]
    assert 0.5 < noisy["seconds"] / (3 * large["seconds"]) < 2


def test_the_estimate_is_within_a_factor_of_two_of_what_was_recorded(root):
    """Of the demo's data sets and of 200,000 cells x 8,000 genes, per step: of single tasks half are closer than 1.4."""
    steps = pd.read_csv(root / "assets" / "costs.tsv", sep="\t", dtype={"name": str}).fillna({"name": ""})
    found = estimate(fit_costs(steps), steps.drop(columns=["seconds", "cpu_seconds", "peak_memory_bytes"]).assign(n_tasks=1))
    large = steps["n_cells"] > 100_000
    for part in (large, ~large):
        ratio = found.loc[part, "cpu_seconds"].groupby(steps["step"]).sum() / steps[part].groupby("step")["cpu_seconds"].sum()
        assert ratio.between(0.5, 2).all(), ratio
        assert (found["peak_memory_bytes"] / steps["peak_memory_bytes"])[part].between(0.5, 2).mean() > 0.95
    assert np.abs(np.log(found["cpu_seconds"] / steps["cpu_seconds"])).median() < np.log(1.5)


def test_tasks_of_real_size_take_what_the_estimate_says(root):
    """Of 200,000 and of a million cells, of which the latter are not in the table that is fitted."""
    measured = pd.read_csv(root / "benchmarks/measured_costs.tsv", sep="\t").assign(step="EVALUATE", n_seeds=1, n_draws=1000)
    costs = pd.read_csv(root / "assets/costs.tsv", sep="\t", dtype={"name": str}).fillna({"name": ""})
    assert costs.loc[costs["step"] == "EVALUATE", "n_cells"].max() < measured["n_cells"].max()
    found = estimate(fit_costs(costs), measured.drop(columns=["cpu_seconds", "peak_memory_bytes"]).assign(n_tasks=1))
    for scale in ("cpu_seconds", "peak_memory_bytes"):
        ratio = found[scale] / measured[scale]
        assert ratio.between(0.5, 2).all(), ratio.to_dict()


def test_a_variant_without_timings_costs_what_its_kin_cost():
    steps = pd.concat([made_steps("EMBED", "pca", SIZES, rate=1e-9), made_steps("EMBED", "scvi", SIZES, rate=1e-7)])
    sizes = {"n_cells": 6000, "n_fit_cells": 3000, "n_genes": 2000, "n_dimensions": 64, "n_tasks": 1}
    names = ["pca", "scvi", "pca_all", "scvi_all", "unheard"]
    planned = pd.DataFrame([{"step": "EMBED", "name": name, **sizes} for name in names])
    module = {"pca": "pca", "pca_all": "pca", "scvi": "scvi", "scvi_all": "scvi", "unheard": "other"}
    found = estimate(fit_costs(steps), planned, module).set_index("name")
    assert found["known"].tolist() == [True, True, False, False, False]
    seconds = found["seconds"]
    assert seconds["pca_all"] == seconds["pca"] < seconds["scvi"] == seconds["scvi_all"] == seconds["unheard"]


def test_memory_measured_on_few_cells_is_not_drawn_out_to_millions():
    """Of scANVI, measured on 78 to 991 cells, a terabyte was foretold for two million; its kin were measured on more."""
    of = {n: {"n_cells": n, "n_fit_cells": n // 2, "n_genes": 2000, "n_dimensions": 64} for n in (100, 1000, 14_000)}
    steps = pd.concat([made_steps("EMBED", "scanvi", [of[100], of[1000]]), made_steps("EMBED", "scvi", [of[1000], of[14_000]])])
    each = np.where(steps["name"] == "scanvi", 2e5, 2e3)
    fits = fit_costs(steps.assign(peak_memory_bytes=1e9 + each * steps["n_cells"]))

    def gigabytes(name: str, n_cells: int, module: dict[str, str]) -> float:
        planned = pd.DataFrame([{"step": "EMBED", "name": name, "n_tasks": 1, "n_cells": n_cells, "n_fit_cells": n_cells / 2}])
        return estimate(fits, planned, module)["peak_memory_bytes"].iloc[0] / 1e9

    kin = {"scanvi": "scvi", "scvi": "scvi", "new": "other"}
    assert gigabytes("scanvi", 2_000_000, kin) == gigabytes("scvi", 2_000_000, kin) < 20
    assert gigabytes("new", 2_000_000, kin) < 20, "of all that were measured"
    assert gigabytes("scanvi", 1000, kin) > 1.15, "near what was measured, its own"
    assert gigabytes("scanvi", 2_000_000, {}) > 100, "no kin: its own"


def test_what_a_plan_does_not_know_is_as_it_was_measured():
    fits = fit_costs(made_steps("EVALUATE", "recall", SIZES))
    planned = pd.DataFrame([{"step": "EVALUATE", "name": "recall", "n_tasks": 1, "n_cells": 6000, "n_dimensions": np.nan}])
    assert estimate(fits, planned)["seconds"].iloc[0] == pytest.approx(at_cells(fits.iloc[0], np.array([6000]))[0])


def test_the_tasks_of_a_plan():
    run = {"dataset": "d", "variant": "pca", "model": "pca", "fit_on": "train", "settings": ["n_components=50"]}
    mine = run | {"variant": "mine", "fit_on": "e:train@0.1#2", "settings": []}
    plan = {"datasets": [{"name": "d"}, {"name": "e"}], "embed": [run, mine],
            "evaluate": [{"id": f"d.pca.{seed}", "dataset": "d", "variant": "pca", "task": task, "n_seeds": 2}
                         for seed in (1, 2) for task in ("recall", "map")], "max_together": 1}  # fmt: skip
    sizes = dataset_sizes(plan, None, {"d": {"n_cells": "1000", "control_label": "ctrl"}, "e": {"n_cells": "400"}})
    found = planned_tasks(plan, sizes).set_index(["step", "name", "dataset"])
    assert found.loc[("EMBED", "pca", "d"), ["n_fit_cells", "n_dimensions"]].tolist() == [500, 50]
    assert found.loc[("EMBED", "mine", "d"), "n_fit_cells"] == 20
    assert found.loc[("EVALUATE", "recall", "d"), ["n_cells", "n_dimensions", "n_seeds", "n_tasks"]].tolist() == [
        1000,
        50,
        2,
        2,
    ]
    assert sizes["d.heldout"]["n_cells"] == 100
    assert found.loc[("START", "EVALUATE", "d"), "n_tasks"] == 2, "1000 x 50 x 2 values: a process for each embedding"
    apart = planned_tasks(plan | {"max_together": 0}, sizes).set_index(["step", "name", "dataset"])
    assert apart.loc[("START", "EVALUATE", "d"), "n_tasks"] == 4
    assert apart["process"].eq("").all()


def test_the_width_of_an_embedding_is_that_of_its_settings_else_of_the_table_of_models():
    """Random vectors of 256 dimensions, scVI's and those of foundation models were priced as 64."""
    runs = [{"dataset": "d", "variant": name, "model": "m", "fit_on": "none", "settings": settings, "n_dimensions": width}
            for name, settings, width in (("uce_4l", ["padding=mask"], "1280"), ("scvi", ["n_latent=10"], "256"),
                                          ("headed", ["n_components=256", "head=contrastive"], "64"),
                                          ("mine", [], ""))]  # fmt: skip
    scored = [run | {"id": f"d.{run['variant']}", "task": "recall", "n_seeds": 1} for run in runs]
    plan = {"datasets": [{"name": "d"}], "embed": runs, "evaluate": scored, "max_together": 0}
    found = planned_tasks(plan, dataset_sizes(plan, None, {"d": {"n_cells": "1000"}}))
    for step in ("EMBED", "EVALUATE"):
        assert sorted(found.loc[found["step"] == step, "n_dimensions"].fillna(0)) == [0, 10, 64, 1280]


def test_what_does_not_apply_is_not_priced(root, tmp_path):
    """By the catalogue's row alone, as PREPARE finds it in the cells: 1 perturbation, no batches, 2 labels in the file."""
    names = tasks.names()
    run = {"dataset": "kang_demo", "variant": "pca", "model": "pca", "fit_on": "train", "settings": []}
    plan = {"datasets": [{"name": "kang_demo"}], "embed": [run], "max_together": 10,
            "evaluate": [run | {"id": "kang_demo.pca", "task": task, "n_seeds": 1} for task in names]}  # fmt: skip
    catalogue = read_catalogue()
    never = {"recall", "retrieval", "reconstruction", "batch_effect"}

    def priced(plan: dict, inputs=None) -> set[str]:
        found = planned_tasks(plan, dataset_sizes(plan, inputs, catalogue))
        return set(found.loc[found["step"] == "EVALUATE", "name"])

    assert priced(plan) == set(names) - never
    found = planned_tasks(plan | {"compared": [run]}, dataset_sizes(plan, None, catalogue)).set_index("name")
    assert found.loc["SUMMARISE", "n_items"] == 20 * (len(names) - len(never)), "rows for 1 perturbation, none of recall"
    labels = pd.DataFrame({"condition": ["control", "IFN-beta"] * 3}, index=[f"c{i}" for i in range(6)])
    anndata.AnnData(np.ones((6, 2), dtype=np.float32), obs=labels).write_h5ad(tmp_path / "kang.h5ad")
    plan["datasets"] = [{"name": "kang_demo", "file": "kang.h5ad"}]
    assert priced(plan, tmp_path) == set(names) - never
    plan["datasets"] = [{"name": "unknown"}]
    run["dataset"] = "unknown"
    plan["evaluate"] = [one | {"dataset": "unknown"} for one in plan["evaluate"]]
    sheet = {"perturbation_column": "condition", "control_label": "control", "batch_column": "donor"}
    plan["datasets"] = [sheet | {"name": "unknown"}]
    assert priced(plan) == set(names), "what nobody knows is priced"
    from_controls = {"magnitude", "map", "reconstruction", "retrieval"}
    for label in ("none", "None", "", None):
        plan["datasets"] = [sheet | {"name": "unknown", "control_label": label}]
        assert priced(plan) == set(names) - from_controls, "without controls, as the pipeline finds"


def test_controls_named_by_a_star_are_no_perturbations(tmp_path):
    """PREPARE's way to find them; the estimate had one of its own, which knew no star."""
    labels = pd.DataFrame({"p": ["NTC_1", "NTC_2", "A", "B"]}, index=list("wxyz"))
    anndata.AnnData(np.ones((4, 2), dtype=np.float32), obs=labels).write_h5ad(tmp_path / "d.h5ad")
    dataset = {"name": "d", "file": "d.h5ad", "perturbation_column": "p", "control_label": "NTC_*"}
    assert dataset_sizes({"datasets": [dataset]}, tmp_path, {})["d"]["n_perturbations"] == 2


@pytest.mark.parametrize(
    ("label", "cell", "has_controls"), [("None", "None", True), ("none", "B", False), ("NTC", "NTC", True)]
)
def test_whether_there_are_controls_is_what_the_cells_say(tmp_path, label, cell, has_controls):
    """An exact label wins, even 'None'; PREPARE's own outcome is the oracle."""
    labels = pd.DataFrame({"p": [cell, cell, "A", "A"]}, index=list("wxyz"))
    genes = pd.DataFrame(index=["TP53", "MYC"])
    anndata.AnnData(np.ones((4, 2), dtype=np.float32), obs=labels, var=genes).write_h5ad(tmp_path / "d.h5ad")
    row = {"name": "d", "perturbation_column": "p", "control_label": label, "min_counts": "0"}
    found = dataset_sizes({"datasets": [row | {"file": "d.h5ad"}]}, tmp_path, {})["d"]
    (tmp_path / "made").mkdir()
    facts = prepare(resolve(row, {}), tmp_path / "d.h5ad", None, tmp_path / "made")
    assert found["has_controls"] == facts["has_controls"] == has_controls
    assert found["left_out"] - {"batch_effect"} == set(tasks.not_applicable(facts)) - {"batch_effect"}


def test_experiments_maps_and_the_report_are_tasks_too():
    run = {"dataset": "d", "variant": "pca", "model": "pca", "fit_on": "train", "settings": ["n_components=50"]}
    plan = {"datasets": [{"name": "d"}, {"name": "e"}], "embed": [run, run | {"dataset": "e"}], "evaluate": [],
            "max_together": 1, "maps": True,
            "experiments": ["objectives", "cells_per_perturbation", "cross_context", "gene_recall"],
            "compared": [{"dataset": name[0], "variant": name[1:]} for name in ("dpca", "dscvi", "epca")]}  # fmt: skip
    sizes = dataset_sizes(plan, None, {"d": {"n_cells": "1000", "n_perturbations": "7"}, "e": {"n_cells": "400"}})
    found = planned_tasks(plan, sizes)

    def rows(step: str, name: str) -> pd.DataFrame:
        return found[(found["step"] == step) & (found["name"] == name)].set_index("dataset")

    assert rows("PREPARE", "").loc["d.heldout", "n_cells"] == 100
    fewer = rows("EXPERIMENT", "SCORE_FEWER_CELLS").loc["d"]
    assert fewer[["n_dimensions", "n_perturbations"]].values.tolist() == [[50, 7], [64, 7]]
    assert rows("EXPERIMENT", "COMPARE_CONTEXTS").loc["", ["n_cells", "n_dimensions"]].tolist() == [1400, 82]
    assert set(found.loc[(found["step"] == "EXPERIMENT") & (found["dataset"] == "e"), "name"]) == {
        *("HOLD_OUT", "RECALL_GENES", "SCORE_FEWER_CELLS")
    }
    assert rows("REPORT", "MAP").loc["d", "n_dimensions"] == 50 + 64
    assert found.loc[found["process"] == "last", "name"].tolist() == ["MULTIQC", "REPORT", "SUMMARISE"]


def test_what_follows_the_scores_costs_by_the_rows_of_the_item_tables(root):
    """Ten models and five seeds on 9,866 perturbations, as benchmarks/summary.md measured it. (By scores alone: 6 s.)"""
    names = ["batch_effect", "consistency", "geometry", "magnitude", "map", "recall", "retrieval", "separability"]
    runs = [{"dataset": "d", "variant": f"v{i}", "model": "m", "fit_on": "all", "settings": []} for i in range(10)]
    evaluations = [run | {"id": run["variant"], "task": task, "n_seeds": 5} for run in runs for task in names]
    plan = {
        "datasets": [{"name": "d"}],
        "embed": runs,
        "evaluate": evaluations,
        "compared": runs,
        "max_together": 10,
        "maps": True,
    }
    known = {"n_cells": "1000000", "n_perturbations": "9866", "control_label": "ctrl", "batch_column": "batch"}
    sizes = dataset_sizes(plan, None, {"d": known})
    planned = planned_tasks(plan, sizes)
    end = planned[planned["process"] == "last"].set_index("name", drop=False)
    assert end.loc["SUMMARISE", "n_items"] == pytest.approx(243_110_350, rel=0.1)
    costs = pd.read_csv(root / "assets/costs.tsv", sep="\t", dtype={"name": str}).fillna({"name": ""})
    found = estimate(fit_costs(costs), end.reset_index(drop=True)).set_index("name")
    end = planned[(planned["step"] == "REPORT") & (planned["name"] == "MAP")].assign(n_dimensions=2560)  # by values: 26 GB
    assert estimate(fit_costs(costs), end)["peak_memory_bytes"].iloc[0] == pytest.approx(1.14e9, rel=0.5)
    for name, seconds, memory in (("SUMMARISE", 206, 1.18e9), ("REPORT", 58, 0.67e9), ("MULTIQC", 2.3, 0.25e9)):
        assert 0.5 < found.loc[name, "cpu_seconds"] / seconds < 2
        assert 0.5 < found.loc[name, "peak_memory_bytes"] / memory < 2


def test_only_the_end_of_a_run_leaves_processors_idle():
    found = pd.DataFrame(
        {"step": ["EMBED", "REPORT"], "n_tasks": [10, 1], "seconds": [80.0, 20.0], "cpu_seconds": [80.0, 20.0]}
    )
    assert estimate_cost.wall_seconds(found.assign(process=["", "last"]), 4) == 40


def test_a_table_of_another_machine_is_scaled(tmp_path, monkeypatch):
    """By one measurement: two of them differ by more than a factor of two where other processes want the processors."""
    table, measured = made_steps("EVALUATE", "recall", SIZES), machine_seconds()
    monkeypatch.setattr(usage, "machine_seconds", lambda: measured)
    table.assign(machine_seconds=2 * measured).to_csv(tmp_path / "steps.tsv", sep="\t", index=False)
    ratio = (estimate_cost.read_costs(tmp_path / "steps.tsv")["cpu_seconds"] / table["cpu_seconds"]).to_numpy()
    assert ratio == pytest.approx(0.5, rel=1e-9)
    assert ratio.std() < 1e-9


def test_the_time_of_a_run_is_that_of_its_processors_or_of_its_longest_tasks():
    found = pd.DataFrame({"step": ["EMBED", "EVALUATE"], "n_tasks": [4, 1], "seconds": [40.0, 5.0], "cpu_seconds": [80.0, 5.0]})
    found["process"] = ""
    assert estimate_cost.wall_seconds(found, 2) == 42.5
    assert estimate_cost.wall_seconds(found, 64) == 15
    more = pd.DataFrame({"step": "EVALUATE", "n_tasks": 2, "seconds": [8.0, 6.0], "cpu_seconds": 1.0, "process": "d 64 1"})
    assert estimate_cost.wall_seconds(pd.concat([found, more], ignore_index=True), 64) == 10 + (4 + 3)


def test_processes_are_counted_and_their_start_is_priced():
    """Four embeddings of three tasks each, which share a process; one task that is alone."""
    names = ["recall", "map", "consistency"]
    tasks_ = pd.DataFrame({"step": "EVALUATE", "name": names, "n_tasks": 4, "process": "d 64 1"})
    more = pd.DataFrame({"step": ["EVALUATE", "START"], "name": ["recall", "EVALUATE"], "n_tasks": [1, 5], "process": ""})
    planned = pd.concat([tasks_, more]).assign(dataset="d", **SIZES[0])
    recorded = [made_steps("EVALUATE", name, SIZES, rate=1e-12) for name in names]
    start = made_steps("START", "EVALUATE", SIZES, base=1.0, rate=0.0)
    found = estimate(fit_costs(pd.concat([*recorded, start])), planned)
    text = estimate_cost.text_of(found, [], 2)
    assert text.startswith("Estimate: 5 tasks, 49 s of processor time"), text  # 13 x 3 s, and 5 x 2 s
    assert "     5 x EVALUATE      49 s of processor time" in text
    older = estimate(fit_costs(pd.concat(recorded)), planned)  # of a table whose tasks count their own start
    assert estimate_cost.text_of(older, [], 2).startswith("Estimate: 5 tasks, 39 s of processor time")


def test_cheap_baselines_have_timings(root):
    """hvg was taken for the most expensive model: 29 minutes and 22 GB for 1.3 seconds."""
    steps = pd.read_csv(root / "assets" / "costs.tsv", sep="\t")
    work = pd.DataFrame({"step": "EMBED", "name": ["hvg", "raw_counts", "scrambled_pca"], "n_cells": 20_000, "n_tasks": 1})
    found = estimate(fit_costs(steps), work)
    assert found["known"].all()
    assert (found["cpu_seconds"] < 60).all()
    assert (found["peak_memory_bytes"] < 2e9).all()


def test_one_size_still_gives_a_line():
    fit = fit_costs(made_steps("EMBED", "a", [SIZES[0]] * 2)).iloc[0]
    small, large = at_cells(fit, np.array([600, 6000]))
    assert small == pytest.approx(made_steps("EMBED", "a", SIZES[:1])["seconds"].iloc[0])
    assert large > small


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
    done = ["--row", folder / "part.row.json", "--input", folder / "part.h5ad", "--outdir", folder / "new"]
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
    call = ["--counts", folder / "counts.h5ad", "--tables", folder / "tables", "--name", "made.heldout"]
    _script(root, "hold_out_perturbations.py", *call, "--seed", "43", "--output", folder / "none")
    about = json.loads((folder / "none.objectives.json").read_text())
    assert about["status"] == "not_applicable"
    assert not (folder / "none.h5ad").exists()


def _script(root, name, *arguments):
    subprocess.run([sys.executable, root / "bin" / name, *map(str, arguments)], check=True, capture_output=True, timeout=120)
