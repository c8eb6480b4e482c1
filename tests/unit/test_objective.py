"""Objectives with the perturbation in them: the loss, what may be read, resuming, and a planted answer on held-out cells."""

import math
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from made_screen import made_counts, options, write_screen
from made_screens import view_of

from plumbline.counts import open_counts
from plumbline.embedding_cli import HEAD_SETTINGS, Source
from plumbline.errors import NotApplicable, UserError
from plumbline.evaluation import evaluate
from plumbline.models import pca
from plumbline.models.fitting import fitting_part
from plumbline.models.labels import MIN_CELLS, labelled_cells, minibatches, validation_part
from plumbline.report.experiments import objectives
from plumbline.report.run import Run
from plumbline.screen import Split
from plumbline.simulate import CONTROL, Design, simulate
from plumbline.splits import make_split
from plumbline.stacked_counts import stack
from plumbline.stats import paired_difference
from plumbline.tasks import consistency, recall

torch = pytest.importorskip("torch")
from plumbline.models import objective  # noqa: E402
from plumbline.models.head import embed_with_head  # noqa: E402

HEAD = {"head": "contrastive", "head_epochs": 8, "head_dim": 5, "n_components": 8}


def brute_force_contrastive(z, code, batch, t):
    """Khosla et al. 2020, equation 2, cell by cell; positives from other batches where there are any."""
    total, anchors = 0.0, 0
    for i in range(len(z)):
        same = [p for p in range(len(z)) if p != i and code[p] == code[i]]
        positives = [p for p in same if batch[p] != batch[i]] or same
        if not positives:
            continue
        against = positives + [a for a in range(len(z)) if code[a] != code[i]]
        share = sum(math.exp(z[i] @ z[a] / t) for a in against)
        total += -sum(math.log(math.exp(z[i] @ z[p] / t) / share) for p in positives) / len(positives)
        anchors += 1
    return total / anchors


@pytest.fixture
def counts(tmp_path):
    return write_screen(tmp_path, made_counts(300, 80))


def told(folder, fit_on="train", **settings):
    return options(folder / "tables", fit_on, **{**HEAD, **settings})


def relabel(folder, change):
    """Rewrite cells.parquet by ``change(cells)``."""
    path = folder / "tables" / "cells.parquet"
    change(pd.read_parquet(path)).to_parquet(path)


@pytest.mark.parametrize("n_batches", [1, 2, 4])
def test_the_contrastive_loss_is_the_formula(n_batches):
    rng = np.random.default_rng(n_batches)
    z = rng.normal(size=(30, 4))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    code, batch = rng.integers(0, 7, 30), rng.integers(0, n_batches, 30)
    code[0] = 99  # a class of one cell: no anchor, but what the others are told from
    ours = objective.contrastive_loss(*map(torch.as_tensor, (z, code, batch)), 0.3).item()
    assert ours == pytest.approx(brute_force_contrastive(z, code, batch, 0.3), rel=1e-9)


def test_the_loss_sees_classes_and_not_batches():
    points = torch.eye(2, dtype=torch.float64)
    code, batch = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    by_class = objective.contrastive_loss(points[code], code, batch, 0.2)
    by_batch = objective.contrastive_loss(points[batch], code, batch, 0.2)
    assert by_class < 0.02 < 3 < by_batch


def test_one_class_of_single_cells_has_no_loss():
    z = torch.eye(3, dtype=torch.float64)
    assert objective.contrastive_loss(z, torch.arange(3), torch.zeros(3), 0.2).isnan()


def test_minibatches_hold_every_cell_once_and_bring_batches_together():
    rng = np.random.default_rng(0)
    code, batch = rng.integers(0, 20, 700), rng.integers(0, 4, 700)
    parts = list(minibatches(code, batch, 100, np.random.default_rng(1)))
    assert sorted(np.concatenate(parts)) == list(range(700))
    assert {len(part) for part in parts} == {100}
    mates = [(code[part][:, None] == code[part]) & (batch[part][:, None] != batch[part]) for part in parts]
    assert np.mean(np.concatenate([found.any(axis=1) for found in mates])) > 0.9


