"""The batch effect task: planted mixtures, items that add up, reasons."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from plumbline.data.splits import Split
from plumbline.metrics.lisi import ilisi_scib
from plumbline.scoring import sampling
from plumbline.scoring.screen import Screen, View
from plumbline.tasks import batch_effect


def view(shift: float = 0.0, n: int = 3000, n_batches: int = 4, test: np.ndarray | None = None, d: int = 10) -> View:
    random = np.random.default_rng(0)
    number = random.integers(0, n_batches, n)
    values = random.normal(size=(n, d)).astype(np.float32)
    values[:, :1] += np.float32(shift) * number[:, None]
    control = random.random(n) < 0.2
    screen = Screen(
        np.arange(n).astype(str),
        np.where(control, "non-targeting", "A"),
        control,
        np.array([f"batch{i}" for i in range(n_batches)])[number],
        pd.DataFrame(),
        {"has_batches": n_batches > 1, "n_batches": n_batches},
    )
    test = np.ones(n, bool) if test is None else test
    none = np.zeros(n, bool)
    return View(values, screen, Split(42, "batch", ~test, test, none, none), np.arange(n), "corrected", 42)


def values_of(scores) -> dict:
    return {score.metric: score.value for score in scores}


def test_every_metric_once():
    assert [score.metric for score in batch_effect.run(view())] == [m.name for m in batch_effect.TASK.metrics]
    assert batch_effect.TASK.metric(batch_effect.TASK.main_metric)


def test_mixed_batches_of_a_random_embedding():
    found = values_of(batch_effect.run(view()))
    assert found["ilisi_raw"] == pytest.approx(4, rel=0.1)
    assert found["ilisi_ratio"] == pytest.approx(1, abs=0.01)
    assert found["ilisi_scaled"] == pytest.approx(1, abs=0.13)
    assert found["ilisi_scib"] == pytest.approx(1, abs=0.25)  # a smaller neighbourhood: further below 1


def test_neighbours_that_are_equally_far_are_not_taken_in_the_order_of_ids():
    """Three distinct vectors that have nothing to do with the batch, cells named by their batch: all batches are mixed."""
    given = view(n=1600)
    order = np.argsort(given.screen.batch, kind="stable")
    kinds = np.eye(3, dtype=np.float32)[np.random.default_rng(1).integers(0, 3, 1600)]
    found = values_of(batch_effect.run(replace(given.take(order), embedding=kinds)))
    assert found["ilisi_ratio"] == pytest.approx(1, abs=0.03)
    assert found["ilisi_scib"] == pytest.approx(1, abs=0.15)


def test_separated_batches():
    found = values_of(batch_effect.run(view(shift=1000)))
    assert found["ilisi_raw"] == pytest.approx(1, abs=1e-9)
    assert found["ilisi_ratio"] == pytest.approx(1 / values_of(batch_effect.run(view()))["ilisi_raw"], rel=0.01)
    assert found["ilisi_scaled"] == pytest.approx(0, abs=1e-9)
    assert found["ilisi_scib"] == pytest.approx(0, abs=1e-9)


def test_the_attainable_maximum_is_said_where_perturbations_are_nested_in_batches():
    """Each of 4 batches holds a perturbation of its own; these lie apart, and the batches differ by nothing else."""
    random = np.random.default_rng(1)
    given = view(n=2000)
    batch = pd.factorize(given.screen.batch)[0]
    values = random.normal(size=(2000, 10)).astype(np.float32)
    values[:, 0] += 100 * np.where(given.screen.is_control, 0, batch + 1)
    nested = replace(given.screen, perturbation=np.where(given.screen.is_control, "ctrl", batch.astype(str)))
    scores = {score.metric: score for score in batch_effect.run(replace(given, embedding=values, screen=nested))}
    said = float(re.search(r"attainable maximum (0\.\d\d)", scores["ilisi_scaled"].reason)[1])
    controls = given.screen.is_control.mean()
    assert said == pytest.approx(controls * 0.95, abs=0.03)  # only the controls can mix
    assert scores["ilisi_scaled"].value == pytest.approx(said, abs=0.03)
    assert "attainable" not in {s.metric: s for s in batch_effect.run(given)}["ilisi_scaled"].reason


def test_items_add_up_by_batch():
    given = view(shift=1.0)
    scores = {score.metric: score for score in batch_effect.run(given)}
    for score in scores.values():
        assert score.value == pytest.approx(score.items.value)
        assert set(score.items.unit) == {f"batch{i}" for i in range(4)}
        assert score.items.denominator.sum() == score.n == 3000
    raw, scaled = scores["ilisi_raw"].value, scores["ilisi_scaled"].value
    assert scaled == pytest.approx((raw - 1) / 3)
    batch = pd.factorize(given.screen.batch)[0]
    assert scores["ilisi_scib"].value == pytest.approx((np.median(ilisi_scib(given.embedding, batch)) - 1) / 3, abs=1e-9)


def test_median_terms_have_the_spread_of_a_median():
    random = np.random.default_rng(0)
    medians = [np.median(random.gamma(2, size=2001)) for _ in range(400)]
    terms = batch_effect.median_terms(random.gamma(2, size=2001))
    assert terms.std() / np.sqrt(2001) == pytest.approx(np.std(medians), rel=0.15)


def test_only_test1_cells_are_scored_with_controls_and_k_shrinks():
    test = np.arange(3000) < 400
    scores = batch_effect.run(view(test=test))
    assert {score.n for score in scores} == {400}
    assert scores[0].reason == "k = 99"
    assert scores[3].reason == "k = 90"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (view(n_batches=1), "1 batch:"),
        (view(test=np.zeros(3000, bool)), "0 batches"),
        (view(test=np.arange(3000) < 20), "too few test cells"),
        (view(d=0), "no embedding"),
    ],
)
def test_reasons(given, reason):
    scores = batch_effect.run(given)
    assert [score.status for score in scores] == ["not_applicable"] * 4
    assert all(reason in score.reason for score in scores)


def test_not_applicable_without_batches():
    assert "no batches" in batch_effect.not_applicable({"has_batches": False, "n_batches": 1})
    assert batch_effect.not_applicable({"has_batches": True, "n_batches": 2}) == ""


def test_of_many_cells_some_are_asked_by_their_ids_and_the_row_says_so(monkeypatch):
    given = view(shift=1.0)
    whole = values_of(batch_effect.run(given))
    monkeypatch.setattr(sampling, "QUERIES", 800)
    monkeypatch.setattr(sampling, "BEYOND", {"corrected": 2000, "paper": 3000})
    found = {score.metric: score for score in batch_effect.run(given)}
    assert found["ilisi_scaled"].reason.startswith("k = 251, around 800 of 3,000 cells")
    assert found["ilisi_scib"].reason == "k = 90, around 800 of 3,000 cells"
    for metric, score in found.items():
        assert score.n == score.items.denominator.sum() == 800
        assert score.value == pytest.approx(whole[metric], abs=0.03), metric
    for of in (replace(given, exact=True), replace(given, protocol="paper")):
        assert values_of(batch_effect.run(of)) == whole
    monkeypatch.setattr(sampling, "BEYOND", {"paper": 2999})  # so many that the paper's recipe would take hours
    assert "around 800 of 3,000 cells" in batch_effect.run(replace(given, protocol="paper"))[0].reason


def test_the_cells_asked_do_not_depend_on_the_order_of_the_file(monkeypatch):
    monkeypatch.setattr(sampling, "QUERIES", 800)
    monkeypatch.setattr(sampling, "BEYOND", {"corrected": 800})
    given = view(shift=1.0)
    order = np.random.default_rng(2).permutation(3000)
    asked, cells = [], np.arange(3000)
    for of in (given, given.take(order)):
        asked.append(set(of.screen.cell_id[sampling.asked(of, cells, "iLISI")[0]]))
    assert len(asked[0]) == 800
    assert asked[0] == asked[1]
