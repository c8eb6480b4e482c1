"""Average precision of profiles against copairs, its null against enumeration, and the task."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from made_screens import view_of
from scipy.stats import binom
from sklearn.metrics import average_precision_score

from plumbline.genes import relationships
from plumbline.metrics.activity import Activity
from plumbline.metrics.average_precision import Consistency, average_precision
from plumbline.metrics.divisions import by_batch, labels_of, mixed
from plumbline.metrics.repeats import Effects
from plumbline.metrics.units import unit_rows
from plumbline.tasks import map as map_task

EXPECTED = json.loads((Path(__file__).parent / "copairs" / "expected.json").read_text())
GENES = np.array([f"G{i:02d}" for i in range(40)])


@pytest.fixture
def complexes(tmp_path, monkeypatch):
    """Ten complexes of four genes each, one of which is named twice."""
    members = [" ".join(GENES[k : k + 4]) for k in range(0, 40, 4)]
    lines = [f"complex {k}\t{text}" for k, text in enumerate(members)]
    (tmp_path / "CORUM_clusters.tsv").write_text("\n".join([*lines, f"again\t{members[0]}", "pair\tG00 G01"]) + "\n")
    monkeypatch.setenv(relationships.FOLDER_VARIABLE, str(tmp_path))


def screen_of(shared=0.0, own=0.0, seed=0, n_batches=4, cells=12, d=12, controls=25):
    """40 genes in complexes of four that share an effect, with one of their own, 12 cells each."""
    rng = np.random.default_rng(seed)
    names = np.concatenate([np.repeat(GENES, cells), np.repeat("ctrl", n_batches * controls)])
    batch = np.concatenate([np.arange(40 * cells) % n_batches, np.arange(n_batches * controls) % n_batches])
    x = rng.normal(size=(len(names), d)) + 2 * rng.normal(size=(n_batches, d))[batch]
    effect = shared * np.repeat(rng.normal(size=(10, d)), 4, axis=0) + own * rng.normal(size=(40, d))
    x[: 40 * cells] += np.repeat(effect, cells, axis=0)
    return view_of(x, names, batch)


def scores(view) -> dict:
    return {score.metric: score for score in map_task.run(view)}


def test_average_precision_is_scikit_learns():
    rng = np.random.default_rng(0)
    positives, negatives = rng.normal(size=(5, 4)), rng.normal(size=(5, 9))
    labels = np.r_[np.ones(4), np.zeros(9)]
    expected = [average_precision_score(labels, np.r_[p, n]) for p, n in zip(positives, negatives, strict=True)]
    np.testing.assert_allclose(average_precision(positives, negatives), expected)
    padded = np.hstack([negatives, np.full((5, 3), -np.inf)])
    np.testing.assert_allclose(average_precision(positives, padded), expected)
    assert average_precision(np.zeros(1), np.zeros(4)) == pytest.approx(1 / 3)  # a tie with four: the third place of five


def test_activity_is_that_of_copairs():
    expected = EXPECTED["activity"]
    profiles = np.array(expected["profiles"])
    who, part, control = (np.array([row[key] for row in expected["meta"]]) for key in ("who", "part", "control"))
    kept = np.zeros((3, 4))  # the last control of each part is kept for the null
    values = np.vstack([np.vstack([profiles[control & (part == one)], kept[:1]]) for one in range(3)])
    parts = np.repeat(np.arange(3), 5)
    made = Effects(names=parts, code=np.arange(15), part=parts, n_cells=np.ones(15), values=values)
    activity = Activity(profiles[~control], made, np.full(3, 5), 100, 0)
    for name in ("P0", "P1", "P2"):
        rows = np.flatnonzero(who[~control] == name)
        found = np.array(expected["average_precision"])[rows].mean()
        assert activity.observed(rows[None], part[~control][rows])[0] == pytest.approx(found, abs=1e-12)


def test_null_of_activity_by_enumeration():
    """Every control profile in turn plays the perturbation, and is then not in the mean of the controls."""
    rng = np.random.default_rng(1)
    cells = rng.normal(size=(3, 4, 5))  # three parts of four controls: all of them are profiles
    parts = np.repeat(np.arange(3), 4)
    contrasts = (cells - cells.mean(axis=1, keepdims=True)).reshape(12, 5)
    made = Effects(names=parts, code=np.arange(12), part=parts, n_cells=np.ones(12), values=contrasts)
    found = Activity(np.zeros((0, 5)), made, np.full(3, 4), 100, 0).null(np.arange(3))
    expected = []
    for chosen in product(range(4), repeat=3):
        rest = [np.delete(cells[part], chosen[part], axis=0) for part in range(3)]
        own = unit_rows(np.array([cells[part][chosen[part]] - rest[part].mean(0) for part in range(3)]))
        other = [unit_rows(part - part.mean(0)) for part in rest]
        each = []
        for query in range(3):
            away = [part for part in range(3) if part != query]
            each.append(average_precision(own[away] @ own[query], np.vstack([other[part] for part in away]) @ own[query]))
        expected.append(np.mean(each))
    np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-6)


def test_consistency_is_that_of_copairs():
    expected = EXPECTED["consistency"]
    sets = [np.array(members) for members in expected["sets"].values()]
    related = np.eye(15, dtype=bool)
    for members in sets:
        related[np.ix_(members, members)] = True
    found = Consistency(np.array(expected["profiles"]), sets, related, 0)
    for own, theirs in zip(found.observed(), expected["average_precision"].values(), strict=True):
        np.testing.assert_allclose(own, theirs)


def test_null_of_consistency_is_a_permutation_of_genes():
    rng = np.random.default_rng(2)
    x, sets, related = rng.normal(size=(12, 3)), [np.arange(3), np.array([2, 3, 4])], np.eye(12, dtype=bool)
    for members in sets:
        related[np.ix_(members, members)] = True
    null = Consistency(x, sets, related, 0).null(20, 5)
    random = np.random.default_rng(5)
    for draw in range(20):
        moved = Consistency(x[random.permutation(12)], sets, related, 0).observed()
        np.testing.assert_allclose(null[:, draw], [part.mean() for part in moved])


def test_planted_effects_reach_one_and_noise_is_at_chance(complexes):
    found = scores(screen_of(shared=10, own=0.5))
    assert set(found) == {metric.name for metric in map_task.METRICS}
    assert found["map_activity"].value == found["map_consistency"].value == 1
    assert found["map_activity_pct"].value == found["map_consistency_pct"].value == 100
    assert (found["map_activity"].n, found["map_consistency"].n, found["map_consistency_pct"].n) == (40, 40, 10)
    own = scores(screen_of(own=10))
    assert own["map_activity"].value == 1
    assert own["map_consistency"].value < 0.25
    noise = scores(screen_of())
    assert noise["map_activity_pct"].value <= 5
    chance = float(noise["map_activity"].reason.rpartition("chance ")[2])
    assert noise["map_activity"].value == pytest.approx(chance, abs=0.04)
    assert noise["map_consistency"].items.influence.keys() == set(GENES)


def test_the_ceiling_is_the_activity_without_differences_between_batches(complexes):
    """An effect that all batches share scores as its ceiling; of one that each batch has anew only the ceiling is high."""
    same = [scores(screen_of(own=0.5, seed=seed)) for seed in range(4)]
    score, ceiling = (np.mean([one[name].value for one in same]) for name in ("map_activity", "map_activity_ceiling"))
    assert 0.4 < score < 0.9
    for name in ("map_activity", "map_activity_ceiling"):
        assert any(key.startswith("controls ") for one in same for key in one[name].items.influence)
    assert ceiling == pytest.approx(score, abs=0.05)
    view = screen_of(cells=16)
    labels, anew = labels_of(view.screen), 3 * np.random.default_rng(3).normal(size=(41, 4, 12))
    anew[40] = 0  # controls
    code = np.where(labels.is_control, 40, np.searchsorted(GENES, labels.perturbation))
    found = scores(replace(view, embedding=view.embedding + anew[code, labels.batch.astype(int)].astype(np.float32)))
    chance = float(found["map_activity"].reason.rpartition("chance ")[2])
    assert found["map_activity"].value < chance + 0.15
    assert found["map_activity_ceiling"].value > 0.9
    assert found["map_activity_ceiling"].n == found["map_activity"].n == 40


def test_mixing_keeps_the_numbers_of_cells_and_the_order_does_not_matter():
    view = screen_of(n_batches=5)
    labels = labels_of(view.screen)
    part = by_batch(labels, 3, 0)
    found = mixed(labels, part, 1)
    for name in GENES:
        own = labels.perturbation == name
        assert sorted(found[own]) == sorted(part[own])
        shares = [np.bincount(found[own & (labels.batch == batch)], minlength=3) for batch in np.unique(labels.batch)]
        assert np.ptp(shares, axis=0).max() <= 2, "each batch is in all parts"
    assert (found != part).mean() > 0.4
    for batch in np.unique(labels.batch):
        n = np.bincount(found[labels.is_control & (labels.batch == batch)], minlength=3)
        assert n.max() - n.min() <= 1, "controls of each batch are in all parts"
    order = np.random.default_rng(2).permutation(len(part))
    shuffled = mixed(labels_of(view.take(order).screen), part[order], 1)
    np.testing.assert_array_equal(shuffled, found[order])


def test_p_values_hold_their_level(complexes):
    """Where copairs' null, one order for all queries of a group, rejects less than 1 % at 5 % (eight profiles)."""
    found = [scores(screen_of(seed=seed)) for seed in range(12)]
    for metric, n in [("map_activity_pct", 480), ("map_consistency_pct", 120)]:
        p = np.concatenate([one[metric].items.extra["p"] for one in found])
        low, high = binom.ppf([0.0005, 0.9995], n, 0.05)
        assert len(p) == n
        assert low <= (p <= 0.05).sum() <= high


