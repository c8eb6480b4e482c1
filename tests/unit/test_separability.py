"""The separability task and its AUROC: planted classes, scikit-learn, chance, items and reasons."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_screens import subject_of
from sklearn.covariance import oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from plumbline.data.splits import make_split
from plumbline.metrics import control_auroc as auroc
from plumbline.metrics import neighbours, probe_budget, rows
from plumbline.metrics.control_auroc import Cells, control_auroc
from plumbline.scoring import evaluation, sampling
from plumbline.scoring.protocol import POSTPROCESSINGS
from plumbline.scoring.records import Task
from plumbline.scoring.screen import Screen, View
from plumbline.tasks import separability

ACCURACIES = ("linear_top1", "linear_top5", "linear_balanced", "knn_top1", "knn_top5")


def view(signal=1.0, n=2000, d=20, n_perturbations=20, n_batches=6, share=0.2, seed=0) -> View:
    random = np.random.default_rng(seed)
    control = random.random(n) < share
    code, number = random.integers(0, n_perturbations, n), random.integers(0, n_batches, n)
    effects = random.normal(size=(n_perturbations, d)) * signal
    values = random.normal(size=(n, d)) + np.where(control[:, None], 0, effects[code])
    values = (values + 3 * random.normal(size=(n_batches, d))[number]).astype(np.float32)
    name = np.array([f"gene{i}" for i in range(n_perturbations)])[code]
    batch = np.array([f"batch{i}" for i in range(n_batches)])[number]
    name = np.where(control, "non-targeting", name)
    facts = {"n_perturbations": n_perturbations, "has_controls": bool(control.any()), "n_batches": n_batches}
    screen = Screen(np.arange(n).astype(str), name, control, batch, pd.DataFrame(), facts)
    split = make_split(name, control, batch, 42, "batch" if n_batches > 1 else "cell")
    return View(values, screen, split, np.arange(n), "corrected", 42)


def scores(given: View) -> dict:
    return {score.metric: score for score in separability.run(given)}


@pytest.mark.parametrize("protocol", ["paper", "corrected"])
def test_every_metric_once(protocol):
    found = separability.run(replace(view(), protocol=protocol))
    assert {score.metric for score in found} == {m.name for m in separability.TASK.metrics}
    assert len(found) == len(separability.TASK.metrics)


def test_perfect_labels():
    found = scores(view(signal=30))
    assert {metric: found[metric].value for metric in ACCURACIES} == dict.fromkeys(ACCURACIES, 1.0)
    assert found["auroc_control"].value == 1


def test_random_embedding_is_at_chance():
    found = scores(view(signal=0, n=8000))
    classes = 14  # 70 % of 20
    for metric, chance in (("linear_top1", 1), ("linear_balanced", 1), ("knn_top1", 1), ("linear_top5", 5), ("knn_top5", 5)):
        assert found[metric].value == pytest.approx(chance / classes, abs=0.02 * chance**0.5), metric
    assert found["auroc_control"].value == pytest.approx(0.5, abs=0.02)


def evaluate(given: View, task: Task) -> list[evaluation.Row]:
    return evaluation.evaluate(subject_of(given), task, [given.split], ["corrected"])


def test_no_alignment_on_controls_makes_noise_differ_from_them(monkeypatch):
    """300 controls in 256 dimensions: compared with the controls that fitted TVN, noise has an AUROC of 0.58."""
    for part in ("_linear", "_knn"):
        monkeypatch.setattr(separability, part, lambda view, values: [])
    task = replace(separability.TASK, choose_main=lambda facts: "auroc_control")
    found = []
    for seed in range(8):
        given = view(signal=0, n=3000, d=256, share=0.1, n_batches=3, seed=seed)
        rows = evaluate(given, task)
        found += [{"postprocess": row.postprocess, "seed": seed, "value": row.score.value} for row in rows]
    means = pd.DataFrame(found).groupby("postprocess")["value"].mean()
    assert set(means.index) == {*POSTPROCESSINGS, "selected"}
    assert means.drop("selected").to_numpy() == pytest.approx(0.5, abs=0.04)  # four standard errors


def test_cells_in_another_order_are_the_same_cells():
    given = view(signal=0.5, n=1200, d=8, n_batches=5)
    order = np.random.default_rng(4).permutation(1200)

    def scored(of: View) -> list:
        rows = evaluate(of, separability.TASK)
        return [(row.postprocess, row.score.metric, row.score.value, row.score.reason) for row in rows]

    assert scored(given.take(order)) == scored(given)


def test_controls_of_several_labels_are_one_class_of_knn():
    given = replace(view(signal=0.5, share=0.4), protocol="paper")
    labels = given.screen.perturbation.astype(object)
    labels[given.screen.is_control] = [f"non-targeting {k % 5}" for k in range(given.screen.is_control.sum())]
    several = scores(replace(given, screen=replace(given.screen, perturbation=labels)))
    for metric, score in scores(given).items():
        assert several[metric].value == score.value or np.isnan(score.value)
    assert len(several["knn_top1"].items.unit) == len(scores(given)["knn_top1"].items.unit)


def test_paper_keeps_the_controls_in_knn_only():
    given = replace(view(signal=0, share=0.6, n=4000), protocol="paper")
    found = scores(given)
    test = given.split.test1
    share = given.screen.is_control[test].mean()
    assert found["knn_top1"].value == pytest.approx(share, abs=0.01)  # the majority class, as the protocol says
    assert found["knn_top1"].n == test.sum()
    assert found["linear_top1"].n == (test & ~given.screen.is_control).sum()
    assert "non-targeting" in found["knn_top1"].items.unit
    assert "non-targeting" not in found["linear_top1"].items.unit
    assert found["knn_top1"].reason == "k = 251"
    assert found["auroc_control"].status == "not_applicable"


def test_corrected_does_not_see_the_scale_of_features():
    given = view(signal=0.7)
    scaled = replace(given, embedding=given.embedding * np.float32([1000] * 10 + [0.001] * 10))
    a, b = scores(given), scores(scaled)
    for metric in [m.name for m in separability.TASK.metrics]:
        assert a[metric].value == pytest.approx(b[metric].value, abs=0.01), metric


def test_items_add_up_and_balanced_is_their_mean():
    found = scores(view(signal=0.7))
    for metric, score in found.items():
        assert score.value == pytest.approx(score.items.value), metric
        assert score.items.kind == "perturbation"
    top1, balanced = found["linear_top1"].items, found["linear_balanced"]
    assert balanced.value == pytest.approx(np.mean(top1.numerator / top1.denominator))
    np.testing.assert_array_equal(balanced.items.extra["n_cells"], top1.denominator)
    assert found["auroc_control"].n == len(found["auroc_control"].items.unit) == 14


def test_one_perturbation_is_scored_by_auroc_alone():
    given = view(signal=3, n_perturbations=1, n_batches=1, share=0.5)
    found = scores(given)
    assert separability.main_metric(given.screen.facts) == "auroc_control"
    assert found["auroc_control"].value > 0.99
    for metric in ACCURACIES:
        assert (found[metric].status, found[metric].reason[:14]) == ("not_applicable", "1 perturbation")


def test_main_metric_follows_the_train_perturbations():
    assert [separability.main_metric({"n_perturbations": n}) for n in (1, 2, 3, 9)] == ["auroc_control"] * 2 + [
        "linear_top1"
    ] * 2


def test_top5_of_five_classes_is_not_reported():
    found = scores(view(n_perturbations=7))  # 4 for training
    assert "4 classes" in found["linear_top5"].reason
    assert "4 classes" in found["knn_top5"].reason
    assert found["linear_top1"].status == "ok"


def test_reasons():
    assert {s.reason for s in separability.run(view(d=0))} == {"the model gives no embedding"}
    assert "no controls" in scores(view(share=0))["auroc_control"].reason
    facts = {"n_perturbations": 1, "has_controls": False}
    assert "nothing to tell apart" in separability.not_applicable(facts)
    assert separability.not_applicable({**facts, "has_controls": True}) == ""
    assert separability.not_applicable({**facts, "n_perturbations": 5}) == ""
    assert "no perturbed cells" in separability.not_applicable({**facts, "n_perturbations": 0})
    few = view(n=400, n_perturbations=100)
    assert "fewer than 3 comparable cells" in scores(few)["auroc_control"].reason


def test_test_cells_do_not_teach_the_probe_and_probes_are_kept(monkeypatch):
    given = view(signal=0.7)
    whole = scores(given)["linear_top1"]
    monkeypatch.setattr(separability, "fit", None)  # the same train cells: not fitted again
    half = scores(replace(given, split=replace(given.split, test1=given.split.test1 & given.split.validation)))["linear_top1"]
    assert 0 < half.n < whole.n
    with pytest.raises(TypeError):
        scores(replace(given, embedding=given.embedding[::-1]))


def test_auroc_against_scikit_learn():
    """One test batch's fold at a time: sklearn's LDA direction on the other cells, roc_auc_score within the batch."""
    random = np.random.default_rng(3)
    n, d = 900, 6
    batch, code = random.integers(0, 4, n), random.integers(-1, 1, n)
    values = (random.normal(size=(n, d)) @ random.normal(size=(d, d)) + (code == 0)[:, None] * 0.6).astype(np.float32)
    test = batch > 1  # two test batches: two folds
    found, count = control_auroc(Cells(values, code, batch, test), 1, 0)

    def aligned(rows):
        return values[rows] - np.stack([values[rows & (batch == b) & (code < 0)].mean(axis=0) for b in batch[rows]])

    train = aligned(~test)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=_shrinkage(train, code[~test])).fit(train, code[~test])
    total = 0.0
    for held_out in (2, 3):
        fit, rows = batch != held_out, batch == held_out
        w = np.linalg.solve(lda.covariance_ * len(train) / (len(train) - 2), aligned(fit)[code[fit] == 0].mean(axis=0))
        total += roc_auc_score(code[rows] == 0, values[rows] @ w) * (rows & (code == 0)).sum()
    assert count[0] == (test & (code == 0)).sum()
    assert found[0] == pytest.approx(total / count[0], abs=2e-3)


def test_auroc_where_every_batch_is_tested_is_of_a_classifier_of_the_others(monkeypatch):
    """Five batches, all of them test batches: an effect that is small beside what all cells have in common is found by linear
    discriminant analysis (at most 0.943), as where there are train batches, and not by the difference of means alone."""
    random = np.random.default_rng(0)
    n, d = 2400, 20
    batch, code = random.integers(0, 5, n), random.integers(-1, 1, n)
    effect = np.full(d, 0.5)  # |effect| = sqrt(5)
    values = 6 * random.normal(size=(n, 3)) @ random.normal(size=(3, d)) + random.normal(size=(n, d))
    values = (values + (code == 0)[:, None] * effect).astype(np.float32)
    whole = Cells(values, code, batch, np.ones(n, dtype=bool))
    shared = control_auroc(replace(whole, test=batch > 2), 1, 0)[0]
    assert control_auroc(whole, 1, 0)[0] == pytest.approx(shared, abs=0.02)
    assert control_auroc(whole, 1, 0)[0] > 0.9
    for name, value in (("MAX_DIMENSIONS", 19), ("WIDE", 1000)):  # of large screens principal components: of the others, too
        monkeypatch.setattr(auroc, name, value)
    assert 0.8 < control_auroc(whole, 1, 0)[0] < 1


def _shrinkage(values, code):
    residual = values - np.stack([values[code == c].mean(axis=0) for c in code])
    return auroc.shrinkage(residual.T @ residual / (len(values) - 2), len(values) - 2)


def test_shrinkage_against_scikit_learn():
    values = np.random.default_rng(0).normal(size=(50, 30)) * np.linspace(1, 4, 30)
    assert auroc.shrinkage(values.T @ values / 50, 50) == pytest.approx(oas(values, assume_centered=True)[1])


def test_a_batch_effect_is_no_perturbation_effect():
    random = np.random.default_rng(0)
    n = 3000
    batch = random.integers(0, 10, n)
    code = np.where(random.random(n) < 0.1 + 0.8 * (batch % 2), 0, -1)  # nine tenths of odd batches, a tenth of even ones
    values = (random.normal(size=(n, 5)) + 10 * (batch % 2)[:, None]).astype(np.float32)
    found, _ = control_auroc(Cells(values, code, batch, batch > 5), 1, 0)
    assert found[0] == pytest.approx(0.5, abs=0.05)
    assert roc_auc_score(code == 0, values[:, 0]) > 0.85  # what a pooled comparison would say


def test_batches_without_controls_are_left_out():
    given = view(signal=1)
    bare = np.unique(given.screen.batch[given.split.test1])[0]
    rows = np.flatnonzero(~(given.screen.is_control & (given.screen.batch == bare)))
    found = scores(given.take(rows))["auroc_control"]
    rest = given.split.test1 & ~given.screen.is_control & (given.screen.batch != bare)
    assert found.items.extra["n_cells"].sum() == rest.sum()


def test_wide_embeddings_of_many_cells_are_reduced_and_the_row_says_so_and_controls_are_sampled(monkeypatch):
    given = view(signal=1)
    full = scores(given)["auroc_control"]
    for module in (auroc, separability):
        monkeypatch.setattr(module, "MAX_DIMENSIONS", 15)
    assert scores(given)["auroc_control"].value == full.value  # of few cells all dimensions are taken
    monkeypatch.setattr(auroc, "WIDE", given.embedding.shape[1] * 100)
    assert scores(replace(given, exact=True))["auroc_control"].value == full.value
    reduced = scores(given)["auroc_control"]
    assert reduced.reason == f"15 principal components of {given.embedding.shape[1]} dimensions"
    assert reduced.value == pytest.approx(full.value, abs=0.05)
    monkeypatch.setattr(auroc, "MAX_CONTROLS", 30)
    assert scores(given)["auroc_control"].value == pytest.approx(full.value, abs=0.05)


def test_the_units_of_a_single_perturbation_are_batches():
    """A thousand cells of two patients are two patients."""
    given = view(signal=1)
    single = given.screen.perturbation == given.screen.perturbation[~given.screen.is_control][0]
    given = given.take(np.flatnonzero(single | given.screen.is_control))
    found = scores(given)["auroc_control"]
    scored = given.split.test1 & ~given.screen.is_control
    assert found.items.kind == "batch"
    assert sorted(found.items.unit) == sorted(np.unique(given.screen.batch[scored]))
    assert found.items.denominator.sum() == found.n == scored.sum()
    assert 0.5 < found.value <= 1


def test_of_many_test_cells_some_look_for_their_neighbours_and_the_row_says_so(monkeypatch):
    given = view(signal=0.5, n=6000)
    whole = scores(given)
    monkeypatch.setattr(sampling, "QUERIES", 500)
    monkeypatch.setattr(sampling, "BEYOND", {"corrected": 500, "paper": 6000})
    found, n = scores(given), whole["knn_top1"].n
    assert found["knn_top1"].reason == f"{whole['knn_top1'].reason}, 500 of {n:,} test cells"
    assert found["knn_top1"].n == found["knn_top5"].n == 500
    for metric in ("knn_top1", "knn_top5"):
        assert found[metric].value == pytest.approx(whole[metric].value, abs=2 * 0.5 / np.sqrt(500))
    assert found["linear_top1"].value == whole["linear_top1"].value
    for of in (replace(given, exact=True), replace(given, protocol="paper")):
        assert "test cells" not in scores(of)["knn_top1"].reason


def test_a_probe_cut_to_its_budget_says_so_and_exact_cuts_nothing(monkeypatch):
    monkeypatch.setattr(probe_budget, "OPERATIONS", 1e8)
    given = view(signal=0.7)
    assert ", cut to fit a CPU: softmax over " in scores(given)["linear_top1"].reason
    assert "cut" not in scores(replace(given, exact=True))["linear_top1"].reason


@pytest.mark.parametrize("d", [20, 40])
def test_cells_that_do_not_fit_in_memory_give_the_same_scores(d, monkeypatch):
    given = view(signal=0.5, d=d)
    monkeypatch.setattr(auroc, "MAX_DIMENSIONS", 30)
    monkeypatch.setattr(auroc, "WIDE", 0)
    whole = scores(given)
    monkeypatch.setattr(rows, "HELD", 4000)
    for module in (rows, neighbours):
        monkeypatch.setattr(module, "READ", 1000)
    monkeypatch.setattr(auroc, "CELLS", 4000)
    for metric, score in scores(given).items():
        assert score.value == pytest.approx(whole[metric].value, abs=2e-3), metric
