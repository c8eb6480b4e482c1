"""My gene: a searchable table of perturbations over models."""

import numpy as np
import pandas as pd

from plumbline.report.genes import Perturbations
from plumbline.report.page import embedded, rounded
from plumbline.report.run import Run
from plumbline.report.words import folded, section

MANY = 40_000  # known pairs of a data set that travel in the page; of more, those that most models recall
STRENGTH = "rank by the length of the mean effect, mean over the models: 1 is the strongest perturbation of the data set"


def gene_section(run: Run, found: list[Perturbations]) -> list[dict]:
    """One section, a part per data set; nothing where no data set has perturbations to list."""
    parts = []
    for genes in found:
        largest = genes is max(found, key=lambda part: len(part.table))
        parts.append(folded(run.title(genes.dataset), embedded("genes", payload(genes)), large=True, opened=largest))
    about = (
        "Every perturbation in every model: search for it, sort by a column, press its name for all measures, its most similar "
        "perturbations and its known partners. Protocol corrected; * q ≤ 0.05. In the terminal: "
        "<code>./plumb show GENE --run DIR</code>."
    )
    return [section("genes", "My gene", about, "\n".join(parts))] if parts else []


def payload(genes: Perturbations) -> dict:
    """What page.js reads: names once, everything else by number."""
    names = genes.table.index.astype(str).tolist()
    place = {name: number for number, name in enumerate(names)}
    return {
        "names": names,
        "models": genes.models,
        "about": {"strength": STRENGTH},
        "cells": rounded(genes.table["n_cells"], 12),
        "strength": rounded(genes.table["strength"], genes.digits + 1),
        "expression": rounded(genes.table["expression"]),
        "measures": [_measure(genes, part.metric, part.title, part.about) for part in genes.measures],
        "near": _near(genes, place),
        "known": _known(genes.pairs, place),
        "pairs": _pairs(genes.pairs, genes.models, place),
    }


def _measure(genes: Perturbations, metric: str, title: str, about: str) -> dict:
    q = genes.q.get(metric)
    q_values = [rounded(q[label], 2) for label in genes.models] if q is not None and q.notna().any(axis=None) else None
    values = [rounded(genes.values[metric][label]) for label in genes.models]
    return {"title": title, "about": about, "values": values, "q": q_values}


def _near(genes: Perturbations, place: dict[str, int]) -> list[list]:
    """Per model and perturbation the numbers of the most similar ones."""
    if genes.nearest.empty:
        return []
    lists = []
    for label in genes.models:
        rows = genes.nearest[genes.nearest["label"] == label].sort_values("rank")
        near: list[list[int]] = [[] for _ in place]
        for name, other in zip(rows["perturbation"], rows["neighbour"], strict=True):
            near[place[name]].append(place[other])
        lists.append(near)
    return lists


def _known(pairs: pd.DataFrame, place: dict[str, int]) -> list[int]:
    """How many known partners each perturbation has among the perturbed ones."""
    counts = pd.concat([pairs["unit"], pairs["unit2"]]).value_counts()
    return [int(counts.get(name, 0)) for name in place]


def _pairs(pairs: pd.DataFrame, models: list[str], place: dict[str, int]) -> list[list]:
    """[perturbation, perturbation, sources, models that recall it] of the known pairs that a model recalls."""
    hits = pairs[models].to_numpy(dtype=float) == 1
    known = pairs["unit"].isin(place) & pairs["unit2"].isin(place)  # mouse genes go by their orthologs in pairs
    shown = np.flatnonzero(hits.any(axis=1) & known.to_numpy())
    shown = np.sort(shown[np.argsort(-hits[shown].sum(axis=1), kind="stable")[:MANY]])
    rows = zip(pairs["unit"].iloc[shown], pairs["unit2"].iloc[shown], pairs["sources"].iloc[shown], hits[shown], strict=True)
    return [[place[one], place[two], sources, np.flatnonzero(hit).tolist()] for one, two, sources, hit in rows]
