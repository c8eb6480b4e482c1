"""A made run with known answers: score tables, items, provenance and data sets, as the pipeline would leave them."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet

from plumbline import tasks
from plumbline.scoring.protocol import POSTPROCESSINGS
from plumbline.scoring.records import Task
from plumbline.scoring.scores import COLUMNS, Items, Score

REAL = tasks.records()
TASKS = {
    "batch_effect": ("ilisi_ratio", ["ilisi_raw", "ilisi_ratio", "ilisi_scaled"], "batch"),
    "separability": ("linear_top1", ["linear_top1", "linear_top5", "knn_top1", "auroc_control"], "perturbation"),
    "consistency": ("consistency_fdr_pct", ["consistency_pct", "consistency_fdr_pct"], "perturbation"),
    "magnitude": ("magnitude_fdr_pct", ["magnitude_pct", "magnitude_fdr_pct"], "perturbation"),
    "recall": ("recall_mean", ["recall_corum", "recall_stringdb", "recall_mean"], "pair"),
    "reconstruction": ("effect_pearson", ["effect_pearson", "structural_integrity", "spearman", "mse"], "batch"),
}
# variant -> (module, role, quality: what it adds to PCA's score, in standard errors of a unit's noise)
MODELS = {
    "pca": ("pca", "baseline", 0.0), "pca_all": ("pca", "trained", 0.0), "pca_raw": ("pca", "trained", -0.6),
    "scvi": ("scvi", "trained", 1.2), "scvi_nb": ("scvi", "trained", 1.0), "hvg": ("expression", "baseline", -1.0),
    "geneformer_v1": ("geneformer", "foundation", -1.5), "scgpt_human": ("scgpt", "foundation", -0.9),
    "uce_33": ("uce", "foundation", 0.0), "my_model": ("external", "external", 0.6),
    "random": ("reference", "floor", -3.0), "scrambled_pca": ("reference", "floor", -3.0),
    "label_oracle": ("reference", "ceiling", 5.0),
    "no_effect": ("reference", "predictor", -3.0), "mean_effect": ("reference", "predictor", 0.5),
    "split_half": ("reference", "predictor", 5.0),
}  # fmt: skip
DATASETS = {
    "replogle_k562": ("Replogle K562 genome-wide", "replogle_K562_GWPS", 24, 300, 210000),
    "vcc_h1": ("VCC H1 CRISPRi", "", 12, 60, 21000),
    "kang_pbmc": ("Kang PBMC IFN-beta", "", 1, 1, 13963),
    "simulated": ("Simulated screen", "", 8, 200, 16000),
}
LOST = ("vcc_h1", "scgpt_human")  # this embedding failed: nothing of it is left
REFUSED = ("kang_pbmc", "geneformer_v1")  # this model does not apply
EXTRA = {0.05: -2.5, 0.5: 0.0}  # share of the train cells: what scVI's quality loses by it
BASE, NOISE = 0.35, 0.06


def made_records() -> dict[str, Task]:
    """The records of the made tasks, to stand in for ``plumbline.tasks.records``: fewer metrics, other main metrics."""
    return {name: _made_record(REAL[name], main, metrics) for name, (main, metrics, _) in TASKS.items()}


def _made_record(real: Task, main: str, metrics: list[str]) -> Task:
    some = tuple(replace(real.metric(name), uncalibrated="") for name in metrics)  # made units are independent
    # but for percentages, no metric has bounds: made scores lie where they may
    free = tuple(m if m.unit == "%" else replace(m, lowest=-np.inf, highest=np.inf) for m in some)
    single = "auroc_control" if "auroc_control" in metrics else main
    choose = (lambda facts: single if facts["n_perturbations"] < 3 else main) if real.choose_main else None
    return replace(real, main_metric=main, metrics=free, choose_main=choose)


def make_run(
    folder: Path,
    datasets: tuple[str, ...] = tuple(DATASETS),
    seeds: tuple[int, ...] = (42, 43),
    posts: tuple[str, ...] = POSTPROCESSINGS,
    variants: tuple[str, ...] = tuple(MODELS),
    experiments: bool = False,
) -> None:
    """Write scores/, items/, provenance/, tables/, expected.json and models.csv below ``folder``.

    experiments: also runs of minimal_data (EXTRA: less quality with less data) and of transfer.
    """
    rng, of_experiments, expected = np.random.default_rng(7), np.random.default_rng(8), []
    choices = {"paper": "best", "corrected": "selected"}
    grid = [
        (seed, protocol, chosen, post) for seed in seeds for protocol, chosen in choices.items() for post in (*posts, chosen)
    ]
    for name in ("scores", "items", "provenance"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for dataset in datasets:
        _tables(folder, dataset)
        truth = {task: _units(rng, dataset, task) for task in TASKS}
        for variant, fit_on, experiment, shift in _runs(dataset, datasets, variants, experiments):
            module, role, quality = MODELS[variant]
            quality += shift
            embedding = f"{dataset}.{variant}" + (f".{fit_on}" if experiment else "")
            about = {"dataset": dataset, "model": module, "variant": variant, "fit_on": fit_on}
            use = {"experiment": experiment, "compared_with": variant if experiment else "", "role": role}
            for task in TASKS:
                expected.append({**about, **use, "seeds": ",".join(map(str, seeds)), "task": task, "id": embedding})
            if (dataset, variant) == LOST:
                continue
            random = of_experiments if experiment else rng  # the main run is the same with and without
            _provenance(random, folder, about, embedding, dataset)
            for task in TASKS:
                rows, items = _rows(random, about, role, quality, task, truth[task], grid)
                _write_scores(rows, folder / "scores" / f"{embedding}.{task}.scores.parquet", DATASETS[dataset][4])
                items = pd.concat(items) if items else pd.DataFrame({"task": []})
                items.to_parquet(folder / "items" / f"{embedding}.{task}.items.parquet")
    (folder / "expected.json").write_text(json.dumps(expected))
    titles = {"pca": "PCA (log-normalised)", "scvi": "scVI (ZINB)"}
    rows = [
        (v, module, titles.get(v, v.replace("_", " ")), role) for v, (module, role, _) in MODELS.items() if role != "external"
    ]
    models = pd.DataFrame(rows, columns=["id", "model", "title", "role"]).assign(citation="doi:10.0/0")
    models.to_csv(folder / "models.csv", index=False)


def _write_scores(rows, path, n_cells):
    """A score table that cost 2 s and 1 ms a cell."""
    table = arrow.Table.from_pandas(pd.DataFrame(rows, columns=COLUMNS), preserve_index=False)
    used = {"seconds": 2 + 0.001 * n_cells, "cpu_seconds": 2 + 0.002 * n_cells, "peak_memory_bytes": 10_000 * n_cells}
    parquet.write_table(table.replace_schema_metadata({**table.schema.metadata, "plumbline.usage": json.dumps(used)}), path)


def _runs(dataset, datasets, variants, experiments):
    """(variant, fit_on, experiment, what it adds to the quality) of every run on a data set."""
    for name in variants:
        fit_on = "train" if MODELS[name][1] == "trained" else "none"
        yield name, {"pca": "train", "pca_all": "all"}.get(name, fit_on), "", 0.0
    if experiments:
        yield from (
            ("scvi", f"train@{share}#{draw}", "minimal_data", shift) for share, shift in EXTRA.items() for draw in (1, 2)
        )
        yield from (("pca", other, "transfer", -1.5) for other in datasets if other != dataset)


def _units(rng, dataset, task):
    """The units of a task on a data set and how hard each is; None where the task does not apply."""
    _, _, n_batches, n_perturbations, _ = DATASETS[dataset]
    kind = TASKS[task][2]
    if kind == "batch" and n_batches == 1:
        return "the data set has one batch"
    if kind == "pair":
        if n_perturbations < 50:
            return "too few perturbed genes with known relationships"
        genes = np.array([f"G{i}" for i in range(n_perturbations)])
        pairs = rng.integers(0, n_perturbations, (4 * n_perturbations, 2))
        pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
        return kind, genes[pairs[:, 0]], genes[pairs[:, 1]], rng.normal(0, 0.1, len(pairs))
    n = n_batches if kind == "batch" else max(n_perturbations, 8)
    return kind, np.array([f"{kind}{i}" for i in range(n)]), None, rng.normal(0, 0.1, n)


def _rows(rng, about, role, quality, task, units, grid):
    metrics = TASKS[task][1]
    rows, tables = [], []
    reason = units if isinstance(units, str) else ""
    if (about["dataset"], about["variant"]) == REFUSED:
        reason = "Geneformer knows human genes only"
    if role == "predictor" and task != "reconstruction":
        reason = "a predictor has no embedding"
    for (seed, protocol, chosen, post), metric in product(grid, metrics):
        if reason and post != chosen:
            continue
        score = Score.absent(metric, reason) if reason else _score(rng, metric, quality, units, post)
        why = "center_scale: chosen on the validation part" if post == chosen and not reason else score.reason
        key = {**about, "postprocess": post, "seed": seed, "protocol": protocol, "task": task, "metric": metric}
        rows.append({**key, "task_version": "1", "value": score.value, "ci_low": score.value - 0.02,
                     "ci_high": score.value + 0.02,
                     "n": score.n, "status": score.status, "reason": why, "code": "abc123"})  # fmt: skip
        if score.items:
            tables.append(_frame(score.items, key))
    return rows, tables


def _score(rng, metric, quality, units, post):
    kind, unit, unit2, hardness = units
    shift = quality * NOISE - {"none": 0.08, "center": 0.03, "tvn": 0.01}.get(post, 0.0)
    worth = BASE + hardness + shift + rng.normal(0, NOISE, len(unit))
    scale = 100.0 if metric.endswith("_pct") else -1.0 if metric == "mse" else 1.0
    offset = 1.0 if metric == "mse" else 0.0
    weight = np.ones(len(unit)) if kind == "pair" else rng.integers(20, 60, len(unit)).astype(float)
    return Score.of(metric, Items(kind, unit, worth.clip(0, 1) * weight, weight, unit2, offset, scale))


def _frame(items, key):
    unit2 = "" if items.unit2 is None else items.unit2
    columns = {"unit": items.unit, "unit2": unit2, "numerator": items.numerator, "denominator": items.denominator}
    return pd.DataFrame(columns).assign(**key, unit_kind=items.kind, offset=items.offset, scale=items.scale)


def _provenance(rng, folder, about, embedding, dataset):
    n_cells, speed = DATASETS[dataset][4], {"pca": 9000.0, "scvi": 900.0, "geneformer": 60.0}.get(about["model"], 300.0)
    genes = int(2000 * rng.uniform(0.6, 1.0))
    about = {name: value for name, value in about.items() if name != "dataset"}
    about |= {"status": "ok", "seed": 42, "n_cells": n_cells, "n_dimensions": 256, "seconds": n_cells / speed,
              "cpu_seconds": 2 * n_cells / speed, "cells_per_second": speed, "peak_memory_bytes": 2_000_000_000,
              "genes_used": genes, "genes_total": 2000,
              "counts_used": 0.97, "device": "cpu"}  # fmt: skip
    (folder / "provenance" / f"{embedding}.json").write_text(json.dumps(about))


def _tables(folder, dataset):
    title, published, n_batches, n_perturbations, n_cells = DATASETS[dataset]
    facts = {"name": dataset, "title": title, "organism": "human", "x_kind": "counts", "n_cells": n_cells, "n_genes": 2000,
             "n_batches": n_batches, "n_perturbations": n_perturbations, "n_controls": n_cells // 10,
             "has_batches": n_batches > 1, "has_controls": True, "split_by": "batch" if n_batches > 1 else "cell",
             "seeds": [42, 43], "perturbation_type": "CRISPRi", "published_as": published, "input_sha256": "0" * 64,
             "min_counts": 1000, "n_cells_dropped": 12, "warnings": []}  # fmt: skip
    report = {"warnings": ["2 batches have no controls"] if dataset == "vcc_h1" else [], "confounding": 0.12}
    inside = folder / "tables" / dataset / "tables"
    inside.mkdir(parents=True, exist_ok=True)
    (inside / "dataset.json").write_text(json.dumps(facts))
    (inside / "data_report.json").write_text(json.dumps(report))
