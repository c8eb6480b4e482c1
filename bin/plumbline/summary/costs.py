"""What each embedding cost, from its own provenance."""

import pandas as pd

COLUMNS = [
    *("dataset", "model", "variant", "fit_on", "seed", "status", "reason", "n_cells", "n_dimensions", "seconds"),
    *("cells_per_second", "peak_memory_bytes", "peak_gpu_memory_bytes", "gpu", "device", "genes_used", "genes_total"),
    "counts_used",
]


def costs(provenance: pd.DataFrame) -> pd.DataFrame:
    """One row an embedding; what a model did not state is empty. ``counts_used`` is a share, 0..1."""
    table = provenance.reindex(columns=COLUMNS)
    return table.sort_values(["dataset", "variant", "fit_on", "seed"], ignore_index=True)
