"""The comparison table of a bundle: verdicts follow from its numbers, differences from the items of both models."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from plumbline.bundles.files import file_problems, item_table, read_table
from plumbline.bundles.findings import Finding, failed, note, ok
from plumbline.bundles.manifest import Bundle
from plumbline.summary.contest import Contest
from plumbline.summary.items import ItemTable
from plumbline.summary.tables import known_metric
from plumbline.summary.verdicts import FDR

EXACT = 1e-9
_ENDS = ("difference", "diff_low", "diff_high")


def wrong_verdicts(comparisons: pd.DataFrame) -> Iterator[str]:
    """Rows whose verdict 'better' or 'worse' is not what their difference and q say, in words."""
    for row in comparisons[comparisons["verdict"].isin(["better", "worse"])].itertuples():
        ahead = row.difference * row.direction > 0
        if not row.q <= FDR or ahead != (row.verdict == "better"):
            why = f"a difference of {row.difference:.4g} and q = {row.q:.2g}"
            yield f"{row.metric} ({row.protocol}) is {row.verdict!r} with {why}"


def baseline_of(bundle: Bundle, others: Iterable[Bundle]) -> Bundle | None:
    """The bundle of its baseline: on the same cells and splits, under the same settings; None if there is none."""
    for other in others:
        same = other.dataset == bundle.dataset and other.variant == bundle.manifest["settings"]["baseline"]
        parts = [(one.manifest["dataset"]["cells"], one.manifest["dataset"]["splits"]) for one in (bundle, other)]
        if same and parts[0] == parts[1] and not file_problems(other):
            return other
    return None


def difference_findings(bundle: Bundle, items: ItemTable, baseline: Bundle | None) -> Iterator[Finding]:
    """The differences of the comparison table, drawn again from the bundle's items and those of its baseline."""
    name = bundle.manifest["settings"]["baseline"]
    if bundle.variant == name:
        return
    if baseline is None:
        yield note("differences", f"not checked: no bundle of {name} on these cells is given next to it")
        return
    comparisons, others = read_table(bundle, "comparisons"), item_table(baseline)
    rows = comparisons[comparisons["difference"].notna()]
    wrong = [text for row in rows.itertuples() if (text := _difference(row, items, others, bundle))]
    for text in wrong[:5]:
        yield failed("differences", text, f"Make the bundles of both models from one run: ./plumb submit (against {baseline})")
    if not wrong:
        yield ok("differences", f"{len(rows)} differences to {name} follow from the items of both")


def _difference(row, items: ItemTable, others: ItemTable, bundle: Bundle) -> str:
    """What is wrong with one difference; '' if nothing is."""
    tables = {"model": items, "baseline": others}
    parts = {name: table.read(row.task, row.metric, row.protocol) for name, table in tables.items()}
    if not all(parts.values()):
        return ""
    settings = bundle.manifest["settings"]
    found = Contest.of(parts.items(), settings["n_boot"], settings["seeds"][0]).difference("model", "baseline")
    span = np.subtract(*known_metric(row.metric).bounds[::-1])
    again = [found.value, *np.clip([found.low, found.high], -span, span)]
    stated = [getattr(row, name) for name in _ENDS]
    if np.allclose(stated, again, rtol=EXACT, atol=EXACT, equal_nan=True):
        return ""
    shown = [f"{value:.4g} [{low:.4g}, {high:.4g}]" for value, low, high in (stated, again)]
    return f"{row.metric} ({row.protocol}) is stated to differ by {shown[0]}, but its items by {shown[1]}"
