"""Recall of known biological relationships (protocol, task 5).

Mean embedding per perturbed gene, cosine of all pairs; a known pair is recalled if its cosine lies in the lowest or the
highest 5 % of all pairs (chance: 0.10). `corrected` adds the band of 10 % (chance: 0.20), the precision of the 5 % band
and the separation of CORUM complexes; intervals resample genes.
"""

from collections.abc import Iterator

import numpy as np

from plumbline.common.random import seed_of
from plumbline.genes.combinations import is_combination
from plumbline.genes.names import fill_ensembl
from plumbline.genes.orthologs import MOUSE
from plumbline.genes.relationships import SOURCES, UNMAPPED, known_pairs, members_among, perturbed_genes
from plumbline.metrics.divisions import by_cell, labels_of
from plumbline.metrics.groups import Groups, group_by, group_means, means_of, numbered
from plumbline.metrics.ranks import ALPHA
from plumbline.metrics.recall import (
    Band,
    Similarities,
    band_of,
    cluster_separation,
    known_among,
    pairwise_cosines,
    recall_of_exact,
    recalled,
)
from plumbline.metrics.repeats import Effects
from plumbline.metrics.retrieval import reliability, similarity_sums
from plumbline.metrics.units import unit_rows
from plumbline.scoring.records import Metric, Task
from plumbline.scoring.scores import Items, Score, counted
from plumbline.scoring.screen import Screen, View
from plumbline.scoring.stats import bh
from plumbline.scoring.vectors import Vectors

_PAPER = (
    *(Metric(name=f"recall_{s.lower()}", title=f"recall, {s}", chance=0.1) for s in SOURCES),
    Metric(name="recall_mean", title="recall, mean of sources", chance=0.1, repeat="recall_ceiling"),
)
_EXTRA = (
    *(Metric(name=f"recall_{s.lower()}_10", title=f"recall, {s} (10 % band)", chance=0.2) for s in SOURCES),
    *(Metric(name=f"precision_{s.lower()}", title=f"precision, {s}") for s in SOURCES),
    Metric(name="corum_ks", title="CORUM complexes (KS)"),
    Metric(name="recall_ceiling", title="recall of pairs that are truly in the band (ceiling)", chance=0.1),
)
MIN_PAIRS = 10  # known pairs below which a source is not scored
MIN_MEMBERS = 10  # perturbed members below which a complex is not scored, as EFAAR
MIN_COMPLEXES = 3
MIN_GENES = 8  # below which nothing is said of the reliability of similarities
DIVISIONS = 3  # of the cells into halves
CHEMICALS = ("chemical", "compound", "drug", "small molecule")


def not_applicable(facts: dict) -> str:
    """Why the task does not apply to this data set; '' if it does."""
    if facts.get("perturbation_type", "").lower() in CHEMICALS:
        return "known relationships are between genes, and the perturbations are compounds"
    if facts.get("organism", "human").lower() not in ("human", "homo sapiens", "", *MOUSE):
        return f"the known relationships are between human genes, and the cells are {facts['organism']}"
    if facts["n_perturbations"] < 5:
        return f"pairs of perturbed genes are ranked, and the data set has {counted(facts['n_perturbations'], 'perturbation')}"
    return ""


def run(view: View) -> list[Score]:
    """Recall per source and its mean; in `corrected` also the wider band, the precision and the complexes."""
    names, means = gene_means(view.embedding, view.screen)
    if len(names) < 5:
        return TASK.absent(f"only {len(names)} perturbed genes are among the scored cells")
    similarities = pairwise_cosines(means)
    found = {source: known_among(names, known_pairs(source)) for source in SOURCES}
    band = band_of(similarities, 0.05)
    n_genes = genes_among(names, view.screen)
    scores = _in_band(names, similarities, found, band, n_genes, _ortholog_note(names, view.screen.facts))
    if view.protocol == "paper":
        return scores + [Score.absent(metric.name, "a metric of the corrected protocol") for metric in _EXTRA]
    wide = band_of(similarities, 0.10)
    scores += [_recall(source, "_10", names, similarities, pairs, wide, n_genes) for source, pairs in found.items()]
    scores += [_precision(source, names, similarities, pairs, band, n_genes) for source, pairs in found.items()]
    return [*scores, _complexes(names, means), _ceiling(view)]


def recall_of(names: np.ndarray, vectors: np.ndarray) -> list[Score]:
    """Recall per source and its mean in the 5 % band, of any vectors of genes: sorted symbols (p,) and vectors (p, d)."""
    similarities = pairwise_cosines(vectors)
    found = {source: known_among(names, known_pairs(source)) for source in SOURCES}
    return _in_band(names, similarities, found, band_of(similarities, 0.05), len(names), "")


