"""Disjoint parts of a screen, retrieval between them, and the retrieval task."""

from dataclasses import replace

import numpy as np
import pytest
from made_screens import SEED, subject_of, view_of
from scipy.stats import binom, rankdata
from sklearn.metrics.pairwise import cosine_similarity

from plumbline.common.errors import NotApplicable
from plumbline.data.splits import Split
from plumbline.metrics.divisions import Labels, by_batch, by_cell, by_guide, labels_of, parting_for
from plumbline.metrics.repeats import control_profiles, effects
from plumbline.metrics.retrieval import chance_of_reciprocal_rank, reliability, retrieve, similarity_sums
from plumbline.scoring import vectors
from plumbline.scoring.center_perturbed import center_perturbed
from plumbline.scoring.evaluation import evaluate
from plumbline.tasks import retrieval

N, CELLS, BATCHES = 30, 16, 6


def screen_of(effect=0.0, common=0.0, seed=0, confounded=False, d=8, batch_effect=1.0):
    """A view of 30 perturbations with 16 cells each in six batches, or each in one (``confounded``), and 60 controls."""
    rng = np.random.default_rng(seed)
    names = np.concatenate([np.repeat([f"P{i:02d}" for i in range(N)], CELLS), np.repeat("ctrl", BATCHES * 10)])
    batch = np.concatenate([np.arange(N * CELLS) % BATCHES, np.arange(BATCHES * 10) % BATCHES])
    batch = np.where(names == "ctrl", batch, np.arange(len(names)) // CELLS % BATCHES) if confounded else batch
    x = rng.normal(size=(len(names), d)) + batch_effect * rng.normal(size=(BATCHES, d))[batch]
    x[: N * CELLS] += np.repeat(effect * rng.normal(size=(N, d)) + common * np.ones(d), CELLS, axis=0)
    return view_of(x, names, batch)


def values(view) -> dict[str, float]:
    return {score.metric: score.value for score in retrieval.run(view)}


@pytest.mark.parametrize("p", [9, 40, 700])
def test_ranks_are_those_of_the_whole_matrix(p):
    rng = np.random.default_rng(p)
    first, second = rng.normal(size=(2, p, 5))
    second[3], second[4] = first[3], second[5]  # a perfect match, and two candidates that are as near
    cosine = cosine_similarity(first.astype(np.float32), second.astype(np.float32)).round(6)
    for found, matrix in zip(retrieve(first, second), (cosine, cosine.T), strict=True):
        k = np.array([rankdata(-matrix[i])[i] - 1 for i in range(p)])
        np.testing.assert_allclose(found.k, k, atol=0.5 if p > 100 else 0)  # 0.5: two of 490,000 cosines that are a tie
        assert found.top1[3] == 1
    assert retrieve(first, second)[0].tied[4] == 1


def test_embeddings_that_say_nothing_at_all_are_at_chance():
    found = retrieve(np.zeros((12, 3)), np.zeros((12, 3)))[0]
    np.testing.assert_array_equal(found.pds, 0.5)
    np.testing.assert_allclose(found.top1, 1 / 12)
    assert chance_of_reciprocal_rank(3) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


@pytest.mark.parametrize("number", [1 / 3, 1e6 / 7])
def test_rounding_of_means_is_no_effect(number):
    """All cells have one embedding, or all perturbed cells one and all controls another: nothing tells perturbations apart."""
    given = screen_of()
    same, control = np.full(given.embedding.shape, number, np.float32), given.screen.is_control[:, None]
    assert values(replace(given, embedding=same))["retrieval_pds"] == 0.5
    for embedding in (same, np.where(control, same, np.float32(np.pi))):
        found = values(replace(given, embedding=embedding))
        assert (found["retrieval_pds_specific"], found["similarity_reliability"]) == (0.5, 0)


@pytest.mark.parametrize("p", [12, 600])
def test_reliability_is_the_correlation_of_the_similarities(p):
    rng = np.random.default_rng(p)
    shared = rng.normal(size=(p, 6))
    first, second = shared + 0.7 * rng.normal(size=(2, p, 6))
    pairs = np.triu_indices(p, 1)
    r = np.corrcoef(cosine_similarity(first)[pairs], cosine_similarity(second)[pairs])[0, 1]
    sums = similarity_sums(first, second)
    found = reliability(sums)
    without = similarity_sums(first[1:], second[1:]).sum(axis=0)
    of_rest = np.corrcoef(
        cosine_similarity(first[1:])[np.triu_indices(p - 1, 1)], cosine_similarity(second[1:])[np.triu_indices(p - 1, 1)]
    )[0, 1]
    np.testing.assert_allclose(sums.sum(axis=0) - 2 * sums[0], without, rtol=1e-4, atol=1e-3 * p)
    assert found[0] == pytest.approx(p * 2 * r / (1 + r) - (p - 1) * 2 * of_rest / (1 + of_rest), abs=1e-3 * p)
    assert found.mean() == pytest.approx(2 * r / (1 + r), abs=0.1 if p == 12 else 0.005)
    assert reliability(similarity_sums(first, first)).mean() == pytest.approx(1, abs=1e-5)


def test_reliability_foretells_that_of_a_repeat_of_the_whole_experiment():
    """Two repeats of a screen agree as Spearman and Brown say from the halves of one of them."""
    found, truth = [], []
    for seed in range(6):
        one, two = (screen_of(effect=0.4, seed=seed), screen_of(effect=0.4, seed=seed))
        noise = np.random.default_rng(100 + seed).normal(size=one.embedding.shape)
        own = np.random.default_rng(seed).normal(size=one.embedding.shape)  # the noise of screen_of
        two = replace(two, embedding=(np.asarray(one.embedding[:]) - own + noise).astype(np.float32))
        means = [effects(v.embedding, labels_of(v.screen), np.zeros(len(v.rows), dtype=int)).values for v in (one, two)]
        truth.append(np.corrcoef(*(cosine_similarity(m)[np.triu_indices(N, 1)] for m in means))[0, 1])
        found.append(values(one)["similarity_reliability"])
    assert np.mean(found) == pytest.approx(np.mean(truth), abs=0.08)
    assert 0.3 < np.mean(truth) < 0.9


def test_perfect_embedding_reaches_one():
    found = values(screen_of(effect=20))
    assert set(found) == {metric.name for metric in retrieval.METRICS}
    assert found.pop("similarity_reliability") > 0.98
    assert all(value == 1 for value in found.values())


@pytest.mark.parametrize("confounded", [False, True])
def test_no_effect_is_at_chance_whatever_the_batches_do(confounded):
    """Controls of their own in each half: with shared ones, the batch is found again where perturbations lie in one each."""
    found = [values(screen_of(seed=seed, common=2.0, confounded=confounded, batch_effect=3.0)) for seed in range(30)]
    for metric, chance in [("retrieval_pds", 0.5), ("retrieval_pds_specific", 0.5), ("retrieval_mrr", 0.1332)]:
        mean, sd = np.mean([f[metric] for f in found]), np.std([f[metric] for f in found], ddof=1)
        assert mean == pytest.approx(chance, abs=3.3 * sd / np.sqrt(30))
    hits = sum(round(f["retrieval_top1"] * N * 6) for f in found) / 6  # six repeats of one look-up are one, or less
    low, high = binom.ppf([0.0005, 0.9995], 30 * N, 1 / N)
    assert low <= hits <= high


def test_shuffled_labels_are_at_chance():
    view = screen_of(effect=1.5)
    assert values(view)["retrieval_pds"] > 0.95
    perturbed = np.flatnonzero(~view.screen.is_control)
    shuffled = view.screen.perturbation.copy()
    shuffled[perturbed] = np.random.default_rng(0).permutation(shuffled[perturbed])
    found = values(replace(view, screen=replace(view.screen, perturbation=shuffled)))
    assert found["retrieval_pds"] == pytest.approx(0.5, abs=0.17)  # 3.3 standard deviations of 30 uniform ranks
    assert found["retrieval_top1"] < 0.2


def test_what_all_perturbations_share_tells_none_from_the_others():
    planted, shared = screen_of(effect=0.3, common=3.0, seed=3), screen_of(effect=0.3, seed=3)
    with_common, without = values(planted), values(shared)
    assert with_common["retrieval_pds_specific"] == pytest.approx(without["retrieval_pds_specific"], abs=1e-3)
    assert with_common["retrieval_pds"] < with_common["retrieval_pds_specific"]


def with_split(view):
    """The view with a split of its batches 0 to 3 and perturbations below P20 for training."""
    train = np.isin(view.screen.batch, list("0123")) & (view.screen.is_control | (view.screen.perturbation < "P20"))
    test = np.isin(view.screen.batch, list("45"))
    return replace(view, split=Split(SEED, "batch", train, test, test, view.screen.batch == "5"))


@pytest.mark.parametrize("held", [2**27, 0])
def test_center_perturbed_takes_away_the_mean_effect_of_the_train_perturbations(monkeypatch, held):
    monkeypatch.setattr(vectors, "HELD_BYTES", held)  # few cells are kept in memory, many are computed when asked for
    view = with_split(screen_of(effect=0.5, common=2.0))
    x, screen = np.asarray(view.embedding), view.screen
    found = np.asarray(center_perturbed(view, screen.is_control)[:])
    centred = x - np.stack([x[screen.is_control & (screen.batch == one)].mean(0) for one in screen.batch])
    train = view.split.train & ~screen.is_control
    effect = np.mean(
        [centred[train & (screen.perturbation == one)].mean(0) for one in np.unique(screen.perturbation[train])], 0
    )
    np.testing.assert_allclose(found, centred - np.where(screen.is_control, 0, 1)[:, None] * effect, atol=1e-4)
    with pytest.raises(NotApplicable, match="perturbed cells among the train cells"):
        center_perturbed(screen_of(), screen.is_control)


def test_center_perturbed_is_reported_and_never_chosen():
    view = with_split(screen_of(effect=0.3, common=3.0, seed=3))
    rows = evaluate(subject_of(view), retrieval.TASK, [view.split], ["paper", "corrected"])
    value = {(row.protocol, row.postprocess): row.score.value for row in rows if row.score.metric == "retrieval_pds"}
    assert {post for protocol, post in value if protocol == "paper"} == {"none", "center", "center_scale", "tvn", "best"}
    best = max(number for (protocol, post), number in value.items() if protocol == "corrected" and post != "center_perturbed")
    assert value["corrected", "center_perturbed"] > best >= value["corrected", "selected"]


def test_order_and_rotation_do_not_matter():
    view = screen_of(effect=0.5)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))
    turned = replace(view, embedding=(view.embedding @ rotation * 3).astype(np.float32))
    shuffled = turned.take(np.random.default_rng(2).permutation(len(view.rows)))
    for a, b in zip(retrieval.run(view), retrieval.run(shuffled), strict=True):
        assert b.value == pytest.approx(a.value, abs=2e-3)
        np.testing.assert_array_equal(a.items.unit, b.items.unit)