def test_validation_is_by_batch_where_there_are_three():
    code, batch = np.repeat(np.arange(6), 20), np.tile(np.arange(5), 24)
    mask, by = validation_part(code, batch, 42)
    assert by == "batch"
    assert len(np.unique(batch[mask])) == 1
    assert not set(batch[mask]) & set(batch[~mask])
    mask, by = validation_part(code, batch % 2, 42)
    assert by == "cell"
    np.testing.assert_array_equal(np.bincount(code[mask]), np.full(6, 4))


def test_only_train_cells_and_their_labels_are_used(tmp_path, counts):
    cells = labelled_cells(fitting_part(counts, told(tmp_path)), told(tmp_path))
    table = pd.read_parquet(tmp_path / "tables" / "cells.parquet").set_index("cell_id").loc[cells.cell_id]
    assert set(table["batch"]) == {"b0", "b1", "b2"}
    assert list(counts.cell_id[cells.rows]) == list(cells.cell_id) == sorted(cells.cell_id)
    names = np.where(table["is_control"], "", table["perturbation"])
    np.testing.assert_array_equal(cells.classes[cells.code], names)


@pytest.mark.parametrize("kind", ["contrastive", "classify"])
def test_labels_of_test_cells_change_nothing(tmp_path, counts, kind):
    before = embed_with_head(pca.embed, counts, told(tmp_path, head=kind)).values
    test = "batch in ('b3', 'b4')"

    def spoil(cells):
        rows = cells.eval(test).to_numpy()
        cells.loc[rows, "perturbation"] = "other"
        cells.loc[rows, "is_control"] = False
        return cells

    relabel(tmp_path, spoil)
    np.testing.assert_array_equal(embed_with_head(pca.embed, counts, told(tmp_path, head=kind)).values, before)
    relabel(tmp_path, lambda cells: cells.assign(perturbation=np.random.default_rng(0).permutation(cells["perturbation"])))
    assert np.abs(embed_with_head(pca.embed, counts, told(tmp_path, head=kind)).values - before).max() > 1e-3


def test_a_head_repeats_and_the_seed_and_hidden_layer_count(tmp_path, counts):
    first, again = (embed_with_head(pca.embed, counts, told(tmp_path)) for _ in range(2))
    np.testing.assert_array_equal(first.values, again.values)
    assert first.values.shape == (300, 5)
    assert first.values.dtype == np.float32
    about = first.extra["head"]
    assert (about["n_classes"], about["validation_by"], about["features"], about["epochs"]) == (9, "batch", 8, 8)
    assert about["n_train_cells"] + about["n_validation_cells"] == 180
    other = embed_with_head(pca.embed, counts, told(tmp_path, head_hidden=6)).values
    assert np.abs(other - first.values).max() > 1e-3


def test_the_order_of_the_cells_does_not_matter(tmp_path, counts):
    first = embed_with_head(pca.embed, counts, told(tmp_path)).values
    order = np.random.default_rng(3).permutation(300)
    shuffled = write_screen(tmp_path / "shuffled", made_counts(300, 80), order=order)
    second = embed_with_head(pca.embed, shuffled, told(tmp_path / "shuffled")).values
    np.testing.assert_allclose(second, first[order], atol=2e-3)


