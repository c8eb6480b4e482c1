"""What a planned run will do, as tasks with the sizes that their cost depends on (cost.py)."""

from collections import Counter
from pathlib import Path

import pandas as pd

from plumbline.experiments.cost import USUAL

HELD_OUT = 0.1  # of the cells, about: 30 % of the perturbations in 30 % of the batches
TRAIN = 0.5  # of the cells, about: 70 % of the perturbations in 70 % of the batches
DIMENSIONS = ("n_components", "n_latent")  # settings that say how wide an embedding will be
SIZES = ("n_cells", "n_genes")


def dataset_sizes(plan: dict, inputs: Path | None, catalogue: dict) -> dict[str, dict]:
    """data set -> n_cells (0 where nobody knows) and n_genes (None where nobody knows).

    inputs: folder with the data sets' files. catalogue: rows by name.
    """
    from plumbline.data.ingest import open_source

    found: dict[str, dict] = {}
    for dataset in plan["datasets"]:
        name, path = dataset["name"], dataset.get("file")
        if path and inputs:
            source = open_source(inputs / path, "X", None)
            found[name] = {"n_cells": len(source.cell_id), "n_genes": len(source.var)}
        else:
            found[name] = {"n_cells": int(catalogue.get(name, {}).get("n_cells") or 0), "n_genes": None}
        found[f"{name}.heldout"] = found[name] | {"n_cells": round(HELD_OUT * found[name]["n_cells"])}
    return found


def planned_tasks(plan: dict, sizes: dict[str, dict]) -> pd.DataFrame:
    """One row for each step, name and size: how many tasks (n_tasks) of which sizes (those of cost.USUAL, and the data set).

    process: '' for a task in a process of its own; those of one name share one. START: as many as there are processes.
    """
    rows = [{"step": "PREPARE", "name": "", "dataset": dataset["name"], "n_seeds": 1} for dataset in plan["datasets"]]
    wide = {}
    for run in plan["embed"]:
        dimensions = wide[(run["dataset"], run["variant"])] = _dimensions(run)
        part = {"n_fit_cells": _fit_cells(run, sizes), "n_dimensions": dimensions, "n_seeds": 1}
        rows.append({"step": "EMBED", "name": run["variant"], "dataset": run["dataset"]} | part)
    rows += _evaluations(plan, sizes, wide)
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
    n_tasks = Counter(run["id"] for run in plan["evaluate"])
    started = set()
    for run in plan["evaluate"]:
        n_dimensions = wide.get((run["dataset"], run["variant"]))
        part = {"dataset": run["dataset"], "n_dimensions": n_dimensions, "n_seeds": run["n_seeds"]}
        n_values = sizes[run["dataset"]]["n_cells"] * (n_dimensions or USUAL["n_dimensions"]) * run["n_seeds"]
        small = n_tasks[run["id"]] > 1 and n_values <= 1e6 * plan["max_together"]
        process = f"{run['dataset']} {n_dimensions} {run['n_seeds']}" if small else ""
        rows.append({"step": "EVALUATE", "name": run["task"], "process": process} | part)
        if not small or run["id"] not in started:
            rows.append({"step": "START", "name": "EVALUATE"} | part)
            started.add(run["id"])
    return rows


def _dimensions(run: dict) -> float | None:
    """Width of an embedding where its settings say it."""
    given = [setting.partition("=")[2] for setting in run.get("settings", []) if setting.startswith(DIMENSIONS)]
    return float(given[-1]) if given and given[-1].isdigit() else None


def _fit_cells(run: dict, sizes: dict[str, dict]) -> int:
    """Cells that a model is fitted on, by its words for it ('train', 'all', 'kang:train', 'train@0.1#2')."""
    words, _, share = run.get("fit_on", "none").partition("+")[0].partition("@")
    source, _, part = words.rpartition(":")
    if part == "none":
        return 0
    n_cells = sizes.get(source or (part if part not in ("train", "all") else run["dataset"]), {}).get("n_cells", 0)
    return round(n_cells * (TRAIN if part == "train" else 1.0) * float(share.partition("#")[0] or 1))
