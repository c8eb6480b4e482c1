"""What a run says about single perturbations: the table behind *my gene*, the gains, the pairs, and ``plumb show``."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline import tasks
from plumbline.report.run import Run
from plumbline.report.words import metric_title
from plumbline.scoring.protocol import CHOSEN, REFERENCES

KEYS = ["variant", "fit_on"]
COLUMNS = ["dataset", *KEYS, "seed", "task", "metric", "unit", "unit2", "numerator", "denominator", "q", "value", "unit_kind"]
RECALL, MEAN = "recall_", "recall_mean"  # a metric per source of known pairs; MEAN repeats them


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number per perturbation and model. column: of the items; '' for numerator over denominator. is_reciprocal: it is one
    over the number to show."""

    metric: str
    title: str
    about: str
    column: str = ""
    is_reciprocal: bool = False


MEASURES = (
    Measure(metric="auroc_control", title="AUROC against controls", about="0.5 is chance; on test cells"),
    Measure(metric="magnitude_pct", title="Magnitude", about="energy distance to controls of the batch; its scale is that "
            "of the embedding, so compare within a model", column="value"),
    Measure(metric="consistency_pct", title="Consistency", about="mean cosine of the perturbation's cells", column="value"),
    Measure(metric="linear_top1", title="Accuracy", about="cells that a linear probe gives to this perturbation"),
    Measure(metric="retrieval_mrr", title="Retrieval rank", about="of the perturbation itself in a repeat of the experiment; "
            "1 is best", column="value", is_reciprocal=True),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Perturbations:
    """Perturbations of one data set over the candidate models of a run.

    models: labels. table: index perturbation; n_cells, n_batches, expression, strength (NaN where there are no maps).
    values, q: metric -> perturbations x models. nearest: perturbation, label, rank, neighbour, cosine.
    pairs: unit, unit2, sources (text) and, per label, 1.0 where the pair is recalled; cosines: the same with its cosine.
    """

    dataset: str
    models: list[str]
    table: pd.DataFrame
    measures: list[Measure]
    values: dict[str, pd.DataFrame]
    q: dict[str, pd.DataFrame]
    nearest: pd.DataFrame
    pairs: pd.DataFrame
    cosines: pd.DataFrame


def read_genes(run: Run, summary: Path, maps: Path | None, dataset: str) -> Perturbations | None:
    """Everything about the perturbations of a data set. summary: has items.parquet; maps: MAP's tables. None if unknown."""
    items = _items(run, summary / "items.parquet", dataset)
    tables = {name: _map_table(run, maps, dataset, name) for name in ("perturbations", "neighbours")}
    units = items[items["unit_kind"] == "perturbation"]
    names = sorted(set(units["unit"]) | set(tables["perturbations"].get("perturbation", [])))
    if not names:
        return None
    present = set(items["label"]) | set(tables["neighbours"].get("label", []))
    models = [label for label in run.models if label in present]
    measures = [part for part in (*MEASURES, *_further(units)) if part.metric in set(units["metric"])]
    pairs, cosines = _pairs(items[items["metric"].str.startswith(RECALL)], models)
    return Perturbations(
        dataset=dataset,
        models=models,
        table=_table(units, tables["perturbations"], names),
        measures=measures,
        values={part.metric: _values(units, part, names, models) for part in measures},
        q={part.metric: _wide(units, part.metric, "q", names, models) for part in measures if part.column},
        nearest=tables["neighbours"],
        pairs=pairs,
        cosines=cosines,
    )


def _items(run: Run, path: Path, dataset: str) -> pd.DataFrame:
    """The items of the candidates' headline runs, with a column ``label``."""
    known = run.headline[(run.headline["dataset"] == dataset) & ~run.headline["role"].isin(REFERENCES)]
    known = known[[*KEYS, "label"]].drop_duplicates()
    if not path.exists() or known.empty:
        return pd.DataFrame(columns=[*COLUMNS, "label"])
    import pyarrow.parquet as parquet

    wanted: list[tuple] = [
        ("dataset", "==", dataset),
        ("protocol", "==", "corrected"),
        ("postprocess", "==", CHOSEN["corrected"]),
    ]
    wanted += [("unit_kind", "in", ["perturbation", "pair"]), ("variant", "in", sorted(set(known["variant"])))]
    have = set(parquet.read_schema(path).names)
    items = pd.read_parquet(path, columns=[name for name in COLUMNS if name in have], filters=wanted)
    return items.reindex(columns=COLUMNS).merge(known, on=KEYS)


def _map_table(run: Run, maps: Path | None, dataset: str, name: str) -> pd.DataFrame:
    path = maps / f"{dataset}.{name}.parquet" if maps else None
    if path is None or not path.exists():
        return pd.DataFrame()
    table = pd.read_parquet(path)
    if not set(KEYS) <= set(table.columns):
        return table
    return table.merge(run.headline[[*KEYS, "label"]].drop_duplicates(), on=KEYS)


def _further(units: pd.DataFrame) -> list[Measure]:
    """Main metrics of other tasks that have a unit per perturbation, such as retrieval."""
    known = {part.metric for part in MEASURES}
    mains = {record.main_metric for record in tasks.records().values()} - known
    found = sorted(mains & set(units["metric"]))
    has_value = {name: units.loc[units["metric"] == name, "value"].notna().any() for name in found}
    return [Measure(metric=name, title=metric_title(name), about=_question(name),
                    column="value" if has_value[name] else "") for name in found]  # fmt: skip


def _question(metric: str) -> str:
    return next((task.question for task in tasks.records().values() if task.main_metric == metric), "")


def _values(units: pd.DataFrame, part: Measure, names: list[str], models: list[str]) -> pd.DataFrame:
    wide = _wide(units, part.metric, part.column, names, models)
    return 1 / wide if part.is_reciprocal else wide


def _wide(units: pd.DataFrame, metric: str, column: str, names: list[str], models: list[str]) -> pd.DataFrame:
    """Perturbations x models, mean over seeds."""
    rows = units[units["metric"] == metric]
    value = rows[column] if column else rows["numerator"] / rows["denominator"]
    wide = value.groupby([rows["unit"], rows["label"]]).mean().unstack()
    return wide.reindex(index=names, columns=models)


def _table(units: pd.DataFrame, facts: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    columns = ["n_cells", "n_batches", "expression", "strength"]
    if len(facts):
        return facts.set_index("perturbation").reindex(index=names, columns=columns)
    counted = units[units["metric"] == "linear_top1"].groupby("unit")["denominator"].max()  # without maps: those tested
    return pd.DataFrame({"n_cells": counted}).reindex(index=names, columns=columns)


def _pairs(rows: pd.DataFrame, models: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Known pairs of perturbed genes, once each, with their sources: recalled (most seeds), and cosine, per model."""
    titles = {metric: metric_title(metric).rpartition(", ")[2] for metric in set(rows["metric"])}
    rows = rows[(rows["metric"] != MEAN) & ~rows["metric"].str.endswith("_10")]
    if rows.empty:
        return pd.DataFrame(columns=["unit", "unit2", "sources", *models]), pd.DataFrame(columns=models)
    key = [rows["unit"], rows["unit2"]]
    sources = rows["metric"].map(titles).groupby(key).agg(lambda part: ", ".join(sorted(set(part))))
    hits = rows["numerator"].groupby([*key, rows["label"]]).mean().unstack().reindex(columns=models)
    cosines = rows["value"].groupby([*key, rows["label"]]).mean().unstack().reindex(columns=models)
    hits = (hits >= 0.5).astype(float).where(hits.notna(), np.nan)
    table = pd.concat([sources.rename("sources"), hits], axis=1).reset_index()
    return table, cosines.reset_index(drop=True)
