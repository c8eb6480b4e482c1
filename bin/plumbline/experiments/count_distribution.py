"""Count distribution of a data set, gene by gene: Poisson, negative binomial or zero-inflated negative binomial.

Expected counts are proportional to the cell's depth (total counts) and, where batches are large enough, to the rate of the
gene in its batch: a gene whose mean differs between batches would look over-dispersed with depth alone. The batch rates are
the Poisson fit's and the same under the three models, which are therefore compared with the spread within batches; as they
are fitted to the data too, the dispersion comes out too small by about (batches / cells), at most 1 / MIN_BATCH. Controls
are described if there are enough of them, as effects of perturbations inflate the dispersion too.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import chi2

from plumbline.common.errors import NotApplicable
from plumbline.common.threads import side_by_side
from plumbline.counts.reading import open_counts
from plumbline.experiments.count_summary import summarise
from plumbline.scoring.screen import Screen, read_screen
from plumbline.scoring.stats import bh

MODELS = ("poisson", "nb", "zinb")
MIN_CONTROLS = 200  # fewer controls: all cells are described
MIN_BATCH = 20  # mean number of cells per batch: with fewer, the offset is the depth alone
MIN_MEAN, MIN_NONZERO = 0.01, 20  # a gene with less cannot distinguish the models and is not tested
COLUMNS = [
    *("gene_id", "symbol", "mean", "variance", "n_nonzero", "tested", "zeros_observed"),
    *(f"{what}_{model}" for what in ("zeros", "log_likelihood", "aic", "bic") for model in MODELS),
    *("dispersion_nb", "dispersion_zinb", "zero_inflation", "best", "lr_nb", "p_nb", "q_nb", "lr_zinb", "p_zinb", "q_zinb"),
]


@dataclass(frozen=True)
class Chosen:
    """The described cells: row number (n,), batch number (n,), the choice of cells and of the offset in words."""

    rows: np.ndarray
    batch: np.ndarray
    cells: str
    offset: str


def describe(
    counts: Path, tables: Path, cells: str = "auto", offset: str = "auto", threads: int = 1
) -> tuple[pd.DataFrame, dict]:
    """Fit the three distributions to every gene.

    Parameters
    ----------
    counts, tables
        The prepared data set.
    cells
        'controls', 'all' or 'auto' (controls if there are MIN_CONTROLS).
    offset
        'depth', 'batch' (depth x rate of the gene in the batch) or 'auto' ('batch' if there are several, of MIN_BATCH cells on
        average).
    threads
        Number of threads.

    Returns
    -------
    pandas.DataFrame
        The table of genes (COLUMNS); NaN where a gene is not tested, empty where the question does not apply.
    dict
        The summary (count_summary), or ``status`` not_applicable with the reason.

    Notes
    -----
    Memory: 15 KB per gene, 24 bytes per gene and batch, and one block of cells.
    """
    screen = read_screen(tables)
    try:
        if screen.facts["x_kind"] != "counts":
            raise NotApplicable(f"the data set holds {screen.facts['x_kind']} values, and the question is about counts")
        depth = pd.read_parquet(tables / "cells.parquet", columns=["n_counts"])["n_counts"].to_numpy(float)
        chosen = choose(screen, depth, cells, offset)
        table = fit(counts, screen, chosen, depth[chosen.rows], threads)
        if not table["tested"].any():
            raise NotApplicable(f"no gene has a mean of {MIN_MEAN} counts and {MIN_NONZERO} cells that show it")
    except NotApplicable as reason:
        return pd.DataFrame(columns=COLUMNS), {"status": "not_applicable", "reason": str(reason)}
    about = {"status": "ok", "cells": chosen.cells, "offset": chosen.offset, "n_cells": len(chosen.rows)}
    return table, about | {"n_batches": int(chosen.batch.max()) + 1} | summarise(table)


def choose(screen: Screen, depth: np.ndarray, cells: str = "auto", offset: str = "auto") -> Chosen:
    """Cells (never those without a count) and offset, as ``describe`` explains. Raises NotApplicable if no cell is left."""
    counted = depth > 0
    few = (screen.is_control & counted).sum() < MIN_CONTROLS
    if cells == "all" or (cells == "auto" and few):
        rows, words = np.flatnonzero(counted), "all cells" + (f" (fewer than {MIN_CONTROLS} controls)" if few else "")
    else:
        rows, words = np.flatnonzero(counted & screen.is_control), "controls"
    if not len(rows):
        raise NotApplicable(f"no cell with counts among: {words}")
    names, batch = np.unique(screen.batch[rows], return_inverse=True)
    by_batch = len(names) > 1 and (offset == "batch" or (offset == "auto" and len(rows) >= MIN_BATCH * len(names)))
    if by_batch:
        return Chosen(rows, batch, words, "depth x mean of the gene in the batch")
    why = f" (fewer than {MIN_BATCH} cells per batch)" if len(names) > 1 and offset == "auto" else ""
    return Chosen(rows, np.zeros(len(rows), dtype=np.int64), words, "depth" + why)


def fit(counts: Path, screen: Screen, chosen: Chosen, depth: np.ndarray, threads: int = 1) -> pd.DataFrame:
    """The table of genes. depth (n,): total counts of the chosen cells."""
    from plumbline.experiments.count_likelihoods import fit_genes
    from plumbline.experiments.count_statistics import LARGE, Depths, gather

    n = len(chosen.rows)
    moments, grid = gather(open_counts(counts), chosen.rows, Depths(depth / depth.mean(), chosen.batch, chosen.batch.max() + 1))
    mean = moments.total.sum(axis=1) / n
    tested = (mean >= MIN_MEAN) & (moments.n_nonzero >= MIN_NONZERO)
    out = np.full((len(mean), 9), np.nan)

    with side_by_side(threads) as pool:
        parts = np.array_split(np.flatnonzero(tested), 8 * threads)
        list(pool.map(lambda part: fit_genes(part, moments, grid, LARGE, out), parts))
    with np.errstate(divide="ignore", invalid="ignore"):
        at_rates = np.where(moments.total > 0, moments.total * np.log(grid.rate), 0.0).sum(axis=1)
    out[:, :3] += (moments.y_log_depth + at_rates - moments.log_factorial)[:, None]
    missing = n - grid.cells.sum(axis=1)  # cells of batches without the gene are zero under every model
    zeros = (out[:, 6:9] + missing[:, None]) / n
    table = pd.DataFrame(screen.genes[["gene_id", "symbol"]].reset_index(drop=True)).assign(
        mean=mean, variance=(moments.square - n * mean**2) / max(n - 1, 1), n_nonzero=moments.n_nonzero.astype(int),
        tested=tested, zeros_observed=1 - moments.n_nonzero / n)  # fmt: skip
    return _compare(table, out, zeros, n, grid.rate.shape[1])


def _compare(table: pd.DataFrame, out: np.ndarray, zeros: np.ndarray, n: int, n_rates: int) -> pd.DataFrame:
    """Information criteria, the best model by BIC, and likelihood-ratio tests.

    Under the simpler model the extra parameter is on its boundary, 0: the likelihood ratio is 0 or chi-squared (1 degree
    of freedom) with probability one half each (Self & Liang 1987, JASA 82:605).
    """
    from plumbline.experiments.count_likelihoods import LEAST_PHI

    columns: dict[str, np.ndarray] = {}
    for place, model in enumerate(MODELS):
        k = n_rates + place
        likelihood = out[:, place]
        columns |= {f"zeros_{model}": zeros[:, place], f"log_likelihood_{model}": likelihood,
                    f"aic_{model}": 2 * k - 2 * likelihood, f"bic_{model}": k * np.log(n) - 2 * likelihood}  # fmt: skip
    dispersion = np.where(out[:, 3:5] <= 1.01 * LEAST_PHI, 0.0, out[:, 3:5])
    columns |= {"dispersion_nb": dispersion[:, 0], "dispersion_zinb": dispersion[:, 1], "zero_inflation": out[:, 5]}
    bic = np.column_stack([columns[f"bic_{model}"] for model in MODELS])
    tested = table["tested"].to_numpy()
    columns["best"] = np.where(tested, np.array(MODELS)[np.nan_to_num(bic).argmin(axis=1)], "")
    for model, larger, smaller in (("nb", 1, 0), ("zinb", 2, 1)):
        ratio = np.maximum(2 * (out[:, larger] - out[:, smaller]), 0.0)
        ratio[ratio < 1e-6] = 0.0  # rounding
        p = np.where(tested, np.where(ratio > 0, chi2.sf(ratio, 1) / 2, 1.0), np.nan)
        columns |= {f"lr_{model}": ratio, f"p_{model}": p, f"q_{model}": bh(p)}
    return table.assign(**columns)[COLUMNS]
