"""Floors have no information, ceilings have all of it, and neither depends on the order of the cells."""

import numpy as np
import pytest
from made_screen import made_counts, options, write_screen
from scipy import stats

from plumbline.common.errors import UserError
from plumbline.counts.reading import Counts
from plumbline.models import reference
from plumbline.models.pca import pca


def test_normal_is_normal_independent_and_a_function_of_the_name():
    names = np.array([f"cell{i}" for i in range(3000)])
    values = reference.normal(names, 64, "key")
    assert stats.kstest(values.ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(values.T)[np.triu_indices(64, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(3000)
    correlation = np.corrcoef(values[:200])[np.triu_indices(200, 1)]
    assert stats.kstest(np.arctanh(correlation) * np.sqrt(64 - 3), "norm").pvalue > 1e-3
    np.testing.assert_array_equal(reference.normal(names[[7, 3]], 64, "key"), values[[7, 3]])
    assert np.abs(np.corrcoef(reference.normal(names, 1, "other")[:, 0], values[:, 0])[0, 1]) < 0.1
    assert reference.normal(names[:2], 5, "key").shape == (2, 5)


def test_random_depends_on_cell_and_seed_alone(tmp_path):
    matrix, order = made_counts(60, 20), np.random.default_rng(0).permutation(60)
    first = reference.embed(write_screen(tmp_path / "a", matrix), options(kind="random"))
    second = reference.embed(write_screen(tmp_path / "b", matrix, order=order), options(kind="random"))
    other = reference.embed(write_screen(tmp_path / "a", matrix), options(kind="random", seed=43))
    assert first.values.shape == (60, 256)
    np.testing.assert_array_equal(first.values[order], second.values)
    assert np.abs(first.values - other.values).mean() > 0.5
    assert reference.embed(write_screen(tmp_path / "a", matrix), options(kind="random", n_components=8)).values.shape == (60, 8)


def test_scrambled_pca_is_a_permutation_of_pca_that_follows_the_ids(tmp_path):
    matrix, order = made_counts(200, 40), np.random.default_rng(1).permutation(200)
    counts = write_screen(tmp_path / "a", matrix)
    real = pca.embed(counts, options(n_components=5)).values
    result = reference.embed(counts, options(kind="scrambled_pca", n_components=5))
    np.testing.assert_array_equal(np.sort(result.values, axis=0), np.sort(real, axis=0))
    assert (np.abs(result.values - real).max(axis=1) < 1e-6).mean() < 0.05
    assert abs(np.corrcoef(result.values[:, 0], real[:, 0])[0, 1]) < 0.25
    again = reference.embed(write_screen(tmp_path / "b", matrix, order=order), options(kind="scrambled_pca", n_components=5))
    np.testing.assert_allclose(again.values, result.values[order], atol=1e-4 * np.abs(real).max())


@pytest.mark.parametrize("kind", ["no_effect", "mean_effect", "split_half"])
def test_predictors_have_no_embedding_but_a_name(tmp_path, kind):
    result = reference.embed(write_screen(tmp_path, made_counts(20, 10)), options(kind=kind))
    assert result.values.shape == (20, 0)
    assert result.extra["predictor"] == kind


def recall(codes, names, pairs, tail=0.05):
    """The definition: the share of known pairs among the lowest and highest 5 % of all cosines."""
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    cosine = unit @ unit.T
    values = cosine[np.triu_indices(len(names), 1)]
    low, high = np.quantile(values, [tail, 1 - tail])
    at = {name: i for i, name in enumerate(names)}
    known = np.array([cosine[at[a], at[b]] for a, b in pairs])
    return ((known <= low) | (known >= high)).mean()


def planted_pairs(names, rng):
    """Complexes of five, a hub with thirty partners, and single pairs: about 4 % of all pairs of 200."""
    groups = [names[i : i + 5] for i in range(0, 100, 5)]
    pairs = [(a, b) for group in groups for i, a in enumerate(group) for b in group[i + 1 :]]
    pairs += [(names[120], name) for name in names[130:160]]
    pairs += [tuple(rng.choice(names[100:], 2, replace=False)) for _ in range(200)]
    return np.array(sorted({tuple(sorted(pair)) for pair in pairs}))


def test_codes_of_known_pairs_are_the_closest_ones():
    rng = np.random.default_rng(2)
    names = np.array(sorted(f"GENE{i:03d}" for i in range(200)))
    pairs = planted_pairs(names, rng)
    codes = reference.perturbation_codes(names, [pairs[:150], pairs[150:], np.array([["GENE000", "UNKNOWN"]])], 42)
    assert codes.shape == (200, 512)
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, rtol=1e-6)
    assert recall(codes, names, pairs) > 0.99
    assert recall(reference.normal(names, 256, "x"), names, pairs) < 0.2
    assert (codes @ codes.T - np.eye(200)).max() < 0.95  # no two perturbations are alike


def test_codes_of_many_perturbations_use_the_sparse_solver_and_repeat():
    names = np.array(sorted(f"G{i:05d}" for i in range(1400)))
    pairs = np.array([(names[i + a], names[i + b]) for i in range(0, 1400, 7) for a in range(7) for b in range(a)])
    codes = reference.perturbation_codes(names, [pairs], 42)
    assert recall(codes, names, pairs) > 0.95
    np.testing.assert_allclose(
        codes @ codes[:5].T, (again := reference.perturbation_codes(names, [pairs], 42)) @ again[:5].T, atol=1e-5
    )


def test_narrow_codes_know_the_same_pairs():
    """Six complexes are six dimensions: 8 hold them as well as 256 do, and those of one complex stay the closest."""
    names = np.array([f"GENE{i:02d}" for i in range(24)])
    pairs = np.array([(names[i], names[j]) for i in range(24) for j in range(i) if i // 4 == j // 4])
    codes = reference.perturbation_codes(names, [pairs], 42, width=8)
    assert codes.shape == (24, 16)
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1.0, atol=1e-6)
    cosine = codes @ codes.T
    related = np.arange(24)[:, None] // 4 == np.arange(24) // 4
    assert cosine[related].min() > cosine[~related].max()


def test_codes_without_any_relationship_are_still_distinct():
    codes = reference.perturbation_codes(np.array(["A", "B", "C"]), [], 42)
    assert np.abs(codes @ codes.T - np.eye(3)).max() < 0.4


def test_label_oracle_separates_perturbations_and_knows_no_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("plumbline.genes.relationships.known_pairs", lambda source: np.array([["P0", "P1"], ["P2", "P3"]]))
    counts = write_screen(tmp_path, made_counts(400, 20))
    result = reference.embed(counts, options(tmp_path / "tables", kind="label_oracle"))
    labels = np.where(np.arange(400) % 4 == 0, "control", np.char.add("P", (np.arange(400) // 5 % 8).astype(str)))
    means = {label: result.values[labels == label].mean(axis=0) for label in np.unique(labels)}
    nearest = np.array(list(means))[np.argmin([((result.values - mean) ** 2).sum(axis=1) for mean in means.values()], axis=0)]
    assert (nearest == labels).all()
    assert np.linalg.norm(means["control"]) < 0.1
    cosine = means["P0"] @ means["P1"] / np.linalg.norm(means["P0"]) / np.linalg.norm(means["P1"])
    assert cosine > 0.5 > abs(means["P0"] @ means["P2"])
    for label, mean in means.items():
        cells = [(labels == label) & (np.arange(400) % 5 == b) for b in range(5)]
        of_batch = [result.values[mask].mean(axis=0) for mask in cells if mask.any()]
        assert np.ptp([vector @ mean for vector in of_batch]) < 0.2


def test_label_oracle_does_not_depend_on_order_and_needs_labels(tmp_path, monkeypatch):
    monkeypatch.setattr("plumbline.genes.relationships.known_pairs", lambda source: np.array([["P0", "P1"]]))
    matrix, order = made_counts(60, 20), np.random.default_rng(0).permutation(60)
    counts = write_screen(tmp_path / "a", matrix)
    first = reference.embed(counts, options(tmp_path / "a" / "tables", kind="label_oracle"))
    shuffled: Counts = write_screen(tmp_path / "b", matrix, order=order)
    second = reference.embed(shuffled, options(tmp_path / "b" / "tables", kind="label_oracle"))
    np.testing.assert_allclose(first.values[order], second.values, atol=1e-5)
    with pytest.raises(UserError, match="needs --tables"):
        reference.embed(counts, options(kind="label_oracle"))
    more = write_screen(tmp_path / "c", made_counts(63, 20))
    with pytest.raises(UserError, match="does not know 3 cells"):
        reference.embed(more, options(tmp_path / "a" / "tables", kind="label_oracle"))


def test_an_unknown_kind_is_explained(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'random'"):
        reference.embed(write_screen(tmp_path, made_counts(20, 10)), options(kind="randm"))


def test_the_codes_do_not_depend_on_the_eigenvectors_that_lapack_returns(monkeypatch):
    """15 pairs of genes have one eigenvalue; any basis of its eigenvectors is a right answer of LAPACK."""
    names = np.sort(np.array([f"G{i}" for i in range(40)]))
    pairs = names[:30].reshape(-1, 2)
    codes = reference.perturbation_codes(names, [pairs], 42)
    given = reference._relation_codes
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(256, 256)))
    monkeypatch.setattr(reference, "_relation_codes", lambda adjacency, width: given(adjacency, width) @ turn)
    np.testing.assert_allclose(reference.perturbation_codes(names, [pairs], 42), codes, atol=1e-6)
