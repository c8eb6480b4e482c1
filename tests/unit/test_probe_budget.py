"""The probe within a budget against the recipe itself, and when which of them is trained."""

import numpy as np
import pytest
from test_probe import classes

from plumbline.metrics import probe, probe_budget
from plumbline.metrics.probe import fit_linear, paper_schedule
from plumbline.metrics.probe_budget import fit, plan
from plumbline.metrics.rows import Rows


@pytest.mark.parametrize("protocol", ["paper", "corrected"])
@pytest.mark.parametrize(("n", "d", "n_classes"), [(2_000, 256, 100), (98_000, 256, 300)])
def test_up_to_a_hundred_thousand_cells_nothing_is_cut(protocol, n, d, n_classes):
    how = plan(protocol, n, d, n_classes)
    assert (how.cells, how.merged) == (0, 1)
    assert how.note == f"{how.schedule.epochs} epochs of minibatches of {how.schedule.batch}"


@pytest.mark.parametrize("protocol", ["paper", "corrected"])
@pytest.mark.parametrize("n", [490_000, 970_000])
def test_the_papers_data_stay_within_the_budget_and_the_note_says_how(protocol, n):
    how = plan(protocol, n, 256, 6_905)
    updates = how.schedule.epochs * probe.n_steps(n, how.schedule) // how.merged
    spent = updates * how.cells * probe_budget.operations(256, 6_905)
    assert 0.9 * probe_budget.OPERATIONS < spent <= probe_budget.OPERATIONS
    assert updates >= probe_budget.FEWEST_UPDATES
    assert f"softmax over {how.cells} cells of each" in how.note
    assert (f"{updates} updates at {how.merged} times the rate" in how.note) == (how.merged > 1)


def test_neither_on_a_gpu_nor_when_exact_is_anything_cut():
    assert not plan("paper", 970_000, 256, 6_905, device="cuda").cells
    assert not plan("paper", 970_000, 256, 6_905, exact=True).cells


@pytest.mark.parametrize("protocol", ["paper", "corrected"])
def test_a_tenth_of_the_operations_costs_less_accuracy_than_other_test_cells_would(protocol, monkeypatch):
    (values, code), (test, test_code) = classes(4_000, 32, 100, 0.4), classes(8_000, 32, 100, 0.4, seed=1)
    monkeypatch.setattr(probe, "FULL_BATCH", 800)  # 5 minibatches, 1,250 updates
    whole = plan(protocol, len(code), 32, 100)
    updates = whole.schedule.epochs * probe.n_steps(len(code), whole.schedule)
    asked = updates * whole.schedule.batch * probe_budget.operations(32, 100)
    monkeypatch.setattr(probe_budget, "OPERATIONS", asked / 10)
    monkeypatch.setattr(probe_budget, "FEWEST_CELLS", 16)
    cut = plan(protocol, len(code), 32, 100)
    assert cut.cells <= whole.schedule.batch / 4
    exact, near = ((fit(values, code, 100, how, 0).ranks(test, test_code) < 1).mean() for how in (whole, cut))
    standard_error = np.sqrt(exact * (1 - exact) / len(test))
    assert 0.2 < exact < 0.8
    assert near == pytest.approx(exact, abs=2 * standard_error)


def test_all_cells_of_each_minibatch_are_the_recipe_but_for_the_draw_of_the_minibatches():
    values, code = classes()
    how = probe_budget.ProbePlan(schedule=paper_schedule(600), cells=600)
    ours, recipe = fit(values, code, 12, how, 3), fit_linear(values, code, 12, how.schedule, 3)
    np.testing.assert_allclose(ours.weight, recipe.weight, atol=1e-4)
    np.testing.assert_allclose(ours.bias, recipe.bias, atol=1e-4)


def test_class_means_that_do_not_fit_are_taken_as_they_come(monkeypatch):
    values, code = classes(signal=0.5)
    how = probe_budget.ProbePlan(schedule=probe.Schedule(64, 40), cells=16)
    kept = fit(values, code, 12, how, 0).ranks(values, code) < 1
    monkeypatch.setattr(probe_budget, "_SUMS", 0)
    passing = fit(values, code, 12, how, 0).ranks(values, code) < 1
    assert passing.mean() == pytest.approx(kept.mean(), abs=0.05)


def test_a_gradient_in_blocks_of_rows_of_a_source_is_the_gradient(monkeypatch):
    values, code = classes()
    whole = fit_linear(values, code, 12, probe.Schedule(256, 10), 0)
    monkeypatch.setattr(probe, "LOGITS", 12 * 50)
    monkeypatch.setattr(probe, "fits", lambda values: False)  # as if the cells did not fit in memory
    for schedule, expected in ((probe.Schedule(256, 10), whole), (probe.Schedule(600, 10), None)):
        expected = expected or fit_linear(values, code, 12, schedule, 0)
        blocks = fit_linear(Rows(values), code, 12, schedule, 0)
        np.testing.assert_allclose(blocks.weight, expected.weight, atol=1e-6)


def test_a_class_that_is_not_met_for_long_stays_a_number():
    """Its sums underflow to zero: 0 / 0 would spread through all weights."""
    known = probe_budget._Known(3, cells=60)
    for _ in range(20_000):
        known.add(np.array([0, 1]), np.array([0.5, 0.25]))
    assert known.count[2] == 0
    np.testing.assert_allclose(known.share(), [0.5, 0.25, 0.0], rtol=1e-5)