def test_a_killed_run_goes_on_to_the_same_result(tmp_path, counts, monkeypatch):
    whole = embed_with_head(pca.embed, counts, told(tmp_path)).values
    path, save, written = tmp_path / "head.pt", objective.save, []

    def dies(target, state):
        save(target, state)
        written.append(state["done"])
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(objective, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        embed_with_head(pca.embed, counts, told(tmp_path, head_checkpoint=path))
    monkeypatch.setattr(objective, "save", save)
    resumed = embed_with_head(pca.embed, counts, told(tmp_path, head_checkpoint=path))
    np.testing.assert_array_equal(resumed.values, whole)
    assert resumed.extra["head"]["resumed_from_epoch"] == 3
    finished = embed_with_head(pca.embed, counts, told(tmp_path, head_checkpoint=path))
    np.testing.assert_array_equal(finished.values, whole)
    assert finished.extra["head"]["resumed_from_epoch"] == 8


def test_a_checkpoint_of_something_else_is_refused(tmp_path, counts):
    path = tmp_path / "head.pt"
    embed_with_head(pca.embed, counts, told(tmp_path, head_checkpoint=path, head_epochs=1))
    with pytest.raises(UserError, match="of other cells or settings"):
        embed_with_head(pca.embed, counts, told(tmp_path, head_checkpoint=path, head="classify"))
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="no checkpoint of a training"):
        embed_with_head(pca.embed, counts, told(tmp_path, head_checkpoint=path))


def test_training_stops_early_and_keeps_the_best_epoch(tmp_path, counts, capsys):
    relabel(tmp_path, lambda cells: cells.assign(perturbation=np.random.default_rng(0).permutation(cells["perturbation"])))
    about = embed_with_head(pca.embed, counts, told(tmp_path, head_epochs=200, head_learning_rate=0.05)).extra["head"]
    assert about["epochs"] == about["best_epoch"] + objective.PATIENCE < 200
    assert about["validation_loss"] <= about["first_validation_loss"]
    assert f"epoch {about['epochs']}/200" in capsys.readouterr().err


def test_cells_that_could_not_be_embedded_stay_nan(tmp_path, counts):
    def embed(counts, options):
        result = pca.embed(counts, options)
        result.values[[0, 7, 3]] = np.nan
        return result

    result = embed_with_head(embed, counts, told(tmp_path))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.values).all(axis=1)), [0, 3, 7])
    assert result.unembedded == 3


def test_the_model_below_is_run_once_on_both_parts(tmp_path, counts):
    seen = []

    def embed(counts, options):
        seen.append(len(counts.cell_id))
        return pca.embed(counts, options)

    other = write_screen(tmp_path / "other", made_counts(50, 80, seed=5))
    elsewhere = replace(told(tmp_path / "other", "screen:train"), source=Source(counts, tmp_path / "tables"))
    found = embed_with_head(embed, other, elsewhere)
    assert seen == [180 + 50]
    assert found.values.shape == (50, 5)
    # embedding the screen itself trains the same head, which gives these cells the same values
    here = embed_with_head(pca.embed, counts, told(tmp_path))
    itself = embed_with_head(pca.embed, counts, replace(elsewhere, tables=tmp_path / "tables"))
    np.testing.assert_allclose(itself.values, here.values, atol=1e-4)


def test_stacked_counts_are_the_cells_in_order(tmp_path, counts):
    other = write_screen(tmp_path / "other", made_counts(40, 80, seed=5))
    rows = np.array([5, 2, 290])
    both = stack((counts, rows), (other, np.arange(40)))
    dense = np.vstack([made_counts(300, 80)[rows].toarray(), made_counts(40, 80, seed=5).toarray()])
    assert list(both.cell_id) == [*counts.cell_id[rows], *other.cell_id]
    for wanted in (None, np.array([41, 0, 17, 2, 3])):
        found = list(both.blocks(wanted, size=3))
        np.testing.assert_array_equal(np.concatenate([at for at, _ in found]), np.arange(43) if wanted is None else wanted)
        np.testing.assert_array_equal(
            np.vstack([block.toarray() for _, block in found]), dense if wanted is None else dense[wanted]
        )
    few = both.take_genes(np.array([7, 1]))
    np.testing.assert_array_equal(np.vstack([block.toarray() for _, block in few.blocks()]), dense[:, [7, 1]])
    with pytest.raises(UserError, match="no layer 'x'"):
        both.layer("x")


@pytest.mark.parametrize("fit_on", ["all", "none", "all@0.5"])
def test_labels_that_are_scored_are_not_trained_on(tmp_path, counts, fit_on):
    with pytest.raises(UserError, match="trained on the cells it is scored on"):
        embed_with_head(pca.embed, counts, told(tmp_path, fit_on))


