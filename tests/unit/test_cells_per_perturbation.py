"""Scores by cells per perturbation: draws that use each cell once, the fit on planted curves, screens with known answers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_screens import subject_of, view_of
from scipy.optimize import curve_fit

from plumbline.common.errors import NotApplicable
from plumbline.data.splits import make_split
from plumbline.experiments.cells_per_perturbation import MIN_CELLS, SHARES, curve, quarters, rows_of
from plumbline.experiments.plateau import LARGEST, fit, plateau
from plumbline.report.experiments.cells_per_perturbation import number_of_cells
from plumbline.scoring.evaluation import evaluate, score_under
from plumbline.tasks import batch_effect, geometry, magnitude, map, retrieval

DEPTHS = np.array(SHARES)


def scored(advantage: float, k: float, n: float = 100.0, floor: float = 0.1) -> np.ndarray:
    return floor + advantage * n * DEPTHS / (n * DEPTHS + k)


def with_noise(values: np.ndarray, sd: float, n_boot: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values that were measured with a noise of their own, and draws about them."""
    rng = np.random.default_rng(seed)
    measured = values + rng.normal(0, sd, 3)
    return measured, measured + rng.normal(0, sd, (n_boot, 3))


def test_the_fit_is_least_squares():
    """As scipy's on noisy curves; exactly the parameters of a curve without noise."""
    a, ratio, left = fit(DEPTHS, scored(0.5, 40)[None] - 0.1)
    assert a[0] == pytest.approx(0.5, rel=5e-3)
    assert ratio[0] == pytest.approx(0.4, rel=0.02)
    assert np.abs(left).max() < 1e-3
    noisy = scored(0.5, 40) + np.array([0.01, -0.02, 0.01])
    oracle, _ = curve_fit(lambda x, a, k: a * x / (x + k), DEPTHS, noisy - 0.1, p0=(0.4, 0.3))
    a, ratio, _ = fit(DEPTHS, noisy[None] - 0.1)
    np.testing.assert_allclose((a[0], ratio[0]), oracle, rtol=0.03)


def test_what_is_planted_is_found_and_its_interval_holds_it():
    """k of 100, of 25 and of 2 cells at 100 cells: half, 80 % and 98 % attained; 900, 225 and 18 cells for 90 %."""
    words = {100: "more cells help", 25: "more cells help", 2: "enough cells"}
    for k, word in words.items():
        found = plateau(DEPTHS, *with_noise(scored(0.5, k), 0.002), 0.1, 100, 40)
        assert found.verdict == word
        assert found.value.low <= 0.6 <= found.value.high
        assert found.attained.low <= 100 / (100 + k) <= found.attained.high
        assert found.cells.low <= 9 * k <= found.cells.high


def test_intervals_hold_the_plateau_as_often_as_they_say():
    """Of 200 noisy curves 95 % within the binomial's bounds (185 to 197), a little more where k meets its limit 0."""
    for k in (60, 20):
        found = [plateau(DEPTHS, *with_noise(scored(0.5, k), 0.01, seed=seed), 0.1, 100, 40).value for seed in range(200)]
        assert 183 <= sum(one.low <= 0.6 <= one.high for one in found) <= 199


def test_a_learning_curve_may_be_slower():
    """A curve in the square root of n, 80 % attained: the faster form alone would call it nearly done."""
    root = np.sqrt(DEPTHS)
    values, drawn = with_noise(0.1 + 0.5 * root / (root + 0.25), 0.002)
    fast, both = (plateau(DEPTHS, values, drawn, 0.1, 100, 40, trains=trains) for trains in (False, True))
    assert fast.attained.low > 0.85
    assert both.attained.low <= 0.8 <= both.attained.high
    assert both.value.low <= 0.6 <= both.value.high
    assert both.cells.low <= 100 * (9 * 0.25) ** 2 <= both.cells.high
    flat = plateau(DEPTHS, *with_noise(np.full(3, 0.6), 0.003), 0.1, 100, 40, trains=True)
    assert flat.verdict == "enough cells"


def test_a_flat_curve_has_enough_cells():
    assert plateau(DEPTHS, *with_noise(np.full(3, 0.6), 0.003), 0.1, 100, 40).verdict == "enough cells"


def test_noise_says_nothing():
    found = plateau(DEPTHS, *with_noise(scored(0.5, 10), 0.08), 0.1, 100, 40)
    assert found.verdict == "cannot tell"


def test_a_straight_line_has_no_plateau_but_more_cells_help():
    found = plateau(DEPTHS, *with_noise(0.1 + 0.3 * DEPTHS, 0.003), 0.1, 100, 40)
    assert found.verdict == "more cells help"
    assert "no plateau in sight" in found.reason
    assert np.isnan(found.value.value)
    assert fit(DEPTHS, 0.3 * DEPTHS[None])[1][0] == pytest.approx(LARGEST)


@pytest.mark.parametrize(
    ("values", "units", "reason"),
    [
        ([0.3, 0.55, 0.5], 40, "does not have the form"),
        ([0.5, 0.45, 0.4], 40, "falls with more cells"),
        ([0.1, 0.1, 0.1], 40, "not above the floor"),
        ([0.3, 0.4, 0.45], 7, "7 units scored"),
    ],
)
def test_what_the_form_cannot_describe_is_refused(values, units, reason):
    found = plateau(DEPTHS, *with_noise(np.array(values), 0.003), 0.1, 100, units)
    assert found.verdict == "no estimate"
    assert reason in found.reason


