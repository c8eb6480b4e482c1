#!/usr/bin/env python3
"""A prepared data set of real size, and an embedding of it: what EVALUATE reads, without any counts.

    python benchmarks/big_screen.py --outdir /tmp/big --cells 1980000 --dimensions 1280

The defaults are those of the genome-wide screen of Replogle et al. 2022 in K562 cells: 9,866 perturbations, 267 batches and
3.8 % controls. Left in OUTDIR: tables/ as PREPARE writes them, embedding.npz and embedding.json. Cells are in the order of
their barcodes, so that the batches are interleaved, as in the published file. Every third perturbation has an effect; batches
differ in mean and scale.
"""

import argparse
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib import format as npy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))


CONTROL, BLOCK = "non-targeting", 16_384
STATES = 12  # directions in which cells differ whatever is done to them


def cell_table(n: int, n_perturbations: int, n_batches: int, controls: float, rng: np.random.Generator) -> pd.DataFrame:
    """Labels of the cells; numbers of cells vary between perturbations as in the screen (a coefficient of variation of 0.5)."""
    batch = rng.integers(0, n_batches, n)
    weight = rng.gamma(4.0, size=n_perturbations)
    which = rng.choice(n_perturbations, n, p=weight / weight.sum())
    control = rng.random(n) < controls
    names = np.append(perturbation_names(n_perturbations), CONTROL).astype(object)
    letters = np.array(list("ACGT"), dtype="S1")[rng.integers(0, 4, (n, 16))].view("S16").ravel().astype(str)
    ids = pd.Series(np.sort(letters)) + "-" + pd.Series((batch + 1).astype(str))
    ids = ids.where(~ids.duplicated(), ids + "x")
    labels = names[np.where(control, n_perturbations, which)]
    return pd.DataFrame({"cell_id": ids, "perturbation": labels, "is_control": control,
                         "batch": (batch + 1).astype(str), "n_counts": rng.lognormal(9.2, 0.4, n).round()})  # fmt: skip


def perturbation_names(n: int) -> np.ndarray:
    """Symbols of genes that the relationship databases know, then made-up ones."""
    from plumbline.genes.relationships import known_symbols

    known = sorted(known_symbols())[:n]
    return np.array(known + [f"GENE{i:05d}" for i in range(n - len(known))], dtype=str)


def gene_table(n: int, n_genes: int, rng: np.random.Generator) -> pd.DataFrame:
    """Half of the perturbed genes and others; a tenth is not expressed."""
    symbols = np.concatenate([perturbation_names(n)[::2], [f"OTHER{i:05d}" for i in range(n_genes)]])[:n_genes]
    mean = np.where(rng.random(n_genes) < 0.1, 0.05, rng.lognormal(0, 1, n_genes))
    return pd.DataFrame({"gene_id": symbols, "ensembl_id": "", "symbol": symbols, "mean_count": mean,
                         "mean_lognorm": np.log1p(mean), "n_cells": 1})  # fmt: skip


def facts(cells: pd.DataFrame, n_genes: int) -> dict:
    """dataset.json."""
    n_controls = int(cells["is_control"].sum())
    return {"name": "big", "title": "big", "organism": "human", "x_kind": "counts", "perturbation_type": "crispri",
            "min_counts": 0.0, "unexpressed_threshold": 0.15, "unexpressed_scale": "mean_count", "published_as": "",
            "n_cells": len(cells), "n_genes": n_genes, "n_batches": int(cells["batch"].nunique()),
            "n_perturbations": int(cells.loc[~cells["is_control"], "perturbation"].nunique()), "n_controls": n_controls,
            "has_batches": True, "has_controls": n_controls > 0, "split_by": "batch", "input_sha256": "",
            "n_cells_dropped": 0, "warnings": []}  # fmt: skip


def write_tables(folder: Path, cells: pd.DataFrame, genes: pd.DataFrame) -> None:
    """The tables folder of PREPARE."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in {"cells": cells, "genes": genes}.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    (folder / "dataset.json").write_text(json.dumps(facts(cells, len(genes))))


def embedding_blocks(cells: pd.DataFrame, d: int, rng: np.random.Generator):
    """Blocks of rows, float32: state + batch + effect of the perturbation + noise (a window of one table, for speed)."""
    batch, batches = pd.factorize(cells["batch"])
    which, names = pd.factorize(cells["perturbation"])
    shift = rng.normal(0, 0.5, (len(batches), d)).astype(np.float32)
    scale = rng.lognormal(0, 0.1, (len(batches), 1)).astype(np.float32)
    effect = rng.normal(0, 0.4, (len(names), d)).astype(np.float32)
    effect[(np.arange(len(names)) % 3 != 0) | (names == CONTROL)] = 0
    states = rng.normal(size=(STATES, d)).astype(np.float32)
    noise = rng.standard_normal(BLOCK * d + 2**20, dtype=np.float32)
    for start in range(0, len(cells), BLOCK):
        rows = slice(start, min(start + BLOCK, len(cells)))
        n, first = rows.stop - start, int(rng.integers(2**20))
        block = rng.standard_normal((n, STATES), dtype=np.float32) @ states
        block += noise[first : first + n * d].reshape(n, d)
        block += effect[which[rows]]
        block *= scale[batch[rows]]
        block += shift[batch[rows]]
        yield block


def write_embedding(path: Path, cells: pd.DataFrame, d: int, rng: np.random.Generator) -> None:
    """embedding.npz as numpy's savez writes it, but a block at a time, and its JSON."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(cells), d)}
    with zipfile.ZipFile(path, "w", allowZip64=True) as file:
        with file.open("cell_id.npy", "w", force_zip64=True) as stream:
            npy.write_array(stream, cells["cell_id"].to_numpy(dtype=str))
        with file.open("embedding.npy", "w", force_zip64=True) as stream:
            npy.write_array_header_1_0(stream, header)
            for block in embedding_blocks(cells, d, rng):
                stream.write(block.data)
    path.with_suffix(".json").write_text(json.dumps({"status": "ok", "model": "big", "n_cells": len(cells), "n_dimensions": d}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, required=True)
    parser.add_argument("--cells", type=int, default=1_980_000)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--perturbations", type=int, default=9_866)
    parser.add_argument("--batches", type=int, default=267)
    parser.add_argument("--controls", type=float, default=0.038, help="share of the cells")
    parser.add_argument("--genes", type=int, default=8_248)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    cells = cell_table(arguments.cells, arguments.perturbations, arguments.batches, arguments.controls, rng)
    genes = gene_table(arguments.perturbations, arguments.genes, rng)
    write_tables(arguments.outdir / "tables", cells, genes)
    write_embedding(arguments.outdir / "embedding.npz", cells, arguments.dimensions, rng)


if __name__ == "__main__":
    main()