def test_missing_labels_are_explained(tmp_path, counts):
    relabel(tmp_path, lambda cells: cells.drop(columns="is_control"))
    with pytest.raises(UserError, match="no column is_control"):
        embed_with_head(pca.embed, counts, told(tmp_path))
    source = Source(counts, None)
    with pytest.raises(UserError, match="give --tables"):
        embed_with_head(pca.embed, counts, replace(options(None, "screen", **HEAD), source=source))


def test_a_label_that_is_missing_is_explained(tmp_path, counts):
    relabel(tmp_path, lambda cells: cells.assign(perturbation=cells["perturbation"].where(cells["cell_id"] != "cell1")))
    with pytest.raises(UserError, match="no perturbation for 1 of the fitting cells"):
        embed_with_head(pca.embed, counts, told(tmp_path))


def test_one_perturbation_is_not_applicable(tmp_path, counts):
    relabel(tmp_path, lambda cells: cells.assign(perturbation=np.where(cells["is_control"], "control", "P1")))
    with pytest.raises(NotApplicable, match=f"1 of the fitting part's have {MIN_CELLS} cells; 2 are needed"):
        embed_with_head(pca.embed, counts, told(tmp_path))


def test_an_embedding_without_variation_is_not_applicable(tmp_path, counts):
    def embed(counts, options):
        result = pca.embed(counts, options)
        return replace(result, values=np.ones_like(result.values))

    with pytest.raises(NotApplicable, match="nothing for a head to learn from"):
        embed_with_head(embed, counts, told(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "contrast"}, "Did you mean 'contrastive'"),
        ({"head_dim": "0"}, "at least 1"),
        ({"head_epochs": "0"}, "at least 1"),
        ({"head_temperature": "0"}, "must be above 0"),
        ({"head_learning_rate": "-1"}, "must be above 0"),
        ({"head_learning_rate": "1e30"}, "Lower head_learning_rate"),
    ],
)
def test_bad_settings_are_explained(tmp_path, counts, settings, message):
    with pytest.raises(UserError, match=message):
        embed_with_head(pca.embed, counts, told(tmp_path, **settings))


def test_every_script_takes_a_head_and_says_so(tmp_path, counts, monkeypatch, capsys):
    import embed_pca
    from plumbline.embedding_cli import run

    paths = [
        "--counts",
        str(tmp_path / "counts.h5ad"),
        "--output",
        str(tmp_path / "e.npz"),
        "--tables",
        str(tmp_path / "tables"),
    ]
    arguments = ["embed_pca.py", *paths, "--fit-on", "train", "--threads", "1", "--device", "cpu", "--set", "n_components=8"]
    monkeypatch.setattr("sys.argv", [*arguments, "--set", "head=classify", "--set", "head_dim=3", "--set", "head_epochs=2"])
    run("pca", embed_pca.embed, ("n_components",))
    with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
        assert any(file[name].shape == (300, 3) for name in file.files)
    monkeypatch.setattr("sys.argv", [*arguments, "--set", "head_dim=3"])
    with pytest.raises(SystemExit):
        run("pca", embed_pca.embed, ("n_components",))
    assert "there is no head" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["embed_pca.py", "--help"])
    with pytest.raises(SystemExit):
        run("pca", embed_pca.embed, ())
    shown = capsys.readouterr().out
    assert all(f"{name}:" in shown for name in HEAD_SETTINGS)


# the section of the report


