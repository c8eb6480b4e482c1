#!/usr/bin/env python3
"""CPU seconds and peak memory of what follows EVALUATE, at the size of the paper's data: rows of a Markdown table.

    python benchmarks/bench_summary.py make --results KEPT --data DIR --outdir OUT [--models 10 --seeds 5]
    python benchmarks/bench_summary.py measure --outdir OUT [--steps SUMMARISE,REPORT] [--bin OTHER/bin]

``make`` turns the tables of one evaluation (bench_evaluate.py --keep KEPT, on the screen DIR of big_screen.py) into those of
several models and seeds, whose units deviate from each other, so that paired comparisons are real. Tables of a smaller screen
are repeated over the perturbations of DIR. ``measure`` runs the pipeline's own commands, each in a process of its own; the peak
is the operating system's (VmHWM). Steps: SUMMARISE, REPORT, submit, verify, compare, leaderboard, show.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "bin")]

from bench_memory import measured

VARIANTS = ("pca", "random", "split_half", "pca_raw", "scvi", "scgpt", "geneformer_v1", "uce_4l", "cellplm", "scvi_nb",
            "uce_33l", "scgpt_cp", "geneformer_v2_104m", "tahoe_x1_70m", "scfoundation_t4", "scimilarity")  # fmt: skip
KEY = ["protocol", "postprocess", "metric"]
GAIN = 0.08  # standard deviation of a model's level, in shares of its units' numerators
SPREAD = 0.25  # and of a unit's


def widened(items: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The rows of perturbations repeated until there are as many perturbations as ``names``."""
    own = items["unit_kind"] == "perturbation"
    known = sorted(set(items.loc[own, "unit"]))
    if not known or len(known) >= 0.9 * len(names):
        return items
    parts = [items[~own]]
    for start in range(0, len(names), len(known)):
        renamed = dict(zip(known, names[start : start + len(known)], strict=False))
        rows = items[own & items["unit"].isin(list(renamed))]
        parts.append(rows.assign(unit=rows["unit"].map(renamed)))
    keys = ["seed", *KEY]
    return pd.concat(parts).sort_values(keys, kind="stable", ignore_index=True)


def deviated(items: pd.DataFrame, place: int, seed: int) -> np.ndarray:
    """Numerators of another model and seed: hits are lost and found, other values are a little larger or smaller."""
    model, run = np.random.default_rng([place]), np.random.default_rng([place, seed])
    level = 1 + (GAIN * model.standard_normal() if place else 0.0)
    value, most = items["numerator"].to_numpy(), items["denominator"].to_numpy()
    of_unit = model.standard_normal(len(items)) + 0.3 * run.standard_normal(len(items))
    is_hit = np.isin(value, (0.0, 1.0)) & (most == 1)
    flipped = model.random(len(items)) < 0.04 * (1 if place else 0)
    hits = np.where(flipped, model.random(len(items)) < level * 0.2, value)
    moved = value * level * np.exp(SPREAD * of_unit * (value < most))
    return np.where(is_hit, hits, np.where(value <= most, np.minimum(moved, most), moved))


def scores_of(scores: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """The score table that these items add up to; intervals keep their distance from the score."""
    units = items[items["unit_kind"] != "shared"]
    sums = units.groupby(KEY, observed=True).agg(
        numerator=("numerator", "sum"), denominator=("denominator", "sum"), offset=("offset", "first"), scale=("scale", "first")
    )
    value = (sums["offset"] + sums["scale"] * sums["numerator"] / sums["denominator"]).rename("again")
    joined = scores.join(value, on=KEY)
    again = joined["again"].fillna(joined["value"])  # descriptions have no items
    moved = again - joined["value"]
    ends = {name: joined[name] + moved for name in ("ci_low", "ci_high")}
    return joined.assign(value=again, **ends).drop(columns="again")


def written(path: Path, table: pd.DataFrame, usage: bytes) -> None:
    """A parquet file as EVALUATE writes it."""
    made = arrow.Table.from_pandas(table, preserve_index=False)
    made = made.replace_schema_metadata({b"plumbline.usage": usage})
    parquet.write_table(made, path, row_group_size=250_000)


def base_tables(results: Path, names: list[str]) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame, bytes]]:
    """(task, scores, items, usage) of every evaluation that was kept."""
    for path in sorted(results.glob("*.scores.parquet")):
        task = path.name.partition(".")[0]
        usage = (parquet.read_schema(path).metadata or {}).get(b"plumbline.usage", b"{}")
        items = parquet.read_table(results / f"{task}.items.parquet").to_pandas(
            ignore_metadata=True, strings_to_categorical=False
        )
        yield task, pd.read_parquet(path), widened(items, names), usage


