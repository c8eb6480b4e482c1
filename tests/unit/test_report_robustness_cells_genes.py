"""The sections on robustness, cells per perturbation and gene embeddings say what was planted, and escape what users named."""

import re

import numpy as np
import pandas as pd
import pytest

from plumbline.experiments.cells_per_perturbation import COLUMNS
from plumbline.experiments.gene_recall import COLUMNS as GENE_COLUMNS
from plumbline.report.experiments import cells_per_perturbation, gene_recall, robustness
from plumbline.report.run import Run


def run_of(experiments: pd.DataFrame | None = None) -> Run:
    about = {"datasets": {"x": {"facts": {"title": "A <b>screen"}}}, "models": {"pca": {"title": "PCA"}}, "baseline": "pca"}
    none = pd.DataFrame({"dataset": ["x"], "variant": ["pca"]})
    empty = (pd.DataFrame() for _ in range(3))
    return Run(about, none, none, *empty, experiments=pd.DataFrame() if experiments is None else experiments)


def text_of(parts: list[dict]) -> str:
    page = " ".join(part["data"] for part in parts)
    assert "<b>screen" not in page
    return re.sub(r"<[^>]+>", " ", page.split("<img")[0])


def damaged_rows(**values) -> pd.DataFrame:
    """Recall 0.5 of all counts over a floor of 0.1: 0.4 with a quarter of the counts, 0.1 with a panel."""
    common = {"experiment": "robustness", "dataset": "x", "task": "recall", "metric": "recall_mean", "main": True,
              "protocol": "corrected", "variant": "pca", "status": "ok", "baseline_value": 0.5, "floor": 0.1, "direction": 1,
              "reason": ""}  # fmt: skip
    rows = [("train+panel1000", 0.1, "worse"), ("train+thinned25", 0.4, "tied"), ("train+thinned50", 0.5, "tied")]
    table = pd.DataFrame(rows, columns=["fit_on", "value", "verdict"]).assign(**common)
    difference = table["value"] - 0.5
    ends = {"difference": difference, "diff_low": difference - 0.06, "diff_high": difference + 0.06}
    return table.assign(ci_low=table["value"] - 0.05, ci_high=table["value"] + 0.05, **ends, **values)


def test_what_a_model_keeps_is_said_mildest_damage_first():
    parts = robustness.sections(run_of(damaged_rows()), None)
    said = text_of(parts)
    assert "100 % with 50 % of the counts" in said
    assert "75 % with 25 % of the counts (0 better, 1 tied, 0 worse)" in said
    assert "0 % with a panel of 1,000 genes (0 better, 0 tied, 1 worse)" in said
    assert said.index("50 % of") < said.index("25 % of") < said.index("panel of")
    assert "75 % [60, 90]" in parts[1]["data"]
    assert "<img" in parts[0]["data"]


def test_a_model_that_does_not_apply_has_a_row_and_no_advantage_is_no_share():
    rows = damaged_rows()
    rows.loc[0, ["status", "reason"]] = "not_applicable", "the data set has 800 genes, no more than the panel"
    assert "no more than the panel" in robustness.sections(run_of(rows), None)[1]["data"]
    assert "an unknown share with 25 %" in text_of(robustness.sections(run_of(damaged_rows(floor=0.6)), None))
    assert robustness.sections(run_of(damaged_rows(status="failed")), None) == []


def write_curve(folder, variant: str, values: tuple, plateau: float, **more) -> None:
    about = {"dataset": "x", "model": variant, "variant": variant, "fit_on": "train", "task": "retrieval", "status": "ok",
             "metric": "retrieval_pds", "postprocess": "center", "n_units": 40, "floor": 0.5, "reason": "", **more}  # fmt: skip
    rows = pd.DataFrame({"share": [0.25, 0.5, 1, np.inf], "cells": [5, 10, 20, np.inf], "value": [*values, plateau]})
    rows = rows.assign(**about, ci_low=rows["value"] - 0.02, ci_high=rows["value"] + 0.02, n_draws=[4, 2, 1, 0])
    rows.reindex(columns=COLUMNS).to_parquet(folder / f"x.{variant}.cells_per_perturbation.parquet")


