"""Published scores beside ours (protocol `paper`) on the data sets that are published ones."""

from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.genes.relationships import SOURCES

COLUMNS = [
    *("dataset", "published_as", "task", "metric", "postprocess", "published_model", "published_metric", "published"),
    *(
        "published_sd",
        "model",
        "variant",
        "fit_on",
        "same_settings",
        "ours",
        "ci_low",
        "ci_high",
        "difference",
        "note",
        "source",
    ),
]
# published name -> (our task, metrics whose mean it is, factor to our scale)
METRICS = {
    "iLISI_raw": ("batch_effect", ["ilisi_raw"], 1.0),
    "iLISI(norm)": ("batch_effect", ["ilisi_ratio"], 1.0),
    "lin_top1_pct": ("separability", ["linear_top1"], 0.01),
    "lin_top5_pct": ("separability", ["linear_top5"], 0.01),
    "lin(mean top1,top5)": ("separability", ["linear_top1", "linear_top5"], 0.01),
    "knn_top1_pct": ("separability", ["knn_top1"], 0.01),
    "knn_top5_pct": ("separability", ["knn_top5"], 0.01),
    "knn(mean top1,top5)": ("separability", ["knn_top1", "knn_top5"], 0.01),
    "consistency_pct": ("consistency", ["consistency_pct"], 1.0),
    "bmdb(mean of 5 DB)": ("recall", ["recall_mean"], 0.01),
    "struct_integrity": ("reconstruction", ["structural_integrity"], 1.0),
    "spearman": ("reconstruction", ["spearman"], 1.0),
    "inv(mean spearman,SI)": ("reconstruction", ["spearman", "structural_integrity"], 0.01),
} | {name: ("recall", [f"recall_{name.lower()}"], 1.0) for name in SOURCES}
# consistency_p01 (p <= 0.01) and avg6 have no counterpart here
POSTPROCESS = {"raw": "none", "centering": "center", "center_scale": "center_scale", "tvn": "tvn", "best_per_task": "best"}
# published name -> (our module, the variant that answers to it, whether the paper states all its settings)
MODELS = {
    "PCA": ("pca", "pca_raw", True), "scVI": ("scvi", "scvi_lognorm", True),
    "Geneformer": ("geneformer", "geneformer_v1", False), "Geneformer [CELLxGENE]": ("geneformer", "geneformer_v1", False),
    "UCE": ("uce", "uce_33l", False), "UCE [CELLxGENE]": ("uce", "uce_33l", False),
    "cellPLM": ("cellplm", "cellplm", False), "CellPLM": ("cellplm", "cellplm", False),
    "scGPT": ("scgpt", "scgpt", False), "scGPT [CELLxGENE]": ("scgpt", "scgpt", False),
    "RandLabels": ("reference", "random", False), "Random label shuffle": ("reference", "random", False),
}  # fmt: skip


def beside_published(scores: pd.DataFrame, path: Path | None, facts: dict[str, dict]) -> pd.DataFrame:
    """One row a published score and model of ours that answers to it; `ours` is nan where this run has none."""
    names = {about.get("published_as"): name for name, about in facts.items() if about.get("published_as")}
    if path is None or not names:
        return pd.DataFrame(columns=COLUMNS)
    published = pd.read_csv(path, keep_default_na=False)
    published = published[published["dataset"].isin(list(names)) & published["metric"].isin(list(METRICS))]
    ours = scores[(scores["protocol"] == "paper") & (scores["status"] == "ok")]
    groups = dict(list(ours.groupby(["dataset", "task", "postprocess"])))
    rows = []
    for record in published.to_dict("records"):
        key = (names[record["dataset"]], METRICS[record["metric"]][0], POSTPROCESS[record["postprocess"]])
        rows += _beside(record, *key, groups.get(key, ours.iloc[:0]))
    return pd.DataFrame(rows, columns=COLUMNS)


def _beside(record: dict, dataset: str, task: str, post: str, ours: pd.DataFrame) -> list[dict]:
    _, metrics, factor = METRICS[record["metric"]]
    value, sd = (pd.to_numeric(record[name], errors="coerce") * factor for name in ("mean", "sd"))
    about = {"dataset": dataset, "published_as": record["dataset"], "task": task, "metric": "+".join(metrics),
             "postprocess": post, "published_model": record["model"], "published_metric": record["metric"],
             "published": value, "published_sd": sd, "note": record["note"], "source": record["source"]}  # fmt: skip
    module, counterpart, stated = MODELS.get(record["model"], ("", "", False))
    runs = _counterparts(ours[ours["metric"].isin(metrics)], module, counterpart)
    if runs.empty:
        return [{**about, "model": "", "variant": "", "fit_on": "", "same_settings": False, "ours": np.nan}]
    rows = []
    for (model, variant, fit_on), part in runs.groupby(["model", "variant", "fit_on"]):
        mean = part.groupby("metric")["value"].mean().reindex(metrics).mean(skipna=False)
        single = len(metrics) == 1 and len(part) == 1
        spread = {name: part[name].iloc[0] if single else np.nan for name in ("ci_low", "ci_high")}
        same = stated and variant == counterpart
        rows.append({**about, "model": model, "variant": variant, "fit_on": fit_on, "same_settings": same, "ours": mean,
                     **spread, "difference": mean - value})  # fmt: skip
    return rows


def _counterparts(found: pd.DataFrame, module: str, variant: str) -> pd.DataFrame:
    """The variant that answers to the published one if this run has it, else every variant of the same model."""
    exact = found[found["variant"] == variant]
    if len(exact) or module == "reference":
        return exact
    return found[found["model"] == module]