def make(arguments: argparse.Namespace) -> None:
    """The inputs of SUMMARISE, and a run folder with data, embeddings and maps."""
    from plumbline import tasks
    from plumbline.embedding.variants import read_variants
    from plumbline.scoring.rules import rules_digest

    out, known = arguments.outdir, read_variants()
    cells = pd.read_parquet(arguments.data / "tables/cells.parquet")
    names = sorted(set(cells.loc[~cells["is_control"], "perturbation"]))
    seeds, variants = list(range(42, 42 + arguments.seeds)), VARIANTS[: arguments.models]
    for folder in ("scores", "items", "provenance", "run/data/big", "run/embeddings", "run/maps"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    expected = []
    for task, scores, items, usage in base_tables(arguments.results, names):
        record = tasks.load(task)
        print(f"{task}: {len(items):,} rows, rules {rules_digest(record)}", flush=True)
        for place, variant in enumerate(variants):
            about = {"dataset": "big", "model": known[variant].model, "variant": variant, "fit_on": known[variant].fit_on}
            expected.append(about | {"seeds": seeds, "task": task, "role": known[variant].role, "id": f"big.{variant}",
                                     "protocols": "paper,corrected"})  # fmt: skip
            for seed in seeds:
                name = f"big.{variant}.{task}.{seed}.parquet"
                if (out / "scores" / name).exists():  # of a call that was interrupted
                    continue
                once = (items["protocol"] == "corrected") | (seed == seeds[0]) | record.uses_split
                rows = items[once].assign(**about, seed=seed)
                rows["numerator"] = deviated(rows, place, seed)
                stated = scores[scores["protocol"].isin(set(rows["protocol"]))]
                stated = stated.assign(**about, seed=seed, task_version=record.version)
                written(out / "items" / name, rows, usage)
                written(out / "scores" / name, scores_of(stated, rows), usage)
    (out / "expected.json").write_text(json.dumps(expected))
    shutil.copytree(arguments.data / "tables", out / "run/data/big/tables", dirs_exist_ok=True)
    write_splits(out / "run/data/big/tables", seeds)
    write_embeddings(arguments.data, out, variants, len(cells))
    write_maps(out / "run/maps", variants, cells, known)


def write_splits(tables: Path, seeds: list[int]) -> None:
    """What PLAN leaves for people, and bundles name by digest."""
    from plumbline.data import splits

    splits.write_splits(tables, seeds, tables / "splits.parquet")


def write_embeddings(data: Path, out: Path, variants: tuple[str, ...], n_cells: int) -> None:
    """Two dimensions of one embedding, under every name: bundles copy and hash it, nothing computes on it."""
    from plumbline.embedding.contract import read_embedding

    whole = read_embedding(data / "embedding.npz")
    first = out / "run/embeddings/first.npz"
    np.savez(first, cell_id=whole.cell_id, embedding=np.ascontiguousarray(whole.values[:, :2]))
    for variant in variants:
        path = out / f"run/embeddings/big.{variant}.npz"
        path.unlink(missing_ok=True)
        os.link(first, path)
        about = {"status": "ok", "dataset": "big", "model": variant, "variant": variant, "fit_on": "none", "n_cells": n_cells,
                 "n_dimensions": 2, "seconds": 1000.0, "cells_per_second": n_cells / 1000, "seed": 42}  # fmt: skip
        for folder in ("run/embeddings", "provenance"):
            (out / folder / f"big.{variant}.json").write_text(json.dumps(about))
    first.unlink()


def write_maps(folder: Path, variants: tuple[str, ...], cells: pd.DataFrame, known: dict) -> None:
    """Tables of the shape of MAP's, at random places."""
    rng = np.random.default_rng(0)
    table = cells[~cells["is_control"]].groupby("perturbation")["batch"].agg(n_cells="size", n_batches="nunique").reset_index()
    table = table.assign(strength=rng.random(len(table)), expression=rng.random(len(table)), dataset="big")
    table.to_parquet(folder / "big.perturbations.parquet", index=False)
    names, shown = table["perturbation"].to_numpy(dtype=str), cells.sample(2000, random_state=0)
    places, near = [], []
    for variant in [name for name in variants if known[name].role not in ("floor", "ceiling", "predictor")]:
        who = {"variant": variant, "fit_on": known[variant].fit_on, "dataset": "big"}
        xy = rng.normal(size=(len(shown), 2)).astype(np.float32)
        places.append(shown[["cell_id", "perturbation", "is_control", "batch"]].assign(x=xy[:, 0], y=xy[:, 1], **who))
        near.append(pd.DataFrame({"perturbation": np.repeat(names, 5), "rank": np.tile(np.arange(1, 6), len(names)),
                                  "neighbour": rng.choice(names, 5 * len(names)), "cosine": rng.random(5 * len(names)),
                                  **who}))  # fmt: skip
    pd.concat(places).to_parquet(folder / "big.cells.parquet", index=False)
    pd.concat(near).to_parquet(folder / "big.neighbours.parquet", index=False)


def commands(out: Path, script: Path) -> dict[str, list]:
    """The pipeline's own call of each step."""
    run, assets, bundles = out / "run", script.parent / "assets", out / "bundles"
    given = ["--scores", out / "scores", "--items", out / "items", "--provenance", out / "provenance"]
    given += ["--expected", out / "expected.json", "--models", assets / "models.csv", "--data-reports", run / "data"]
    one, two = (bundles / name for name in ("scgpt", "pca"))
    return {
        "SUMMARISE": ["summarise_scores.py", *given, "--seed", 42, "--outdir", run],
        "REPORT": ["report_scores.py", "--summary", run, "--maps", run / "maps", "--catalogue", assets / "catalogue.csv",
                   "--outdir", out / "report"],
        "submit": ["submit_run.py", run, "--output", bundles],
        "verify": ["verify_bundle.py", one, two],
        "compare": ["compare_runs.py", one, two],
        "leaderboard": ["make_leaderboard.py", bundles, "--output", out / "leaderboard.html"],
        "show": ["show_gene.py", "A2M", "--run", run],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "measure"))
    parser.add_argument("--outdir", type=Path, required=True)
    parser.add_argument("--results", type=Path, help="score and item tables of one evaluation of every task")
    parser.add_argument("--data", type=Path, help="the screen that big_screen.py made")
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", default="SUMMARISE,REPORT,submit,verify,compare,leaderboard,show")
    parser.add_argument("--bin", type=Path, default=HERE.parent / "bin")
    arguments = parser.parse_args()
    if arguments.what == "make":
        make(arguments)
        return
    for step in arguments.steps.split(","):
        script, *rest = commands(arguments.outdir, arguments.bin)[step]
        accepted = (0, 2) if step == "verify" else (0,)  # 2: no data set is given to score the embedding on
        wall, cpu, peak = measured([sys.executable, arguments.bin / script, *rest], accepted)
        print(f"| {step} | {wall:.0f} | {cpu:.0f} | {peak / 2**30:.2f} GB |", flush=True)


if __name__ == "__main__":
    main()
