#!/usr/bin/env python3
"""Say what a run will take before it starts: tasks, processor time, memory, from the lines fitted to what runs recorded."""

import argparse
import json
from pathlib import Path

from plumbline.common.arguments import whole
from plumbline.common.errors import UserError, run_script
from plumbline.common.usage import duration

HELD_OUT = 0.1  # of the cells, about: 30 % of the perturbations in 30 % of the batches


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="JSON: data sets, embeddings and evaluations of the run")
    parser.add_argument("--costs", type=Path, required=True, help="steps.tsv of a run, or assets/costs.tsv")
    parser.add_argument("--catalogue", type=Path, required=True, help="assets/catalogue.csv: sizes of data sets to be fetched")
    parser.add_argument("--inputs", type=Path, help="folder with the data sets' files")
    parser.add_argument("--cpus", type=whole(1), default=1, help="processors that the run may use")
    parser.add_argument("--output", type=Path, required=True, help="text file")
    return parser.parse_args()


def sizes(plan: dict, inputs: Path | None, catalogue: dict) -> dict[str, int]:
    """data set -> number of cells; 0 where nobody knows."""
    from plumbline.data.ingest import open_source

    found = {}
    for dataset in plan["datasets"]:
        name, path = dataset["name"], dataset.get("file")
        if path:
            found[name] = len(open_source(inputs / path, "X", None).cell_id)
        else:
            found[name] = int(catalogue.get(name, {}).get("n_cells") or 0)
        found[f"{name}.heldout"] = round(HELD_OUT * found[name])
    return found


def work_of(plan: dict, cells: dict[str, int]):
    """One row for each step, name and data set: how many tasks on how many cells."""
    import pandas as pd

    rows = [{"step": "PREPARE", "name": "", "dataset": dataset["name"]} for dataset in plan["datasets"]]
    rows += [{"step": "EMBED", "name": run["variant"], "dataset": run["dataset"]} for run in plan["embed"]]
    rows += [{"step": "EVALUATE", "name": run["task"], "dataset": run["dataset"]} for run in plan["evaluate"]]
    table = pd.DataFrame(rows).assign(n_tasks=1)
    table["n_cells"] = table["dataset"].map(cells).fillna(0)
    return table.groupby(["step", "name", "dataset", "n_cells"], as_index=False)["n_tasks"].sum()


def read_costs(path: Path):
    import pandas as pd

    from plumbline.experiments.cost import fit_costs

    steps = pd.read_csv(path, sep="\t", dtype={"name": str}, keep_default_na=False, na_values=[""]).fillna({"name": ""})
    missing = [name for name in ("step", "name", "n_cells", "seconds", "cpu_seconds") if name not in steps]
    if missing:
        raise UserError(f"{path} lacks the column {missing[0]}. Give the steps.tsv that a run left in its output folder.")
    return fit_costs(steps)


def text_of(found, unknown: list[str], cpus: int) -> str:
    """The estimate in words."""
    by_step = found.groupby("step")[["n_tasks", "cpu_seconds"]].sum()
    lines = [
        f"{row.n_tasks:>6} x {row.Index:<9}{duration(row.cpu_seconds):>9} of processor time" for row in by_step.itertuples()
    ]
    total, peak = found["cpu_seconds"].sum(), found["peak_memory_bytes"].max()
    head = f"Estimate: {found['n_tasks'].sum()} tasks, {duration(total)} of processor time, about {duration(total / cpus)}"
    slowest = found.sort_values("cpu_seconds", ascending=False).head(3).to_dict("records")
    parts = ", ".join(f"{row['name']} on {row['dataset']} {duration(row['cpu_seconds'])}" for row in slowest)
    lines.append(f"Largest parts: {parts}. Largest memory of a task: {peak / 1e9:.1f} GB.")
    guessed = sorted(set(found.loc[~found["known"], "name"]))
    if guessed:
        lines.append(
            "No timings available; assumed as slow as the slowest measured variant of the same model, or else of the same "
            f"step: {', '.join(guessed)}."
        )
    if unknown:
        lines.append(f"Not counted, because their size is not known before they are fetched: {', '.join(unknown)}.")
    return (
        "\n".join([f"{head} on {cpus} processors. Order-of-magnitude estimate; run times depend on the hardware.", *lines])
        + "\n"
    )


def main() -> None:
    args = arguments()
    from plumbline.common.files import whole_file
    from plumbline.data.catalogue import read_catalogue
    from plumbline.embedding.variants import read_variants
    from plumbline.experiments.cost import estimate

    plan = json.loads(args.plan.read_text())
    cells = sizes(plan, args.inputs, read_catalogue(args.catalogue))
    costs = read_costs(args.costs)
    # an embedding of one's own is read from a file: as fast as another, under whatever name
    named = {run["variant"] for run in plan["embed"]} | set(costs.loc[costs["step"] == "EMBED", "name"])
    module = dict.fromkeys(named, "external") | {name: variant.model for name, variant in read_variants().items()}
    found = estimate(costs, work_of(plan, cells), module)
    unknown = [dataset["name"] for dataset in plan["datasets"] if not cells[dataset["name"]]]
    with whole_file(args.output) as temporary:
        temporary.write_text(text_of(found[found["n_cells"] > 0], unknown, args.cpus))


if __name__ == "__main__":
    run_script(main)
