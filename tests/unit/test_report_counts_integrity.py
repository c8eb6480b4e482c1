"""The sections on count distributions and on structural integrity say what was planted."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plumbline.experiments.count_summary import summarise
from plumbline.experiments.integrity_damages import INDIFFERENT, SENSITIVE
from plumbline.report.experiments import count_distribution, count_scores, integrity
from plumbline.report.run import Run

TASKS = {"separability": ("linear_top1", 1), "reconstruction": ("mse", -1)}
POSTS = ("none", "center", "center_scale", "tvn", "selected")


def run_of(values: dict[str, tuple[float, float]], verdicts: dict[str, tuple[str, str]]) -> Run:
    """A run of two tasks on data set 'x': variant -> score of each task, and verdict against scvi of each."""
    rows = []
    for variant, scores in values.items():
        for (task, (metric, sign)), value, verdict in zip(
            TASKS.items(), scores, verdicts.get(variant, ("baseline",) * 2), strict=True
        ):
            rows.append({"dataset": "x", "task": task, "metric": metric, "main": True, "direction": sign, "variant": variant,
                         "protocol": "corrected", "fit_on": "train", "status": "ok", "value": value, "ci_low": value - 0.01,
                         "ci_high": value + 0.01, "verdict": verdict, "chosen": "center",
                         "experiment": "count_distribution"})  # fmt: skip
    table = pd.DataFrame(rows)
    scores = pd.concat([table.assign(postprocess=post) for post in POSTS], ignore_index=True)
    about = {"datasets": {"x": {"facts": {"title": "A <b>screen"}}}, "models": {}, "baseline": "pca"}
    main = table.drop(columns="experiment")  # the main run has the same tasks
    return Run(about, scores, main, *(pd.DataFrame() for _ in range(3)), experiments=table, all_scores=scores)


SAME = {"scvi": (0.50, 0.5), "scvi_nb": (0.52, 0.5), "scvi_poisson": (0.45, 0.6), "scvi_lognorm": (0.40, 0.7)}
TIED = {"scvi_nb": ("tied", "tied"), "scvi_poisson": ("tied", "tied"), "scvi_lognorm": ("worse", "worse")}


def genes_of(best: dict[str, int], mean: float = 2.0) -> pd.DataFrame:
    """A table of genes whose BIC is lowest, by 10, under the planted model."""
    names = np.repeat(list(best), list(best.values()))
    n = len(names)
    table = pd.DataFrame({"gene_id": [f"G{i}" for i in range(n)], "tested": True, "mean": mean, "best": names,
                          "zeros_observed": 0.3, "dispersion_nb": 0.2, "zero_inflation": 0.1,
                          "zeros_poisson": 0.2, "zeros_nb": 0.3, "zeros_zinb": 0.3,
                          "q_nb": np.where(names == "poisson", 0.9, 0.001),
                          "q_zinb": np.where(names == "zinb", 0.001, 0.9)})  # fmt: skip
    return table.assign(**{f"bic_{model}": np.where(names == model, 100.0, 110.0) for model in ("poisson", "nb", "zinb")})


def write_counts(folder: Path, genes: pd.DataFrame) -> Path:
    about = {"status": "ok", "cells": "controls", "offset": "depth", "n_cells": 900, "n_batches": 1}
    (folder / "x.count_distribution.json").write_text(json.dumps(about | summarise(genes)))
    genes.to_parquet(folder / "x.count_distribution.parquet")
    return folder


def words(parts: list[dict]) -> str:
    return re.sub(r"<[^>]*>", " ", " ".join(part["data"] for part in parts))


def test_summary_of_genes():
    found = summarise(genes_of({"poisson": 10, "nb": 70, "zinb": 20}))
    assert found["supported"] == "nb"
    assert found["clear"]
    assert found["shares"]["nb"]["value"] == 0.7
    assert 0.6 < found["shares"]["nb"]["low"] < 0.7 < found["shares"]["nb"]["high"] < 0.8
    assert found["lead"]["zinb"]["value"] == pytest.approx(10 * (70 - 20) / 100)
    assert found["tests"]["nb_over_poisson"]["value"] == 0.9
    assert found["zeros"]["poisson"]["excess"]["value"] == pytest.approx(0.1)
    assert [row["n"] for row in found["trend"]] == [5] * 20
    assert summarise(genes_of({"nb": 8, "zinb": 7}))["clear"] is False
    assert summarise(genes_of({"nb": 8}, mean=0.1))["shares_frequent"] is None
    assert summarise(genes_of({"nb": 1}))["shares"]["nb"]["low"] is None


def test_count_section_says_what_the_data_support(tmp_path):
    run = run_of(SAME, TIED)
    parts = count_distribution.sections(run, write_counts(tmp_path, genes_of({"poisson": 10, "nb": 70, "zinb": 20})))
    assert [part["id"] for part in parts] == ["plumbline_count_distribution_data", "plumbline_count_distribution_scores"]
    text = words(parts)
    assert "The counts support the negative binomial distribution" in text
    assert re.search(r"lowest BIC, 5\.000 \[3\.\d+, 6\.\d+\] per gene below that of ZINB", text)
    assert "Observed minus expected zeros, in percentage points: +10.0 (Poisson), 0.0 (NB)" in text.replace("+0.0", "0.0")
    assert "NB 70 % [" in text
    assert "scores best in 1 of 2 tasks; in 2 it is significantly better than another, in none worse" in text
    assert "scores lower in 2 of 2 tasks; significantly worse in 2, better in 0" in text
    assert "Telling perturbations apart −0.100" in text
    assert "Rebuilding effects −0.200" in text  # an error that grows is a loss
    assert "A &lt;b&gt;screen" in "".join(part["data"] for part in parts)
    assert all(part["data"].count('alt="') == 1 for part in parts)
    lean = words(count_distribution.sections(run, write_counts(tmp_path, genes_of({"nb": 8, "zinb": 7}))))
    assert "The counts favour, without significance, the negative binomial distribution" in lean


def test_scores_that_follow_the_data_or_do_not():
    ahead = TIED | {"scvi_nb": ("better", "tied")}
    assert "the scores follow the data" in count_scores.verdict(run_of(SAME, ahead), "x", "nb")
    assert "in 1 another is significantly better (NB): the scores do not follow the data" in count_scores.verdict(
        run_of(SAME, ahead), "x", "zinb"
    )
    assert "in 1 another is significantly better (ZINB)" in count_scores.verdict(
        run_of(SAME | {"scvi": (0.6, 0.5)}, TIED | {"scvi_nb": ("worse", "tied")}), "x", "nb"
    )
    # NB against Poisson: neither was compared with the other, so their intervals must not overlap
    assert "in 1 another is significantly better (NB)" in count_scores.verdict(run_of(SAME, TIED), "x", "poisson")
    close = SAME | {"scvi_nb": (0.46, 0.6)}
    assert "do not distinguish them" in count_scores.verdict(run_of(close, TIED), "x", "poisson")
    assert count_scores.verdict(run_of({"scvi": (0.5, 0.5)}, {}), "x", "nb") == ""
    assert count_scores.lognorm_cost(run_of({"scvi": (0.5, 0.5)}, {}), "x") == ""


def test_count_section_of_data_without_counts(tmp_path):
    (tmp_path / "x.count_distribution.json").write_text(json.dumps({"status": "not_applicable", "reason": "log values"}))
    parts = count_distribution.sections(run_of({"scvi": (0.5, 0.5)}, {}), tmp_path)
    assert [part["id"] for part in parts] == ["plumbline_count_distribution_data"]
    assert "Not applicable: log values." in parts[0]["data"]
    assert count_distribution.sections(run_of({"scvi": (0.5, 0.5)}, {}), tmp_path / "none") == []


MEAN_EFFECTS = ("effect_pearson", "effect_integrity")


def write_integrity(folder: Path, moved: float = 0.0) -> Path:
    """Structural integrity detects all but swapped labels, which Pearson detects; ``moved``: by fewer controls."""
    rows, rng = [], np.random.default_rng(0)
    for number in range(6):
        for metric in ("structural_integrity", "si_effect", *MEAN_EFFECTS, "mse", "energy_distance", "spearman"):
            none, whole = (0.5, 0.8) if metric == "structural_integrity" else (0.0, 1.0)
            perfect = 1.0
            rows += [("reference", name, 0.0, number, metric, value)
                     for name, value in (("no_effect", none), ("undamaged", whole), ("perfect", perfect))]  # fmt: skip
            for kind, damages in (("sensitive", SENSITIVE), ("indifferent", INDIFFERENT)):
                for name, (_, levels, _) in damages.items():
                    for place, level in enumerate(levels):
                        keeps = kind == "indifferent" or (name == "labels_swapped") != (metric == "effect_pearson")
                        value = 1.0 if keeps else 1 - 0.8 * (place + 1) / len(levels)
                        if name == "fewer_controls" and metric == "structural_integrity":
                            value -= moved
                        value += rng.normal(0, 0.001)
                        rows.append((kind, name, level, number, metric, none + value * (whole - none)))
    columns = ["kind", "damage", "level", "replicate", "metric", "value"]
    pd.DataFrame(rows, columns=columns).assign(n_cells=1, n_batches=1).to_parquet(folder / "x.integrity.parquet")
    about = {"status": "ok", "n_cells": 10, "n_cells_test": 20, "n_perturbations": 3, "n_controls": 4, "n_batches": 2,
             "n_genes": 5, "n_genes_total": 50, "cells_median": 7.0, "replicates": 6, "halves_of": "perturbations"}  # fmt: skip
    (folder / "x.integrity.json").write_text(json.dumps(about))
    return folder


def test_integrity_section_recommends_what_the_numbers_say(tmp_path):
    run = run_of(SAME, TIED)
    parts = integrity.sections(run, write_integrity(tmp_path))
    text = words(parts)
    assert "Structural integrity detects 7 of 8 kinds of damage (not: perturbations swapped)" in text
    assert "and is unchanged in all 4 harmless ones." in text
    assert "Recommended: report it with Pearson of mean effects" in text
    assert "does not (perturbations swapped)." in text
    assert "No effect predicted gives 0.5 and a perfect prediction 1, exactly." in text
    assert re.search(r"noise added\s+80 % \[80, 80\]\s+ρ −1\.00 \[−1\.00, −1\.00\]; from 0\.125", text)
    assert "so few cells" not in text
    assert (
        "10 of 20 test2 cells of 3 perturbations (median 7 cells), 4 controls, 2 batches, 5 most expressed genes of 50" in text
    )
    assert 'alt="Structural integrity detects' in parts[0]["data"]
    moved = words(integrity.sections(run, write_integrity(tmp_path, moved=0.2)))
    about = json.loads((tmp_path / "x.integrity.json").read_text()) | {"cells_median": 3.0}
    (tmp_path / "x.integrity.json").write_text(json.dumps(about))
    assert "With so few cells per perturbation, mean effects contain" in words(integrity.sections(run, tmp_path))
    assert "also changes with controls removed" in moved


def test_integrity_that_misses_its_anchors_is_told(tmp_path):
    write_integrity(tmp_path)
    values = pd.read_parquet(tmp_path / "x.integrity.parquet")
    rows = (values["damage"] == "no_effect") & (values["metric"] == "structural_integrity")
    values.loc[rows, "value"] += 0.01
    assert "differ from 0.5 and 1 by up to 0.01" in integrity.anchors(values)


def test_integrity_section_where_there_is_nothing_to_predict(tmp_path):
    (tmp_path / "x.integrity.json").write_text(json.dumps({"status": "not_applicable", "reason": "no control cell"}))
    parts = integrity.sections(run_of(SAME, TIED), tmp_path)
    assert "Not applicable: no control cell." in parts[0]["data"]
    assert integrity.sections(run_of(SAME, TIED), tmp_path / "none") == []