def labels(n=240, guides=True) -> Labels:
    rng = np.random.default_rng(0)
    perturbation = np.array([f"P{i % 8}" for i in range(n)], dtype="U8")
    perturbation[::6] = "ctrl"
    guide = np.where(perturbation == "ctrl", "", np.char.add(perturbation, rng.choice(["g1", "g2", "g3"], n)))
    batch = rng.choice(["a", "b", "c", "d", "e"], n)
    ids = np.array([f"c{i:03d}" for i in range(n)])
    return Labels(
        cell_id=ids,
        perturbation=perturbation,
        is_control=perturbation == "ctrl",
        batch=batch,
        guide=guide if guides else np.full(n, ""),
    )


def test_parts_are_disjoint_and_balanced():
    made = labels()
    batches = by_batch(made, 2, 1)
    assert all(len(np.unique(batches[made.batch == one])) == 1 for one in "abcde")
    assert set(batches) == {0, 1}
    guides = by_guide(made, 2, 1)
    treated = made.guide != ""
    assert all(len(np.unique(guides[made.guide == one])) == 1 for one in np.unique(made.guide[treated]))
    cells = by_cell(made, 2, 1)
    for name in np.unique(made.perturbation[~made.is_control]):
        assert set(guides[made.perturbation == name]) == {0, 1}
        assert abs((2 * cells[made.perturbation == name] - 1).sum()) <= 1
    for part in (guides, cells):
        for one in "abcde":
            assert abs((2 * part[made.is_control & (made.batch == one)] - 1).sum()) <= 1


