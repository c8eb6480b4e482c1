"""What each embedding cost, from its own provenance."""

import pandas as pd

COLUMNS = [
    *("experiment", "dataset", "model", "variant", "fit_on", "seed", "status", "reason", "n_cells", "n_dimensions", "seconds"),
    *("cells_per_second", "peak_memory_bytes", "peak_gpu_memory_bytes", "gpu", "device", "genes_used", "genes_total"),
    "counts_used",
]


def costs(provenance: pd.DataFrame, expected: pd.DataFrame) -> pd.DataFrame:
    """One row an embedding; what a model did not state is empty. ``counts_used`` is a share, 0..1.

    experiment: '' for the main run, else the first experiment that asked for it.
    """
    asked = expected.sort_values("experiment").drop_duplicates("id").set_index("id")["experiment"]
    names = provenance["embedding"].map(asked).fillna("") if len(provenance) else ""
    table = provenance.assign(experiment=names).reindex(columns=COLUMNS)
    return table.sort_values(["dataset", "variant", "fit_on", "seed"], ignore_index=True)
