"""The runs of an experiment, each compared with the variant the experiment measures it against."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from plumbline.scoring.protocol import REFERENCES
from plumbline.summary.comparisons import compare
from plumbline.summary.items import ItemTable
from plumbline.summary.seen import with_seen
from plumbline.summary.tables import RUN

Compare = Callable[[pd.DataFrame, str], pd.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How models are compared. roles: variant -> role in models.csv. facts: data set -> its facts. seed: of the resampling."""

    roles: dict[str, str]
    facts: dict[str, dict]
    baseline: str
    n_boot: int = 1000
    seed: int = 0


def comparison_table(scores: pd.DataFrame, items: ItemTable, expected: pd.DataFrame, how: Comparison) -> pd.DataFrame:
    """The comparison table of a run (docs/results_format.md); ``expected`` as plumbline.summary.tables.read_expected."""
    # an embedding of the user has no row in models.csv: its role is what the run states
    stated = {variant: role for variant, role in zip(expected["variant"], expected["role"], strict=True) if role}

    def compared(rows: pd.DataFrame, baseline: str) -> pd.DataFrame:
        return compare(rows, items, {**stated, **how.roles}, how.facts, baseline, how.n_boot, how.seed)

    return with_seen(with_experiments(scores, expected, compared, how.baseline), how.facts)


def with_experiments(scores: pd.DataFrame, expected: pd.DataFrame, compare: Compare, baseline: str) -> pd.DataFrame:
    """The comparison table of the main run (column ``experiment`` '') and of every experiment.

    ``compared_with`` is the variant that stands for the baseline in a row.

    compare: (scores, baseline variant) -> comparison table. A run of an experiment is compared with ``compared_with`` of its
    expected row (the baseline where that is empty), on the same data set; the models that calibrate come along from
    wherever they were run, but are listed in the main run alone.
    """
    key = pd.MultiIndex.from_frame(scores[RUN])
    runs = expected.assign(compared_with=expected["compared_with"].where(expected["compared_with"] != "", baseline))
    main = runs[runs["experiment"] == ""]
    frames = [compare(scores[key.isin(_keys(main)) | ~key.isin(_keys(runs))], baseline)]
    frames[0] = frames[0].assign(experiment="", compared_with=baseline)
    controls = runs[runs["role"].isin(REFERENCES)]
    for (experiment, reference), part in runs[runs["experiment"] != ""].groupby(["experiment", "compared_with"], sort=True):
        of_interest = _keys(part)
        others = pd.concat([main[main["variant"] == reference], controls, part])
        same = runs[(runs["experiment"] == experiment) & (runs["variant"] == reference) & ~(runs["compared_with"] == reference)]
        rows = key.isin(_keys(pd.concat([others, same]))) & scores["dataset"].isin(set(part["dataset"])).to_numpy()
        frame = compare(scores[rows], reference)
        if len(frame):
            frame = frame[pd.MultiIndex.from_frame(frame[RUN]).isin(of_interest)]
            frames.append(frame.assign(experiment=experiment, compared_with=reference))
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def absent_datasets(expected: pd.DataFrame, datasets: dict) -> pd.DataFrame:
    """Expected rows of data sets that an experiment could not make (X.heldout of a data set with nothing to hold out)."""
    return expected[(expected["experiment"] != "") & ~expected["dataset"].isin(set(datasets))]


def _keys(runs: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(runs[RUN])
