"""SUMMARISE's folder, read for the report."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from plumbline import tasks
from plumbline.common.states import state_of
from plumbline.scoring.protocol import REFERENCES
from plumbline.summary.output import read_about, read_table, read_tsv

_TEXT = ["experiment", "dataset", "task", "metric", "model", "variant", "fit_on", "reason", "chosen", "role", "status",
         "verdict", "step", "name", "seen", "seen_source"]  # fmt: skip
PLANTED = "planted_"  # begins the name of an embedding that is no model but made of a simulation's truth


@dataclass(frozen=True)
class Run:
    """What there is to report. ``comparisons``, ``published``, ``cost``, ``distributions``, ``scores``: tables as written by
    SUMMARISE (docs/results_format.md), with a column ``label``, the model's name for readers: those of the main run;
    ``steps``: all tasks of the run; ``experiments``, ``experiment_cost``: those of the experiments; ``all_scores``: of both."""

    about: dict
    scores: pd.DataFrame
    comparisons: pd.DataFrame
    published: pd.DataFrame
    cost: pd.DataFrame
    distributions: pd.DataFrame
    steps: pd.DataFrame = field(default_factory=pd.DataFrame)
    experiments: pd.DataFrame = field(default_factory=pd.DataFrame)
    experiment_cost: pd.DataFrame = field(default_factory=pd.DataFrame)
    all_scores: pd.DataFrame = field(default_factory=pd.DataFrame)

    def experiment(self, name: str) -> pd.DataFrame:
        """The headline rows of one experiment: each run against the variant the experiment measures it by."""
        if self.experiments.empty:
            return self.headline[:0]
        return _headline(self.experiments[self.experiments["experiment"] == name])

    @property
    def baseline(self) -> str:
        """Short name of the baseline for readers: 'PCA (log-normalised)' is PCA."""
        return self.titles.get(self.about["baseline"], self.about["baseline"]).partition(" (")[0]

    @cached_property
    def titles(self) -> dict[str, str]:
        """variant -> title; of data that came as signed scores, such as z-scores, nothing was log-normalised."""
        names = dict.fromkeys(self.comparisons.get("variant", []))
        planted = [name for name in names if name.startswith(PLANTED)]
        titles = {name: f"{name.replace('_', ' ')} (made of the simulated truth)" for name in planted}
        titles |= {name: row.get("title") or name for name, row in self.about["models"].items()}
        titles |= {name: _state_title(name, titles) for name in names if state_of(name)}
        kinds = {found["facts"].get("x_kind") for found in self.about["datasets"].values()}
        if kinds != {"signed"}:
            return titles
        return {name: title.replace("log-normalised", "values as given") for name, title in titles.items()}

    @property
    def datasets(self) -> list[str]:
        """Data sets in alphabetical order."""
        made = set(self.experiments["dataset"]) if len(self.experiments) else set()  # such as X.heldout
        return sorted(set(self.comparisons["dataset"]) | (set(self.about["datasets"]) - made))

    @property
    def tasks(self) -> list[str]:
        """Tasks of this run, in the order of the report."""
        found = set(self.comparisons["task"])
        return [task for task in tasks.records() if task in found] + sorted(found - set(tasks.names()))

    @property
    def compared_tasks(self) -> list[str]:
        """Those of the tasks that compare models: not those that describe them."""
        found = set(self.headline["task"])
        return [task for task in self.tasks if task in found]

    @property
    def compared_datasets(self) -> list[str]:
        """The data sets on which models are compared, whatever the comparisons say: those that the verdicts show."""
        found = set(self.headline["dataset"])
        return [name for name in self.datasets if name in found]

    def title(self, dataset: str) -> str:
        """A data set's title, or its name where it has none or shares it with another."""
        titles = {name: found["facts"].get("title") for name, found in self.about["datasets"].items()}
        title = titles.get(dataset)
        return title if title and list(titles.values()).count(title) == 1 else dataset

    @property
    def headline(self) -> pd.DataFrame:
        """The rows that answer the question: corrected protocol, chosen post-processing, main metrics."""
        return _headline(self.comparisons)

    @property
    def models(self) -> list[str]:
        """Labels: the baseline, then candidates from most to least ahead of it, then controls."""
        table = self.headline if len(self.headline) else self.comparisons
        worth = table["verdict"].map({"better": 1.0, "worse": -1.0}).fillna(0.0)
        order = pd.DataFrame({"label": table["label"], "worth": worth, "calibrated": table["calibrated"]})
        order["group"] = table["role"].isin(REFERENCES).astype(int) + 1
        order.loc[table["variant"] == self.about["baseline"], "group"] = 0
        ranked = order.groupby("label").agg({"group": "max", "worth": "sum", "calibrated": "mean"}).reset_index()
        return ranked.sort_values(["group", "worth", "calibrated", "label"], ascending=[True, False, False, True])[
            "label"
        ].tolist()


