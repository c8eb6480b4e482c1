"""The section on modified objectives says what labels gained."""

from dataclasses import replace

import numpy as np
import pandas as pd

from plumbline.report.experiments import objectives
from plumbline.report.run import Run


def made_run(**verdicts):
    """A run whose experiment has PCA and scVI without labels, and PCA with a head and scANVI with them."""
    columns = {"experiment": "objectives", "dataset": "s.heldout", "protocol": "corrected", "main": True, "status": "ok",
               "reason": "", "direction": 1, "ci_low": 0.1, "ci_high": 0.9, "diff_low": np.nan, "diff_high": np.nan,
               "difference": np.nan, "baseline_value": np.nan, "verdict": "baseline", "role": "trained"}  # fmt: skip
    base = {("pca", "recall"): 0.2, ("scvi", "recall"): 0.3, ("pca", "consistency"): 40.0, ("scvi", "consistency"): 40.0}
    metric = {"recall": "recall_mean", "consistency": "consistency_pct"}
    rows = []
    for (model, task), value in base.items():
        both = {"task": task, "metric": metric[task], "model": model}
        rows.append(columns | both | {"variant": model, "value": value, "label": model.upper(), "compared_with": "pca"})
        variant, gain = ("pca_contrastive", 0.4) if model == "pca" else ("scanvi", -0.1)
        ends = {"difference": gain, "diff_low": gain - 0.05, "diff_high": gain + 0.05, "baseline_value": value}
        both |= {"variant": variant, "value": value + gain, "label": f"{variant} title", "compared_with": model}
        rows.append(columns | both | ends | {"verdict": verdicts.get(variant, "tied")})
    cost = [{"experiment": "objectives", "dataset": "s.heldout", "label": label, "status": "ok", "seconds": seconds,
             "peak_memory_bytes": 2e9} for label, seconds in (("PCA", 2.0), ("pca_contrastive title", 5.0))]  # fmt: skip
    settings = {"pca": "input=lognorm", "scvi": "", "pca_contrastive": "input=lognorm;head=contrastive"}
    models = {name: {"settings": text} for name, text in (settings | {"scanvi": "architecture=scanvi"}).items()}
    about = {"baseline": "pca", "models": models, "datasets": {}}
    table = pd.DataFrame(rows)
    none = table[:0]  # of the main run
    return Run(about, none, none, none, none, none, experiments=table, experiment_cost=pd.DataFrame(cost))


def test_the_report_says_what_labels_gained(tmp_path):
    gain, listing, cost = objectives.sections(made_run(pca_contrastive="better", scanvi="worse"), tmp_path)
    assert "Of 4 comparisons" in gain["data"]
    assert "<b>2 better, 0 tied, 2 worse</b>" in gain["data"]
    assert "<b>pca_contrastive title</b> compared with PCA (s.heldout): better in " in gain["data"]
    assert "known biology (recall, mean of sources +0.400 [0.350, 0.450])" in gain["data"]
    assert "<b>scanvi title</b> compared with SCVI (s.heldout): worse in " in gain["data"]
    assert gain["data"].count("<img") == 1
    assert listing["data"].count("<tr>") == 1 + 8
    assert listing["data"].count("without labels") == 4
    assert "<td>5.00</td><td>2.00</td>" in cost["data"].replace("5.000", "5.00").replace("2.000", "2.00")


def test_the_report_says_when_labels_gained_nothing(tmp_path):
    gain = objectives.sections(made_run(), tmp_path)[0]["data"]
    assert "<b>0 better, 4 tied, 0 worse</b>" in gain
    assert "tied in known biology and consistency" in gain
    untested = objectives.sections(made_run(pca_contrastive="not tested", scanvi="not tested"), tmp_path)[0]["data"]
    assert "No difference to a model without labels could be tested" in untested


def test_without_labelled_models_there_is_no_section(tmp_path):
    run = made_run()
    rows = run.experiments[run.experiments["variant"].isin(("pca", "scvi"))]
    assert objectives.sections(replace(run, experiments=rows), tmp_path) == []
    assert objectives.sections(replace(run, experiments=pd.DataFrame()), tmp_path) == []
