"""A simulated CRISPRi screen with a known answer: negative-binomial counts, effects shared within real CORUM complexes.

Model. Gene g has a baseline share pi_g (log-normal, sd 1.5 on the natural log scale). Cell c of batch b with guide j of
perturbation p has expected counts

    mu_cg = L_c * softmax_g(log pi_g + batch_bg + state_cg + a_c * effect_pg)
    counts_cg ~ NB(mean mu_cg, dispersion DISPERSION)

L_c: library size, log-normal (sd 0.35) around ``depth`` times a factor of the batch; batch_bg: normal, sd ``batch_effect``;
a_c = 1 if the cell's guide works and the cell did not escape, else 0 (obs column is_effective). effect_pg, natural log units:
members of a complex share a sparse direction (SHARED of the genes, normal with sd ``effect``), each scaled by a strength of
its own (0.6 to 1.4, same sign), plus a sparse direction of its own (sd INDIVIDUAL * ``effect``), plus knock-down of the
perturbed gene to KNOCKDOWN of its level. Null perturbations are genes that are hardly expressed: they do nothing, which gives
the nulls of the `paper` protocol their meaning. state_cg: what being perturbed at all does to a cell, whichever gene is hit
(the response to a cut or a virus, more in one cell than in another): STATES standard normal factors a perturbed cell, dense
normal loadings, sd ``nuisance`` a gene in all (0: none). It is most of the variance, tells nothing about the perturbation, and
controls do not have it, so no alignment on controls removes it. ``effect`` = 0 makes a screen without any effect of the
perturbed gene, knock-down included.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import UserError
from plumbline.common.files import whole_file
from plumbline.counts.writing import CsrWriter
from plumbline.genes.relationships import annotations_folder, known_symbols

CONTROL = "non-targeting"
BLOCK = 1024  # cells drawn at once
BASELINE_SD, LIBRARY_SD, DISPERSION = 1.5, 0.35, 0.15  # dispersion: variance = mu + DISPERSION * mu^2
SHARED, INDIVIDUAL, KNOCKDOWN = 0.05, 0.6, 0.2
SMALLEST, LARGEST = 4, 12  # members of a complex that are perturbed
STATES = 60  # dimensions of the response to being perturbed at all
NULL_COUNT = 0.02  # mean count per cell of a gene whose perturbation does nothing


@dataclass(frozen=True)
class Design:
    """What the user chooses. Fractions are in [0, 1); effect sizes are in natural log units.

    null_fraction of the perturbations hit unexpressed genes; guide_failure of the guides and escape of the cells of
    working guides show no effect. cells_seed: another than 0 makes another screen of the same genes and effects: new
    batches, cells and counts.
    """

    n_perturbations: int = 240
    n_batches: int = 8
    cells_per_perturbation: int = 25
    control_fraction: float = 0.1
    n_genes: int = 2000
    depth: float = 5000.0
    effect: float = 0.5
    batch_effect: float = 0.25
    guides: int = 2
    guide_failure: float = 0.1
    escape: float = 0.2
    null_fraction: float = 0.15
    seed: int = 1
    nuisance: float = 0.0
    cells_seed: int = 0


@dataclass(frozen=True)
class Truth:
    """What was planted. perturbations: gene symbols; complexes: name of each one's complex ('' for null perturbations).

    effects (n_perturbations, n_genes), natural log units; genes: var names, perturbed genes first; log_share (n_genes,).
    """

    perturbations: np.ndarray
    complexes: np.ndarray
    genes: np.ndarray
    log_share: np.ndarray
    effects: np.ndarray


@dataclass(frozen=True)
class Layout:
    """One row per cell: perturbation number (-1 = control), guide number, batch number, whether the effect shows.

    state (n_cells, STATES) and loadings (STATES, n_genes): the response to being perturbed at all; None without any.
    """

    perturbation: np.ndarray
    guide: np.ndarray
    batch: np.ndarray
    is_effective: np.ndarray
    library: np.ndarray
    batch_shift: np.ndarray = field(repr=False)
    state: np.ndarray | None = field(default=None, repr=False)
    loadings: np.ndarray | None = field(default=None, repr=False)


def check(design: Design) -> None:
    """Raises UserError on a design that cannot be simulated."""
    limits = {"n_perturbations": 2, "n_batches": 1, "cells_per_perturbation": 1, "guides": 1, "n_genes": design.n_perturbations}
    for name, least in limits.items():
        if getattr(design, name) < least:
            raise UserError(f"simulation: {name.replace('_', '-')} must be {least} or more, not {getattr(design, name)}.")
    for name in ("control_fraction", "guide_failure", "escape", "null_fraction"):
        if not 0 <= getattr(design, name) < 1:
            raise UserError(f"simulation: {name.replace('_', '-')} must be in [0, 1), not {getattr(design, name)}.")
    if design.depth <= 0 or min(design.effect, design.batch_effect, design.nuisance) < 0:
        raise UserError("simulation: depth must be positive; effect and batch-effect must not be negative, nor nuisance.")


def choose_complexes(n_genes: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """CORUM complexes without common genes, SMALLEST to LARGEST members each, ``n_genes`` genes in all, in random order.

    Larger complexes lend a random subset. Raises UserError if CORUM holds too few genes.
    """
    lines = (annotations_folder() / "CORUM_clusters.tsv").read_text().splitlines()
    clusters = [(name, sorted(set(genes.split()))) for name, genes in (line.split("\t")[:2] for line in lines if "\t" in line)]
    chosen: dict[str, list[str]] = {}
    used: set[str] = set()
    for position in rng.permutation(len(clusters)):
        name, members = clusters[position]
        room = n_genes - len(used)
        free = [gene for gene in members if gene not in used]
        if room and name not in chosen and len(free) >= min(SMALLEST, room) and len(free) == len(members):
            kept = sorted(rng.choice(free, size=min(len(free), LARGEST, room), replace=False).tolist())
            chosen[name] = kept
            used.update(kept)
    if len(used) < n_genes:
        raise UserError(
            f"simulation: CORUM has disjoint complexes for {len(used)} genes, not {n_genes}; lower n-perturbations."
        )
    return chosen


def plant(design: Design, rng: np.random.Generator) -> Truth:
    """Draw genes, baseline and effects."""
    n_null = round(design.null_fraction * design.n_perturbations)
    complexes = choose_complexes(design.n_perturbations - n_null, rng)
    members = [(gene, name) for name, genes in complexes.items() for gene in genes]
    spare = sorted(known_symbols() - {gene for gene, _ in members})
    members += [(gene, "") for gene in rng.choice(spare, size=n_null, replace=False).tolist()]
    perturbations, names = (np.array(column) for column in zip(*members, strict=True))
    others = other_genes(set(perturbations.tolist()), design.n_genes - len(perturbations))
    log_share = rng.normal(0.0, BASELINE_SD, design.n_genes)
    expressed = np.flatnonzero(names != "")
    log_share[expressed] = np.abs(log_share[expressed])  # complexes of a screen are expressed: upper half of the genes
    log_share -= np.log(np.exp(log_share).sum())
    log_share[np.flatnonzero(names == "")] = np.log(NULL_COUNT / design.depth)
    effects = _effects(design, names, rng)
    return Truth(perturbations, names, np.array([*perturbations.tolist(), *others]), log_share, effects)


def other_genes(perturbed: set[str], n: int) -> list[str]:
    """Names of the ``n`` genes that are only measured: real ones, which foundation models know, then GENE00001 and so on."""
    real = sorted(known_symbols() - perturbed)[:n]
    return [*real, *(f"GENE{number:05d}" for number in range(1, n - len(real) + 1))]


def _effects(design: Design, names: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    effects = np.zeros((len(names), design.n_genes))
    if not design.effect:
        return effects
    for name in dict.fromkeys(names[names != ""].tolist()):
        members = np.flatnonzero(names == name)
        shared = _sparse_direction(design, rng)
        for member in members:
            effects[member] = rng.uniform(0.6, 1.4) * shared + INDIVIDUAL * _sparse_direction(design, rng)
            effects[member, member] = np.log(KNOCKDOWN)
    return effects


def _sparse_direction(design: Design, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(design.n_genes) < SHARED, rng.normal(0.0, design.effect, design.n_genes), 0.0)


def lay_out(design: Design, truth: Truth, rng: np.random.Generator) -> Layout:
    """Assign cells to perturbations, guides and batches (balanced, shuffled), and draw library sizes and batch effects."""
    n, k = design.n_perturbations, design.cells_per_perturbation
    n_controls = round(n * k * design.control_fraction / (1 - design.control_fraction))
    perturbation = np.concatenate([np.repeat(np.arange(n), k), np.full(n_controls, -1)])
    guide = np.concatenate([np.tile(np.arange(k), n), np.arange(n_controls)]) % design.guides
    working = rng.random((n, design.guides)) >= design.guide_failure
    shown = (perturbation >= 0) & (truth.complexes[perturbation] != "") & working[perturbation, guide]
    is_effective = shown & (rng.random(len(perturbation)) >= design.escape) & (design.effect > 0)
    turns = np.concatenate([rng.permutation(k * n) % design.n_batches, np.arange(n_controls) % design.n_batches])
    depth = design.depth * np.exp(rng.normal(0.0, 0.2, design.n_batches))
    library = depth[turns] * np.exp(rng.normal(0.0, LIBRARY_SD, len(turns)))
    shift = rng.normal(0.0, design.batch_effect, (design.n_batches, design.n_genes)) if design.batch_effect else 0.0
    shift = np.broadcast_to(shift, (design.n_batches, design.n_genes))
    order = rng.permutation(len(perturbation))
    return Layout(*(values[order] for values in (perturbation, guide, turns, is_effective, library)), shift)


def add_states(design: Design, plan: Layout) -> Layout:
    """The plan with the state of each perturbed cell, from random numbers of its own: all else stays as it was drawn."""
    if not design.nuisance:
        return plan
    rng = np.random.default_rng((design.seed, STATES))
    loadings = rng.normal(0.0, design.nuisance / np.sqrt(STATES), (STATES, design.n_genes))
    state = rng.normal(size=(len(plan.batch), STATES))
    state[plan.perturbation < 0] = 0.0
    return replace(plan, state=state, loadings=loadings)


def draw(truth: Truth, plan: Layout, rng: np.random.Generator) -> Iterator[sp.csr_matrix]:
    """Yield the counts, BLOCK cells at a time, as float32 CSR."""
    sample = _compiled()
    for start in range(0, len(plan.batch), BLOCK):
        rows = slice(start, start + BLOCK)
        log_mean = truth.log_share + plan.batch_shift[plan.batch[rows]]
        log_mean += np.where(plan.is_effective[rows, None], truth.effects[plan.perturbation[rows]], 0.0)
        if plan.state is not None:
            log_mean += plan.state[rows] @ plan.loadings
        mean = np.exp(log_mean)
        mean *= (plan.library[rows] / mean.sum(axis=1))[:, None]
        yield sp.csr_matrix(sample(mean, rng.random(mean.shape), 1 / DISPERSION))


def _compiled():
    import numba

    @numba.njit(nogil=True, cache=True)
    def sample(mean: np.ndarray, uniform: np.ndarray, size: float) -> np.ndarray:
        """Negative-binomial counts by inversion: walk up the distribution function until it passes the uniform draw."""
        counts = np.zeros(mean.shape, dtype=np.float32)
        for i in range(mean.shape[0]):
            for j in range(mean.shape[1]):
                mu, u = mean[i, j], uniform[i, j]
                probability = np.exp(-size * np.log1p(mu / size))
                odds, count, below = mu / (mu + size), 0, probability
                while u > below and count < 1_000_000:
                    probability *= odds * (count + size) / (count + 1)
                    if probability < 1e-18 and count > mu:  # rounding: the sum will not reach u any more
                        break
                    count += 1
                    below += probability
                counts[i, j] = count
        return counts

    return sample


def simulate(design: Design, path: Path | str) -> Truth:
    """Write the screen as h5ad (cells x genes, CSR float32; see the module docstring) and return what was planted.

    obs: perturbation, batch, guide, is_effective, complex. var: symbol. uns: the design. Memory: a few BLOCK x n_genes arrays.
    """
    check(design)
    rng = np.random.default_rng(design.seed)
    truth = plant(design, rng)
    rng = np.random.default_rng([design.seed, design.cells_seed]) if design.cells_seed else rng
    plan = add_states(design, lay_out(design, truth, rng))
    with whole_file(path) as temporary, CsrWriter(temporary, design.n_genes) as writer:
        for block in draw(truth, plan, rng):
            writer.append(block)
        names = np.append(truth.perturbations, CONTROL)[plan.perturbation]
        obs = {
            "perturbation": names,
            "batch": np.array([f"batch_{number + 1:02d}" for number in range(design.n_batches)])[plan.batch],
            "guide": np.array([f"{name}_g{number + 1}" for name, number in zip(names, plan.guide, strict=True)]),
            "is_effective": plan.is_effective,
            "complex": np.append(truth.complexes, "")[plan.perturbation],
        }
        cells = np.array([f"cell_{number:07d}" for number in range(len(names))])
        uns = {name: str(value) for name, value in asdict(design).items() if value or name != "nuisance"}
        writer.finish(cells, obs, truth.genes, {"symbol": truth.genes}, uns)
    return truth
