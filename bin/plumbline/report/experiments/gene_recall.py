"""Recall by gene vectors: the gene embeddings of checkpoints and the PCA loadings of the data."""

from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.experiments.gene_recall import LOADINGS, RANDOM
from plumbline.report.figures import OKABE_ITO, image, panels, small_panel, wrapped
from plumbline.report.run import Run
from plumbline.report.words import VERDICTS, escape, metric_title, number, section, table, with_interval

NAME = "gene_recall"
PARENT = {
    "parent_id": f"plumbline_{NAME}",
    "parent_name": "Experiment: recall by gene embeddings",
    "parent_description": "Known relationships among the cosines of the gene vectors that checkpoints hold, before any cell is "
    "seen, next to the loadings of a PCA of the data.",
}
PROCESSINGS = {"raw": "as stored", "pca": "after PCA of the table"}
TITLES = {LOADINGS: "PCA loadings of the data", RANDOM: "random vectors"}
CHANCE = 0.1


def sections(run: Run, folder: Path) -> list[dict]:
    """The mean recall of every table in a figure and in words, and the table by source."""
    paths = sorted(folder.glob(f"*.{NAME}.parquet"))
    frames = [pd.read_parquet(path) for path in paths if path.stat().st_size]
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if rows.empty:
        return []
    rows = rows.assign(label=[TITLES.get(name, run.titles.get(name, name)) for name in rows["table"]])
    shown = rows[(rows["metric"] == "recall_mean") & (rows["status"] == "ok")]
    lines = "".join(f"<li>{line}</li>" for line in sentences(run, shown))
    figure = image(_figure(run, shown), "Mean recall by table of gene vectors.") if len(shown) else ""
    about = (
        "Share of the known pairs whose cosine is among the 5 % lowest or 5 % highest, mean of the sources, with 95 % "
        "intervals. Filled: vectors as stored; open: after PCA of the table. Dotted: chance. A table is scored on the genes "
        "that it and the data set have."
    )
    parts = [section(f"{NAME}_figure", "Mean recall", about, f"<ul class='pl-says'>{lines}</ul>{figure}", **PARENT)]
    return [*parts, _table(run, rows)]


def verdict(row) -> str:
    """better, worse, cannot tell, or not tested; of a row with q, difference."""
    if not np.isfinite(row.q):
        return "not tested"
    return "cannot tell" if row.q > 0.05 else "better" if row.difference > 0 else "worse"


def sentences(run: Run, shown: pd.DataFrame) -> list[str]:
    """Per data set: the best table, and how those of the checkpoints compare with the loadings."""
    lines = []
    for dataset, part in shown.groupby("dataset", sort=True):
        best = part.loc[part["value"].idxmax()]
        text = (
            f"{best['label']} ({PROCESSINGS[best['processing']]}) recalls most, {number(best['value'])} (chance {CHANCE:.2f})"
        )
        tested = [verdict(row) for row in part.itertuples() if np.isfinite(row.q)]
        counts = f"; of {len(tested)} comparisons with {TITLES[LOADINGS]} {tested.count('better')} better, " \
                 f"{tested.count('worse')} worse (q ≤ 0.05)" if tested else ""  # fmt: skip
        lines.append(f"<b>{escape(run.title(dataset))}</b>: {escape(text + counts)}.")
    return lines


def _figure(run: Run, shown: pd.DataFrame):
    parts = shown.groupby("dataset")
    names = list(dict.fromkeys(shown.sort_values("value")["label"]))
    figure, axes = panels(len(parts), (3.6, 1.0 + 0.3 * len(names)), border=(1.8, 0), sharey=True)
    for axis, (dataset, part) in zip(axes, parts, strict=True):
        for row in part.itertuples():
            raw = row.processing == "raw"
            place = names.index(row.label) + (0.12 if raw else -0.12)
            colour = OKABE_ITO[0] if row.table not in TITLES else "#555555"
            axis.plot([row.ci_low, row.ci_high], [place] * 2, color=colour, linewidth=1.4)
            axis.plot(row.value, place, "o", color=colour, fillstyle="full" if raw else "none", markersize=5)
        axis.axvline(CHANCE, color="#777777", linestyle=":", linewidth=1)
        axis.set_yticks(range(len(names)), names, fontsize=7.5)
        axis.set_xlabel(metric_title("recall_mean"), fontsize=7.5)
        small_panel(axis, wrapped(run.title(dataset), 34))
    return figure


def _table(run: Run, rows: pd.DataFrame) -> dict:
    head = [
        "Data set",
        "Vectors of genes",
        "Processing",
        "Metric",
        "Recall",
        "Genes",
        "Pairs",
        "PCA loadings",
        "Difference",
        "Result",
    ]
    body = []
    for row in rows.sort_values(["dataset", "label", "processing"], kind="stable").itertuples():
        names = [run.title(row.dataset), row.label, PROCESSINGS[row.processing], metric_title(row.metric)]
        if row.status != "ok":
            body.append([escape(str(cell)) for cell in [*names, *["–"] * 5, row.reason]])
            continue
        symbol, word = VERDICTS[verdict(row)][:2]
        values = [with_interval(row.value, row.ci_low, row.ci_high), f"{row.n_genes:.0f}", f"{row.n_pairs:.0f}",
                  number(row.baseline_value), with_interval(row.difference, row.diff_low, row.diff_high, sign=True),
                  f"{symbol} {word}"]  # fmt: skip
        body.append([escape(str(cell)) for cell in names + values])
    about = (
        "Differences to the PCA loadings are on the same genes and pairs, with 95 % intervals over genes; only the mean over "
        "sources is tested."
    )
    return section(f"{NAME}_table", "Table", about, f'<div class="pl-scroll">{table(head, body)}</div>', **PARENT)
