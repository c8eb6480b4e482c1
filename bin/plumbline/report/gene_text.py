"""One perturbation as text for the terminal."""

import numpy as np
import pandas as pd

from plumbline.report.genes import Measure, Perturbations
from plumbline.report.run import Run
from plumbline.report.words import listed, number

PARTNERS = 12  # named; more are counted


def gene_text(run: Run, genes: Perturbations, name: str) -> str:
    """A perturbation over all models of a data set: a table of measures, then lists of names."""
    row = genes.table.loc[name]
    facts = [f"{row['n_cells']:,.0f} cells" if np.isfinite(row["n_cells"]) else "",
             f"strength {row['strength']:.{genes.digits}f} (1 is the strongest)" if np.isfinite(row["strength"]) else "",
             f"expression of the target {row['expression']:.2f}" if np.isfinite(row["expression"]) else ""]  # fmt: skip
    told = ", ".join(fact for fact in facts if fact)
    lines = [f"{name} in {run.title(genes.dataset)}" + (f": {told}" if told else ""), ""]
    measures = [part for part in genes.measures if genes.values[part.metric].loc[name].notna().any()]
    lines += _columns(
        [["", *(part.title for part in measures)], *(_numbers(genes, measures, name, label) for label in genes.models)]
    )
    lines += _near(genes, name) + _partners(genes, name)
    return "\n".join(lines)


def _numbers(genes: Perturbations, measures: list[Measure], name: str, label: str) -> list[str]:
    texts = []
    for part in measures:
        q = genes.q[part.metric].loc[name, label] if part.metric in genes.q else np.nan
        texts.append(number(genes.values[part.metric].loc[name, label]) + (f" (q {number(q)})" if np.isfinite(q) else ""))
    return [label, *texts]


def _near(genes: Perturbations, name: str) -> list[str]:
    if genes.nearest.empty:
        return []
    rows = genes.nearest[genes.nearest["perturbation"] == name].sort_values("rank")
    lists = [[label, ", ".join(rows.loc[rows["label"] == label, "neighbour"]) or "–"] for label in genes.models]
    return ["", "Most similar perturbations (cosine of mean effects)", *_columns(lists)]


def _partners(genes: Perturbations, name: str) -> list[str]:
    pairs = genes.pairs[(genes.pairs["unit"] == name) | (genes.pairs["unit2"] == name)]
    if pairs.empty:
        return []
    partner = pd.Series(np.where(pairs["unit"] == name, pairs["unit2"], pairs["unit"]), index=pairs.index)
    lists = []
    for label in genes.models:
        recalled = partner[pairs[label] == 1].tolist()
        lists.append([label, f"{len(recalled)}: {listed(recalled, PARTNERS)}" if recalled else "0"])
    return ["", f"Known partners recalled, of {len(pairs)}", *_columns(lists)]


def _columns(rows: list[list[str]]) -> list[str]:
    """Rows of texts, padded to columns."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