def _in_band(
    names: np.ndarray,
    similarities: Similarities,
    found: dict[str, tuple[np.ndarray, np.ndarray]],
    band: Band,
    n_genes: int,
    note: str,
) -> list[Score]:
    """Recall per source, and its mean, whose reason says ``note`` first."""
    narrow = [_recall(source, "", names, similarities, pairs, band, n_genes) for source, pairs in found.items()]
    return [*narrow, _mean(narrow, note)]


def gene_means(embedding: Vectors, screen: Screen) -> tuple[np.ndarray, np.ndarray]:
    """Sorted names of the perturbed genes (p,) and the mean embedding of the cells of each, (p, d) float64.

    An Ensembl id is replaced by its symbol, a mouse gene by its human ortholog. Controls and combinations of genes (a+b) are
    left out.
    """
    rows, groups = _cells_of_genes(screen)
    return groups.names, group_means(embedding.take(rows), groups)


def _cells_of_genes(screen: Screen) -> tuple[np.ndarray, Groups]:
    """Row numbers of the cells of single genes, and these cells grouped by gene."""
    perturbations = group_by(screen.perturbation)
    labels, label = perturbations.names, perturbations.codes
    genes = perturbed_genes(labels, screen.genes, screen.facts.get("organism") or "human")
    single = np.array([not is_combination(name) for name in genes], dtype=bool)
    rows = np.flatnonzero(~screen.is_control & single[label])
    return rows, group_by(genes.astype(object)[label[rows]])


