"""Structural integrity, reconstruction metrics, the decoder, and the reconstruction task."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from made_screens import counts_view, view_of
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from plumbline.common.random import seed_of
from plumbline.counts import expression
from plumbline.counts.expression import ShuffledExpression, read_expression, weighted_sum
from plumbline.metrics import decoder, effect_agreement
from plumbline.metrics.correlation import pearson_rows, spearman_rows
from plumbline.metrics.count_halves import count_halves
from plumbline.metrics.decoder import operations, plan, train_decoder
from plumbline.metrics.divisions import by_cell, labels_of
from plumbline.metrics.effect_agreement import EffectAgreement
from plumbline.metrics.effects import mean_effect_weights
from plumbline.metrics.integrity import Reconstruction
from plumbline.tasks import reconstruction

BUDGET = 2e11


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return counts_view(tmp_path_factory.mktemp("made"))


def _scores(view):
    scores = {score.metric: score for score in reconstruction.run(view)}
    assert set(scores) == {m.name for m in reconstruction.TASK.metrics}
    return scores


def _pca(view, values, d=20):
    mean = values[view.split.train].mean(axis=0)
    _, _, axes = np.linalg.svd(values[view.split.train] - mean, full_matrices=False)
    return ((values - mean) @ axes[:d].T).astype(np.float32)


def _integrity(truth, prediction, batch, control):
    """The definition, batch by batch. truth, prediction: (n, genes)."""
    parts = []
    for b in np.unique(batch):
        rows, c = batch == b, (batch == b) & control
        t, p = truth[rows] - truth[c].mean(axis=0), prediction[rows] - prediction[c].mean(axis=0)
        parts.append((np.linalg.norm(p - t) / rows.sum(), np.linalg.norm(t) / rows.sum()))
    distance, size = np.mean(parts, axis=0)
    return 1 - distance / (2 * size)


def test_sums_against_scikit_learn_and_scipy():
    rng = np.random.default_rng(0)
    truth = np.maximum(rng.normal(size=(90, 30)), 0).astype(np.float32)  # zeros and ties
    prediction = (0.5 * truth + rng.normal(size=(90, 30)).round(1)).astype(np.float32)
    batch, control = np.sort(rng.integers(0, 4, 90)), rng.random(90) < 0.3
    sums = Reconstruction(batch, control)
    for genes in (slice(0, 11), slice(11, 30)):
        sums.add(truth[:, genes].T, prediction[:, genes].T)
    names = np.arange(30).astype(str)
    assert sums.integrity().value == pytest.approx(_integrity(truth.astype(float), prediction.astype(float), batch, control))
    assert sums.integrity(effect=True).value == pytest.approx(2 * sums.integrity().value - 1)
    assert sums.errors().value == pytest.approx(mean_squared_error(truth, prediction), rel=1e-6)
    assert sums.errors(absolute=True).value == pytest.approx(mean_absolute_error(truth, prediction), rel=1e-6)
    assert sums.r2().value == pytest.approx(r2_score(truth.ravel(), prediction.ravel()), rel=1e-6)
    pearson = [pearsonr(t, p).statistic for t, p in zip(truth.T, prediction.T, strict=True)]
    spearman = [spearmanr(t, p).statistic for t, p in zip(truth.T, prediction.T, strict=True)]
    np.testing.assert_allclose(sums.correlation("pearson", names).numerator, pearson, atol=1e-6)
    np.testing.assert_allclose(sums.correlation("spearman", names).numerator, spearman, atol=1e-9)


def test_constant_genes_and_constant_predictions():
    truth = np.array([[1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4]], dtype=np.float32)
    prediction = np.array([[1, 2, 3, 4], [0.7, 0.7, 0.7, 0.7], [4, 3, 2, 1]], dtype=np.float32)
    for correlation in (pearson_rows, spearman_rows):
        np.testing.assert_allclose(correlation(truth, prediction), [np.nan, 0, -1], atol=1e-7)
    sums = Reconstruction(np.zeros(4), np.array([True, False, False, False]))
    sums.add(truth, prediction)
    names = np.array(["flat", "b", "c"])
    assert sums.correlation("pearson", names).unit.tolist() == ["b", "c"]
    assert sums.correlation("spearman", names, constant_as_zero=True).value == pytest.approx(-1 / 3)


def test_cells_must_be_sorted_by_batch():
    for batch in (["b", "a"], ["a", "b", "a"]):
        with pytest.raises(ValueError, match="sorted"):
            Reconstruction(np.array(batch), np.ones(len(batch), dtype=bool))


def test_expression_is_log_normalised_in_any_order(made):
    view, values = made
    rows = np.random.default_rng(0).permutation(len(values))[:300]
    np.testing.assert_allclose(read_expression(view.counts, rows, "counts").toarray(), values[rows], atol=1e-5)
    weights = np.random.default_rng(1).normal(size=300)
    np.testing.assert_allclose(weighted_sum(view.counts, rows, weights, "counts"), weights @ values[rows], atol=1e-3)
    assert read_expression(view.counts, rows, "counts") is read_expression(view.counts, rows.copy(), "counts")  # kept
    raw = read_expression(view.counts, rows, "log").toarray()
    assert (raw == raw.astype(int)).all()  # taken as it is


@pytest.mark.parametrize("how", ["dense", "sparse", "streamed"])
def test_an_epoch_meets_every_cell_once(made, monkeypatch, how):
    view, values = made
    if how == "sparse":
        monkeypatch.setattr(expression, "_SMALL", 0)
    if how == "streamed":
        monkeypatch.setattr(expression, "BLOCK", 64)
        monkeypatch.setattr(expression, "_POOL", 3)
    rows = np.random.default_rng(0).permutation(len(values))[:1000]
    cells = ShuffledExpression(view.counts, rows, "counts")
    assert (cells.held is None, sp.issparse(cells.held)) == (how == "streamed", how == "sparse")
    np.testing.assert_allclose(cells.mean(), values[rows].mean(axis=0), atol=1e-5)
    seen = [list(cells.batches(128, np.random.default_rng(seed))) for seed in (1, 1, 2)]
    for epoch in seen:
        assert abs(len(epoch) - cells.n_batches(128)) <= 1
        position = np.concatenate([part for part, _ in epoch])
        np.testing.assert_array_equal(np.sort(position), np.arange(1000))
        np.testing.assert_allclose(np.concatenate([target for _, target in epoch]), values[rows[position]], atol=1e-5)
    np.testing.assert_array_equal(seen[0][0][0], seen[1][0][0])
    assert (seen[0][0][0] != seen[2][0][0]).any()


def test_no_effect_is_exactly_one_half(made):
    view, values = made
    for changed in (view, replace(view, protocol="paper"), view.take(np.random.default_rng(0).permutation(len(values)))):
        scores = _scores(replace(changed, predictor="no_effect"))
        assert scores["structural_integrity"].value == 0.5
        assert scores["si_effect"].value == 0


def test_mean_effect_by_definition(made):
    view, values = made
    cells, train, test = view.screen, np.flatnonzero(view.split.train), np.flatnonzero(view.split.test2)
    residual = values.copy()
    for b in np.unique(cells.batch[train]):
        rows = train[cells.batch[train] == b]
        residual[rows] -= values[rows[cells.is_control[rows]]].mean(axis=0)
    perturbed = np.unique(cells.perturbation[train][~cells.is_control[train]])
    effect = np.mean([residual[train[cells.perturbation[train] == name]].mean(axis=0) for name in perturbed], axis=0)
    prediction = np.empty((len(test), values.shape[1]))
    for i, row in enumerate(test):
        controls = test[(cells.batch[test] == cells.batch[row]) & cells.is_control[test]]
        prediction[i] = values[controls].mean(axis=0) + (0 if cells.is_control[row] else effect)
    scores = _scores(replace(view, predictor="mean_effect"))
    expected = _integrity(values[test].astype(float), prediction, cells.batch[test], cells.is_control[test])
    assert scores["structural_integrity"].value == pytest.approx(expected, abs=1e-5)
    assert scores["mse"].value == pytest.approx(np.square(prediction - values[test]).mean(), rel=1e-4)


def test_mean_effect_without_controls_is_zero():
    names, batch = np.array(["a", "b", "ctrl"]), np.array(["1", "1", "2"])
    assert not mean_effect_weights(names, batch, names == "ctrl").any()
    assert mean_effect_weights(names, np.full(3, "1"), names == "ctrl").tolist() == [0.5, 0.5, -1]


def test_split_half_of_the_paper_knows_the_effect_but_not_the_cell(made, tmp_path):
    view, _ = made
    view = replace(view, predictor="split_half", protocol="paper")
    ceiling = _scores(view)["si_effect"].value
    assert ceiling > 0.05
    flat, _ = counts_view(tmp_path, effect=0.0)
    assert _scores(replace(flat, predictor="split_half", protocol="paper"))["si_effect"].value < 0.01
    again = _scores(view.take(np.random.default_rng(0).permutation(len(view.embedding))))["si_effect"].value
    assert again == pytest.approx(ceiling, abs=1e-6)


def test_ceilings_are_the_same_in_any_order_of_the_cells(made):
    view, _ = made
    view = replace(view, predictor="split_half")
    first, again = _scores(view), _scores(view.take(np.random.default_rng(0).permutation(len(view.embedding))))
    for metric in ("effect_pearson", "effect_integrity", "si_effect"):
        assert again[metric].value == pytest.approx(first[metric].value, abs=1e-6)


def test_decoder_learns_what_the_embedding_knows(made):
    """Noise < 2 components < 20 components < expression itself, in every metric."""
    view, values = made
    noise = np.random.default_rng(0).normal(size=(len(values), 20)).astype(np.float32)
    ladder = [noise, _pca(view, values, d=2), _pca(view, values, d=20), values.astype(np.float32)]
    scores = [_scores(replace(view, embedding=embedding)) for embedding in ladder]
    for metric, sign in [(m.name, m.direction) for m in reconstruction.TASK.metrics]:
        assert (np.diff([sign * score[metric].value for score in scores]) > 0).all(), metric
    assert scores[0]["si_effect"].value < 0.01
    assert abs(scores[0]["pearson"].value) < 0.1
    assert scores[2]["si_effect"].value > 0.1


def test_one_training_serves_all_views_and_test_cells_do_not_matter(made, monkeypatch):
    view, values = made
    view = replace(view, embedding=_pca(view, values, d=5))
    monkeypatch.setattr(decoder, "MIN_STEPS", 60)
    reconstruction._decoders.clear()
    calls = []
    monkeypatch.setattr(reconstruction, "train_decoder", lambda *a, **k: calls.append(1) or train_decoder(*a, **k))
    first = _scores(view)
    half = replace(view.split, test2=view.split.test2 & (view.screen.batch == "4"))
    moved = np.array(view.embedding)
    moved[~view.split.train] += 1  # test cells are no part of the training
    for changed in (replace(view, split=half), view.take(np.arange(len(values))), replace(view, embedding=moved)):
        _scores(changed)
    assert len(calls) == 1
    reconstruction._decoders.clear()
    again = _scores(view)
    assert again["mse"].value == pytest.approx(first["mse"].value, rel=1e-5)
    _scores(replace(view, seed=43))
    assert len(calls) == 3


def test_old_decoders_are_forgotten(made, monkeypatch):
    view, values = made
    monkeypatch.setattr(reconstruction, "_CACHE_BYTES", 1)
    monkeypatch.setattr(decoder, "MIN_STEPS", 1)
    reconstruction._decoders.clear()
    for seed in range(3):
        _scores(replace(view, embedding=_pca(view, values, d=3), seed=seed))
    assert len(reconstruction._decoders) == 1


def test_the_optimiser_is_torchs():
    import torch

    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((5, 3), (5,))]
    ours, theirs = ([one.clone().requires_grad_() for one in start] for _ in range(2))
    optimiser, reference = decoder.AdamW(ours), torch.optim.AdamW(theirs, lr=1e-3, fused=True)
    for rate in (1e-3, 5e-4, 1e-4):
        reference.param_groups[0]["lr"] = rate
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        optimiser.step(rate)
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)


def test_the_paper_trains_with_the_rates_and_the_decay_of_its_configuration(made, monkeypatch):
    """warmup_cosine per step: 10 of 30 epochs from 3e-5 to 1e-4, then a cosine to 0; weight_decay 1e-6."""
    view, values = made
    made_with, taken = [], []
    step = decoder.AdamW.step

    def recorded(self, rate):
        made_with.append(self.decay)
        taken.append(rate)
        step(self, rate)

    monkeypatch.setattr(decoder.AdamW, "step", recorded)
    _scores(replace(view, embedding=_pca(view, values, d=3), protocol="paper", seed=77))
    n = len(taken) // 30
    assert len(taken) == 30 * n > 30
    assert set(made_with) == {1e-6}
    assert taken[0] == pytest.approx(3e-5)
    np.testing.assert_allclose(np.diff(taken[: 10 * n]), 7e-5 / (10 * n - 1))
    assert [taken[k] for k in (10 * n - 1, 10 * n, 20 * n)] == pytest.approx([1e-4, 1e-4, 5e-5])
    assert 0 < taken[-1] < 5e-6


def test_plan_follows_the_paper_where_it_can():
    small = plan("paper", 16, 112, 2000, "cpu", BUDGET)
    assert (small.recipe, small.widths, small.epochs, small.n_cells, small.note) == ("paper", (40, 64, 88), 30, 2000, "")
    gpu = plan("paper", 256, 8000, 10**6, "cuda", BUDGET)
    assert gpu.widths == (2192, 4128, 6064)
    assert gpu.note == ""
    assert plan("corrected", 16, 112, 500, "cpu", BUDGET).epochs == 300  # 300 steps, one an epoch
    assert plan("corrected", 16, 112, 600, "cpu", BUDGET).epochs == 150  # two an epoch


@pytest.mark.parametrize(
    ("d", "genes", "cells"), [(256, 2000, 2500), (256, 14_000, 3000), (256, 8000, 100_000), (8000, 8000, 20_000)]
)
def test_plan_fits_a_cpu(d, genes, cells):
    paper, corrected = (plan(protocol, d, genes, cells, "cpu", BUDGET) for protocol in ("paper", "corrected"))
    assert paper == corrected
    assert "narrowed" in paper.note
    assert max(paper.widths) >= decoder.MIN_WIDTH
    assert paper.n_cells >= 2048
    small_enough = operations(d, genes, paper) <= 1.05 * BUDGET
    assert small_enough or paper.n_cells == 4 * decoder.BATCH


def test_narrowing_is_said_in_every_row(made):
    view, values = made
    scores = _scores(replace(view, embedding=_pca(view, values, d=60), protocol="paper", decoder_budget=1e9))
    assert all("narrowed to 32 hidden units" in score.reason for score in scores.values() if score.status == "ok")
    assert sum(score.status == "ok" for score in scores.values()) == 7


def test_batches_without_controls_are_left_out_and_counted(made):
    view, _ = made
    keep = np.flatnonzero(~((view.screen.batch == "5") & view.screen.is_control))
    scores = _scores(replace(view.take(keep), predictor="no_effect"))
    assert scores["structural_integrity"].value == 0.5
    assert scores["structural_integrity"].items.unit.tolist() == ["4"]
    assert "1 of 2 batches have no controls" in scores["si_effect"].reason
    assert scores["mse"].n == 2


def test_absent_with_a_reason(made):
    view, _ = made
    nothing = np.zeros(len(view.embedding), dtype=bool)
    perturbed = ~view.screen.is_control
    cases = {
        "no perturbed cell is in test2": replace(view.split, test2=nothing),
        "no control cell is in test2": replace(view.split, test2=view.split.test2 & perturbed),
        "no perturbed cell is in train": replace(view.split, train=nothing),
    }
    for reason, split in cases.items():
        scores = _scores(replace(view, split=split, predictor="no_effect"))
        assert {(s.status, s.reason) for s in scores.values()} == {("not_applicable", reason)}
    assert "unknown predictor" in _scores(replace(view, predictor="oracle"))["mse"].reason
    assert "none" in reconstruction.not_applicable({"has_controls": False, "n_perturbations": 9})
    assert "one perturbation" in reconstruction.not_applicable({"has_controls": True, "n_perturbations": 1})
    assert reconstruction.not_applicable({"has_controls": True, "n_perturbations": 2}) == ""


def _halves(view, seed):
    """The effects observed in two halves of the cells, perturbation by perturbation, and how they were parted."""
    parts = []
    for number in range(effect_agreement.DIVISIONS):
        part = by_cell(labels_of(view.screen), 2, seed_of(seed, f"halves {number}"))
        parts.append(part)
    return parts


def _effect(values, screen, cells, part, half):
    """Mean over cells of a perturbation in one half, less the mean control of the same half, by each cell's batch."""
    rows = [row for row in cells if part[row] == half]
    centres = [values[(screen.batch == screen.batch[row]) & screen.is_control & (part == half)].mean(axis=0) for row in rows]
    return values[rows].mean(axis=0) - np.mean(centres, axis=0)


