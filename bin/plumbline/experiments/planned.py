"""What a planned run will do, as tasks with the sizes that their cost depends on (cost.py)."""

from pathlib import Path

import pandas as pd

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
    """One row for each step, name and size: how many tasks (n_tasks) of which sizes (those of cost.USUAL, and the data set)."""
    rows = [{"step": "PREPARE", "name": "", "dataset": dataset["name"], "n_seeds": 1} for dataset in plan["datasets"]]
    wide = {}
    for run in plan["embed"]:
        dimensions = wide[(run["dataset"], run["variant"])] = _dimensions(run)
        part = {"n_fit_cells": _fit_cells(run, sizes), "n_dimensions": dimensions, "n_seeds": 1}
        rows.append({"step": "EMBED", "name": run["variant"], "dataset": run["dataset"]} | part)
    for run in plan["evaluate"]:
        part = {"n_dimensions": wide.get((run["dataset"], run["variant"])), "n_seeds": run["n_seeds"]}
        rows.append({"step": "EVALUATE", "name": run["task"], "dataset": run["dataset"]} | part)
    table = pd.DataFrame(rows).assign(n_tasks=1)
    for name in SIZES:
        table[name] = pd.to_numeric(table["dataset"].map({dataset: size[name] for dataset, size in sizes.items()}))
    table = table.fillna({"n_cells": 0, "n_fit_cells": 0})
    keys = [name for name in table if name != "n_tasks"]
    return table.groupby(keys, as_index=False, dropna=False)["n_tasks"].sum()


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
