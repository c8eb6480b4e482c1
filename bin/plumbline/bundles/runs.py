"""The output folder of a run as the contents of bundles: one per data set and model of its main part."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from plumbline.bundles.digests import FACTS, data_identity
from plumbline.bundles.submission import default_revision, stated_of
from plumbline.bundles.writing import Contents
from plumbline.common.errors import UserError, did_you_mean
from plumbline.common.files import read_json_object, sha256
from plumbline.data.facts import read_facts
from plumbline.summary.items import ItemTable
from plumbline.summary.output import AGAIN, read_about, read_items, read_table, read_tsv

STATED = ("plumbline", "n_draws", "n_boot", "decoder_budget", "exact", "baseline", "tasks", "models", "datasets")
_SAME = ["dataset", "variant", "fit_on"]


@dataclass(frozen=True)
class RunOutput:
    """The folder that a run left (``--outdir``). comparisons: of the main run, without those of experiments."""

    folder: Path
    about: dict
    scores: pd.DataFrame
    comparisons: pd.DataFrame

    @cached_property
    def items(self) -> ItemTable:
        """Of all models, which are read score by score."""
        return read_items(self.folder)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(data set, variant) with at least one score."""
        scored = self.comparisons[self.comparisons["status"] == "ok"]
        return sorted(set(map(tuple, scored[["dataset", "variant"]].to_numpy().tolist())))

    def chosen(self, datasets: str, variants: str) -> list[tuple[str, str]]:
        """The pairs of these names (comma-separated; '' for all). Raises UserError for an unknown name."""
        pairs = self.pairs
        for place, text in ((0, datasets), (1, variants)):
            names = [name for name in text.split(",") if name]
            known = sorted({pair[place] for pair in pairs})
            for name in names:
                if name not in known:
                    raise UserError(f"{self.folder} has no scores of {name!r}.{did_you_mean(name, known)}")
            pairs = [pair for pair in pairs if not names or pair[place] in names]
        return pairs


def is_run(folder: Path) -> bool:
    """Whether a folder is the output of a run."""
    return (folder / "about.json").is_file()


def read_output(folder: Path) -> RunOutput:
    """Read what a run left. Raises UserError if it is something else, or of a version that did not state enough."""
    about = read_about(folder, STATED)
    scores, comparisons = (read_table(folder, name) for name in ("scores", "comparisons"))
    if unstated := sorted(set(scores["task"]) - set(about["tasks"])):
        raise UserError(f"{folder / 'about.json'} does not state the task {unstated[0]}. {AGAIN}")
    return RunOutput(folder, about, scores, comparisons[comparisons["experiment"] == ""])


def contents_of(run: RunOutput, dataset: str, variant: str, revision: str = "", stated: dict | None = None) -> Contents:
    """One model of a run on one data set. stated: what the submitter says of the model, over what models.csv does."""
    comparisons = run.comparisons[(run.comparisons["dataset"] == dataset) & (run.comparisons["variant"] == variant)]
    first = comparisons.iloc[0]
    same = (run.scores[_SAME] == [dataset, variant, first["fit_on"]]).all(axis=1)
    scores, version = run.scores[same], str(run.about["plumbline"])
    seeds = _seeds(scores)
    embeddings = embeddings_of(run, dataset, variant, seeds)
    identity = data_identity(run.folder / "data" / dataset / "tables", seeds)
    _check_scored(run, dataset, variant, [path for path, _ in embeddings])
    model = {name: str(first[name]) for name in ("variant", "model", "role", "fit_on")}
    model["title"] = run.about["models"].get(variant, {}).get("title") or variant
    return Contents(
        plumbline=version,
        model=model | {"revision": revision or default_revision(variant, version, sha256(embeddings[0][0]))},
        dataset=identity,
        tasks={task: _task(run.about["tasks"][task], part, dataset) for task, part in scores.groupby("task")},
        settings={
            "baseline": run.about["baseline"],
            "seeds": seeds,
            "protocols": sorted(scores["protocol"].unique()),
            **{name: run.about[name] for name in ("n_draws", "n_boot", "decoder_budget", "exact")},
        },
        submission=stated_of(variant, identity) | (stated or {}),
        embeddings=embeddings,
        scores=scores,
        comparisons=comparisons,
        items=run.items.of(**{name: first[name] for name in _SAME}),
    )


def _check_scored(run: RunOutput, dataset: str, variant: str, embeddings: list[Path]) -> None:
    """Raises UserError if what lies in the folder was made after its scores, by a later run that did not end."""
    tables = run.folder / "data" / dataset / "tables"
    now, then = read_facts(tables), run.about["datasets"].get(dataset, {}).get("facts", {})
    newer = [tables] if any(now.get(name) != then.get(name) for name in FACTS) else []
    cost = read_tsv(run.folder / "cost.tsv", ("dataset", "variant", "seconds"))
    seconds = set(cost.loc[(cost["dataset"] == dataset) & (cost["variant"] == variant), "seconds"])
    took = {path: read_json_object(path.with_suffix(".json"), AGAIN).get("seconds") for path in embeddings}
    newer += [path for path, value in took.items() if value is not None and value not in seconds]
    if newer:
        raise UserError(f"{newer[0]} is not what {run.folder / 'scores.parquet'} scored: a later run into this folder did not "
                        "end. Run the same command again with -resume.")  # fmt: skip


def _seeds(scores: pd.DataFrame) -> list[int]:
    """The split seeds in the order of the run: its first is the one that `paper` uses where a task needs no split."""
    paper = scores[scores["protocol"] == "paper"].groupby("task")["seed"].unique()
    first = {int(seeds[0]) for seeds in paper if len(seeds) == 1}
    return sorted((int(seed) for seed in scores["seed"].unique()), key=lambda seed: (seed not in first, seed))


def _task(about: dict, scores: pd.DataFrame, dataset: str) -> dict:
    main = about["main_metric"].get(dataset, "")
    codes = [code for code in scores["code"].unique() if code]
    return {"version": about["version"], "rules": about["rules"], "code": codes[0] if codes else "", "main_metric": main}


def embeddings_of(run: RunOutput, dataset: str, variant: str, seeds: list[int]) -> list[tuple[Path, list[int]]]:
    """The embeddings of a model: one, or one per seed, as the pipeline names them."""
    folder = run.folder / "embeddings"
    single = folder / f"{dataset}.{variant}.npz"
    if single.is_file():
        return [(single, seeds)]
    found = [(folder / f"{dataset}.{variant}.{seed}.npz", [seed]) for seed in seeds]
    missing = [path for path, _ in found if not path.is_file()]
    if missing:
        raise UserError(
            f"{missing[0]} is missing: the run's folder is not complete. Copy all of it, or run again with -resume."
        )
    return found