def test_shuffled_labels_are_at_chance(complexes):
    view = screen_of(shared=3)
    perturbed = np.flatnonzero(~view.screen.is_control)
    shuffled = view.screen.perturbation.copy()
    shuffled[perturbed] = np.random.default_rng(0).permutation(shuffled[perturbed])
    found = scores(replace(view, screen=replace(view.screen, perturbation=shuffled)))
    assert found["map_consistency_pct"].value <= 10
    assert found["map_consistency"].value < 0.3


def test_order_and_rotation_do_not_matter(complexes):
    view = screen_of(shared=0.5, own=0.5)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))
    turned = replace(view, embedding=(view.embedding @ rotation * 3).astype(np.float32))
    shuffled = turned.take(np.random.default_rng(2).permutation(len(view.rows)))
    for a, b in zip(map_task.run(view), map_task.run(shuffled), strict=True):
        assert b.value == pytest.approx(a.value, rel=1e-3)


def test_a_mean_over_complexes_is_a_sum_over_genes(complexes):
    found = scores(screen_of(shared=0.5))["map_consistency"]
    sets = {"a": np.array([0, 1]), "b": np.array([1, 2, 3])}
    items = map_task._by_gene(GENES, sets, [np.array([0.5, 1.0]), np.array([0.3, 0.6, 0.9])])
    assert items.value == pytest.approx((0.75 + 0.6) / 2)
    assert items.unit.tolist() == ["G00", "G01", "G02", "G03"]
    assert found.items.denominator.sum() == pytest.approx(10)  # the complex that is named twice counts once


