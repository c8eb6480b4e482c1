"""Which distribution the counts follow, and whether models that assume it score better."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.report.experiments.count_scores import score_sections, verdict
from plumbline.report.figures import OKABE_ITO, bare, image
from plumbline.report.run import Run
from plumbline.report.words import escape, number, section, table, with_interval

NAME = "count_distribution"
PARENT = {
    "parent_id": "plumbline_count_distribution",
    "parent_name": "Experiment: count distribution",
    "parent_description": "Which distribution fits the counts of each gene (Poisson, negative binomial, zero-inflated "
    "negative binomial, with the cell's depth as offset), and how scVI scores with each of them as its likelihood.",
}
TITLES = {"poisson": "Poisson", "nb": "negative binomial", "zinb": "zero-inflated negative binomial"}
SHORT = {"poisson": "Poisson", "nb": "NB", "zinb": "ZINB"}
COLOURS = dict(zip(TITLES, (OKABE_ITO[4], OKABE_ITO[0], OKABE_ITO[2]), strict=True))
MARKS = {"poisson": "^", "nb": "o", "zinb": "s"}
_POINTS = 1500  # genes drawn


def sections(run: Run, folder: Path) -> list[dict]:
    """Description of the counts of every data set; then scVI's scores by likelihood."""
    described = {}
    for name in run.datasets:
        path = folder / f"{name}.{NAME}.json"
        if path.exists():
            described[name] = json.loads(path.read_text())
    parts = [_data(run, folder, described)] if described else []
    supported = {name: summary["supported"] for name, summary in described.items() if summary["status"] == "ok"}
    return parts + score_sections(run, supported, PARENT)


def _data(run: Run, folder: Path, described: dict[str, dict]) -> dict:
    content = []
    for name, summary in described.items():
        title = escape(run.title(name))
        if summary["status"] != "ok":
            content.append(f"<h4>{title}</h4><p>Not applicable: {escape(summary['reason'])}.</p>")
            continue
        genes = pd.read_parquet(folder / f"{name}.{NAME}.parquet")
        words = f"{sentence(summary)} {verdict(run, name, summary['supported'])}".strip()
        content.append(f"<h4>{title}</h4><p>{escape(words)}</p>{image(_figure(genes, summary), words)}{_numbers(summary)}")
    about = (
        "Left: share of zeros of each gene, observed and expected. Middle: dispersion of genes by mean (median, quartiles; the "
        "grey line is the Poisson limit). Right: share of genes best described by each distribution (BIC), with 95 % intervals."
    )
    return section("count_distribution_data", "1 Description of the counts", about, "".join(content), **PARENT)


def sentence(summary: dict) -> str:
    """Which distribution the counts of a data set support, in words."""
    best, n = summary["supported"], summary["n_tested"]
    lead = {model: difference for model, difference in summary["lead"].items() if difference["value"] is not None}
    second = min(lead, key=lambda model: lead[model]["value"])
    difference = with_interval(*_triple(lead[second]))
    verb = "support" if summary["clear"] else "favour, without significance,"
    text = (
        f"The counts {verb} the {TITLES[best]} distribution: as one distribution for all {n:,} tested genes it has the lowest "
        f"BIC, {difference} per gene below that of {SHORT[second]}."
    )
    frequent = summary["shares_frequent"]
    among = f"the {summary['n_frequent']:,} genes with at least one count per cell" if frequent else "all tested genes"
    shares = [f"{SHORT[model]} {_percent((frequent or summary['shares'])[model])}" for model in TITLES]
    zeros = summary["zeros"]
    excess = [number(100 * zeros[model]["excess"]["value"], "_pct", sign=True) for model in ("poisson", "nb")]
    best_of = f"Best described among {among}: {', '.join(shares)}."
    beyond = f"Observed minus expected zeros, in percentage points: {excess[0]} (Poisson), {excess[1]} (NB)."
    cells = f"Cells: {summary['cells']}, {summary['n_cells']:,}; offset: {summary['offset']}."
    return f"{text} {best_of} {beyond} {cells}"


def _triple(estimate: dict) -> tuple[float, float, float]:
    value, low, high = (float("nan") if estimate[name] is None else estimate[name] for name in ("value", "low", "high"))
    return value, low, high