@pytest.mark.parametrize("parting", [by_batch, by_guide, by_cell])
def test_parts_depend_on_ids_and_seed_alone(parting):
    made, order = labels(), np.random.default_rng(5).permutation(240)
    mixed = Labels(**{name: getattr(made, name)[order] for name in made.__dataclass_fields__})
    np.testing.assert_array_equal(parting(mixed, 2, 7), parting(made, 2, 7)[order])
    assert any((parting(made, 2, seed) != parting(made, 2, 7)).any() for seed in range(3))


def test_the_most_independent_repeat_is_taken():
    made = labels()
    assert parting_for(made) == ("batches", by_batch)
    one_batch = replace(made, batch=np.full(240, "a"))
    assert parting_for(one_batch) == ("guides", by_guide)
    assert parting_for(replace(one_batch, guide=np.full(240, ""))) == ("cells", by_cell)
    without_controls = replace(made, batch=np.where(made.is_control, "other", made.batch))
    assert parting_for(without_controls)[0] == "guides"


def test_effects_are_means_less_the_controls_of_the_same_batches():
    made, x = labels(), np.random.default_rng(3).normal(size=(240, 4)).astype(np.float32).astype(float)
    part = by_cell(made, 2, 3)
    part[made.batch == "e"] = np.where(made.is_control, 0, part)[made.batch == "e"]  # no control in part 1 of batch e
    found = effects(x, made, part)
    for row in range(len(found.code)):
        own = (made.perturbation == found.names[found.code[row]]) & (part == found.part[row])
        own &= ~((made.batch == "e") & (part == 1))
        less = [
            x[made.is_control & (made.batch == made.batch[i]) & (part == found.part[row])].mean(0) for i in np.flatnonzero(own)
        ]
        np.testing.assert_allclose(found.values[row], (x[own] - less).mean(0), atol=1e-12)
        assert found.n_cells[row] == own.sum()
    assert len(found.code) == 16