def test_effects_of_halves_against_the_definition(made):
    view, values = made
    test = np.flatnonzero(view.split.test2)
    screen, truth = view.screen.take(test), values[test].astype(float)
    guess = 0.5 * truth + np.random.default_rng(0).normal(size=truth.shape)
    agreement = EffectAgreement(labels_of(screen), 42)
    for genes in (slice(0, 25), slice(25, 60)):
        agreement.add(truth[:, genes].T, guess[:, genes].T)
    pearson, distance, size, halves = ([[] for _ in agreement.names] for _ in range(4))
    for part in _halves(replace(view, screen=screen), 42):
        for p, name in enumerate(agreement.names):
            cells = np.flatnonzero(screen.perturbation == name)
            true, predicted = ([_effect(x, screen, cells, part, half) for half in (0, 1)] for x in (truth, guess))
            halves[p].append(np.corrcoef(*true)[0, 1])
            for one, other in ((0, 1), (1, 0)):
                pearson[p].append(np.corrcoef(predicted[one], true[other])[0, 1])
                distance[p].append(np.linalg.norm(predicted[one] - true[other]))
                size[p].append(np.linalg.norm(true[other]))
    assert agreement.pearson().value == pytest.approx(np.mean(pearson), abs=1e-9)
    assert agreement.integrity().value == pytest.approx(1 - np.mean(distance) / np.mean(size), abs=1e-9)
    assert agreement.pearson(ceiling=True).value == pytest.approx(np.mean(np.sqrt(np.mean(halves, axis=1))), abs=1e-9)
    assert agreement.halves_agree() == pytest.approx(np.mean(halves))


