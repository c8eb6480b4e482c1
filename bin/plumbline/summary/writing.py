"""What SUMMARISE writes: tables as parquet and TSV, and what the report must know about the run."""

import argparse
import math
from pathlib import Path

import pandas as pd

from plumbline import __version__
from plumbline.common.errors import UserError, did_you_mean
from plumbline.common.files import whole_file, write_json, write_parquet
from plumbline.scoring.rules import rules_digest
from plumbline.summary.schema import load_schema
from plumbline.summary.tables import known_task, main_metric


def check_baseline(scores: pd.DataFrame, baseline: str) -> None:
    """The baseline must be among the runs (it may have failed). Raises UserError with a hint."""
    known = sorted(set(scores["variant"]))
    if known and baseline not in known:
        raise UserError(f"--baseline {baseline}: no such model in this run.{did_you_mean(baseline, known)}")


def write_table(outdir: Path, name: str, table: pd.DataFrame, parquet: bool) -> None:
    """``name``.tsv (full precision, empty for missing) and, if asked, ``name``.parquet."""
    with whole_file(outdir / f"{name}.tsv") as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="", lineterminator="\n")
    if parquet:
        write_parquet(outdir / f"{name}.parquet", table)


def about(scores: pd.DataFrame, models: pd.DataFrame, datasets: dict, args: argparse.Namespace) -> dict:
    """The facts of the run: baseline, seeds, tasks with their metrics, models of this run, data sets."""
    variants = sorted(set(scores["variant"]))
    facts = {name: found["facts"] for name, found in datasets.items()}
    tasks = {}
    for name, part in scores.groupby("task"):
        main = {dataset: main_metric(name, facts.get(dataset, {})) for dataset in sorted(set(part["dataset"]))}
        tasks[name] = {"version": part["task_version"].max(), "metrics": _directions(name), "main_metric": main}
        tasks[name]["rules"] = _rules(name)
    return {
        "plumbline": __version__,
        "schema_version": load_schema()["version"],
        "baseline": args.baseline,
        "n_boot": args.n_boot,
        "n_draws": args.n_draws,
        "decoder_budget": args.decoder_budget,
        "exact": args.exact == "true",
        "experiments": [name for name in args.experiments.split(",") if name],
        "seeds": sorted({int(seed) for seed in scores["seed"]}),
        "tasks": tasks,
        "models": {name: models.loc[name].to_dict() for name in variants if name in models.index},
        "datasets": datasets,
    }


def _directions(task: str) -> dict[str, int]:
    record = known_task(task)
    return {metric.name: metric.direction for metric in record.metrics} if record else {}


def _rules(task: str) -> str:
    record = known_task(task)
    return rules_digest(record) if record else ""


def write_json_nan(path: Path, value: dict) -> None:
    """JSON with null for NaN."""
    write_json(path, _plain(value))


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
