"""What a planned run will do, as tasks with the sizes that their cost depends on (cost.py)."""

from collections import Counter
from pathlib import Path

import pandas as pd

from plumbline import tasks
from plumbline.data.catalogue import NONE, labels_in
from plumbline.experiments.work import CELLS_EACH, USUAL, item_rows

HELD_OUT = 0.1  # of the cells, about: 30 % of the perturbations in 30 % of the batches
TRAIN = 0.5  # of the cells, about: 70 % of the perturbations in 70 % of the batches
DIMENSIONS = ("n_components", "n_latent", "head_dim")  # settings that say how wide an embedding will be
SIZES = ("n_cells", "n_genes", "n_perturbations")
# experiment -> its process on each data set
ANALYSES = {
    "count_distribution": "DESCRIBE_COUNTS",
    "integrity": "ABLATE_INTEGRITY",
    "gene_recall": "RECALL_GENES",
    "objectives": "HOLD_OUT",
}
ALL = ""  # the data sets of a run together


def dataset_sizes(plan: dict, inputs: Path | None, catalogue: dict) -> dict[str, dict]:
    """data set -> n_cells (0 where nobody knows), n_genes and n_perturbations (None where nobody knows); '' for all together.

    has_controls: whether the cells have controls or, where no file's labels are known, the row names any.
    left_out: the tasks that do not apply to the data set, as far as its row and its file tell.
    inputs: folder with the data sets' files. catalogue: rows by name.
    """
    found: dict[str, dict] = {}
    for dataset in plan["datasets"]:
        name, path = dataset["name"], dataset.get("file")
        row = catalogue.get(name, {}) | {key: value for key, value in dataset.items() if value not in (None, "", [])}
        sizes = _sizes_of(inputs / path, row) if path and inputs else _sizes_in(row)
        found[name] = sizes | {"left_out": set(tasks.not_applicable(_facts(row, sizes)))}
        found[f"{name}.heldout"] = found[name] | {"n_cells": round(HELD_OUT * found[name]["n_cells"])}
    all_cells = sum(found[dataset["name"]]["n_cells"] for dataset in plan["datasets"])
    return found | {ALL: {"n_cells": all_cells, "n_genes": None, "n_perturbations": None}}


def _sizes_in(row: dict) -> dict:
    """What the catalogue says."""
    n_perturbations = row.get("n_perturbations")
    return {
        "n_cells": int(row.get("n_cells") or 0),
        "n_genes": None,
        "n_perturbations": int(n_perturbations) if n_perturbations else None,
        "has_controls": _control_label(row).lower() not in NONE,
    }


def _sizes_of(path: Path, row: dict) -> dict:
    """What a file says, and the row where the file has no labels."""
    from plumbline.data.cells import named_controls
    from plumbline.data.ingest import open_source

    source, column, label = open_source(path, "X", None), row.get("perturbation_column") or "", _control_label(row)
    sizes = _sizes_in(row) | {"n_cells": len(source.cell_id), "n_genes": len(source.var), "n_perturbations": None}
    if column not in source.columns:
        return sizes
    labels = source.column(column, "perturbation", (label, *labels_in(label))).dropna().unique().tolist()
    controls = set().union(*named_controls(label, labels).values())
    return sizes | {"n_perturbations": len(set(labels) - controls), "has_controls": bool(controls)}


def _control_label(row: dict) -> str:
    return str(row.get("control_label", "")).strip()


def _facts(row: dict, sizes: dict) -> dict:
    """What PREPARE will find out, as far as the row and the sizes tell; of the rest, what no task stops at."""
    many = 10**9
    has_batches = str(row.get("batch_column", "")).lower() not in NONE
    return {
        "perturbation_type": row.get("perturbation_type") or "",
        "organism": row.get("organism") or "human",
        "n_cells": sizes["n_cells"] or many,
        "n_perturbations": many if sizes["n_perturbations"] is None else sizes["n_perturbations"],
        "has_batches": has_batches,
        "n_batches": many if has_batches else 1,
        "has_controls": sizes["has_controls"],
    }


def planned_tasks(plan: dict, sizes: dict[str, dict]) -> pd.DataFrame:
    """One row for each step, name and size: how many tasks (n_tasks) of which sizes (work.USUAL, n_perturbations, data set).

    process: '' for a task in a process of its own; those of one name share one. START: as many as there are processes.
    """
    rows = [{"step": "PREPARE", "name": "", "dataset": dataset["name"], "n_seeds": 1} for dataset in plan["datasets"]]
    wide = {}
    for run in plan["embed"]:
        dimensions = wide[(run["dataset"], run["variant"])] = _dimensions(run)
        part = {"n_fit_cells": _fit_cells(run, sizes), "n_dimensions": dimensions, "n_seeds": 1}
        rows.append({"step": "EMBED", "name": run["variant"], "dataset": run["dataset"]} | part)
    rows += _evaluations(plan, sizes, wide) + _experiments(plan, wide) + _reports(plan, sizes, wide)
    table = pd.DataFrame(rows).assign(n_tasks=1)
    table["process"] = table["process"].fillna("") if "process" in table else ""
    for name in SIZES:
        table[name] = pd.to_numeric(table["dataset"].map({dataset: size[name] for dataset, size in sizes.items()}))
    table = table.fillna({"n_cells": 0, "n_fit_cells": 0})
    keys = [name for name in table if name != "n_tasks"]
    return table.groupby(keys, as_index=False, dropna=False)["n_tasks"].sum()