def screen_of(effect: float, n: int = 24, n_perturbations: int = 30, seed: int = 0, spared: int = 0):
    """(subject, split): effects of this length in 16 dimensions, unit noise per cell, 6 batches. spared: a perturbation's
    cells beyond so many are left out."""
    rng = np.random.default_rng(seed)
    which = np.r_[np.repeat(np.arange(n_perturbations), n), np.full(180, n_perturbations)]
    effects = np.r_[effect * rng.normal(size=(n_perturbations, 16)) / 4, np.zeros((1, 16))]
    batch = np.arange(len(which)) % 6
    cells = effects[which] + 0.3 * rng.normal(size=(6, 16))[batch] + rng.normal(size=(len(which), 16))
    names = np.array([*(f"P{i:02d}" for i in range(n_perturbations)), "ctrl"])[which]
    keep = (which != 0) | (np.arange(len(which)) < spared) if spared else np.ones(len(which), bool)
    view = view_of(cells[keep], names[keep], batch[keep])
    split = make_split(view.screen.perturbation, view.screen.is_control, view.screen.batch, 42, "batch")
    return subject_of(view), split


def test_quarters_part_every_perturbation_batch_by_batch():
    subject, _ = screen_of(1.0, n=24, spared=MIN_CELLS - 1)
    quarter = quarters(subject.screen, 42)
    assert (quarter[subject.screen.is_control] == -1).all()
    assert (quarter[subject.screen.perturbation == "P00"] == -2).all()
    cells = pd.DataFrame({"p": subject.screen.perturbation, "b": subject.screen.batch, "q": quarter})[quarter >= 0]
    assert (cells.groupby(["p", "q"]).size() == 6).all()
    assert cells.groupby(["p", "b"])["q"].nunique().min() == 4
    few = screen_of(1.0, n=18)[0].screen  # three cells in a batch: no quarter, and no half, lacks the same batch everywhere
    mine = pd.DataFrame({"b": few.batch, "q": quarters(few, 42)})[~few.is_control]
    assert (mine.groupby(["q", "b"]).size() > 10).all()
    assert (mine.groupby([mine["q"] % 2, "b"]).size() > 30).all()
    order = np.random.default_rng(0).permutation(len(quarter))
    np.testing.assert_array_equal(quarters(subject.screen.take(order), 42), quarter[order])
    assert (quarters(subject.screen, 43) != quarter).any()


def test_the_whole_is_the_score_of_the_task_itself():
    subject, split = screen_of(1.5)
    found = curve(subject, retrieval.TASK, split)
    rows = [row for row in evaluate(subject, retrieval.TASK, [split], ["corrected"]) if row.score.metric == "retrieval_pds"]
    chosen = next(row.score for row in rows if row.postprocess == "selected")
    assert found.items[-1].value == pytest.approx(chosen.value)
    assert chosen.reason.startswith(found.method)
    again = score_under(subject.view(split, "corrected"), retrieval.TASK, found.method)
    assert next(score.value for score in again if score.metric == "retrieval_pds") == pytest.approx(chosen.value)
    assert len({tuple(items.unit) for items in found.items}) == 1


def test_a_screen_that_needs_cells_and_one_that_does_not():
    """The first attains at 16 times the cells what its curve says; the second is there already."""
    weak, split = screen_of(1.0, n=24)
    rows = list(rows_of(curve(weak, retrieval.TASK, split), 400, 0))
    end, large = rows[-1], screen_of(1.0, n=24 * 16)
    assert end["verdict"] == "more cells help"
    values = [row["value"] for row in rows[:3]]
    assert values == sorted(values)
    truth = next(s.value for s in score_under(large[0].view(large[1], "corrected"), retrieval.TASK, "center") if
                 s.metric == "retrieval_pds")  # fmt: skip
    assert truth > rows[2]["value"] + 0.1
    assert end["ci_low"] <= truth <= end["ci_high"]
    strong, split = screen_of(4.0, n=24)
    assert list(rows_of(curve(strong, retrieval.TASK, split), 400, 0))[-1]["verdict"] == "enough cells"


def test_a_floor_that_theory_does_not_give_is_measured():
    subject, split = screen_of(2.0, n=24)
    found = curve(subject, map.TASK, split)
    assert 0 < found.floor < found.items[-1].value


def test_a_score_of_pure_noise_gets_no_plateau():
    subject, split = screen_of(0.0)
    rows = list(rows_of(curve(replace(subject, n_draws=99), magnitude.TASK, split), 200, 0))
    assert rows[-1]["verdict"] == "no estimate"
    assert rows[-1]["reason"] == "with all cells, the score is not above the floor"


def test_what_has_no_curve_says_so():
    subject, split = screen_of(1.0, n=12)
    with pytest.raises(NotApplicable, match="0 perturbations with 16 cells or more; 8 are needed"):
        curve(subject, retrieval.TASK, split)
    for task in (geometry.TASK, batch_effect.TASK):
        with pytest.raises(NotApplicable, match="in common"):
            curve(subject, task, split)


def test_numbers_of_cells_in_words():
    assert number_of_cells(40, 24) == "about 40 cells"
    assert number_of_cells(400, 24) == "more than 96 cells"
    assert number_of_cells(2, 24) == "fewer than 6 cells"
