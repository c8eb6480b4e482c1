"""Generality: scores by type of perturbation and species, and agreement of data sets on the ranking of models."""

import numpy as np
import pandas as pd

from plumbline.experiments.generality import concordance
from plumbline.report.figures import bare, image, legend_below, panels, style
from plumbline.report.run import Run
from plumbline.report.words import escape, listed, metric_title, number, section, table, task_title, with_interval
from plumbline.scoring.protocol import REFERENCES

PARENT = {
    "parent_id": "plumbline_generality",
    "parent_name": "Experiment: generality",
    "parent_description": "Whether the ranking of models depends on the type of perturbation, the species, or the data set.",
}
TYPES = {"crispri": "CRISPRi", "crispra": "CRISPRa", "crisprko": "CRISPR knock-out", "shrna": "shRNA",
         "overexpression": "over-expression"}  # fmt: skip


def sections(run: Run, _folder) -> list[dict]:
    """Agreement of the data sets, scores by group, coverage of genes by species."""
    rows = run.headline[~run.headline["role"].isin(REFERENCES) & (run.headline["status"] == "ok")]
    if rows["dataset"].nunique() < 2:
        return []
    facts = {name: dataset["facts"] for name, dataset in run.about["datasets"].items()}
    rows = rows.assign(
        type=[_type(facts.get(name, {})) for name in rows["dataset"]],
        species=[facts.get(name, {}).get("organism") or "other" for name in rows["dataset"]],
    )
    return [_agreement(rows), _groups(rows), *_coverage(run)]


def _type(facts: dict) -> str:
    name = facts.get("perturbation_type") or "other"
    return TYPES.get(name, name)


def _agreement(rows: pd.DataFrame) -> dict:
    """Kendall's W for every task, over the data sets and models that all have a score."""
    body, agreed = [], []
    for task, part in rows.groupby("task"):
        scores = _complete(part)
        if scores is None:
            body.append([escape(task_title(task)), "–", "–", "–", "fewer than 2 data sets share 2 models"])
            continue
        result = concordance(scores.to_numpy())
        text = with_interval(result.w, result.low, result.high)
        size = f"{result.n_judges} data sets, {result.n_models} models"
        body.append([escape(task_title(task)), text, number(result.p), size, escape(_order(scores))])
        if result.p <= 0.05:
            agreed.append(task_title(task))
    sentence = (
        f"Data sets agree significantly on the ranking of models (p ≤ 0.05) in: {escape(listed(agreed))}."
        if agreed
        else "In no task do the data sets agree significantly on the ranking of models (p ≤ 0.05)."
    )
    about = "Kendall's W: 1 = all data sets rank the models alike, 0 = no agreement. Intervals: jackknife over data sets."
    head = ["Task", "W [95 %]", "p", "Based on", "Models by mean rank"]
    return section("generality_agreement", "Agreement", about, f"<p>{sentence}</p>{table(head, body)}", **PARENT)


def _complete(part: pd.DataFrame) -> pd.DataFrame | None:
    """Data sets x models, higher is better, without missing values: models that lack data sets are dropped first."""
    wide = (part["direction"] * part["value"]).groupby([part["dataset"], part["label"]]).mean().unstack("label")
    wide = wide.loc[:, wide.notna().mean() > 0.5].dropna(axis=0)
    return wide if wide.shape[0] >= 2 and wide.shape[1] >= 2 else None


def _order(scores: pd.DataFrame) -> str:
    ranks = (-scores).rank(axis=1).mean().sort_values()
    return ", ".join(f"{name} ({rank:.1f})" for name, rank in ranks.items())


def _groups(rows: pd.DataFrame) -> dict:
    """One panel per task: calibrated score of every model on every data set, by type of perturbation and species."""
    rows = rows.assign(group=rows["type"] + ", " + rows["species"], shown=rows["calibrated"].fillna(rows["value"]))
    groups, tasks, labels = (sorted(set(rows[name])) for name in ("group", "task", "label"))
    figure, axes = panels(len(tasks), (4.8, 1.1 + 0.42 * len(groups)), columns=2, sharey=True)
    for axis, task in zip(axes, tasks, strict=True):
        part = rows[rows["task"] == task]
        for place, label in enumerate(labels):
            own = part[part["label"] == label]
            height = [groups.index(name) + 0.5 * (place - (len(labels) - 1) / 2) / len(labels) for name in own["group"]]
            colour, marker = style(place)
            axis.plot(own["shown"], height, marker, color=colour, markersize=5, label=label)
        calibrated = part["calibrated"].notna().all()
        axis.set_xlabel("calibrated score" if calibrated else metric_title(part["metric"].iloc[0]), fontsize=7.5)
        axis.set_title(task_title(task), fontsize=8.5, loc="left", fontweight="bold")
        axis.set_yticks(range(len(groups)), groups, fontsize=8)
        axis.tick_params(axis="x", labelsize=7)
        bare(axis)
    legend_below(figure, axes, 3)
    about = "One point per data set and model; the calibrated score is 0 at the floor and 1 at the ceiling of the data set."
    return section("generality_groups", "By perturbation and species", about, image(figure, about), **PARENT)


def _coverage(run: Run) -> list[dict]:
    """The share of genes and counts that the models know, where it is not all."""
    # references know no genes: their embeddings are not made from expression
    cost = run.cost[(run.cost["status"] == "ok") & (run.cost["counts_used"] < 1) & (run.cost["genes_used"] > 0)]
    facts = {name: dataset["facts"] for name, dataset in run.about["datasets"].items()}
    if cost.empty or len({own.get("organism") for own in facts.values()}) < 2:
        return []
    body = []
    for (dataset, label), part in cost.groupby(["dataset", "label"]):
        row = part.iloc[0]
        genes = f"{row['genes_used']:,.0f} of {row['genes_total']:,.0f}" if np.isfinite(row["genes_used"]) else "–"
        species = facts.get(dataset, {}).get("organism") or "other"
        body.append([escape(run.title(dataset)), escape(species), escape(label), genes, f"{100 * row['counts_used']:.0f} %"])
    head = ["Data set", "Species", "Model", "Genes known", "Counts known"]
    about = "Genes that a model knows in each data set; those of another species through orthologs."
    return [section("generality_coverage", "Coverage", about, f'<div class="pl-scroll">{table(head, body)}</div>', **PARENT)]
