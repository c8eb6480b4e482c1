"""A planted answer on held-out cells: effects shared within complexes, below a response that every perturbed cell has."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
from made_screen import options, write_given_splits
from made_screens import subject_of, view_of

from plumbline.counts.reading import open_counts
from plumbline.data.simulate import CONTROL, Design, simulate
from plumbline.data.splits import Split, make_split
from plumbline.embedding.options import Source
from plumbline.models.pca import pca
from plumbline.scoring.evaluation import evaluate
from plumbline.scoring.stats import paired_difference
from plumbline.tasks import consistency, recall

pytest.importorskip("torch")
from plumbline.models.objectives.head import embed_with_head


@pytest.fixture(scope="module")
def hidden_signal(tmp_path_factory):
    """(folder of the screen, folder of its held-out cells, their obs, rows of the held-out cells)."""
    folder = tmp_path_factory.mktemp("hidden")
    design = Design(n_perturbations=150, n_batches=6, cells_per_perturbation=48, n_genes=500, effect=0.7, nuisance=1.5,
                    null_fraction=0.0, guide_failure=0.0, escape=0.0, seed=3)  # fmt: skip
    simulate(design, folder / "counts.h5ad")
    data = ad.read_h5ad(folder / "counts.h5ad")
    cells = data.obs[["perturbation", "batch"]].astype(str).reset_index(names="cell_id")
    cells["is_control"] = cells["perturbation"] == CONTROL
    split = make_split(*(cells[name].to_numpy() for name in ("perturbation", "is_control", "batch")), 42, "batch")
    (folder / "tables").mkdir()
    cells.to_parquet(folder / "tables" / "cells.parquet")
    write_given_splits(folder / "tables", {42: split.train})
    held = folder / "heldout"
    held.mkdir()
    rows = np.flatnonzero(split.test2)
    data[rows].copy().write_h5ad(held / "counts.h5ad")
    return folder, held, cells, rows


def held_out_items(screen, values, task, metric, protocol, postprocess):
    """Items of one metric over the held-out cells."""
    _, _, cells, rows = screen
    part = cells.iloc[rows]
    view = view_of(values, *(part[name].to_numpy(dtype=str) for name in ("perturbation", "batch")), control=CONTROL)
    found = evaluate(subject_of(view), task.TASK, [Split(42, "batch", *np.zeros((4, len(rows)), dtype=bool))], [protocol])
    return next(row.score for row in found if row.postprocess == postprocess and row.score.metric == metric).items


def embedded(screen, tables, **settings):
    folder, held, *_ = screen
    source = Source(counts=open_counts(folder / "counts.h5ad"), tables=tables)
    asked = replace(options(None, "screen:train", n_components=128, **settings), source=source)
    embed = embed_with_head if "head" in settings else (lambda embed, *arguments: embed(*arguments))
    return embed(pca.embed, open_counts(held / "counts.h5ad"), asked).values


@pytest.fixture(scope="module")
def hidden_embeddings(hidden_signal, tmp_path_factory):
    """PCA of the held-out cells; the same with a head; the same with a head that was given permuted labels."""
    folder, _, cells, _ = hidden_signal
    permuted = tmp_path_factory.mktemp("permuted")
    (permuted / "splits.parquet").write_bytes((folder / "tables" / "splits.parquet").read_bytes())
    order = np.random.default_rng(0).permutation(len(cells))
    labels = {name: cells[name].to_numpy()[order] for name in ("perturbation", "is_control")}
    cells.assign(**labels).to_parquet(permuted / "cells.parquet")
    base = embedded(hidden_signal, folder / "tables")
    head = [embedded(hidden_signal, tables, head="contrastive") for tables in (folder / "tables", permuted)]
    return base, *head


@pytest.mark.parametrize(
    ("scored", "least"),
    [
        # PCA gets the best of the four post-processings on these very cells; consistency is centred, which is PCA's best
        ((recall, "recall_mean", "paper", "best"), 0.1),
        ((consistency, "consistency_pct", "corrected", "center"), 20.0),
    ],
)
def test_a_contrastive_objective_finds_what_variance_hides(hidden_signal, hidden_embeddings, scored, least):
    base, learned, fooled = (held_out_items(hidden_signal, values, *scored) for values in hidden_embeddings)
    gain, chance = paired_difference(learned, base), paired_difference(fooled, base)
    assert gain.low > least
    assert gain.value > 2 * chance.value
    assert chance.low < 0
