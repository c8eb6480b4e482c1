"""The item rows of a run's candidate models, read one model and metric at a time and reduced to means over seeds.

Of 9,866 perturbations, ten models and five seeds these are some twenty million rows, of which the report shows the means.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pandas as pd

from plumbline.report.run import Run
from plumbline.report.words import metric_title
from plumbline.scoring.protocol import CHOSEN, REFERENCES
from plumbline.summary.items import ItemTable, Stretch, frame_of

KEYS = ["variant", "fit_on"]
RECALL, MEAN = "recall_", "recall_mean"  # a metric per source of known pairs; MEAN repeats them


@dataclass(frozen=True)
class CandidateRows:
    """parts: (unit kind, metric) -> label of the model -> where its rows are. Protocol corrected, chosen post-processing."""

    parts: dict[tuple[str, str], dict[str, list[Stretch]]]

    @staticmethod
    def of(run: Run, items: ItemTable, dataset: str) -> "CandidateRows":
        """Of the candidates' headline runs on a data set."""
        known = run.headline[(run.headline["dataset"] == dataset) & ~run.headline["role"].isin(REFERENCES)]
        labels = {(row.variant, row.fit_on): row.label for row in known.itertuples()}
        kinds, protocol = frozenset(("perturbation", "pair")), "corrected"
        how = {"dataset": dataset, "protocol": protocol, "postprocess": CHOSEN[protocol], "unit_kind": kinds}
        parts: dict = defaultdict(lambda: defaultdict(list))
        for part in items.of(**how).parts():
            if label := labels.get((part.variant, part.fit_on)):
                parts[part.unit_kind, part.metric][label].append(part)
        return CandidateRows({key: dict(of_label) for key, of_label in parts.items()})

    @property
    def labels(self) -> set[str]:
        """Models with any row."""
        return {label for of_label in self.parts.values() for label in of_label}

    def metrics(self, kind: str) -> set[str]:
        """Metrics with units of a kind."""
        return {metric for of_kind, metric in self.parts if of_kind == kind}

    def means(self, metric: str, models: list[str]) -> dict[str, pd.DataFrame]:
        """Perturbations x models, mean over seeds: of 'value', of 'q', and ('') of numerator over denominator."""
        found = {}
        for label, parts in self.parts["perturbation", metric].items():
            frame = frame_of(parts, ("unit", "numerator", "denominator", "value", "q"))
            columns = frame.reindex(columns=["value", "q"]).astype(float)  # a task may have neither
            columns[""] = frame["numerator"] / frame["denominator"]
            found[label] = columns.groupby(frame["unit"]).mean()
        whole = pd.concat(found, axis=1)
        return {name: whole.xs(name, axis=1, level=1).reindex(columns=models) for name in ("value", "q", "")}

    def tested_cells(self) -> pd.Series:
        """Cells of each perturbation that a probe was tested on, the most of all models and seeds."""
        parts = [part for parts in self.parts.get(("perturbation", "linear_top1"), {}).values() for part in parts]
        frame = frame_of(parts, ("unit", "denominator")) if parts else pd.DataFrame({"unit": [], "denominator": []})
        return frame.groupby("unit")["denominator"].max()


def known_pairs(rows: CandidateRows, models: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Known pairs of perturbed genes, once each, with their sources: recalled (most seeds), and cosine, per model."""
    found = sorted(name for name in rows.metrics("pair") if name.startswith(RECALL) and name != MEAN and name[-3:] != "_10")
    if not found:
        return pd.DataFrame(columns=["unit", "unit2", "sources", *models]), pd.DataFrame(columns=models)
    means = {label: _pair_means(rows, found, label) for label in models}
    whole = pd.concat(means, axis=1).sort_index()
    hits, cosines = (whole.xs(name, axis=1, level=1).reindex(columns=models) for name in ("numerator", "value"))
    hits = (hits >= 0.5).astype(float).where(hits.notna(), np.nan)
    table = pd.concat([_sources(rows, found, whole.index), hits], axis=1).reset_index()
    return table, cosines.reset_index(drop=True)


def _pair_means(rows: CandidateRows, metrics: list[str], label: str) -> pd.DataFrame:
    """numerator and value of each pair, mean over sources and seeds; index unit, unit2."""
    parts = [part for metric in metrics for part in rows.parts["pair", metric].get(label, [])]
    parts.sort(key=lambda part: (part.group, part.start))
    columns = ("unit", "unit2", "numerator", "value")
    frame = (frame_of(parts, columns) if parts else pd.DataFrame()).reindex(columns=list(columns))
    return frame.astype({"numerator": float, "value": float}).groupby(["unit", "unit2"])[["numerator", "value"]].mean()


def _sources(rows: CandidateRows, metrics: list[str], pairs: pd.MultiIndex) -> pd.Series:
    """The sources that know each pair, as text."""
    titles = {metric: metric_title(metric).rpartition(", ")[2] for metric in metrics}
    knows = np.zeros((len(pairs), len(metrics)), dtype=bool)
    order = sorted(metrics, key=lambda metric: titles[metric])
    for place, metric in enumerate(order):
        for parts in rows.parts["pair", metric].values():
            frame = frame_of(parts, ("unit", "unit2"))
            knows[pairs.get_indexer(pd.MultiIndex.from_frame(frame[["unit", "unit2"]].drop_duplicates())), place] = True
    which, code = np.unique(knows, axis=0, return_inverse=True)
    texts = [", ".join(dict.fromkeys(titles[order[place]] for place in np.flatnonzero(row))) for row in which]
    return pd.Series(np.array(texts, dtype=object)[code.ravel()], index=pairs, name="sources")