def _half_means(view: View) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Names of the genes with cells in both halves of a division, and their means in each; all divisions in one pass."""
    rows, groups = _cells_of_genes(view.screen)
    labels = labels_of(view.screen)
    halves = [by_cell(labels, 2, seed_of(view.seed, f"halves {number}"))[rows] for number in range(DIVISIONS)]
    groupings = [numbered(2 * groups.codes + half, half >= 0) for half in halves]
    for both, values in zip(groupings, means_of(view.embedding.take(rows), groupings), strict=True):
        code, part = np.divmod(both.names, 2)
        yield Effects(names=groups.names, code=code, part=part, n_cells=both.sizes, values=values).halves()


def genes_among(names: np.ndarray, screen: Screen) -> int:
    """How many of the perturbed names are genes: measured ones, or ones with an Ensembl id. An enhancer is none."""
    measured = np.isin(names, np.concatenate([screen.genes[key].to_numpy(dtype=str) for key in ("symbol", "ensembl_id")]))
    organism = (screen.facts.get("organism") or "human").lower()
    known = fill_ensembl(np.full(len(names), "", dtype=object), names, "human")  # mouse genes go by their orthologs here
    marked = np.char.endswith(names.astype(str), UNMAPPED) if organism in MOUSE else np.zeros(len(names), dtype=bool)
    return int((measured | (known != "") | marked).sum())


def _ortholog_note(names: np.ndarray, facts: dict) -> str:
    """How many of the perturbed genes the sources could know, for mouse data; else ''."""
    if (facts.get("organism") or "human").lower() not in MOUSE:
        return ""
    mapped = len(names) - sum(name.endswith(UNMAPPED) for name in names)
    return f"{mapped} of {len(names)} perturbed mouse genes have a one-to-one human ortholog"


def _recall(
    source: str,
    suffix: str,
    names: np.ndarray,
    similarities: Similarities,
    pairs: tuple[np.ndarray, np.ndarray],
    band: Band,
    n_genes: int,
) -> Score:
    metric, (i, j) = f"recall_{source.lower()}{suffix}", pairs
    if len(i) < MIN_PAIRS:
        return Score.absent(metric, _too_few(source, len(i), n_genes))
    value = similarities.values[similarities.index(i, j)]
    hit, extra = recalled(value, band.limits).astype(float), {"value": value.astype(float) + similarities.common}
    influence = dict(zip(names.tolist(), band.influence(value).tolist(), strict=True))
    return Score.of(metric, Items("pair", names[i], hit, np.ones(len(i)), unit2=names[j], extra=extra, influence=influence))


def _too_few(source: str, n: int, genes: int) -> str:
    among = f"among {counted(genes, 'perturbed gene')}"
    return f"{counted(n, 'pair')} known to {source} {among}; at least {MIN_PAIRS} are needed"


def _mean(scores: list[Score], note: str) -> Score:
    """Mean over the sources that could be scored; each pair weighs 1 / (sources x pairs of its source).

    note: what its reason says first.
    """
    items = [score.items for score in scores if score.items is not None]
    missing = [source for source, score in zip(SOURCES, scores, strict=True) if score.items is None]
    without = f"without {', '.join(missing)}: fewer than {MIN_PAIRS} known pairs" if missing else ""
    if not items:
        without = f"no source knows {MIN_PAIRS} pairs of the perturbed genes"
    reason = "; ".join(part for part in (note, without) if part)
    if not items:
        return Score.absent("recall_mean", reason)
    weight = np.concatenate([np.full(len(part.unit), 1 / (len(items) * len(part.unit))) for part in items])
    unit, unit2, hit = (np.concatenate([getattr(part, key) for part in items]) for key in ("unit", "unit2", "numerator"))
    influence = {gene: sum(part.influence[gene] for part in items) / len(items) for gene in items[0].influence}
    return Score.of("recall_mean", Items("pair", unit, hit * weight, weight, unit2=unit2, influence=influence), reason=reason)


def _precision(
    source: str,
    names: np.ndarray,
    similarities: Similarities,
    pairs: tuple[np.ndarray, np.ndarray],
    band: Band,
    n_genes: int,
) -> Score:
    """Share of the pairs in the 5 % band that the source knows, among pairs of genes it knows at all.

    Its units are the known pairs: how many pairs the band holds is all but fixed.
    """
    metric, (i, j) = f"precision_{source.lower()}", pairs
    if len(i) < MIN_PAIRS:
        return Score.absent(metric, _too_few(source, len(i), n_genes))
    annotated = np.isin(names, known_pairs(source))
    n_band = int((annotated[band.pairs[0]] & annotated[band.pairs[1]]).sum())
    value = similarities.values[similarities.index(i, j)]
    ratio = len(i) / max(n_band, 1)
    influence = dict(zip(names.tolist(), (ratio * band.influence(value)).tolist(), strict=True))
    sums = recalled(value, band.limits).astype(float), np.full(len(i), n_band / len(i))
    base = len(i) / (annotated.sum() * (annotated.sum() - 1) / 2)
    reason = f"share of known pairs among all pairs of annotated genes: {base:.4f}"
    return Score.of(metric, Items("pair", names[i], *sums, unit2=names[j], influence=influence), reason=reason)


def _complexes(names: np.ndarray, means: np.ndarray) -> Score:
    """Share of CORUM complexes whose members are closer to each other than to the rest (KS test, q <= 0.05)."""
    members = {name: rows for name, rows in members_among(names).items() if MIN_MEMBERS <= len(rows) < len(names)}
    if len(members) < MIN_COMPLEXES:
        reason = f"{len(members)} CORUM complexes have {MIN_MEMBERS} perturbed members; at least {MIN_COMPLEXES} are needed"
        return Score.absent("corum_ks", reason)
    unit = unit_rows(means, np.float64)
    statistic, p, gap = np.array([cluster_separation(unit, rows) for rows in members.values()]).T
    q = bh(p)
    extra = {"p": p, "q": q, "value": statistic, "n_cells": np.array([len(rows) for rows in members.values()])}
    hit = ((q <= ALPHA) & (gap > 0)).astype(float)
    return Score.of("corum_ks", Items("complex", np.array(list(members)), hit, np.ones(len(hit)), extra=extra))


def _ceiling(view: View) -> Score:
    """The recall that the noise of the similarities leaves, from those in two halves of the cells.

    Spearman and Brown give the reliability of the similarities of all cells; of the pairs that belong in the 5 % band, only so
    many are found in it.
    """
    sums: dict[str, np.ndarray] = {}
    for names, first, second in _half_means(view):
        if len(names) >= MIN_GENES:
            found = similarity_sums(first, second)
            sums |= {name: sums.get(name, 0) + one for name, one in zip(names.tolist(), found, strict=True)}
    if not sums:
        return Score.absent("recall_ceiling", f"fewer than {MIN_GENES} perturbed genes have cells in both halves")
    value = reliability(np.array(list(sums.values())), of=recall_of_exact)
    items = Items("gene", np.array(list(sums)), value, np.ones(len(value)))
    return Score.of("recall_ceiling", items, reason="halves: cells of the same batches")


TASK = Task(
    name="recall",
    version="3",  # 2: recall_ceiling; 3: all digits of cosines near 1
    title="Known biology",
    question="Whether perturbations of genes that are known to work together lie together.",
    order=20,
    metrics=(*_PAPER, *_EXTRA),
    main_metric="recall_mean",
    not_applicable=not_applicable,
    run=run,
    needs_relationships=True,
    centers_perturbed=True,
)
