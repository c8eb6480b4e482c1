#!/usr/bin/env python3
"""Say what a run will take before it starts: tasks, processor time, memory, from the lines fitted to what runs recorded."""

import argparse
import json
from pathlib import Path

from plumbline.common.arguments import whole
from plumbline.common.errors import UserError, run_script
from plumbline.common.threads import limit_threads
from plumbline.common.usage import duration

PRICED = ["step", "name", "dataset", "n_tasks", "n_cells", "n_dimensions", "seconds", "cpu_seconds", "peak_memory_bytes"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="JSON: data sets, embeddings and evaluations of the run")
    parser.add_argument("--costs", type=Path, required=True, help="steps.tsv of a run, or assets/costs.tsv")
    parser.add_argument("--catalogue", type=Path, required=True, help="assets/catalogue.csv: sizes of data sets to be fetched")
    parser.add_argument("--inputs", type=Path, help="folder with the data sets' files")
    parser.add_argument("--cpus", type=whole(1), default=1, help="processors that the run may use")
    parser.add_argument("--output", type=Path, required=True, help="text file")
    parser.add_argument("--table", type=Path, help="TSV: a row for each step, name and size of the tasks, with what they take")
    return parser.parse_args()


def read_costs(path: Path):
    """The recorded steps, processor and wall time as on this machine (if the table says how fast its machine was)."""
    import pandas as pd

    from plumbline.common.usage import machine_seconds

    steps = pd.read_csv(path, sep="\t", dtype={"name": str}, keep_default_na=False, na_values=[""]).fillna({"name": ""})
    missing = [name for name in ("step", "name", "n_cells", "seconds", "cpu_seconds") if name not in steps]
    if missing:
        raise UserError(f"{path} lacks the column {missing[0]}. Give the steps.tsv that a run left in its output folder.")
    if "machine_seconds" in steps:
        factor = (machine_seconds() / steps["machine_seconds"]).fillna(1.0)
        steps = steps.assign(seconds=steps["seconds"] * factor, cpu_seconds=steps["cpu_seconds"] * factor)
    return steps


def wall_seconds(found, cpus: int) -> float:
    """Least time of the run: all processors busy until the end, which has one, and no process shorter than it is alone."""
    process = found["process"].where(found["process"] != "", found.index.astype(str))  # tasks of one come one after another
    each = found["seconds"].div(found["n_tasks"]).groupby([found["step"], process]).sum()
    last = (found["step"] == "REPORT") & (found["process"] != "")
    shared = found.loc[~last, "cpu_seconds"].sum() / cpus + found.loc[last, "cpu_seconds"].sum()
    return max(shared, each.groupby(level=0).max().sum())


def text_of(found, unknown: list[str], cpus: int) -> str:
    """The estimate in words."""
    # a process of EVALUATE scores one task or several: START counts the processes
    processes = found.assign(n_tasks=found["n_tasks"].where(found["step"] != "EVALUATE", 0)).replace(
        {"step": {"START": "EVALUATE"}}
    )
    by_step = processes.groupby("step")[["n_tasks", "cpu_seconds"]].sum()
    lines = [
        f"{row.n_tasks:>6} x {row.Index:<9}{duration(row.cpu_seconds):>9} of processor time" for row in by_step.itertuples()
    ]
    total, peak = found["cpu_seconds"].sum(), found["peak_memory_bytes"].max()
    wall = duration(wall_seconds(found, cpus))
    head = f"Estimate: {by_step['n_tasks'].sum()} tasks, {duration(total)} of processor time, about {wall}"
    slowest = found.sort_values("cpu_seconds", ascending=False).head(3).to_dict("records")
    parts = ", ".join(
        f"{row['name'] or row['step']} on {row['dataset'] or 'all'} {duration(row['cpu_seconds'])}" for row in slowest
    )
    lines.append(f"Largest parts: {parts}. Largest memory of a task: {peak / 1e9:.1f} GB.")
    guessed = sorted(set(found.loc[~found["known"], "name"]))
    if guessed:
        lines.append(
            "No timings available; assumed as slow as the slowest measured variant of the same model, or else of the same "
            f"step: {', '.join(guessed)}."
        )
    if unknown:
        lines.append(f"Not counted, because their size is not known before they are fetched: {', '.join(unknown)}.")
    sure = "give or take a factor of two where the sizes are like those that were measured"
    return "\n".join([f"{head} on {cpus} processors, {sure}.", *lines]) + "\n"


def main() -> None:
    args = arguments()
    limit_threads(1)  # a second would mostly wait busily for its turn
    from plumbline.common.files import whole_file
    from plumbline.data.catalogue import read_catalogue
    from plumbline.embedding.variants import read_variants
    from plumbline.experiments.cost import estimate, fit_costs
    from plumbline.experiments.planned import dataset_sizes, planned_tasks

    plan = json.loads(args.plan.read_text())
    sizes = dataset_sizes(plan, args.inputs, read_catalogue(args.catalogue))
    module = {run["variant"]: run["model"] for run in plan["embed"]} | {"external": "external"}
    module |= {name: variant.model for name, variant in read_variants().items()}
    found = estimate(fit_costs(read_costs(args.costs)), planned_tasks(plan, sizes), module)
    unknown = [dataset["name"] for dataset in plan["datasets"] if not sizes[dataset["name"]]["n_cells"]]
    found = found[found["n_cells"] > 0]
    with whole_file(args.output) as temporary:
        temporary.write_text(text_of(found, unknown, args.cpus))
    if args.table:
        with whole_file(args.table) as temporary:
            found[PRICED].round(3).to_csv(temporary, sep="\t", index=False)


if __name__ == "__main__":
    run_script(main)