def _noisy(effect, sigma, n=40, k=24, genes=400, seed=0):
    """(labels, truth) of k perturbations with n cells each and n controls in two batches; effects known, normal noise."""
    rng = np.random.default_rng(seed)
    names = np.repeat([f"P{i:02d}" for i in range(k)] + ["ctrl"], n)
    shift = np.vstack([effect * rng.normal(size=(k, genes)), np.zeros((1, genes))])
    batch = np.arange(len(names)) % 2
    clean = np.repeat(shift, n, axis=0) + rng.normal(size=(2, genes))[batch]
    return view_of(np.zeros((len(names), 1)), names, batch).screen, clean + sigma * rng.normal(size=clean.shape), clean


@pytest.mark.parametrize(("effect", "sigma"), [(0.3, 1.5), (0.15, 1.5), (1.0, 0.5)])
def test_the_ceiling_is_what_the_exact_effect_reaches(effect, sigma):
    """Predicting the exact effect scores the ceiling, at any noise; half against half, twice the noise, scores below it."""
    screen, truth, clean = _noisy(effect, sigma)
    agreement = EffectAgreement(labels_of(screen), 42)
    agreement.add(truth.T, clean.T)
    for exact, ceiling in [
        (agreement.pearson(), agreement.pearson(ceiling=True)),
        (agreement.integrity(), agreement.integrity(ceiling=True)),
    ]:
        assert exact.value == pytest.approx(ceiling.value, abs=0.02)
        assert agreement.halves_agree() < agreement.pearson(ceiling=True).value


