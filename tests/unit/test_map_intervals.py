"""What the intervals of mAP know of the controls and genes that units share, against scores computed anew without them."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from plumbline.metrics.activity import MAX_CONTROLS, Profiles
from plumbline.metrics.average_precision import Consistency
from plumbline.metrics.divisions import Labels
from plumbline.metrics.influence import control_group, influence_of_left_out
from plumbline.metrics.repeats import controls_by_profile
from plumbline.scoring.units import deviation
from plumbline.tasks import map as map_task

N_BATCHES, CELLS, PERTURBATIONS = 6, 4, 5
NAMES = np.array([f"P{i}" for i in range(PERTURBATIONS)])


def screen(controls=9, d=7):
    """Labels, part (of two batches each) and values of the cells of perturbations and controls."""
    rng = np.random.default_rng(0)
    name = np.concatenate([np.repeat(NAMES, CELLS * N_BATCHES), np.repeat("control", controls * N_BATCHES)])
    batch, effect = np.arange(len(name)) % N_BATCHES, rng.normal(size=d) + 0.2 * rng.normal(size=(PERTURBATIONS, d))
    x = rng.normal(size=(len(name), d)) + 3 * rng.normal(size=(N_BATCHES, d))[batch]
    x[name != "control"] += np.repeat(effect, CELLS * N_BATCHES, axis=0)
    labels = Labels(cell_id=np.array([f"cell{i}" for i in range(len(name))]), perturbation=name, batch=batch.astype(str),
                    is_control=name == "control", guide=np.full(len(name), ""))  # fmt: skip
    return labels, batch // 2, x.astype(np.float32)


def activity_of(labels, part, x, profile, kept):
    """Mean average precision of each perturbation, with the ``kept`` controls alone. profile: that of each control, or -1."""
    near = x.astype(float).copy()
    for batch in np.unique(labels.batch):
        own = labels.batch == batch
        near[own] -= x[own & labels.is_control & kept].astype(float).mean(axis=0)
    means = {
        (name, one): near[(labels.perturbation == name) & (part == one)].mean(axis=0) for name in NAMES for one in range(3)
    }
    numbers = [number for one in range(3) for number in np.unique(profile[(profile >= 0) & (part == one)])[:-1]]
    candidates = [(near[rows].mean(axis=0), part[rows][0]) for rows in ((profile == k) & kept for k in numbers) if rows.any()]
    found = []
    for name in NAMES:
        each = []
        for one in range(3):
            own = [means[name, other] for other in range(3) if other != one]
            others = [mean for mean, where in candidates if where != one]
            cosines = [v @ means[name, one] / np.linalg.norm(v) for v in own + others]
            each.append(average_precision_score([1, 1] + [0] * len(others), cosines))
        found.append(np.mean(each))
    return np.array(found)


def test_influence_of_controls_is_that_of_scores_without_them():
    labels, part, x = screen()
    profiles = Profiles.of(x, labels, part, 5)
    assert profiles.size.tolist() == [2, 2, 2], "controls of one profile are in several groups"
    profile = controls_by_profile(labels, part, profiles.size, MAX_CONTROLS, 5)[0].codes
    group = np.where(labels.is_control, control_group(labels.cell_id, labels.is_control), -1)
    whole, pull, groups = activity_of(labels, part, x, profile, group > -2), [], np.unique(group[group >= 0])
    for one in groups:
        left = np.mean([((group != one) & labels.is_control & (labels.batch == batch)).sum() / 9
                        for batch in labels.batch[group == one]])  # fmt: skip
        pull.append(-np.sqrt(left) * (activity_of(labels, part, x, profile, group != one) - whole) / PERTURBATIONS)
    share = np.array([(group == one).mean() for one in groups]) / labels.is_control.mean()
    pull = np.array(pull) - share[:, None] * np.sum(pull, axis=0)
    covariance = pull.T @ pull  # between perturbations, by the controls they share
    common = (covariance.sum() - np.trace(covariance)) * PERTURBATIONS / (PERTURBATIONS - 1)
    found = profiles.influence(NAMES)
    assert common > 0
    assert sum(value**2 for value in found.values()) == pytest.approx(common, rel=1e-4)
    expected = pull.sum(axis=1) * np.sqrt(common / covariance.sum())
    np.testing.assert_allclose([found[f"controls {one}"] for one in groups], expected, atol=1e-6)


def test_what_controls_do_to_all_units_is_told_from_what_they_do_to_each():
    """Mean over k units of control + noise: what the mean over c controls varies by is what they do to all units alike."""
    rng, k, c = np.random.default_rng(1), 12, 40
    left, share, common, alone = np.full(c, (c - 1) / c), np.full(c, 1 / c), [], []
    for _ in range(400):
        noise, of_control = rng.normal(0, 3, (c, k)), rng.normal(size=(c, 1))
        for values, found in ((noise + of_control, common), (noise, alone)):
            change = (values.mean(axis=0) - values) / (c - 1)  # of the mean over controls, without each
            found.append((influence_of_left_out(change, left, share) ** 2).sum())
    assert np.mean(common) == pytest.approx(1 / c, rel=0.1)
    assert np.mean(alone) < 0.3 / c, "noise of 3 in each of 12 units: 0.75 / c before it is taken out"


def test_influence_of_genes_is_the_derivative_by_their_weight():
    """Average precision with weights is scikit-learn's, of members, mates and all other candidates."""
    rng, n = np.random.default_rng(2), 14
    sets = [np.array(members) for members in ([0, 1, 2], [2, 3, 4, 5], [6, 7, 8], [8, 9, 10, 11])]  # 12, 13: of no scored set
    related = np.eye(n, dtype=bool)
    for members in sets:
        related[np.ix_(members, members)] = True
    x = rng.normal(size=(n, 5)) + np.repeat(rng.normal(size=(7, 5)), 2, axis=0)
    cosine = (unit := x / np.linalg.norm(x, axis=1, keepdims=True)) @ unit.T

    def score(weight):
        top = bottom = 0.0
        for members in sets:
            for one in members:
                mates, others = members[members != one], np.flatnonzero(~related[one])
                rows = np.concatenate([mates, others])
                value = average_precision_score(
                    np.arange(len(rows)) < len(mates), cosine[one, rows], sample_weight=weight[rows]
                )
                top, bottom = top + weight[one] * value / len(members), bottom + weight[one] / len(members)
        return top / bottom

    result = Consistency(x, sets, related, 0)
    items = map_task._by_gene(np.arange(n).astype(str), {str(i): members for i, members in enumerate(sets)}, result.observed())
    own = dict(zip(items.unit.tolist(), deviation(items).tolist(), strict=True))
    assert items.value == pytest.approx(score(np.ones(n)))
    for gene, more in enumerate(result.influence()):
        step = 1e-5 * (np.arange(n) == gene)
        assert own.get(str(gene), 0.0) + more == pytest.approx((score(1 + step) - score(1 - step)) / 2e-5, abs=1e-6)
        assert abs(more) > 1e-4