def _percent(share: dict) -> str:
    value, low, high = (100 * x for x in _triple(share))
    return f"{value:.0f} %" if np.isnan(low) else f"{value:.0f} % [{low:.0f}, {high:.0f}]"


def _figure(genes: pd.DataFrame, summary: dict):
    from matplotlib.figure import Figure

    tested = genes[genes["tested"]]
    shown = tested.sample(min(len(tested), _POINTS), random_state=0).sort_values("mean")
    figure = Figure(figsize=(11.5, 3.6), layout="constrained")
    zeros, trend, shares = figure.subplots(1, 3)
    for model, title in SHORT.items():
        style = {"s": 9, "alpha": 0.5, "linewidth": 0, "rasterized": True}
        zeros.scatter(
            shown[f"zeros_{model}"], shown["zeros_observed"], color=COLOURS[model], marker=MARKS[model], label=title, **style
        )
    most = max(0.02, 1.05 * float(shown[[f"zeros_{name}" for name in ("observed", *SHORT)]].max().max()))
    zeros.plot([0, most], [0, most], color="black", linewidth=0.8)
    zeros.set(xlabel="zeros expected", ylabel="zeros observed")
    zeros.legend(fontsize=7.5, frameon=False, markerscale=2)
    _trend(trend, shown, summary["trend"])
    _shares(shares, summary)
    for axis in (zeros, trend, shares):
        axis.tick_params(labelsize=7.5)
        bare(axis)
    return figure


def _trend(axis, shown: pd.DataFrame, bins: list[dict]) -> None:
    from matplotlib.ticker import NullFormatter

    floor = 1e-3  # a logarithmic axis has no 0
    axis.scatter(shown["mean"], shown["dispersion_nb"].clip(lower=floor), s=5, color="#aaaaaa", linewidth=0, rasterized=True)
    mean = [row["mean"] for row in bins]
    low, middle, high = (np.maximum([row[name] for row in bins], floor) for name in ("low", "dispersion", "high"))
    axis.fill_between(mean, low, high, color=COLOURS["nb"], alpha=0.2, linewidth=0)
    axis.plot(mean, middle, "o-", color=COLOURS["nb"], markersize=3.5, linewidth=1.2)
    axis.axhline(floor, color="#777777", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="mean counts per cell", ylabel=f"dispersion (NB; {floor:g}: this or less)")
    axis.xaxis.set_minor_formatter(NullFormatter())


def _shares(axis, summary: dict) -> None:
    groups = [("all tested", summary["shares"], 0.18)]
    if summary["shares_frequent"]:
        groups.append(("≥ 1 count per cell", summary["shares_frequent"], -0.18))
    for (label, shares, shift), fill in zip(groups, ("full", "none"), strict=False):
        for place, model in enumerate(SHORT):
            value, low, high = _triple(shares[model])
            axis.plot([low, high], [place + shift] * 2, color=COLOURS[model], linewidth=1.6)
            axis.plot(value, place + shift, MARKS[model], color=COLOURS[model], fillstyle=fill, markersize=7)
            axis.annotate(f"  {label}", (value, place + shift), fontsize=7, va="bottom", ha="left" if value < 0.6 else "right")
    axis.set_yticks(range(len(SHORT)), list(SHORT.values()))
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.5, 2.5), xlabel="share of genes best described")


def _numbers(summary: dict) -> str:
    head = [
        "",
        "Genes best described",
        "BIC above the best, per gene",
        "Zeros expected",
        "Observed minus expected",
        "Better than the simpler model (q ≤ 0.05)",
    ]
    body = []
    for model, test in zip(TITLES, (None, "nb_over_poisson", "zinb_over_nb"), strict=True):
        difference = summary["lead"].get(model)
        zeros = summary["zeros"][model]
        above = with_interval(*_triple(difference)) if difference else "0"
        beyond = with_interval(*_triple(zeros["excess"]), sign=True)
        better = _percent(summary["tests"][test]) if test else "–"
        cells = [_percent(summary["shares"][model]), above, number(zeros["expected"]), beyond, better]
        body.append([TITLES[model], *(f'<td class="n">{cell}</td>' for cell in cells)])
    return f'<div class="pl-scroll">{table(head, body)}</div>'