def test_control_profiles_are_contrasts_of_controls():
    made, x = labels(), np.random.default_rng(3).normal(size=(240, 4)).astype(np.float32).astype(float)
    part = np.where(made.batch == "e", -1, 0)
    found = control_profiles(x, made, part, np.array([4]), 16, 0)
    used = made.is_control & (part == 0)
    assert found.n_cells.tolist() == [4] * (used.sum() // 4)
    every = control_profiles(x, made, part, np.array([1]), 100, 0).values
    np.testing.assert_allclose(every.sum(axis=0), 0, atol=1e-10)
    assert len(every) == used.sum()


def test_absent_with_a_reason():
    view = screen_of(effect=1)
    paper = retrieval.run(replace(view, protocol="paper"))
    assert [s.reason for s in paper] == ["not part of the paper's protocol"] * len(retrieval.METRICS)
    few = view.take(np.flatnonzero(np.isin(view.screen.perturbation, ["P00", "P01", "P02", "ctrl"])))
    assert all("fewer than 8 perturbations" in s.reason for s in retrieval.run(few))
    confounded = {s.metric: s for s in retrieval.run(screen_of(effect=1, confounded=True))}
    assert confounded["retrieval_pds"].reason == "halves: cells; 30 candidates"
    assert "already cells of the same batches" in confounded["retrieval_pds_ceiling"].reason
    left = view.take(np.flatnonzero((view.screen.perturbation != "P00") | (view.screen.batch == "0")))
    assert "1 perturbation without cells and controls in both halves" in retrieval.run(left)[0].reason
    facts = {"n_perturbations": 30, "has_controls": True}
    assert retrieval.not_applicable(facts) == ""
    assert "has none" in retrieval.not_applicable({**facts, "has_controls": False})
    assert "has 1" in retrieval.not_applicable({**facts, "n_perturbations": 1})