ATTAINED = {"attained": 0.5, "attained_low": 0.4, "attained_high": 0.6, "cells_needed": 60.0, "verdict": "more cells help"}


def test_more_cells_or_another_model(tmp_path):
    """PCA has half of what it would have; 60 cells are enough; another model has more with the same cells."""
    write_curve(tmp_path, "pca", (0.6, 0.65, 0.7), 0.9, **ATTAINED)
    write_curve(tmp_path, "mine", (0.7, 0.72, 0.75), 0.76, **ATTAINED | {"verdict": "cannot tell"})
    parts = cells_per_perturbation.sections(run_of(), tmp_path)
    said = text_of(parts)
    assert "with 20 cells per perturbation PCA has 50 % [40, 60]" in said
    assert "more would help, about 60 cells are enough for 90 %" in said
    assert "with the same cells mine scores +0.050, any number of cells would give +0.200" in said
    assert "0.900 [0.880, 0.920]" in parts[1]["data"]
    assert "▲ more cells help" in parts[1]["data"]


def test_what_cannot_be_said_is_said(tmp_path):
    nothing = {name: np.nan for name in ATTAINED} | {"verdict": "no estimate", "reason": "the score falls with more cells"}
    write_curve(tmp_path, "pca", (0.7, 0.65, 0.6), np.nan, **nothing)
    pd.DataFrame({"dataset": ["x"], "variant": ["pca"], "task": ["geometry"], "status": ["not_applicable"],
                  "reason": ["does not measure"]}).reindex(columns=COLUMNS).to_parquet(
        tmp_path / "x.zero.cells_per_perturbation.parquet")  # fmt: skip
    parts = cells_per_perturbation.sections(run_of(), tmp_path)
    assert "for PCA nothing can be said of more cells (the score falls with more cells)" in text_of(parts)
    assert "does not measure" in parts[1]["data"]
    line = nothing | {"verdict": "more cells help", "reason": "no plateau in sight, it is 0.8 or more"}
    write_curve(tmp_path, "pca", (0.55, 0.6, 0.7), np.nan, **line)
    assert "more cells would help PCA (no plateau in sight" in text_of(cells_per_perturbation.sections(run_of(), tmp_path))
    write_curve(tmp_path, "pca", (0.55, 0.6, 0.7), np.nan, **line | {"verdict": "cannot tell"})
    said = text_of(cells_per_perturbation.sections(run_of(), tmp_path))
    assert "whether more cells would help PCA cannot be told (no plateau" in said
    assert "nan" not in said


@pytest.mark.parametrize("module", [cells_per_perturbation, gene_recall])
def test_without_files_there_is_no_section(module, tmp_path):
    (tmp_path / f"x.{module.NAME}.parquet").touch()  # as a stub leaves it
    assert module.sections(run_of(), tmp_path) == []


def test_gene_tables_next_to_the_loadings(tmp_path):
    rows = [("scgpt", "raw", 0.42, 0.2, 0.001), ("scgpt", "pca", 0.18, -0.1, 0.02),
            ("pca_loadings", "raw", 0.22, np.nan, np.nan), ("random", "raw", 0.1, np.nan, np.nan)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["table", "processing", "value", "difference", "q"])
    ends = {"diff_low": table["difference"] - 0.05, "diff_high": table["difference"] + 0.05, "baseline_value": 0.22}
    table = table.assign(dataset="x", metric="recall_mean", ci_low=table["value"] - 0.03, ci_high=table["value"] + 0.03,
                         n_genes=900, n_pairs=4000, status="ok", reason="", **ends)  # fmt: skip
    table.reindex(columns=GENE_COLUMNS).to_parquet(tmp_path / "x.gene_recall.parquet")
    parts = gene_recall.sections(run_of(), tmp_path)
    said = text_of(parts)
    assert "scgpt (as stored) recalls most, 0.420 (chance 0.10)" in said
    assert "of 2 comparisons with PCA loadings of the data 1 better, 1 worse" in said
    assert "▲ better" in parts[1]["data"]
    assert "▼ worse" in parts[1]["data"]
    assert "· not tested" in parts[1]["data"]
