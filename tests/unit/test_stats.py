"""Intervals cover, differences are paired, p values are uniform under the null, BH agrees with scipy."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from plumbline.scoring.scores import Items, Score
from plumbline.scoring.stats import bh, draws, interval, paired_difference
from plumbline.scoring.units import canonical, joined, pool, shared
from plumbline.summary.contest import Contest


def ratio(rng, k, mean=0.4, spread=0.1, kind="perturbation"):
    weight = rng.integers(5, 40, k).astype(float)
    return Items(kind, np.array([f"u{i}" for i in range(k)]), weight * rng.normal(mean, spread, k), weight)


def test_interval_covers_the_truth_95_times_in_100():
    rng = np.random.default_rng(1)
    for k, least in ((3, 0.92), (6, 0.92), (12, 0.91), (60, 0.92)):
        hits = 0
        for trial in range(400):
            low, high = interval(replace(ratio(rng, k), offset=0.1, scale=2.0), n_boot=400, seed=trial)
            hits += low <= 0.1 + 2 * 0.4 <= high
        assert least <= hits / 400 <= 0.985, k


def test_interval_of_pairs_covers_when_genes_drive_the_score():
    """Pairs of a gene succeed or fail together: an interval over pairs would be far too narrow."""
    rng, genes, hits, naive_hits = np.random.default_rng(2), 40, 0, 0
    first, second = np.triu_indices(genes, 1)
    for trial in range(150):
        effect = rng.normal(0, 0.3, genes)
        worth = 0.5 + effect[first] + effect[second] + rng.normal(0, 0.1, len(first))
        pairs = Items("pair", first.astype(str), worth, np.ones(len(first)), second.astype(str))
        low, high = interval(pairs, n_boot=300, seed=trial)
        hits += low <= 0.5 <= high
        low, high = interval(replace(pairs, kind="perturbation", unit2=None, unit=np.arange(len(first))), 300, trial)
        naive_hits += low <= 0.5 <= high
    assert 0.90 <= hits / 150 <= 0.99
    assert naive_hits / 150 < 0.6


def test_draws_of_pairs_move_with_all_pairs_of_a_gene():
    items = canonical(Items("pair", np.array(["a", "b", "a"]), np.array([1.0, 0, 1]), np.ones(3), np.array(["b", "c", "c"])))
    found = draws([items], n_boot=50, seed=3)[:, 0]
    drawn = np.random.default_rng(3).integers(0, 3, (50, 3))
    influence = {("a", "b"): 1 / 9, ("b", "c"): -2 / 9, ("a", "c"): 1 / 9}  # (hit - 2/3) / 3
    for row, value in zip(drawn, found, strict=True):
        m = {gene: int((row == index).sum()) for index, gene in enumerate("abc")}
        assert value == pytest.approx(2 / 3 + sum((m[i] - 1 + m[j] - 1) * each for (i, j), each in influence.items()))


def test_pairs_that_are_independent_get_the_interval_of_independent_pairs():
    """The bootstrap of genes counts a pair at both its genes (and, with products of counts, three times)."""
    rng, genes, ratio = np.random.default_rng(12), 60, []
    first, second = np.triu_indices(genes, 1)
    for trial in range(20):
        hit = (rng.random(len(first)) < 0.3).astype(float)
        low, high = interval(Items("pair", first.astype(str), hit, np.ones(len(first)), second.astype(str)), 500, trial)
        ratio.append((high - low) / (2 * 1.96 * np.sqrt(0.21 / len(first))))
    assert 0.95 < np.mean(ratio) < 1.25


def test_what_units_share_widens_the_interval_and_leaves_the_score():
    rng = np.random.default_rng(13)
    bare = ratio(rng, 40)
    common = replace(bare, influence={f"controls {i}": 0.02 for i in range(25)})
    (low, high), (wide_low, wide_high) = interval(bare, 4000), interval(common, 4000)
    error, more = (high - low) / 3.92, (wide_high - wide_low) / 3.92
    assert common.value == bare.value
    assert more == pytest.approx(np.hypot(error, 0.1), rel=0.08)


def test_what_two_models_share_cancels_in_their_difference_and_what_is_their_own_does_not():
    rng = np.random.default_rng(14)
    a, b = ratio(rng, 40), ratio(rng, 40)
    bare = paired_difference(a, b)
    both = paired_difference(*(replace(one, influence={"controls 1": 0.5}) for one in (a, b)))
    own = paired_difference(*(replace(one, influence={f"choice {name}": 0.5}) for name, one in (("a", a), ("b", b))))
    assert (both.low, both.high) == pytest.approx((bare.low, bare.high))
    assert own.high - own.low > 5 * (bare.high - bare.low)


def test_another_model_changes_no_draw():
    rng = np.random.default_rng(17)
    a, b, c = (canonical(replace(ratio(rng, 12), influence={"controls 1": 0.1, name: 0.2})) for name in ("m", "z", "a"))
    np.testing.assert_allclose(draws([a, b], 50, 3), draws([a, c, b], 50, 3)[:, [0, 2]], rtol=1e-12)


def test_a_unit_that_moves_others_as_much_as_itself_has_twice_the_interval():
    rng = np.random.default_rng(15)
    bare = Items("batch", np.array([f"b{i}" for i in range(30)]), rng.normal(0.5, 0.1, 30), np.ones(30))
    again = (bare.numerator - bare.value) / 30
    (low, high), (wide_low, wide_high) = (
        interval(one, 2000) for one in (bare, replace(bare, influence=dict(zip(bare.unit.tolist(), again, strict=True))))
    )
    assert wide_high - wide_low == pytest.approx(2 * (high - low), rel=1e-9)


def test_pooled_influences_are_their_mean_over_seeds():
    rng = np.random.default_rng(16)
    one, other = (replace(ratio(rng, 12), influence={name: 0.4, "both": 0.2}) for name in ("x", "y"))
    assert pool([one, other]).influence == pytest.approx({"x": 0.2, "y": 0.2, "both": 0.2})


def test_large_sample_interval_is_the_textbook_one():
    rng = np.random.default_rng(4)
    hits = (rng.random(2000) < 0.3).astype(float)
    low, high = interval(Items("cell", np.arange(2000), hits, np.ones(2000)), n_boot=4000)
    error = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / 2000)
    assert low == pytest.approx(hits.mean() - error, abs=0.002)
    assert high == pytest.approx(hits.mean() + error, abs=0.002)


def test_interval_is_deterministic_and_in_chunks_the_same(monkeypatch):
    items = ratio(np.random.default_rng(5), 50)
    whole = interval(items, seed=9)
    assert whole == interval(items, seed=9)
    assert whole != interval(items, seed=10)
    monkeypatch.setattr("plumbline.scoring.stats._CHUNK", 100)
    low, high = interval(items, seed=9)
    assert low == pytest.approx(whole[0], abs=0.01)
    assert high == pytest.approx(whole[1], abs=0.01)


@pytest.mark.parametrize("k", [0, 1])
def test_too_few_units_have_no_interval(k):
    assert np.isnan(interval(Items("batch", np.array(["a"] * k), np.ones(k), np.ones(k)))).all()


def test_no_spread_is_an_interval_of_width_zero():
    low, high = interval(Items("cell", np.arange(20), np.zeros(20), np.ones(20), offset=0.5))
    assert (low, high) == (0.5, 0.5)


def test_a_unit_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        interval(Items("cell", np.arange(3), np.array([1.0, np.nan, 1.0]), np.ones(3)))


def test_canonical_keeps_the_value_and_joins_names():
    items = Items("batch", np.array(["b", "a", "b"]), np.array([1.0, 2, 3]), np.array([2.0, 4, 2]), offset=-1, scale=2)
    found = canonical(items)
    assert found.unit.tolist() == ["a", "b"]
    assert found.value == pytest.approx(items.value)
    mirrored = canonical(Items("pair", np.array(["x", "y"]), np.ones(2), np.ones(2), np.array(["y", "x"])))
    assert (mirrored.unit.tolist(), mirrored.unit2.tolist(), mirrored.numerator.tolist()) == (["x"], ["y"], [2.0])


def test_pooled_value_is_the_mean_over_seeds():
    rng = np.random.default_rng(6)
    parts = [replace(ratio(rng, k), scale=100.0) for k in (5, 30, 12)]
    assert pool(parts).value == pytest.approx(np.mean([part.value for part in parts]))
    assert len(pool(parts).unit) == 30


def test_paired_difference_is_that_of_the_shared_units():
    rng = np.random.default_rng(7)
    a, b = ratio(rng, 30), ratio(rng, 25)
    found = paired_difference(a, b)
    assert (found.n_shared, found.n_left_out) == (25, 5)
    kept = [part.value for part in shared(canonical(a), canonical(b))]
    assert found.value == pytest.approx(kept[0] - kept[1])
    assert found.low < found.value < found.high


def test_pairing_removes_what_models_share():
    rng, k = np.random.default_rng(8), 40
    hard = rng.normal(0.5, 0.2, k)
    a, b = (Items("perturbation", np.arange(k), hard + shift + rng.normal(0, 0.01, k), np.ones(k)) for shift in (0.02, 0.0))
    found, (low, high) = paired_difference(a, b), interval(a)
    assert found.p < 0.001
    assert found.high - found.low < 0.1 * (high - low)
    back = paired_difference(b, a)
    assert (back.value, back.p) == pytest.approx((-found.value, found.p))


@pytest.mark.parametrize("k", [5, 12, 60])
def test_p_values_are_uniform_without_a_difference(k):
    rng = np.random.default_rng(k)
    p = np.array([paired_difference(ratio(rng, k), ratio(rng, k), n_boot=200, seed=trial).p for trial in range(500)])
    assert scipy_stats.kstest(p, "uniform").pvalue > 0.001
    assert (p < 0.05).mean() <= 0.09


@pytest.mark.parametrize(("size", "told"), [(1e-7, False), (1e-3, True)])
def test_what_rounding_makes_of_equal_scores_is_no_difference(size, told):
    """Eighty batches, in all of which another scale of the embedding moves the last digits one way."""
    rng = np.random.default_rng(0)
    a = ratio(rng, 80)
    b = replace(a, numerator=a.numerator - a.denominator * size * rng.random(80))
    found = paired_difference(a, b, 200)
    assert (found.p < 0.05) == told
    assert (found.low <= 0 <= found.high) != told
    assert found.value == pytest.approx(size / 2, rel=0.2)


def test_p_value_agrees_with_the_paired_t_test_on_equal_weights():
    rng = np.random.default_rng(9)
    x, y = rng.normal(0.4, 0.1, (2, 25))
    found = paired_difference(*(Items("batch", np.arange(25), column, np.ones(25)) for column in (x, y)), n_boot=20000)
    assert found.p == pytest.approx(scipy_stats.ttest_rel(x, y).pvalue, rel=0.06)


def test_units_that_all_agree():
    same = Items("batch", np.arange(4), np.full(4, 0.5), np.ones(4))
    better = replace(same, numerator=np.full(4, 0.75))
    assert paired_difference(same, same).p == 1.0
    assert paired_difference(better, same).p == 2**-3


@pytest.mark.parametrize("k", [2, 3, 5])
def test_with_few_units_interval_and_p_value_agree(k):
    rng = np.random.default_rng(k)
    for trial in range(60):
        found = paired_difference(ratio(rng, k, 0.6), ratio(rng, k, 0.4), n_boot=200, seed=trial)
        assert (found.p <= 0.05) == (found.low > 0 or found.high < 0)


def test_difference_without_shared_units_is_not_a_number():
    one, other = (Items("batch", np.array([name]), np.ones(1), np.ones(1)) for name in "ab")
    found = paired_difference(one, other)
    assert np.isnan([found.low, found.high, found.p]).all()
    assert (found.n_shared, found.n_left_out) == (0, 2)


def test_bh_agrees_with_scipy_and_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(10)
    for p in (rng.random(100), rng.beta(0.3, 3, 57), np.array([0.02]), np.array([0.5, 0.5, 0.01])):
        assert bh(p) == pytest.approx(scipy_stats.false_discovery_control(p))
        assert bh(p) == pytest.approx(multitest.multipletests(p, method="fdr_bh")[1])


def test_bh_leaves_out_what_was_not_tested():
    p = np.array([0.01, np.nan, 0.04])
    assert bh(p) == pytest.approx([0.02, np.nan, 0.04], nan_ok=True)
    assert bh(np.array([])).shape == (0,)


@pytest.mark.parametrize("hits", [0, 2, 39, 40])
def test_few_hits_of_many_have_wilsons_interval(hits):
    """Resampling no hit among 40 units shows no spread, though 5 % of such units may well be hits (oracle: SciPy)."""
    items = Items("perturbation", np.arange(40).astype(str), (np.arange(40) < hits).astype(float), np.ones(40), scale=100.0)
    low, high = interval(items)
    wilson = scipy_stats.binomtest(hits, 40).proportion_ci(method="wilson")
    assert low <= 100 * wilson.low + 1e-9
    assert high >= 100 * wilson.high - 1e-9
    if hits in (0, 40):
        assert (low, high) == pytest.approx((100 * wilson.low, 100 * wilson.high), abs=1e-9)
    pooled = pool([items, items])  # and so has the mean of two seeds
    assert Contest.of([("a", {1: items, 2: items})]).interval("a") == pytest.approx(interval(pooled), abs=1e-9)
    assert pooled.most == 100


def test_parts_that_are_joined_keep_what_their_intervals_need():
    """Every batch left out once: no hit in any is no hit at all, and what units share in each part they share in the whole."""
    units = np.repeat(np.arange(40).astype(str), 2)  # two cells of each in every part
    parts = [Items("perturbation", units, np.zeros(80), np.ones(80), influence={"controls 1": 0.5}) for _ in range(3)]
    whole = joined([Score.of("knn_top1", part) for part in parts])
    assert interval(replace(whole.items, influence={}))[1] == pytest.approx(
        scipy_stats.binomtest(0, 40).proportion_ci(method="wilson").high
    )
    assert whole.items.influence == {"controls 1": 0.5}  # parts of equal weight that share the same


def test_units_that_are_more_than_hits_and_misses_keep_the_resampled_interval():
    items = Items("perturbation", np.arange(40).astype(str), np.r_[0.5, np.zeros(39)], np.ones(40))
    assert np.isnan(canonical(items).most)
    assert interval(items)[0] == 0


def test_the_interval_of_a_share_of_pairs_reaches_further_towards_a_half():
    """1 of 20 pairs: an even interval would end at as far above as it begins below, though small shares have small errors."""
    ends = np.array(list(combinations([f"g{i:02}" for i in range(20)], 2)))[:60]
    items = Items("pair", ends[:, 0], (np.arange(60) % 20 == 0).astype(float), np.ones(60), unit2=ends[:, 1])
    low, high = interval(items)
    assert 0 < low < items.value < high < 1
    assert high - items.value > 1.5 * (items.value - low)
    upside_down = replace(items, numerator=1 - items.numerator)
    assert interval(upside_down) == pytest.approx((1 - high, 1 - low), abs=0.01)
