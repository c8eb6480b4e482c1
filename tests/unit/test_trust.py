"""Intervals and verdicts hold their level: what units share is known, and a small version of benchmarks/trust.py."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import binom

from plumbline import tasks
from plumbline.metrics.influence import bh_threshold, control_group, influence_of_controls, influence_on_share
from plumbline.scoring.choice import best_of, chances, name_of_choice, with_choice
from plumbline.scoring.evaluation import Row
from plumbline.scoring.scores import Items, Score
from plumbline.scoring.stats import bh
from plumbline.scoring.writing import write_rows
from plumbline.summary.contest import Contest
from plumbline.summary.items import ItemTable

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import trust

TRUST = Path(trust.__file__).with_name("trust.md")


def test_influence_of_a_control_is_what_its_weight_changes():
    rng = np.random.default_rng(0)
    wanted, starts = np.array([4, 3]), np.array([0, 12, 20])
    x = rng.normal(size=(20, 5))
    others, pull = influence_of_controls(cdist(x, x), wanted, starts)
    cells = np.setdiff1d(np.arange(20), others)
    assert cells.tolist() == [0, 1, 2, 3, 12, 13, 14]

    def distance(weight):
        y = x[others]
        return (2 * cdist(x[cells], y).mean(axis=0) @ weight - cdist(x[cells], x[cells]).mean()
                - weight @ cdist(y, y) @ weight)  # fmt: skip

    even = np.full(len(others), 1 / len(others))
    for stratum in (np.arange(8), np.arange(8, 13)):  # the controls of either batch: one weighs more, all of its batch less
        for control in stratum:
            more = even.copy()
            more[control] += 1e-6
            more[stratum] -= 1e-6 / len(stratum)
            assert pull[control] * len(others) == pytest.approx((distance(more) - distance(even)) / 1e-6, abs=1e-4)


def test_groups_of_controls_do_not_depend_on_the_order_or_company():
    ids, control = np.array([f"cell{i}" for i in range(200)]), np.arange(200) % 2 == 0
    found = control_group(ids, control)
    np.testing.assert_array_equal(control_group(ids[::-1], control[::-1])[::-1], found)
    np.testing.assert_array_equal(control_group(ids[:50], control[:50]), found[:50])
    assert not found[~control].any()


def test_a_group_of_controls_counts_where_it_can_turn_the_test():
    rng = np.random.default_rng(1)
    null, pull = rng.normal(size=(3, 4000)), np.zeros((3, 2))
    pull[:, 0] = 0.2
    limit = np.quantile(null, 0.95, axis=1)
    at, far = (influence_on_share(limit + away, null, pull, 0.05) for away in (0.0, 6.0))
    assert at.keys() == {"controls 0"}
    assert at["controls 0"] == pytest.approx(100 * 0.2 / np.sqrt(2 * np.pi), rel=0.05)
    assert abs(far["controls 0"]) < 1e-4


def test_benjamini_hochberg_spreads_the_share_by_as_much_as_said():
    """Half of 400 tests have an effect: the share with q <= 0.05 varies more than that of independent tests."""
    rng, share, wider = np.random.default_rng(2), [], []
    for _ in range(400):
        p = np.concatenate([rng.random(200), rng.beta(0.25, 6, 200)])
        q = bh(p)
        share.append((q <= 0.05).mean())
        wider.append(bh_threshold(p, q, 0.05)[1])
    mean = np.mean(share)
    mixed = (200 * (2 * mean) * (1 - 2 * mean)) ** 0.5 / 400  # only those with an effect vary
    assert np.std(share) / mixed == pytest.approx(np.mean(wider), rel=0.2)
    assert np.mean(wider) > 1.15
    assert bh_threshold(np.array([0.5, 0.9]), np.array([0.9, 0.9]), 0.05) == (0.025, 1.0)


def _score(values, metric="m"):
    return Score.of(
        metric, Items("perturbation", np.array([f"p{i}" for i in range(len(values))]), values, np.ones(len(values)))
    )


def test_a_choice_among_equals_is_chance_and_one_for_the_best_is_certain():
    rng = np.random.default_rng(3)
    even = {name: _score(rng.normal(0.5, 0.1, 40)) for name in ("none", "center")}
    even["center"] = _score(even["center"].items.numerator - even["center"].value + even["none"].value)
    assert chances(even, 1, 0)["none"] == pytest.approx(0.5, abs=0.15)
    clear = even | {"center": _score(even["none"].items.numerator + 0.3)}
    assert chances(clear, 1, 0) == {"none": 0.0, "center": 1.0}
    assert chances(clear, -1, 0) == {"none": 1.0, "center": 0.0}
    assert chances({"none": Score.absent("m", "no")}, 1, 0) == {}


def test_methods_that_are_equal_but_for_rounding_are_a_tie_which_the_simpler_one_wins():
    """As centring is, which moves no distance: which of the two was chosen, and how often, differed with the processor."""
    values = np.random.default_rng(0).normal(0.5, 0.1, 40)
    for noise in (-1e-9, 1e-9):
        same = {"none": _score(values), "center": _score(values + noise), "tvn": _score(values - 0.3)}
        assert chances(same, 1, 0) == {"none": 1.0, "center": 0.0, "tvn": 0.0}
        assert chances(same, -1, 0) == {"none": 0.0, "center": 0.0, "tvn": 1.0}
    table = np.array([[np.nan, 0.5, 0.5 + 1e-9], [-np.inf, -3.0, -3.0 - 1e-9], [1.0, 1.0 + 1e-4, np.nan]])
    assert best_of(table).tolist() == [1, 1, 1]


def test_the_choice_is_an_influence_of_the_embeddings_own():
    reported = {"none": [_score(np.full(10, 0.4))], "center": [_score(np.full(10, 0.6))]}
    found = with_choice(reported["none"], reported, {"none": 0.5, "center": 0.5}, "choice 42 a")[0]
    assert found.items.influence == {"choice 42 a": pytest.approx(0.1)}
    assert not with_choice(reported["none"], reported, {"none": 1.0}, "choice 42 a")[0].items.influence


def test_a_choice_is_named_by_its_embedding_and_seed_and_not_by_last_digits():
    """Named by six digits of its scores, it had another name, and an end lay elsewhere, under another number of threads."""
    cells = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    name = name_of_choice(cells, 42)
    assert name.startswith("choice 42 ")
    assert name_of_choice(cells * np.float32(1 + 1e-6), 42) == name
    assert len({name, name_of_choice(cells, 43), name_of_choice(-cells, 42), name_of_choice(cells[::-1], 42)}) == 4


def test_what_units_share_travels_through_the_item_table(tmp_path):
    score = _score(np.linspace(0.2, 0.8, 10), "magnitude_pct")
    shared = replace(score, items=replace(score.items, influence={"controls 3": 0.5, "p1": -0.25}))
    rows = [Row(42, "corrected", "selected", shared), Row(43, "corrected", "selected", score)]
    about = {"dataset": "d", "model": "m", "variant": "v", "fit_on": "none", "code": ""}
    write_rows(rows, tasks.load("magnitude"), about, 100, {}, (tmp_path / "s.parquet", tmp_path / "i.parquet"))
    (tmp_path / "s.parquet").unlink()
    found = ItemTable([tmp_path / "i.parquet"]).read("magnitude", "magnitude_pct", "corrected", dataset="d", variant="v")
    assert found[42].influence == {"controls 3": 0.5, "p1": -0.25}
    assert found[43].influence == {}
    for one in found.values():
        assert one.unit.tolist() == score.items.unit.tolist()
        assert one.value == pytest.approx(score.value)


@pytest.fixture(scope="module")
def repeats():
    """Contests between two equals on repeats of a small screen: the benchmark itself, with fewer cells and one seed."""
    design = replace(trust.DESIGNS["few"], n_perturbations=24, n_controls=80, n_batches=5, d=6, cells=12)
    found = []
    for number in range(30):
        screen, z = trust.simulate(design, number)
        scores = trust.score(screen, z, ("magnitude", "recall"), n_draws=199, seeds=(42,))
        metrics = scores["a"].keys() & scores["b"].keys()
        items = {m: {name: {s: one.items for s, one in scores[name][m].items()} for name in "ab"} for m in metrics}
        found.append({metric: Contest.of(parts.items(), 200) for metric, parts in items.items()})
    return found


@pytest.mark.parametrize("metric", ["magnitude_pct", "magnitude_fdr_pct", "recall_mean", "recall_corum", "precision_corum"])
def test_equals_are_called_different_rarely_and_intervals_hold_the_mean(repeats, metric):
    contests = [found[metric] for found in repeats]
    truth = np.mean([contest.pooled[name].value for contest in contests for name in "ab"])
    different = sum(contest.difference("a", "b").p <= 0.05 for contest in contests)
    held = [low <= truth <= high for contest in contests for low, high in [contest.interval("a"), contest.interval("b")]]
    assert different <= binom.ppf(0.999, len(contests), 0.07)
    assert sum(held) >= binom.ppf(0.001, len(held), 0.93)


def test_counts_of_a_simulated_screen_follow_its_effects_and_change_nothing_else(tmp_path):
    """So that reconstruction is measured on the screens of the other tasks: effects are decoded where there are any."""
    found = {}
    for effect in (0.0, 2.0):
        design = replace(trust.DESIGNS["strong"], n_perturbations=12, n_batches=4, cells=40, d=4, effect=effect)
        counts = tmp_path / f"{effect}.h5ad"
        screen, z = trust.simulate(design, 5, counts=counts)
        np.testing.assert_array_equal(z["a"], trust.simulate(design, 5)[1]["a"])
        scores = trust.score(screen, {"a": z["a"]}, ("reconstruction",), seeds=(42,), counts=counts)
        found[effect] = scores["a"]["effect_pearson"][42].value
    assert found[2.0] > 0.25
    assert abs(found[0.0]) < 0.1, found


def test_intervals_of_recall_are_not_far_too_wide(repeats):
    """The bootstrap that counted a pair three times had three times the variance."""
    values = [found["recall_mean"].pooled["a"].value for found in repeats]
    widths = [np.diff(found["recall_mean"].interval("a"))[0] / 3.92 for found in repeats]
    assert np.mean(widths) / np.std(values, ddof=1) < 1.6


def test_a_metric_that_does_not_hold_its_level_says_so_in_the_report():
    from plumbline.report.task_sections import _uncalibrated

    said = _uncalibrated(["consistency_pct", "consistency_fdr_pct"])
    measured = re.search(r"`consistency_fdr_pct` has intervals that hold in (\d+ to \d+) %", TRUST.read_text())
    assert f"percent of perturbations, q ≤ 0.05: 95 % intervals held the mean in {measured[1]} %" in said
    assert _uncalibrated(["consistency_pct", "recall_mean"]) == ""


def test_the_metrics_without_a_verdict_are_those_of_the_benchmark():
    """mAP's main metric had a verdict while the documents said that it has none; its intervals did not hold their level."""
    without = {name: metric.uncalibrated for name, metric in tasks.metrics().items() if metric.uncalibrated}
    of_map = {"map_activity_pct", "map_consistency_pct"}
    of_reconstruction = {"effect_integrity", "pearson", "spearman"}
    assert set(without) == {"consistency_fdr_pct", *of_map, *of_reconstruction}
    for name in of_map | of_reconstruction:
        held = [int(share) for share in re.findall(rf"^\| `{name}` \|.*\| (\d+) ± \d+\*? \|$", TRUST.read_text(), re.MULTILINE)]
        assert f"in {min(held)} to {max(held)} % of repeats" in without[name]


def test_no_metric_with_a_verdict_calls_equals_different_too_often():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) ± \d+(\*?) \| \d+ ± \d+\*? \|$", TRUST.read_text(), re.MULTILINE)
    unmeasured = {task.main_metric for task in tasks.records().values()} - {name for name, *_ in rows}
    assert unmeasured == {"effective_rank"}  # a description, without a verdict
    too_often = {name for name, share, beyond in rows if beyond and int(share) > 7}
    assert too_often == {"map_activity_pct", "map_consistency_pct", "spearman"}  # which have none
