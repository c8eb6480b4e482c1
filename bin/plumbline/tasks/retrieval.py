"""Retrieval: is a perturbation found again among all others in a repeat of the experiment? (protocol, task 7)

The effects of one half of the batches are looked up among those of the other half: the perturbation discrimination score
(PDS) of cell-eval and the Virtual Cell Challenge 2026, of an embedding.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from plumbline.common.random import seed_of
from plumbline.metrics.divisions import Labels, Parting, by_cell, labels_of, parting_for
from plumbline.metrics.repeats import Effects, effects_in
from plumbline.metrics.retrieval import Nearer, centred, chance_of_reciprocal_rank, reliability, retrieve, similarity_sums
from plumbline.scoring.records import Metric, Task
from plumbline.scoring.scores import Items, Score, counted
from plumbline.scoring.screen import View

METRICS = (
    Metric(name="retrieval_pds", title="perturbation discrimination score (PDS)", chance=0.5, repeat="retrieval_pds_ceiling"),
    Metric(name="retrieval_top1", title="top-1 accuracy among all perturbations"),
    Metric(name="retrieval_mrr", title="mean reciprocal rank"),
    Metric(name="retrieval_pds_specific", title="PDS, mean effect of all perturbations removed", chance=0.5),
    Metric(name="similarity_reliability", title="reliability of similarities (Spearman-Brown)", lowest=-1, chance=0.0),
    Metric(name="retrieval_pds_ceiling", title="PDS between cells of the same batches (ceiling)", chance=0.5),
)
RANKS = ("retrieval_pds", "retrieval_top1", "retrieval_mrr", "retrieval_pds_specific")
SUMS = ["pairs", "x", "y", "xx", "yy", "xy"]  # of cosines x and y in the two halves
N_SPLITS = 3  # pairs of halves, each scored in both directions, per split seed
MIN_CANDIDATES = 8  # as many as a verdict needs
TOO_FEW = f"fewer than {MIN_CANDIDATES} perturbations have cells and controls in both halves"


def not_applicable(facts: dict) -> str:
    """Why the task does not apply to this data set; '' if it does."""
    if not facts["has_controls"]:
        return "an effect is the difference to control cells, and the data set has none"
    if facts["n_perturbations"] < MIN_CANDIDATES:
        return f"a perturbation is looked for among {MIN_CANDIDATES} or more; the data set has {facts['n_perturbations']}"
    return ""


def run(view: View) -> list[Score]:
    """Retrieval between halves of the data: by batch where the design allows, else by guide, else by cell.

    retrieval_pds: mean over perturbations of 1 - k / (n - 1), k being the number of the n - 1 others that are nearer to the
    effect in one half than the same perturbation's effect in the other (cosine, ties half). _top1: share with k = 0. _mrr: mean
    of 1 / (1 + k). _pds_specific: after the mean effect of all perturbations is subtracted in each half. _pds_ceiling: where
    the halves are batches or guides, the same between halves of the cells of each batch. similarity_reliability: how well the
    cosines between perturbations agree in the two halves, for all of the data.
    """
    if view.protocol == "paper":
        return TASK.absent("not part of the paper's protocol")
    labels = labels_of(view.screen)
    kind, parting = parting_for(labels)
    table = _scored(view, labels, parting)
    if table.empty:
        return TASK.absent(TOO_FEW)
    note = _note(kind, table, len(pd.unique(view.screen.perturbation[~view.screen.is_control])))
    chance = {"retrieval_top1": (1 / table["n"]).mean(), "retrieval_mrr": table["n"].map(chance_of_reciprocal_rank).mean()}
    notes = {name: f"{note}; chance {chance[name]:.3g}" if name in chance else note for name in RANKS}
    scores = [_score(name, table["name"], table[name].to_numpy(), notes[name]) for name in RANKS]
    agreement = _score("similarity_reliability", table["name"], reliability(table[SUMS].to_numpy()), note)
    return [*scores, agreement, _ceiling(view, labels, parting)]


def _scored(view: View, labels: Labels, parting: Parting) -> pd.DataFrame:
    """One row per perturbation: mean of each metric over the splits and directions it was in, and the number of candidates."""
    parts = []
    for found in _in_halves(view, labels, parting):
        names, first, second = found.halves()
        if len(names) >= MIN_CANDIDATES:
            parts += _both_ways(names, first, second)
    return pd.concat(parts).groupby("name", as_index=False).mean() if parts else pd.DataFrame()


def _in_halves(view: View, labels: Labels, parting: Parting) -> Iterator[Effects]:
    """Effects in two halves of the data, N_SPLITS times."""
    seeds = [seed_of(view.seed, f"halves {split}") for split in range(N_SPLITS)]
    return effects_in(view.embedding, labels, [parting(labels, 2, seed) for seed in seeds])


def _both_ways(names: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[pd.DataFrame]:
    whole, own = retrieve(first, second), retrieve(centred(first), centred(second))
    sums = dict(zip(SUMS, similarity_sums(first, second).T, strict=True))
    return [_columns(names, *found, sums) for found in zip(whole, own, strict=True)]


def _columns(names: np.ndarray, found: Nearer, own: Nearer, sums: dict[str, np.ndarray]) -> pd.DataFrame:
    ranks = found.pds, found.top1, found.reciprocal_rank, own.pds
    return pd.DataFrame({"name": names, "n": float(len(names)), **dict(zip(RANKS, ranks, strict=True)), **sums})


def _note(kind: str, table: pd.DataFrame, n_all: int) -> str:
    low, high = int(table["n"].min()), int(table["n"].max())
    among = str(low) if low == high else f"{low} to {high}"
    missing = n_all - len(table)
    left_out = f"; {counted(missing, 'perturbation')} without cells and controls in both halves not scored" if missing else ""
    return f"halves: {kind}; {among} candidates{left_out}"


def _ceiling(view: View, labels: Labels, parting: Parting) -> Score:
    metric = "retrieval_pds_ceiling"
    if parting is by_cell:
        return Score.absent(metric, "the halves are already cells of the same batches")
    halves = (found.halves() for found in _in_halves(view, labels, by_cell))
    pds = [pd.DataFrame({"name": names, "pds": nearer.pds}) for names, first, second in halves
           if len(names) >= MIN_CANDIDATES for nearer in retrieve(first, second)]  # fmt: skip
    if not pds:
        return Score.absent(metric, TOO_FEW)
    table = pd.concat(pds).groupby("name", as_index=False).mean()
    return _score(metric, table["name"], table["pds"].to_numpy(), "halves: cells of the same batches")


def _score(metric: str, names: pd.Series, value: np.ndarray, note: str) -> Score:
    items = Items("perturbation", names.to_numpy(dtype=str), value, np.ones(len(value)), extra={"value": value})
    return Score.of(metric, items, reason=note)


TASK = Task(
    name="retrieval",
    version="1",
    title="Finding perturbations again",
    question="Whether a perturbation is recognised, among all others, in a repeat of the experiment.",
    order=15,
    metrics=METRICS,
    main_metric="retrieval_pds",
    not_applicable=not_applicable,
    run=run,
    centers_perturbed=True,
)