def _state_title(name: str, titles: dict[str, str]) -> str:
    variant, number, pooling = state_of(name)
    what = "input of layer 1" if number == 0 else f"layer {number}"
    return f"{titles.get(variant, variant)}: {what}{'' if pooling == 'own' else f', {pooling}'}"


def read_run(folder: Path) -> Run:
    """Read SUMMARISE's folder. Raises UserError if it is not one."""
    about = read_about(folder, ("baseline", "datasets", "models"))
    tables = {name: _tsv(folder / f"{name}.tsv") for name in ("published", "cost", "distributions")}
    comparisons, scores = (read_table(folder, name) for name in ("comparisons", "scores"))
    comparisons, experiments = _parted(comparisons)
    tables["cost"], experiment_cost = _parted(tables["cost"])
    all_scores, scores = scores, _of(scores, comparisons)
    steps = _tsv(folder / "steps.tsv")
    run = Run(
        about,
        scores,
        comparisons,
        **tables,
        steps=steps,
        experiments=experiments,
        experiment_cost=experiment_cost,
        all_scores=all_scores,
    )
    main = (comparisons, run.cost, scores, run.published, run.distributions)
    names = labels(pd.concat([part[["variant", "fit_on"]] for part in main[:2]]), run.titles)
    for table in main:
        table["label"] = [names.get(key, key[0]) for key in zip(table["variant"], table["fit_on"], strict=True)]
    for table in (experiments, experiment_cost, all_scores):  # what each was fitted on, their sections say
        table["label"] = [run.titles.get(variant, variant) for variant in table["variant"]]
    return run


def _headline(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["protocol"] == "corrected") & table["main"].astype(bool)]


def _of(scores: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """The scores of the runs that ``comparisons`` has."""
    runs = [pd.MultiIndex.from_frame(table[["dataset", "variant", "fit_on", "task"]]) for table in (scores, comparisons)]
    return scores[runs[0].isin(runs[1])].reset_index(drop=True)


def _parted(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the main run, and those of experiments."""
    main = table["experiment"].fillna("") == ""
    return table[main].drop(columns="experiment").reset_index(drop=True), table[~main].reset_index(drop=True)


def labels(pairs: pd.DataFrame, titles: dict[str, str]) -> dict[tuple[str, str], str]:
    """(variant, fit_on) -> title, with what it was fitted on where a variant was fitted on several things."""
    unique = pairs.drop_duplicates()
    several = set(unique["variant"][unique["variant"].duplicated()])
    return {
        (variant, fit_on): titles.get(variant, variant) + (f", fitted on {fit_on}" if variant in several else "")
        for variant, fit_on in unique.itertuples(index=False)
    }


def _tsv(path: Path) -> pd.DataFrame:
    table = read_tsv(path, (), dict.fromkeys(_TEXT, str))
    text = [name for name in _TEXT if name in table]
    return table.assign(**{name: table[name].fillna("") for name in text})
