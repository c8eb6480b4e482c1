"""What every step of the run cost: PREPARE, EMBED and EVALUATE, as each recorded it itself (plumbline.common.usage).

A process of EVALUATE may score several tasks. What it takes to start, which they share, is a row of its own: step START.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.usage import machine_seconds

USED = ["seconds", "cpu_seconds", "peak_memory_bytes", "peak_gpu_memory_bytes", "gpu", "threads"]
SIZES = ["n_cells", "n_fit_cells", "n_genes", "n_perturbations", "n_dimensions", "n_seeds", "n_draws"]
COLUMNS = ["step", "name", "dataset", "variant", "fit_on", "seed", *SIZES, *USED, "machine_seconds"]


def steps(scores: Path, provenance: pd.DataFrame, datasets: dict[str, dict]) -> pd.DataFrame:
    """One row a task of the run. name: the variant that was embedded or the task that was scored; of START, the step.

    n_cells: cells of the data set; n_fit_cells: those a model was fitted on, 0 for none. Units: seconds, bytes.
    machine_seconds: of a fixed small computation on this machine, by which machines are compared.
    """
    size = {
        name: {key: found["facts"].get(key) for key in ("n_cells", "n_genes", "n_perturbations")}
        for name, found in datasets.items()
    }
    rows = [
        {"step": "PREPARE", "name": "", "dataset": name, **size[name], **found["report"].get("usage", {})}
        for name, found in datasets.items()
    ]
    for row in provenance.to_dict("records") if len(provenance) else []:
        if row.get("status") == "ok":
            rows.append({**row, **size.get(row["dataset"], {}), "step": "EMBED", "name": row.get("variant", "")})
    starts = {}
    for about, used in _evaluations(scores):
        known = about | size.get(about["dataset"], {}) | used
        rows.append({"step": "EVALUATE", "name": about["task"], **known})
        if "start" in used:
            starts[used["start"]["process"]] = {**known, **used["start"], "step": "START", "name": "EVALUATE"}
    rows += starts.values()
    table = pd.DataFrame(rows, columns=COLUMNS) if rows else pd.DataFrame(columns=COLUMNS)
    table["n_fit_cells"] = pd.to_numeric(table["n_fit_cells"]).fillna(0).astype(np.int64)
    table = table[table["seconds"].notna()].assign(machine_seconds=round(machine_seconds(), 4))
    return table.sort_values(["step", "name", "dataset", "variant", "fit_on", "seed"], ignore_index=True)


def _evaluations(folder: Path):
    import pyarrow.parquet as parquet

    for path in sorted(folder.rglob("*.parquet")):
        file = parquet.ParquetFile(path)
        used = (file.schema_arrow.metadata or {}).get(b"plumbline.usage")
        if used and file.metadata.num_rows:
            columns = ["dataset", "variant", "fit_on", "task"]
            yield next(file.iter_batches(batch_size=1, columns=columns)).to_pylist()[0], json.loads(used)
