"""What a run says about single perturbations: the table behind *my gene*, the gains, the pairs, and ``plumb show``."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from plumbline import tasks
from plumbline.report.candidate_rows import KEYS, CandidateRows, known_pairs
from plumbline.report.run import Run
from plumbline.report.words import metric_title
from plumbline.summary.output import read_columns, read_items


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

    @property
    def digits(self) -> int:
        """Of a rank from 0 to 1: fewer would make equals of neighbours."""
        return max(2, len(str(len(self.table))))


def read_genes(run: Run, summary: Path, maps: Path | None, dataset: str) -> Perturbations | None:
    """Everything about the perturbations of a data set. summary: has items.parquet; maps: MAP's tables. None if unknown."""
    rows = CandidateRows.of(run, read_items(summary), dataset)
    tables = {name: _map_table(run, maps, dataset, name) for name in ("perturbations", "neighbours")}
    present = rows.labels | set(tables["neighbours"].get("label", []))
    models = [label for label in run.models if label in present]
    has_value: dict[str, bool] = {}
    wide: dict[tuple[str, str], pd.DataFrame] = {}
    known = sorted({part.metric for part in MEASURES} | {record.main_metric for record in tasks.records().values()})
    for metric in [name for name in known if name in rows.metrics("perturbation")]:
        found = rows.means(metric, models)
        has_value[metric] = found["value"].notna().any(axis=None)
        wide |= {(metric, column): table for column, table in found.items()}
    names = sorted(
        set().union(*(table.index for table in wide.values())) | set(tables["perturbations"].get("perturbation", []))
    )
    if not names:
        return None
    measures = [part for part in (*MEASURES, *_further(has_value)) if part.metric in has_value]
    pairs, cosines = known_pairs(rows, models)
    values = {part.metric: wide[part.metric, part.column].reindex(names) for part in measures}
    return Perturbations(
        dataset=dataset,
        models=models,
        table=_table(rows, tables["perturbations"], names),
        measures=measures,
        values={part.metric: 1 / values[part.metric] if part.is_reciprocal else values[part.metric] for part in measures},
        q={part.metric: wide[part.metric, "q"].reindex(names) for part in measures if part.column},
        nearest=tables["neighbours"],
        pairs=pairs,
        cosines=cosines,
    )


def _map_table(run: Run, maps: Path | None, dataset: str, name: str) -> pd.DataFrame:
    path = maps / f"{dataset}.{name}.parquet" if maps else None
    if path is None or not path.exists():
        return pd.DataFrame()
    table = read_columns(path, ["perturbation"])
    if not set(KEYS) <= set(table.columns):
        return table
    return table.merge(run.headline[[*KEYS, "label"]].drop_duplicates(), on=KEYS)


def _further(has_value: dict[str, bool]) -> list[Measure]:
    """Main metrics of other tasks that have a unit per perturbation, such as retrieval."""
    found = sorted(set(has_value) - {part.metric for part in MEASURES})
    return [Measure(metric=name, title=metric_title(name), about=_question(name),
                    column="value" if has_value[name] else "") for name in found]  # fmt: skip


def _question(metric: str) -> str:
    return next((task.question for task in tasks.records().values() if task.main_metric == metric), "")


def _table(rows: CandidateRows, facts: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    columns = ["n_cells", "n_batches", "expression", "strength"]
    if len(facts):
        return facts.set_index("perturbation").reindex(index=names, columns=columns)
    return pd.DataFrame({"n_cells": rows.tested_cells()}).reindex(index=names, columns=columns)