def made_run(**verdicts):
    """A run whose experiment has PCA and scVI without labels, and PCA with a head and scANVI with them."""
    columns = {"experiment": "objectives", "dataset": "s.heldout", "protocol": "corrected", "main": True, "status": "ok",
               "reason": "", "direction": 1, "ci_low": 0.1, "ci_high": 0.9, "diff_low": np.nan, "diff_high": np.nan,
               "difference": np.nan, "baseline_value": np.nan, "verdict": "baseline", "role": "trained"}  # fmt: skip
    base = {("pca", "recall"): 0.2, ("scvi", "recall"): 0.3, ("pca", "consistency"): 40.0, ("scvi", "consistency"): 40.0}
    metric = {"recall": "recall_mean", "consistency": "consistency_pct"}
    rows = []
    for (model, task), value in base.items():
        both = {"task": task, "metric": metric[task], "model": model}
        rows.append(columns | both | {"variant": model, "value": value, "label": model.upper(), "compared_with": "pca"})
        variant, gain = ("pca_contrastive", 0.4) if model == "pca" else ("scanvi", -0.1)
        ends = {"difference": gain, "diff_low": gain - 0.05, "diff_high": gain + 0.05, "baseline_value": value}
        both |= {"variant": variant, "value": value + gain, "label": f"{variant} title", "compared_with": model}
        rows.append(columns | both | ends | {"verdict": verdicts.get(variant, "tied")})
    cost = [{"experiment": "objectives", "dataset": "s.heldout", "label": label, "status": "ok", "seconds": seconds,
             "peak_memory_bytes": 2e9} for label, seconds in (("PCA", 2.0), ("pca_contrastive title", 5.0))]  # fmt: skip
    settings = {"pca": "input=lognorm", "scvi": "", "pca_contrastive": "input=lognorm;head=contrastive"}
    models = {name: {"settings": text} for name, text in (settings | {"scanvi": "architecture=scanvi"}).items()}
    about = {"baseline": "pca", "models": models, "datasets": {}}
    table = pd.DataFrame(rows)
    none = table[:0]  # of the main run
    return Run(about, none, none, none, none, none, experiments=table, experiment_cost=pd.DataFrame(cost))


def test_the_report_says_what_labels_gained(tmp_path):
    gain, listing, cost = objectives.sections(made_run(pca_contrastive="better", scanvi="worse"), tmp_path)
    assert "Of 4 comparisons" in gain["data"]
    assert "<b>2 better, 0 tied, 2 worse</b>" in gain["data"]
    assert "<b>pca_contrastive title</b> against PCA (s.heldout): better in " in gain["data"]
    assert "known biology (recall, mean of sources +0.400 [0.350, 0.450])" in gain["data"]
    assert "<b>scanvi title</b> against SCVI (s.heldout): worse in " in gain["data"]
    assert gain["data"].count("<img") == 1
    assert listing["data"].count("<tr>") == 1 + 8
    assert listing["data"].count("without labels") == 4
    assert "<td>5.00</td><td>2.00</td>" in cost["data"].replace("5.000", "5.00").replace("2.000", "2.00")


def test_the_report_says_when_labels_gained_nothing(tmp_path):
    gain = objectives.sections(made_run(), tmp_path)[0]["data"]
    assert "<b>0 better, 4 tied, 0 worse</b>" in gain
    assert "tied in known biology and consistency" in gain
    untested = objectives.sections(made_run(pca_contrastive="not tested", scanvi="not tested"), tmp_path)[0]["data"]
    assert "No difference to a model without labels could be tested" in untested


def test_without_labelled_models_there_is_no_section(tmp_path):
    run = made_run()
    rows = run.experiments[run.experiments["variant"].isin(("pca", "scvi"))]
    assert objectives.sections(replace(run, experiments=rows), tmp_path) == []
    assert objectives.sections(replace(run, experiments=pd.DataFrame()), tmp_path) == []


# the planted answer: effects shared within complexes, hidden below a response that every perturbed cell has


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
    pd.DataFrame({"train_42": split.train}).to_parquet(folder / "tables" / "splits.parquet")
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
    found = evaluate(view, task, [Split(42, "batch", *np.zeros((4, len(rows)), dtype=bool))], [protocol])
    return next(row.score for row in found if row.postprocess == postprocess and row.score.metric == metric).items


def embedded(screen, tables, **settings):
    folder, held, *_ = screen
    source = Source(open_counts(folder / "counts.h5ad"), tables)
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
