"""Cross-context: do two embeddings of two data sets agree on what the same perturbations do?

For any two embeddings: representational similarity (Kriegeskorte et al. 2008, Front Syst Neurosci 2:4), the rank correlation
of their matrices of cosines between effects. For embeddings in one space, besides, retrieval of each effect among those of
the other data set.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from plumbline.common.random import seed_of
from plumbline.genes.relationships import perturbed_genes
from plumbline.metrics.divisions import by_cell, labels_of
from plumbline.metrics.repeats import effects
from plumbline.metrics.retrieval import Nearer, reliability, similarity_sums
from plumbline.metrics.units import unit_rows
from plumbline.scoring.scores import Items
from plumbline.scoring.screen import Subject
from plumbline.scoring.stats import bh, interval

MIN_SHARED = 8  # perturbations in common below which nothing is said
TIE = 6  # decimals of a cosine
DRAWS, MIN_DRAWS, OPERATIONS = 999, 99, 2e8  # permutations, fewer where these times pairs of perturbations are more than that
KEYS = ["dataset_a", "variant_a", "dataset_b", "variant_b"]
COLUMNS = [*KEYS, "measure", "value", "ci_low", "ci_high", "p", "q", "chance", "attainable", "n", "status", "reason"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """The effects of an embedding in a data set.

    names (p,): perturbations, as the relationships name genes, sorted; values (p, d). space: embeddings of two data sets with
    the same one (and not '') can be compared vector by vector. reliability: of the cosines between effects, 0..1.
    """

    dataset: str
    variant: str
    space: str
    names: np.ndarray
    values: np.ndarray
    reliability: float


def context_of(subject: Subject, dataset: str, variant: str, space: str, seed: int) -> Context:
    """Effects: mean embedding of a perturbation less the mean of the controls of its own batches. None without controls."""
    screen = subject.screen
    found, code = np.unique(screen.perturbation.astype(str), return_inverse=True)
    names = perturbed_genes(found, screen.genes, screen.facts.get("organism") or "human")[code]
    labels = replace(labels_of(screen), perturbation=np.where(screen.is_control, "", names))
    whole = effects(subject.embedding, labels, np.zeros(len(code), dtype=np.int64))
    halves = effects(subject.embedding, labels, by_cell(labels, 2, seed_of(seed, "halves"))).halves()
    known = len(halves[0]) >= MIN_SHARED
    agree = float(np.clip(reliability(similarity_sums(*halves[1:])).mean(), 0, 1)) if known else np.nan
    return Context(dataset=dataset, variant=variant, space=space, names=whole.names, values=whole.values, reliability=agree)


def compare(contexts: Sequence[Context], seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Every pair of embeddings of different data sets, a row per measure (COLUMNS); q over all rows with a p.

    rsa: -1..1, chance 0. pds, top1, mrr: as task retrieval, means of both directions; only in one space.
    """
    pairs = [(a, b) for a, b in combinations(contexts, 2) if a.dataset != b.dataset]
    rows = [row for a, b in pairs for row in _rows(a, b, seed, n_boot)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.assign(q=bh(table["p"].to_numpy(dtype=float)))


def _rows(a: Context, b: Context, seed: int, n_boot: int) -> Iterator[dict]:
    about = dict(zip(KEYS, (a.dataset, a.variant, b.dataset, b.variant), strict=True))
    names, in_a, in_b = np.intersect1d(a.names, b.names, return_indices=True)
    if len(names) < MIN_SHARED:
        reason = f"{len(names)} perturbations in common; {MIN_SHARED} are needed"
        yield about | {"measure": "rsa", "n": len(names), "status": "not_applicable", "reason": reason}
        return
    x, y, random = a.values[in_a], b.values[in_b], np.random.default_rng(seed_of(seed, "\t".join(about.values())))
    chance = {"rsa": 0.0, "pds": 0.5, "top1": 1 / len(names), "mrr": (1 / np.arange(1, len(names) + 1)).mean()}
    found = {"rsa": similarity_agreement(x, y, random)}
    found |= found_again(x, y, random) if a.space and a.space == b.space else {}
    for measure, (value, p, own) in found.items():
        ends = interval(Items("gene", names.astype(str), own, np.ones(len(own))), n_boot, seed)
        low, high = np.clip(ends, -1.0 if measure == "rsa" else 0.0, 1.0)
        attainable = float(np.sqrt(a.reliability * b.reliability)) if measure == "rsa" else np.nan
        yield about | {"measure": measure, "value": value, "ci_low": low, "ci_high": high, "p": p, "chance": chance[measure],
                       "attainable": attainable, "n": len(names), "status": "ok", "reason": ""}  # fmt: skip


def similarity_agreement(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> tuple[float, float, np.ndarray]:
    """Spearman correlation of the cosines within x (n, d) and within y (n, e), p, and the jackknife pseudo-values (n,).

    p: one-sided, from permutations of the rows and columns of one matrix together (Mantel 1967): pairs of a row are not
    independent. The pseudo-values leave out a perturbation with all its pairs; to resample them is to resample perturbations.
    """
    first, second = (_ranks(values) for values in (x, y))
    n, null = len(first), np.empty(_n_draws(len(first)))
    for draw in range(len(null)):
        order = random.permutation(n)
        null[draw] = (first * second[np.ix_(order, order)]).sum()
    observed = (first * second).sum()
    p = (1 + (null >= observed - 1e-9 * abs(observed)).sum()) / (1 + len(null))
    sums = np.stack([_off_diagonal(n), first, second, first * first, second * second, first * second], axis=-1).sum(axis=1)
    total = sums.sum(axis=0)
    return float(_correlation(total)), float(p), n * _correlation(total) - (n - 1) * _correlation(total - 2 * sums)


def _off_diagonal(n: int) -> np.ndarray:
    return 1 - np.eye(n)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of the cosines of all pairs of rows, centred, as a symmetric matrix with 0 on the diagonal; average of ties."""
    unit = unit_rows(values)
    upper = np.triu_indices(len(unit), 1)
    rank = rankdata((unit @ unit.T)[upper])
    matrix = np.zeros((len(unit), len(unit)))
    matrix[upper] = rank - rank.mean()
    return matrix + matrix.T


def _correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson correlation from sums (..., 6) of 1, x, y, xx, yy, xy; 0 where one does not vary."""
    n, x, y, xx, yy, xy = np.moveaxis(np.asarray(sums), -1, 0)
    spread = np.sqrt(np.maximum(xx / n - (x / n) ** 2, 0) * np.maximum(yy / n - (y / n) ** 2, 0))
    return np.divide(xy / n - x * y / n**2, spread, out=np.zeros_like(spread), where=spread > 0)


def found_again(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> dict[str, tuple[float, float, np.ndarray]]:
    """pds, top1 and mrr: (mean, p, values (n,)) of row i of x (n, d) looked up among the rows of y, and the other way round.

    p: one-sided, from permutations of which perturbation is which in y, both directions together.
    """
    measures: dict[str, Callable] = {"pds": lambda k: k.pds, "top1": lambda k: k.top1, "mrr": lambda k: k.reciprocal_rank}
    cosine = (unit_rows(x) @ unit_rows(y).T).round(TIE)
    ways, rows = [_placed(cosine), _placed(cosine.T)], np.arange(len(x))

    def scores(order: np.ndarray) -> dict[str, np.ndarray]:
        columns = order, np.argsort(order)
        found = [Nearer(*(part[rows, column] for part in way)) for way, column in zip(ways, columns, strict=True)]
        return {name: (of(found[0]) + of(found[1])[order]) / 2 for name, of in measures.items()}

    own = scores(rows)
    drawn = [scores(random.permutation(len(x))) for _ in range(_n_draws(len(x)))]
    null = {name: np.array([one[name].mean() for one in drawn]) for name in measures}
    p = {name: (1 + (null[name] >= own[name].mean() - 1e-9).sum()) / (1 + len(drawn)) for name in measures}
    return {name: (float(own[name].mean()), float(p[name]), own[name]) for name in measures}


def _placed(cosine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each entry of a row (n, n): how many of the others are larger, and how many are equal."""
    least, most = (rankdata(-cosine, method=method, axis=1) for method in ("min", "max"))
    return least - 1, most - least


def _n_draws(n: int) -> int:
    return int(np.clip(OPERATIONS / n**2, MIN_DRAWS, DRAWS))