def test_activity_spares_the_controls_that_fitted_the_post_processing(complexes):
    view = screen_of()
    few = view.take(np.flatnonzero(~view.screen.is_control | (np.arange(len(view.rows)) % 2 == 0)))
    spared, plain = scores(replace(view, compared=lambda: few)), scores(few)
    assert spared["map_activity"].value == plain["map_activity"].value
    assert spared["map_consistency"].value == scores(view)["map_consistency"].value != plain["map_consistency"].value


def test_an_embedding_without_any_difference_is_at_chance(complexes):
    view = screen_of()
    found = scores(replace(view, embedding=np.ones(view.embedding.shape, dtype=np.float32)))["map_activity"]
    assert found.value == pytest.approx(float(found.reason.rpartition(" ")[2]), abs=0.02)


def test_absent_with_a_reason(complexes):
    view = screen_of(own=1)
    paper = map_task.run(replace(view, protocol="paper"))
    assert {s.metric for s in paper} == {metric.name for metric in map_task.METRICS}
    assert {s.reason for s in paper} == {"not part of the paper's protocol"}
    one_batch = scores(screen_of(own=1, n_batches=1, controls=100))
    assert one_batch["map_activity"].reason.startswith("profiles: cells; chance")
    assert "already cells of the same batches" in one_batch["map_activity_ceiling"].reason
    assert "too few controls per batch" in scores(screen_of(own=1, n_batches=8, controls=6))["map_activity_ceiling"].reason
    few = scores(screen_of(own=1, controls=2))
    assert "2 are needed" in few["map_activity"].reason
    assert few["map_activity_pct"].status == "not_applicable"
    lonely = scores(view.take(np.flatnonzero(view.screen.is_control | (view.screen.perturbation < "G10"))))
    assert "2 CORUM complexes with 3 perturbed members; at least 3 are needed" in lonely["map_consistency"].reason
    drugs = replace(view, screen=replace(view.screen, facts={**view.screen.facts, "perturbation_type": "chemical"}))
    assert "compounds" in scores(drugs)["map_consistency_pct"].reason
    left = view.take(np.flatnonzero((view.screen.perturbation != "G00") | (view.screen.batch == "0")))
    assert "1 perturbation without two profiles" in scores(left)["map_activity"].reason
    facts = {"n_perturbations": 3, "has_controls": True}
    assert map_task.not_applicable(facts) == ""
    assert "no perturbation" in map_task.not_applicable({**facts, "n_perturbations": 0})
    assert "has none" in map_task.not_applicable({**facts, "has_controls": False})
