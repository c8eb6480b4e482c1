"""SUMMARISE's folder, read for the report."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from plumbline.errors import UserError
from plumbline.report.words import TASK_ORDER

CONTROLS = ("floor", "ceiling", "predictor")
_TEXT = ["dataset", "task", "metric", "model", "variant", "fit_on", "reason", "chosen", "role", "status", "verdict"]


@dataclass(frozen=True)
class Run:
    """What there is to report. ``comparisons``, ``published``, ``cost``, ``distributions``, ``scores``: tables as written by
    SUMMARISE (docs/results_format.md), the first four with a column ``label``, the model's name for readers."""

    about: dict
    scores: pd.DataFrame
    comparisons: pd.DataFrame
    published: pd.DataFrame
    cost: pd.DataFrame
    distributions: pd.DataFrame

    @property
    def baseline(self) -> str:
        """Short name of the baseline for readers: 'PCA (log-normalised)' is PCA."""
        return self.titles.get(self.about["baseline"], self.about["baseline"]).partition(" (")[0]

    @property
    def titles(self) -> dict[str, str]:
        """variant -> title."""
        return {name: row.get("title") or name for name, row in self.about["models"].items()}

    @property
    def datasets(self) -> list[str]:
        """Data sets in alphabetical order."""
        return sorted(set(self.comparisons["dataset"]) | set(self.about["datasets"]))

    @property
    def tasks(self) -> list[str]:
        """Tasks of this run, in the order of the report."""
        found = set(self.comparisons["task"])
        return [task for task in TASK_ORDER if task in found] + sorted(found - set(TASK_ORDER))

    def title(self, dataset: str) -> str:
        """A data set's title, or its name where it has none or shares it with another."""
        titles = {name: found["facts"].get("title") for name, found in self.about["datasets"].items()}
        title = titles.get(dataset)
        return title if title and list(titles.values()).count(title) == 1 else dataset

    @property
    def headline(self) -> pd.DataFrame:
        """The rows that answer the question: corrected protocol, chosen post-processing, main metrics."""
        table = self.comparisons
        return table[(table["protocol"] == "corrected") & table["main"]]

    @property
    def models(self) -> list[str]:
        """Labels: the baseline, then candidates from most to least ahead of it, then controls."""
        table = self.headline if len(self.headline) else self.comparisons
        worth = table["verdict"].map({"better": 1.0, "worse": -1.0}).fillna(0.0)
        order = pd.DataFrame({"label": table["label"], "worth": worth, "calibrated": table["calibrated"]})
        order["group"] = table["role"].isin(CONTROLS).astype(int) + 1
        order.loc[table["variant"] == self.about["baseline"], "group"] = 0
        ranked = order.groupby("label").agg({"group": "max", "worth": "sum", "calibrated": "mean"}).reset_index()
        return ranked.sort_values(["group", "worth", "calibrated", "label"], ascending=[True, False, False, True])[
            "label"
        ].tolist()


def read_run(folder: Path) -> Run:
    """Read SUMMARISE's folder. Raises UserError if it is not one."""
    if not (folder / "about.json").exists():
        raise UserError(f"{folder} is no summary: about.json is missing. Give the folder that summarise_scores.py wrote.")
    about = json.loads((folder / "about.json").read_text())
    tables = {name: _tsv(folder / f"{name}.tsv") for name in ("published", "cost", "distributions")}
    comparisons, scores = (pd.read_parquet(folder / f"{name}.parquet") for name in ("comparisons", "scores"))
    run = Run(about, scores, comparisons, **tables)
    names = labels(pd.concat([part[["variant", "fit_on"]] for part in (comparisons, tables["cost"])]), run.titles)
    for table in (comparisons, scores, *tables.values()):
        keys = zip(table["variant"], table["fit_on"], strict=True)
        table["label"] = [names.get(key, key[0]) for key in keys]
    return run


def labels(pairs: pd.DataFrame, titles: dict[str, str]) -> dict[tuple[str, str], str]:
    """(variant, fit_on) -> title, with what it was fitted on where a variant was fitted on several things."""
    unique = pairs.drop_duplicates()
    several = set(unique["variant"][unique["variant"].duplicated()])
    return {
        (variant, fit_on): titles.get(variant, variant) + (f", fitted on {fit_on}" if variant in several else "")
        for variant, fit_on in unique.itertuples(index=False)
    }


def _tsv(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, sep="\t", dtype=dict.fromkeys(_TEXT, str))
    text = [name for name in _TEXT if name in table]
    return table.assign(**{name: table[name].fillna("") for name in text})
