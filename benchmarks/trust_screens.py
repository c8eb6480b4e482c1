"""Screens simulated in embedding space for trust.py: designs, and embeddings that are equally good by construction."""

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtri

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))

from plumbline.data.simulate import choose_complexes
from plumbline.scoring.screen import Screen

GENES = 60  # whose counts are simulated


@dataclass(frozen=True, kw_only=True)
class Design:
    """A kind of screen.

    cells: per perturbation, on average; spread: sd of their logarithm. unbalanced: sd of the logarithm of a batch's size, the
    same sizes in every repeat. effect: length of a mean effect, in sd of a cell's noise; shared: the part of its variance
    that a complex has in common. shift: sd of a batch's shift; twist: sd of what a batch adds to an effect, relative to it.
    """

    n_perturbations: int = 40
    cells: int = 15
    spread: float = 0.2
    n_batches: int = 8
    unbalanced: float = 0.0
    n_controls: int = 160
    effect: float = 1.0
    shared: float = 0.5
    shift: float = 0.5
    twist: float = 0.2
    d: int = 16


DESIGNS = {
    "few": Design(),
    "small": Design(n_perturbations=16, cells=12, n_batches=4, n_controls=64),
    "many": Design(n_perturbations=120, cells=10, n_batches=12, n_controls=240),
    "unbalanced": Design(unbalanced=0.8, n_batches=12),
    "weak": Design(effect=0.5, shared=0.2),
    "strong": Design(effect=2.0, shared=0.8),
    "apart": Design(shared=0.0),
    "spread": Design(n_perturbations=60, spread=0.9),
    "no effect": Design(effect=0.0),
    "batches": Design(n_batches=40, n_controls=400, cells=20),
}


def simulate(
    design: Design, seed: int, advantages: tuple[float, ...] = (), counts: Path | None = None
) -> tuple[Screen, dict[str, np.ndarray]]:
    """A screen, and the embeddings of its cells: 'a' and 'b', equally good, and one per advantage, to be compared with b.

    counts: where to write counts of GENES genes that follow the same effects and batches, for a task that reads expression.
    """
    rng = np.random.default_rng(seed)
    genes, complexes = perturbed_genes(design.n_perturbations)
    code, batch = _cells(design, rng)
    common = rng.normal(size=(complexes.max() + 1, design.d))[complexes]
    own = rng.normal(size=(design.n_perturbations, design.d))
    length = design.effect * np.exp(rng.normal(0, 0.5, design.n_perturbations)) / np.sqrt(design.d)
    effect = (np.sqrt(design.shared) * common + np.sqrt(1 - design.shared) * own) * length[:, None]
    shift = design.shift * rng.normal(size=(design.n_batches, design.d))
    twist = design.twist * length[:, None, None] * rng.normal(size=(design.n_perturbations, design.n_batches, design.d))
    moved = np.where((code >= 0)[:, None], effect[code] + twist[code, batch], 0)
    noise = rng.normal(size=(2, len(code), design.d))
    made = {"a": 0.0, "b": 0.0} | {f"+{100 * more:.0f} %": more for more in advantages}
    z = {name: (shift[batch] + (1 + more) * moved + noise[int(name == "b")]).astype(np.float32) for name, more in made.items()}
    screen = _screen(design, np.array([*genes, "control"])[code], code < 0, batch)
    if counts:
        _write_counts(counts, screen, shift[batch] + moved, seed)
    return screen, z


def _write_counts(path: Path, screen: Screen, moved: np.ndarray, seed: int) -> None:
    """Poisson counts, a cell's depth its own: the logarithm of a gene's rate follows where its cell was moved to (n, d)."""
    import anndata
    import scipy.sparse as sp

    rng = np.random.default_rng([seed, 1])
    loadings = rng.normal(0, 0.3, (moved.shape[1], GENES))
    rate = np.exp(rng.normal(1.0, 1.0, GENES) + moved @ loadings + rng.normal(0, 0.3, (len(moved), 1)))
    obs, var = pd.DataFrame(index=screen.cell_id), pd.DataFrame(index=screen.genes["gene_id"])
    anndata.AnnData(sp.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=var).write_h5ad(path)


@cache
def perturbed_genes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Genes of n perturbations, the same in every repeat, and the number of the CORUM complex of each."""
    chosen = list(choose_complexes(n, np.random.default_rng(0)).values())
    return np.concatenate(chosen), np.repeat(np.arange(len(chosen)), list(map(len, chosen)))


def _cells(design: Design, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Perturbation (n,), -1 for controls, and batch (n,) of every cell."""
    size = design.cells * np.exp(rng.normal(0, design.spread, design.n_perturbations) - design.spread**2 / 2)
    code = np.repeat(np.arange(-1, design.n_perturbations), [design.n_controls, *np.maximum(4, np.round(size)).astype(int)])
    share = np.exp(design.unbalanced * ndtri((np.arange(design.n_batches) + 0.5) / design.n_batches))
    return code, rng.choice(design.n_batches, len(code), p=share / share.sum())


def _screen(design: Design, perturbation: np.ndarray, is_control: np.ndarray, batch: np.ndarray) -> Screen:
    genes = pd.DataFrame({"gene_id": [f"g{number}" for number in range(GENES)], "symbol": "", "ensembl_id": ""})
    facts = {"x_kind": "counts", "n_perturbations": design.n_perturbations, "n_batches": design.n_batches, "has_batches": True,
             "has_controls": True, "organism": "human", "perturbation_type": "CRISPRi"}  # fmt: skip
    names = np.char.add("c", np.arange(len(batch)).astype(str))
    return Screen(names, perturbation.astype(str), is_control, np.char.add("b", batch.astype(str)), genes, facts)
