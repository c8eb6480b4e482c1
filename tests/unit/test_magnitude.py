"""Energy distance, its permutation test within batches, and the magnitude task."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_screens import view_of
from scipy.spatial.distance import cdist
from scipy.stats import energy_distance, kstest

from plumbline.metrics import energy
from plumbline.metrics.distances import mean_distance, mean_distance_within
from plumbline.metrics.draws import draw_members
from plumbline.metrics.energy import energy_distances, matched_test, permutation_test
from plumbline.metrics.groups import group_by
from plumbline.metrics.influence import control_group
from plumbline.tasks import magnitude


def _brute_force(x, y):
    return 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()


def _screen(n_perturbations=20, n_cells=10, n_controls=120, n_batches=3, d=6, effect=0.0, seed=0):
    rng = np.random.default_rng(seed)
    names = np.array([f"p{i:03d}" for i in range(n_perturbations)])
    labels = np.concatenate([np.repeat(names, n_cells), np.repeat("ctrl", n_controls)])
    batch = rng.integers(0, n_batches, len(labels)).astype(str)
    x = rng.normal(size=(len(labels), d)) + 2 * rng.normal(size=(n_batches, d))[batch.astype(int)]
    x[labels != "ctrl"] += effect
    return x.astype(np.float32), labels, batch, names


def _matched(x, labels, batch, names, n_draws=99, seed=0, **options):
    ids = np.array([f"c{i:05d}" for i in range(len(x))])
    return matched_test(x, ids, labels, labels == "ctrl", batch, names, n_draws, seed, **options)


def test_mean_distances_in_blocks():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2600, 3)), rng.normal(size=(40, 3))
    assert mean_distance(x, y) == pytest.approx(cdist(x, y).mean(), rel=1e-12)
    assert mean_distance_within(x) == pytest.approx(cdist(x, x).mean(), rel=1e-9)


def test_energy_distance_by_definition():
    x, labels, _, _ = _screen(effect=1.0)
    controls = x[labels == "ctrl"].astype(float)
    groups = group_by(labels)
    expected = [_brute_force(x[labels == name].astype(float), controls) for name in groups.names]
    np.testing.assert_allclose(energy_distances(x, groups, controls), expected, rtol=1e-6, atol=1e-7)


def test_energy_distance_in_one_dimension_is_scipys_squared():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 1)), rng.normal(0.5, 2, size=(50, 1))
    found = energy_distances(x, group_by(np.full(30, "p")), y)[0]
    assert found == pytest.approx(energy_distance(x[:, 0], y[:, 0]) ** 2, rel=1e-9)


def test_energy_distance_is_twice_geomloss():
    geomloss, torch = pytest.importorskip("geomloss"), pytest.importorskip("torch")
    x, labels, _, _ = _screen(effect=0.7)
    own, controls = x[labels == "p003"], x[labels == "ctrl"]
    expected = 2 * geomloss.SamplesLoss("energy", backend="tensorized")(torch.tensor(own), torch.tensor(controls)).item()
    assert energy_distances(own, group_by(np.full(10, "p")), controls)[0] == pytest.approx(expected, abs=1e-3)


def test_energy_distance_agrees_with_pertpy():
    pertpy = pytest.importorskip("pertpy")
    x, labels, _, _ = _screen(effect=0.7)
    own, controls = x[labels == "p003"].astype(float), x[labels == "ctrl"].astype(float)
    pairs = {"x": cdist(own, own).mean(), "y": cdist(controls, controls).mean(), "xy": cdist(own, controls).mean()}
    distance = pertpy.tl.Distance("edistance", cell_wise_metric="euclidean")
    found = energy_distances(own, group_by(np.full(10, "p")), controls)[0]
    assert found == pytest.approx(2 * pairs["xy"] - pairs["x"] - pairs["y"], rel=1e-9)
    assert found == pytest.approx(float(distance(own, controls)), rel=1e-5)


def test_too_few_cells_are_not_scored():
    x = np.random.default_rng(0).normal(size=(9, 3))
    found = energy_distances(x, group_by(np.repeat(["four", "five"], [4, 5])), x)
    assert np.isfinite(found[0])  # five
    assert np.isnan(found[1])


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), shift=st.floats(-100, 100))
def test_rotation_and_shift_do_not_matter_and_equal_samples_are_at_zero(seed, shift):
    x, labels, _, _ = _screen(3, 6, 20, seed=seed)
    x = x.astype(float)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    groups, control = group_by(labels), labels == "ctrl"
    moved = x @ rotation + shift
    np.testing.assert_allclose(
        energy_distances(moved, groups, moved[control]), energy_distances(x, groups, x[control]), rtol=1e-6, atol=1e-6
    )
    assert energy_distances(x, groups, x[control])[0] == pytest.approx(0, abs=1e-6)  # the controls themselves


def test_relabelling_keeps_the_numbers_in_each_stratum_and_is_uniform():
    starts, wanted = np.array([0, 3, 10, 12]), np.array([1, 4, 2])
    members = np.zeros((6000, 12), dtype=np.float32)
    draw_members(starts, wanted, np.array([5], dtype=np.uint64), np.arange(12), members)
    sums = np.add.reduceat(members, starts[:-1], axis=1)
    np.testing.assert_array_equal(sums, np.tile(wanted, (6000, 1)))
    np.testing.assert_allclose(members.mean(axis=0), np.repeat(wanted / np.diff(starts), np.diff(starts)), atol=0.03)
    assert len(np.unique(members[:, 3:10], axis=0)) == 35  # every choice of 4 in 7


def test_permutation_test_against_all_relabellings():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(8, 3)) + np.repeat([1.5, 0], 4)[:, None]
    observed, null = permutation_test(cdist(x, x), np.array([4]), np.array([0, 8]), 5000, 3)
    every = [_brute_force(x[list(rows)], np.delete(x, rows, axis=0)) for rows in combinations(range(8), 4)]
    assert observed == pytest.approx(_brute_force(x[:4], x[4:]), rel=1e-5)
    assert np.mean(null >= observed - 1e-5) == pytest.approx(np.mean(np.array(every) >= observed - 1e-5), abs=0.02)
    assert null.mean() == pytest.approx(np.mean(every), abs=0.03)
    assert all(np.abs(np.array(every) - value).min() < 1e-5 for value in null[:200])


def test_matching_keeps_to_the_batches_and_to_the_limits(monkeypatch):
    x, labels, batch, names = _screen(n_controls=900)
    result = _matched(x, labels, batch, names)
    assert (result.n_cells == 10).all()
    assert ((result.n_controls > 250) & (result.n_controls <= energy.MAX_CONTROLS)).all()
    lonely = np.where(labels == "ctrl", batch, "elsewhere")  # no controls where the cells are
    result = _matched(x, labels, lonely, names)
    assert np.isnan(result.observed).all()
    assert (result.n_cells == 0).all()
    monkeypatch.setattr(energy, "MAX_CELLS", 7)
    assert (_matched(x, labels, batch, names).n_cells == 7).all()


def test_neither_order_nor_company_nor_threads_matter():
    x, labels, batch, names = _screen(n_controls=600)
    ids, control = np.array([f"c{i:05d}" for i in range(len(x))]), labels == "ctrl"
    order = np.random.default_rng(5).permutation(len(x))
    whole = matched_test(x, ids, labels, control, batch, names, 50, 7)
    mixed = matched_test(x[order], ids[order], labels[order], control[order], batch[order], names[[3, 1]], 50, 7, threads=2)
    np.testing.assert_allclose(whole.observed[[3, 1]], mixed.observed, rtol=1e-4)
    np.testing.assert_allclose(whole.null[[3, 1]], mixed.null, atol=1e-4)
    assert np.abs(matched_test(x, ids, labels, control, batch, names, 50, 8).null - whole.null).max() > 0.01


def test_no_effect_gives_uniform_p_values_in_spite_of_unequal_batches():
    rng = np.random.default_rng(4)
    x, labels, batch, _ = _screen(200, 12, 400, seed=4)
    sizes = np.where(labels == "ctrl", 0, rng.random(len(labels)))
    keep = (batch != "0") | (sizes < 0.3)  # batch 0 has many controls and few perturbed cells
    score, fdr, _ = magnitude.run(view_of(x[keep], labels[keep], batch[keep]))
    assert kstest(score.items.extra["p"], "uniform").pvalue > 0.01
    assert score.value < 11  # 5 % expected
    assert fdr.value < 2


def test_strong_effect_is_found_everywhere():
    x, labels, batch, _ = _screen(effect=3.0)
    score, fdr, _ = magnitude.run(view_of(x, labels, batch))
    assert score.value == fdr.value == 100
    assert score.items.extra["p"].max() == 1 / 200


def test_spread_without_a_shift_is_seen():
    """Squared distances would see means only."""
    x, labels, batch, _ = _screen(n_cells=25)
    x[labels == "p000"] = x[labels == "p000"].mean(axis=0) + 4 * (x[labels == "p000"] - x[labels == "p000"].mean(axis=0))
    score, _, _ = magnitude.run(view_of(x, labels, batch))
    assert score.items.extra["p"][score.items.unit == "p000"] < 0.05


def test_what_cannot_be_scored_is_counted():
    x, labels, batch, _ = _screen(effect=3.0)
    labels[:6] = "p777"
    score, _, _ = magnitude.run(view_of(x, labels, batch))
    assert "p000" not in score.items.unit  # four cells
    assert "p777" in score.items.unit
    assert "1 perturbation with" in score.reason


def test_paper_draws_a_thousand_controls_with_the_seed():
    x, labels, batch, names = _screen(30, n_controls=1500, effect=0.0, seed=6)
    x[np.isin(labels, names[20:])] += 3
    genes = pd.DataFrame({"gene_id": names, "symbol": names, "ensembl_id": "", "mean_count": np.repeat([0.01, 1.0], [20, 10])})
    facts = {"unexpressed_scale": "mean_count", "unexpressed_threshold": 0.15}
    view = view_of(x, labels, batch, protocol="paper", genes=genes, **facts)
    rows = magnitude._paper_controls(view)
    assert len(np.unique(rows)) == 1000
    assert view.screen.is_control[rows].all()
    order = np.random.default_rng(0).permutation(len(x))
    shuffled = view.take(order)
    assert set(shuffled.screen.cell_id[magnitude._paper_controls(shuffled)]) == set(view.screen.cell_id[rows])
    score, fdr, _ = magnitude.run(view)
    assert score.value == 100
    assert sorted(score.items.unit) == sorted(names[20:])
    assert fdr.status == "not_applicable"
    expected = _brute_force(x[labels == "p025"].astype(float), x[rows].astype(float))
    assert score.items.extra["value"][score.items.unit == "p025"] == pytest.approx(expected, rel=1e-6)


def test_an_embedding_without_any_difference_has_a_score_of_0_with_its_interval():
    x, labels, batch, _ = _screen()
    found = {score.metric: score for score in magnitude.run(view_of(np.ones_like(x), labels, batch))}
    assert (found["magnitude_pct"].value, found["magnitude_pct"].items.influence) == (0, {})
    assert found["magnitude_effect"].reason.startswith("what it is measured by is 0 in all units")


def test_absent_with_a_reason():
    x, labels, batch, _ = _screen(5)
    view = view_of(x, labels, batch)
    no_controls = view.take(np.flatnonzero(labels != "ctrl"))
    for changed in (replace(view, protocol="paper"), no_controls):
        scores = magnitude.run(changed)
        assert {s.metric for s in scores} == {m.name for m in magnitude.TASK.metrics}
        assert all(s.status == "not_applicable" and s.reason for s in scores)
    assert magnitude.not_applicable({"n_perturbations": 0, "has_controls": True})
    assert "controls" not in magnitude.not_applicable({"n_perturbations": 3, "has_controls": True})
    assert "none" in magnitude.not_applicable({"n_perturbations": 3, "has_controls": False})


def _sizes(x, labels, batch):
    """Sum over cells of energy distance and of spread, by perturbation and batch, from all pairs but a cell with itself."""
    found = {}
    for name in np.unique(labels[labels != "ctrl"]):
        for b in np.unique(batch):
            own, ctrl = (x[(labels == label) & (batch == b)].astype(float) for label in (name, "ctrl"))
            within, among = (cdist(part, part).sum() / (len(part) * (len(part) - 1)) for part in (own, ctrl))
            found[name, b] = len(own) * (2 * cdist(own, ctrl).mean() - within - among), len(own) * among
    return found


@pytest.mark.parametrize(("n", "kind"), [(9, "perturbation"), (3, "batch")])
def test_effect_sizes_against_all_pairs(n, kind):
    x, labels, batch, names = _screen(n_perturbations=n, n_cells=18, effect=1.0)
    items = _matched(x, labels, batch, names).sizes.items()
    expected = _sizes(x, labels, batch)
    assert items.kind == kind
    for place, unit in enumerate(items.unit):
        parts = [value for (name, b), value in expected.items() if unit in (name, b)]
        np.testing.assert_allclose([items.numerator[place], items.denominator[place]], np.sum(parts, axis=0), rtol=1e-5)
    assert bool(items.influence) == (kind == "perturbation")


def test_the_influence_of_controls_on_an_effect_size_is_its_derivative():
    """A group of controls counted a little more: the score moves by its influence times that."""
    x, labels, batch, names = _screen(n_perturbations=9, n_cells=20, n_batches=1, n_controls=60, effect=0.7)
    sizes = _matched(x, labels, batch, names).sizes
    ids = np.array([f"c{i:05d}" for i in range(len(x))])
    group = control_group(ids, labels == "ctrl")
    items, step = sizes.items(), 1e-4
    for number in np.unique(group[labels == "ctrl"])[:4]:
        weight = np.where(group == number, 1 + step, 1.0)[labels == "ctrl"]
        weight *= len(weight) / weight.sum()
        ctrl = x[labels == "ctrl"].astype(float)
        d, m = cdist(ctrl, ctrl), len(ctrl)
        among = weight @ d @ weight / (m * (m - 1))
        top = bottom = 0.0
        for name in names:
            own = x[labels == name].astype(float)
            within = cdist(own, own).sum() / (len(own) * (len(own) - 1))
            top += len(own) * (2 * (cdist(own, ctrl) @ weight).sum() / (len(own) * m) - within - among)
            bottom += len(own) * among
        moved = (top / bottom - items.value) / step
        assert items.influence[f"controls {number}"] == pytest.approx(
            moved, abs=0.02 * np.abs(list(items.influence.values())).max()
        )


def test_effect_sizes_are_0_without_effect_and_grow_with_it():
    """At any number of cells; a percentage is at 100 from the second on."""
    values = [_matched(*_screen(n_perturbations=1, n_cells=90, n_controls=240, effect=effect, seed=seed)).sizes.items().value
              for effect in (0.0, 1.0, 2.0, 4.0) for seed in range(6)]  # fmt: skip
    means, error = np.reshape(values, (4, 6)).mean(axis=1), np.std(values[:6], ddof=1) / np.sqrt(6)
    assert abs(means[0]) < 4 * error
    assert (np.diff(means) > 0.1).all()


def test_one_perturbation_is_ranked_by_effect_size_over_batches():
    x, labels, batch, _ = _screen(n_perturbations=1, n_cells=120, n_controls=120, n_batches=8, effect=2.0)
    view = view_of(x, labels, batch)
    assert magnitude.TASK.main(view.screen.facts) == "magnitude_effect"
    assert magnitude.TASK.main(view.screen.facts, "paper") == "magnitude_pct"
    scores = {score.metric: score for score in magnitude.run(view)}
    assert scores["magnitude_pct"].value == 100
    assert (scores["magnitude_effect"].items.kind, scores["magnitude_effect"].n) == ("batch", 8)
    paper = {score.metric: score for score in magnitude.run(replace(view, protocol="paper"))}
    assert paper["magnitude_effect"].status == "not_applicable"