def test_no_effect_has_its_ceiling_at_the_floor_and_noise_rebuilt_is_worth_nothing():
    """Cells rebuilt exactly, noise included, know nothing of an effect that is not there; on the same cells they would."""
    found = []
    for seed in range(4):
        screen, truth, _ = _noisy(0.0, 1.0, seed=seed)
        agreement = EffectAgreement(labels_of(screen), 42)
        agreement.add(truth.T, truth.T)
        found.append(
            (agreement.pearson().value, agreement.pearson(ceiling=True).value, agreement.integrity(ceiling=True).value)
        )
        assert agreement.integrity().value < -0.3  # twice the noise
    np.testing.assert_allclose(np.mean(found, axis=0), 0, atol=0.05)


def test_the_best_prediction_of_cells_reaches_the_ceiling_of_their_counts(tmp_path):
    """Planted: rates of every cell are known, so is what the expectation of its expression scores."""
    view, _ = counts_view(tmp_path, n_cells=900, n_genes=80)
    rng, n = np.random.default_rng(1), 900
    for depth in (0.3, 3.0):
        rate = depth * np.exp(rng.normal(0, 0.7, 80) + rng.normal(0, 0.8, (n, 80)))
        table = ad.AnnData(sp.csr_matrix(rng.poisson(rate).astype(np.float32)))
        table.obs_names = view.screen.cell_id.astype(str)
        table.write_h5ad(tmp_path / f"counts{depth}.h5ad")
        again = replace(view, counts=tmp_path / f"counts{depth}.h5ad", predictor="split_half")
        ceiling = _scores(again)["si_effect"].value
        drawn = rng.poisson(rate, (60, n, 80))
        best = np.log1p(1e4 * drawn / np.maximum(drawn.sum(axis=2, keepdims=True), 1)).mean(axis=0)
        rows = np.flatnonzero(view.split.test2)
        rows = rows[np.argsort(view.screen.batch[rows], kind="stable")]
        sums = Reconstruction(view.screen.batch[rows], view.screen.is_control[rows])
        truth = read_expression(again.counts, rows, "counts").toarray()
        sums.add(truth.T, best[rows].T.astype(np.float32))
        # Spearman and Brown are exact where counts are 0 or 1, or large; between, the logarithm makes the ceiling a little high
        assert -0.01 < ceiling - sums.integrity(effect=True).value < 0.06, depth
        assert 0.1 < ceiling < 0.9


