"""The output folder of a small run, as SUMMARISE and the pipeline's published files leave it, without Nextflow."""

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import plumbline as pl
import summarise_scores
from plumbline.benchmark.verifying import Data, verify
from plumbline.bundles import runs, submission, writing
from plumbline.bundles.findings import FAILED
from plumbline.bundles.manifest import MANIFEST, read_bundle
from plumbline.common.errors import run_script
from plumbline.common.files import sha256, write_json
from plumbline.data.simulate import CONTROL, Design, simulate

ROOT = Path(pl.__file__).resolve().parents[2]
SEEDS, TASKS, DRAWS = [42, 43], ["consistency", "magnitude"], 20
DESIGN = Design(n_perturbations=12, n_batches=4, cells_per_perturbation=10, n_genes=60, depth=1500.0, effect=0.8)


def made_screen(folder: Path, name: str = "tiny", seed: int = 0):
    """A prepared simulated screen, with its counts, in ``folder``/data/``name``."""
    from anndata import read_h5ad

    path = folder / f"{name}.h5ad"
    simulate(DESIGN if not seed else Design(**{**DESIGN.__dict__, "seed": seed}), path)
    adata = read_h5ad(path)
    rng = np.random.default_rng(0)
    adata.obsm["X_mine"] = rng.normal(size=(adata.n_obs, 6)).astype(np.float32) + np.asarray(adata.X[:, :6].todense())
    place = folder / "data" / name
    labels = {"perturbation": "perturbation", "control": CONTROL, "batch": "batch"}
    return pl.Screen.from_anndata(adata, **labels, min_counts=0, seeds=SEEDS, name=name, folder=place)


def made_run(screen, folder: Path, tasks: list[str] = TASKS, scale: float = 1.0) -> Path:
    """A run with pca (an embedding per seed), random and an embedding of one's own, 'mine', in ``folder``.

    scale: of the first dimension of 'mine', for runs that differ in it.
    """
    how = {"references": ["random"], "seeds": SEEDS, "protocols": ["paper", "corrected"], "n_draws": DRAWS, "n_boot": DRAWS}
    bench = pl.Benchmark(screen, tasks=tasks, threads=1, **how)
    z = screen.adata.obsm["X_mine"] * np.array([scale, 1, 1, 1, 1, 1], dtype=np.float32)
    result = bench.evaluate(z, name="mine")
    expected = []
    for part in (result._candidates, bench.made):
        for kind in ("scores", "items", "embeddings"):
            shutil.copytree(part.folder / kind, folder / kind, dirs_exist_ok=True)
        for one in part.embeddings:
            about = {**one.about(screen.name), "seeds": one.seeds, "role": one.role, "id": one.id}
            expected += [{**about, "task": task} for task in tasks]
    (folder / "expected.json").write_text(json.dumps(expected))
    shutil.copytree(screen.tables, folder / "data" / screen.name / "tables", dirs_exist_ok=True)
    provenance = folder / "provenance"
    provenance.mkdir()
    for path in (folder / "embeddings").glob("*.json"):
        shutil.copy(path, provenance)
    paths = {"scores": folder / "scores", "items": folder / "items", "provenance": provenance, "outdir": folder}
    paths |= {"expected": folder / "expected.json", "models": ROOT / "assets/models.csv", "data_reports": folder / "data"}
    options = {
        "baseline": "pca",
        "experiments": "",
        "published": None,
        "plans": None,
        "n_boot": DRAWS,
        "n_draws": DRAWS,
        "seed": SEEDS[0],
    }
    options |= {"decoder_budget": 200.0, "exact": "false"}
    summarise_scores.summarise(argparse.Namespace(**paths, **options))
    return folder


def made_bundles(folder: Path) -> Path:
    """data/tiny, run (its output) and bundles (of pca, random and 'mine') in a folder."""
    run = runs.read_output(made_run(made_screen(folder), folder / "run"))
    for dataset, variant in run.pairs:
        contents = runs.contents_of(run, dataset, variant)
        writing.write_bundle(submission.place_of(folder / "bundles", contents.model, dataset), contents)
    return folder


def sign(bundle: Path, **changes) -> None:
    """What a careful forger does: the manifest again states the files that are there."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    files = {path.name: sha256(path) for path in bundle.iterdir() if path.name != MANIFEST}
    write_json(bundle / MANIFEST, {**manifest, "files": files, **changes})


def change_table(bundle: Path, name: str, change) -> None:
    """Change a table in place."""
    table = pd.read_parquet(bundle / f"{name}.parquet")
    change(table)
    table.to_parquet(bundle / f"{name}.parquet", index=False)


def texts(bundle: Path, data: Data | None = None, status: str = FAILED) -> str:
    """The findings of a status, one per line."""
    return "\n".join(f"{one.what}: {one.text}" for one in verify(read_bundle(bundle), data) if one.status == status)


def exit_code(monkeypatch, module, *words) -> int:
    """What a script of bin/ ends with, started in this process: each import costs seconds."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
    try:
        run_script(module.main)
    except SystemExit as end:
        return int(end.code or 0)
    return 0