def _evaluations(plan: dict, sizes: dict[str, dict], wide: dict) -> list[dict]:
    """A row for each task of each embedding, and one for each process, which is START. Tasks of a small embedding share one."""
    rows = []
    runs = _scored(plan, sizes)
    n_tasks = Counter(run["id"] for run in runs)
    started = set()
    for run in runs:
        n_dimensions = wide.get((run["dataset"], run["variant"]))
        part = {"dataset": run["dataset"], "n_dimensions": n_dimensions, "n_seeds": run["n_seeds"]}
        part |= {"n_draws": plan.get("n_draws")}
        n_values = sizes[run["dataset"]]["n_cells"] * (n_dimensions or USUAL["n_dimensions"]) * run["n_seeds"]
        small = n_tasks[run["id"]] > 1 and n_values <= 1e6 * plan["max_together"]
        process = f"{run['dataset']} {n_dimensions} {run['n_seeds']}" if small else ""
        rows.append({"step": "EVALUATE", "name": run["task"], "process": process} | part)
        if not small or run["id"] not in started:
            rows.append({"step": "START", "name": "EVALUATE"} | part)
            started.add(run["id"])
    return rows


def _experiments(plan: dict, wide: dict) -> list[dict]:
    """What experiments do beside embeddings and their scores, which are among the others."""
    names, each = plan.get("experiments", []), [dataset["name"] for dataset in plan["datasets"]]
    rows = [
        {"step": "EXPERIMENT", "name": process, "dataset": dataset}
        for experiment, process in ANALYSES.items() if experiment in names for dataset in each
    ]  # fmt: skip
    if "objectives" in names:
        rows += [{"step": "PREPARE", "name": "", "dataset": f"{dataset}.heldout"} for dataset in each]
    if "cells_per_perturbation" in names:
        rows += [
            {"step": "EXPERIMENT", "name": "SCORE_FEWER_CELLS", "dataset": run["dataset"], "n_dimensions": _width(run, wide)}
            for run in plan["compared"]
        ]
    if "cross_context" in names and len(each) > 1:
        width = sum(_width(run, wide) for run in plan["compared"]) / len(each)
        rows.append({"step": "EXPERIMENT", "name": "COMPARE_CONTEXTS", "dataset": ALL, "n_dimensions": width})
    return [row | {"n_seeds": 1} for row in rows]


def _reports(plan: dict, sizes: dict[str, dict], wide: dict) -> list[dict]:
    """Maps of all compared embeddings of a data set, and what follows when all is scored: one after another."""
    compared: dict[str, float] = {}
    for run in plan.get("compared", []):
        compared[run["dataset"]] = compared.get(run["dataset"], 0.0) + _width(run, wide)
    shared = {"step": "REPORT", "n_seeds": 1}
    maps = [shared | {"name": "MAP", "dataset": name, "n_dimensions": width} for name, width in compared.items()]
    n_items = sum(
        run["n_seeds"] * item_rows(run["task"], _perturbations(sizes[run["dataset"]])) for run in _scored(plan, sizes)
    )
    last = shared | {"dataset": ALL, "process": "last", "n_scores": len(plan["evaluate"]), "n_items": n_items}
    ends = [last | {"name": name} for name in ("SUMMARISE", "REPORT", "MULTIQC")] if compared else []
    return (maps if plan.get("maps") else []) + ends


def _scored(plan: dict, sizes: dict[str, dict]) -> list[dict]:
    """The requested evaluations whose task applies to the data set."""
    return [run for run in plan["evaluate"] if run["task"] not in sizes[run["dataset"]]["left_out"]]


def _perturbations(size: dict) -> float:
    return size["n_perturbations"] or size["n_cells"] / CELLS_EACH


def _width(run: dict, wide: dict) -> float:
    return wide.get((run["dataset"], run["variant"])) or USUAL["n_dimensions"]


def _dimensions(run: dict) -> float | None:
    """Width of an embedding, where its settings or the table of models say it."""
    settings = dict(setting.split("=", 1) for setting in run.get("settings", []))
    names = ("head_dim",) if "head" in settings else DIMENSIONS  # before a head, the others are the width of its input
    given = [value for name, value in settings.items() if name in names]
    said = given[-1] if given else str(run.get("n_dimensions") or "")
    return float(said) if said.isdigit() else None


def _fit_cells(run: dict, sizes: dict[str, dict]) -> int:
    """Cells that a model is fitted on, by its words for it ('train', 'all', 'kang:train', 'train@0.1#2')."""
    words, _, share = run.get("fit_on", "none").partition("+")[0].partition("@")
    source, _, part = words.rpartition(":")
    if part == "none":
        return 0
    n_cells = sizes.get(source or (part if part not in ("train", "all") else run["dataset"]), {}).get("n_cells", 0)
    return round(n_cells * (TRAIN if part == "train" else 1.0) * float(share.partition("#")[0] or 1))