def test_halves_of_counts_are_independent_and_add_up():
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(8, (300, 50)).astype(np.float32))
    names = np.array([f"c{i}" for i in range(300)])
    one, other = count_halves(counts, names, 7)
    np.testing.assert_array_equal((one + other).toarray(), counts.toarray())
    assert one.sum() == pytest.approx(counts.sum() / 2, rel=0.01)
    assert abs(np.corrcoef(one.toarray().ravel(), other.toarray().ravel())[0, 1]) < 0.03  # Poisson with one rate
    order = np.random.default_rng(1).permutation(300)
    np.testing.assert_array_equal(count_halves(counts[order], names[order], 7)[0].toarray(), one.toarray()[order])
    assert (count_halves(counts, names, 8)[0] != one).nnz


def test_two_levels_of_one_screen(made):
    """Split halves know the mean effects, and nothing but their own counts of the cells; PCA knows the cells."""
    view, values = made
    ceiling = _scores(replace(view, predictor="split_half"))
    pca = _scores(replace(view, embedding=_pca(view, values)))
    nothing = _scores(replace(view, predictor="no_effect"))
    for metric in ("effect_pearson", "effect_integrity"):
        assert nothing[metric].value == 0
        assert nothing[metric].value < pca[metric].value < ceiling[metric].value
    assert nothing["si_effect"].value == 0
    assert 0 < pca["si_effect"].value < ceiling["si_effect"].value
    assert ceiling["mse"].status == "not_applicable"
    assert "correlate by" in ceiling["effect_pearson"].reason
    mean_effect = _scores(replace(view, predictor="mean_effect"))
    assert mean_effect["effect_pearson"].value < 0.5 * ceiling["effect_pearson"].value  # effects are unrelated here
    paper = _scores(replace(view, predictor="split_half", protocol="paper"))
    assert paper["effect_pearson"].reason == "not part of the paper's protocol"
    assert paper["mse"].status == "ok"


def test_values_that_are_no_counts_have_a_ceiling_of_effects_alone(made):
    view, _ = made
    screen = replace(view.screen, facts=view.screen.facts | {"x_kind": "log"})
    scores = _scores(replace(view, screen=screen, predictor="split_half"))
    assert scores["effect_pearson"].status == "ok"
    assert "not counts" in scores["si_effect"].reason
