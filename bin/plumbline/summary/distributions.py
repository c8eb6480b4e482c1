"""How a score spreads over its units: quartiles of the score per perturbation, batch or gene."""

import numpy as np
import pandas as pd

from plumbline.scoring.scores import Items
from plumbline.scoring.units import canonical, pool
from plumbline.summary.items import ItemTable

COLUMNS = [
    "dataset",
    "task",
    "metric",
    "variant",
    "fit_on",
    "unit_kind",
    "shows",
    "n",
    "min",
    "q1",
    "median",
    "q3",
    "max",
    "mean",
]


def distributions(comparisons: pd.DataFrame, items: ItemTable) -> pd.DataFrame:
    """Quartiles over units of every main metric under the corrected protocol; pairs are summed per gene.

    ``shows``: 'score' is each unit's own score; 'p value' where a score only counts the units below a threshold.
    """
    wanted = comparisons[comparisons["main"] & (comparisons["status"] == "ok") & (comparisons["protocol"] == "corrected")]
    rows = []
    for row in wanted.itertuples():
        parts = items.read(row.task, row.metric, row.protocol, dataset=row.dataset, variant=row.variant, fit_on=row.fit_on)
        if parts:
            kind, shows, values = unit_values(list(parts.values()))
            about = {name: getattr(row, name) for name in ("dataset", "task", "metric", "variant", "fit_on")}
            rows.append({**about, "unit_kind": kind, "shows": shows, "n": len(values), **_five(values)})
    return pd.DataFrame(rows, columns=COLUMNS)


def unit_values(parts: list[Items]) -> tuple[str, str, np.ndarray]:
    """(kind of unit, what is shown, one value a unit, mean over seeds) of a score's items, one entry of ``parts`` a seed."""
    if all("p" in part.extra for part in parts):
        units = np.concatenate([part.unit for part in parts])
        p = pd.Series(np.concatenate([part.extra["p"] for part in parts])).groupby(units).mean().dropna()
        return parts[0].kind, "p value", p.to_numpy()
    items, kind = pool(parts), parts[0].kind
    if items.unit2 is not None:
        twice = [np.concatenate([column, column]) for column in (items.numerator, items.denominator)]
        items, kind = canonical(Items("gene", np.concatenate([items.unit, items.unit2]), *twice)), "gene"
    counted = items.denominator > 0
    return kind, "score", items.numerator[counted] / items.denominator[counted]


def _five(values: np.ndarray) -> dict[str, float]:
    names = ("min", "q1", "median", "q3", "max")
    return {**dict(zip(names, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]), strict=True)), "mean": values.mean()}
