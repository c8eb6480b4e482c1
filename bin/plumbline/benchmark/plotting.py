"""The report's figure of differences, for one result."""

from typing import TYPE_CHECKING

import pandas as pd

from plumbline.report.figures import panels
from plumbline.report.forest import differences
from plumbline.report.words import task_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def forest(rows: pd.DataFrame, names: list[str], baseline: str) -> "Figure":
    """One panel per task with the rows of the comparison table that have a difference; an empty figure if none has."""
    from matplotlib.figure import Figure

    shown = rows[rows["difference"].notna() & rows["diff_low"].notna()].assign(label=rows["variant"])
    if shown.empty:
        return Figure()
    found = list(dict.fromkeys(shown["task"]))
    figure, axes = panels(len(found), (3.1, 0.9 + 0.26 * len(names)), (1.5, 0), sharey=True)
    for axis, task in zip(axes, found, strict=True):
        differences(axis, shown[shown["task"] == task], names[::-1], f"← {baseline} better     embedding better →", 7.5)
        axis.set_title(task_title(task), fontsize=9, loc="left", fontweight="bold")
    return figure
