"""How a score spreads over its units: quartiles of the score per perturbation, batch or gene."""

import numpy as np
import pandas as pd

from plumbline.scores import Items
from plumbline.stats import canonical, pool
from plumbline.summary.tables import ItemFiles

COLUMNS = ["dataset", "task", "metric", "variant", "fit_on", "unit_kind", "n", "min", "q1", "median", "q3", "max", "mean"]


def distributions(comparisons: pd.DataFrame, items: ItemFiles) -> pd.DataFrame:
    """Quartiles over units of every main metric under the corrected protocol; pairs are summed per gene."""
    wanted = comparisons[comparisons["main"] & (comparisons["status"] == "ok") & (comparisons["protocol"] == "corrected")]
    rows = []
    for row in wanted.itertuples():
        parts = items.read(row.dataset, row.variant, row.fit_on, row.task, row.metric, row.protocol)
        if parts:
            kind, values = unit_values(pool(list(parts.values())))
            about = {name: getattr(row, name) for name in ("dataset", "task", "metric", "variant", "fit_on")}
            rows.append({**about, "unit_kind": kind, "n": len(values), **_five(values)})
    return pd.DataFrame(rows, columns=COLUMNS)


def unit_values(items: Items) -> tuple[str, np.ndarray]:
    """Each unit's own score and the kind of unit; for pairs, each gene's over the pairs it is in."""
    items, kind = canonical(items), items.kind
    if items.unit2 is not None:
        twice = [np.concatenate([column, column]) for column in (items.numerator, items.denominator)]
        items, kind = canonical(Items("gene", np.concatenate([items.unit, items.unit2]), *twice)), "gene"
    counted = items.denominator > 0
    return kind, items.numerator[counted] / items.denominator[counted]


def _five(values: np.ndarray) -> dict[str, float]:
    names = ("min", "q1", "median", "q3", "max")
    return {**dict(zip(names, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]), strict=True)), "mean": values.mean()}
