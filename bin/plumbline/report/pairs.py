"""Known pairs that one model recalls and the baseline misses, and the other way round, with the source that knows them."""

import numpy as np
import pandas as pd

from plumbline.report.genes import Perturbations
from plumbline.report.run import Run
from plumbline.report.words import escape, folded, number, section, table

SHOWN = 12  # pairs per table
HEAD = ["Model", "Pairs", "Both recall", "Only the model", "Only the baseline", "Neither"]


def pair_section(run: Run, found: list[Perturbations]) -> list[dict]:
    """One section, a part per data set with known pairs; nothing where there are none."""
    parts = [part for genes in found if (part := _part(run, genes))]
    about = (
        f"Pairs of perturbed genes that a source knows, in a model and in {run.baseline}. A pair is recalled if its cosine "
        "lies in the lowest or highest 5 % of all pairs of that model. Listed first: the largest change of its rank among the "
        "known pairs."
    )
    return [section("pairs", "Pairs found and missed", escape(about), "\n".join(parts))] if parts else []


def _part(run: Run, genes: Perturbations) -> str:
    rows = run.headline[run.headline["variant"] == run.about["baseline"]]
    base = rows["label"].iloc[0] if len(rows) else ""
    others = [label for label in genes.models if label != base]
    if genes.pairs.empty or base not in genes.models or not others:
        return ""
    counts = table(HEAD, [_counts(genes, base, label) for label in others])
    details = "".join(_details(run, genes, base, label) for label in others)
    return folded(run.title(genes.dataset), f'<div class="pl-scroll">{counts}</div>{details}', large=True, opened=True)


def _counts(genes: Perturbations, base: str, label: str) -> list[str]:
    both = genes.pairs[[base, label]].dropna() == 1
    ours, theirs = both[label], both[base]
    numbers = (len(both), (ours & theirs).sum(), (ours & ~theirs).sum(), (~ours & theirs).sum(), (~ours & ~theirs).sum())
    return [f"<b>{escape(label)}</b>", *(f'<td class="n">{value:,}</td>' for value in numbers)]


def _details(run: Run, genes: Perturbations, base: str, label: str) -> str:
    parts = [_listing(genes, label, base, f"recalled by {label}, missed by {run.baseline}"),
             _listing(genes, base, label, f"recalled by {run.baseline}, missed by {label}")]  # fmt: skip
    return f'<details class="pl"><summary>{escape(label)}</summary>{"".join(parts)}</details>' if any(parts) else ""


def _listing(genes: Perturbations, finder: str, other: str, title: str) -> str:
    """The pairs that ``finder`` recalls and ``other`` does not."""
    rows = np.flatnonzero((genes.pairs[finder] == 1) & (genes.pairs[other] == 0))
    if not len(rows):
        return ""
    rank = genes.cosines[[finder, other]].rank(pct=True)
    change = (rank[finder] - rank[other]).abs().to_numpy()[rows]
    first = rows[np.argsort(-change, kind="stable")[:SHOWN]]
    body = [_row(genes.pairs.iloc[row], genes.cosines.iloc[row], finder, other) for row in first]
    more = f" ({len(first)} of {len(rows):,})" if len(first) < len(rows) else ""
    head = ["Pair", "Known to", f"Cosine, {escape(finder)}", f"Cosine, {escape(other)}"]
    return f'<p>{escape(title)}{more}</p><div class="pl-scroll">{table(head, body)}</div>'


def _row(pair: pd.Series, cosine: pd.Series, finder: str, other: str) -> list[str]:
    numbers = [f'<td class="n">{number(cosine[label])}</td>' for label in (finder, other)]
    return [escape(f"{pair['unit']} – {pair['unit2']}"), escape(pair["sources"]), *numbers]
