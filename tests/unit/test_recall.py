"""Known relationships, the recall of pairs, and the recall task."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_screens import view_of
from scipy.stats import ks_2samp
from sklearn.metrics.pairwise import cosine_similarity

from plumbline.common.errors import UserError
from plumbline.genes import relationships
from plumbline.genes.relationships import SOURCES, complexes, known_pairs
from plumbline.metrics.recall import (
    band_of,
    cluster_separation,
    in_band,
    known_among,
    pairwise_cosines,
    recall_of_exact,
    recalled,
)
from plumbline.metrics.units import unit_rows
from plumbline.scoring.stats import interval
from plumbline.tasks import recall


@pytest.fixture
def annotations(tmp_path, monkeypatch):
    """A folder of small annotation files: pairs within groups of genes that share an effect."""
    genes = [f"G{i:02d}" for i in range(40)]
    pairs = [(a, b) for k in range(0, 40, 10) for i, a in enumerate(genes[k : k + 10]) for b in genes[k : k + 10][i + 1 :]]
    for source in SOURCES:
        extra = [("X1", "X2"), ("G00", "X1"), ("G00", "G00"), pairs[0][::-1], pairs[0]]
        pd.DataFrame(pairs + extra, columns=["entity1", "entity2"]).to_csv(tmp_path / f"{source}.txt", index=False)
    pd.DataFrame([("G00", "G01")], columns=["entity1", "entity2"]).to_csv(tmp_path / "SIGNOR.txt", index=False)
    lines = [f"complex {k}\t{' '.join(genes[k : k + 10])}" for k in range(0, 40, 10)]
    (tmp_path / "CORUM_clusters.tsv").write_text("\n".join(lines) + "\npair\tG00 G01\n")
    monkeypatch.setenv(relationships.FOLDER_VARIABLE, str(tmp_path))
    return genes, pairs


def _planted(genes, effect=1.0, d=16, n_cells=8, seed=0):
    """Cells whose perturbations share an effect in groups of ten, and controls."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(4, d))
    labels = np.concatenate([np.repeat(genes, n_cells), np.repeat("ctrl", 50)])
    group = np.concatenate([np.repeat(np.arange(40) // 10, n_cells), np.full(50, -1)])
    x = 0.3 * rng.normal(size=(len(labels), d)) + np.where(group[:, None] >= 0, effect * shared[group], 0)
    return x, labels, np.full(len(labels), "a")


def test_numbers_of_pairs_of_the_published_sources():
    assert {s: len(known_pairs(s)) for s in SOURCES} == {
        "CORUM": 37_649, "HuMAP": 58_538, "Reactome": 18_565, "SIGNOR": 11_617, "StringDB": 58_059
    }  # fmt: skip
    for source in SOURCES:
        pairs = known_pairs(source)
        assert (pairs[:, 0] < pairs[:, 1]).all()
        assert len(np.unique(np.char.add(np.char.add(pairs[:, 0], "\t"), pairs[:, 1]))) == len(pairs)
    assert len(complexes()) > 2500
    assert complexes()["(E.F.G) complex"] == ["SNRPE", "SNRPF", "SNRPG"]


def test_annotations_that_are_missing_or_broken(tmp_path, monkeypatch):
    monkeypatch.setenv(relationships.FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="not a folder of gene relationships"):
        known_pairs("CORUM")
    monkeypatch.setenv(relationships.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match="not a table of gene pairs"):
        known_pairs("CORUM")
    (tmp_path / "CORUM.txt").write_text("a,b\nx,y\n")
    with pytest.raises(UserError, match="entity1"):
        known_pairs("CORUM")
    with pytest.raises(UserError, match="cannot be read"):
        complexes()
    monkeypatch.delenv(relationships.FOLDER_VARIABLE)

    def absent(name):
        raise relationships.PackageNotFoundError(name)

    monkeypatch.setattr(relationships, "distribution", absent)
    with pytest.raises(UserError, match="pip install"):
        known_pairs("CORUM")


@pytest.mark.parametrize("p", [2, 3, 40, 700])
def test_pairwise_cosines_and_positions(p):
    x = np.random.default_rng(p).normal(size=(p, 5))
    found, (i, j) = pairwise_cosines(x), np.triu_indices(p, 1)
    np.testing.assert_allclose(found.values + found.common, cosine_similarity(x)[i, j], atol=1e-6)
    np.testing.assert_array_equal(found.index(i, j), np.arange(len(i)))
    np.testing.assert_array_equal(found.pairs(np.arange(len(i))), (i, j))


def test_cosines_of_means_that_all_point_nearly_one_way_are_ranked_in_all_digits():
    """At an offset of 3,000 they differ in the eighth digit; a row of zeros has a cosine of 0 with all."""
    x, (i, j) = np.random.default_rng(0).normal(size=(60, 8)) + 3000, np.triu_indices(60, 1)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    distance = ((unit[i] - unit[j]) ** 2).sum(axis=1)
    np.testing.assert_array_equal(np.argsort(pairwise_cosines(x).values), np.argsort(-distance))
    x[7] = 0
    found = pairwise_cosines(x)
    np.testing.assert_allclose(found.values[(i == 7) | (j == 7)] + found.common, 0, atol=1e-7)


@pytest.mark.parametrize("n", [10, 21, 190, 999, 1000, 1001, 4950])
@pytest.mark.parametrize("share", [0.05, 0.1])
@pytest.mark.parametrize("ties", [False, True])
def test_band_says_what_ranks_say(n, share, ties):
    rng = np.random.default_rng(n)
    null = rng.normal(size=n)
    null = np.round(null, 1) if ties else null
    ordered = np.sort(null)
    right, left = (np.searchsorted(ordered, null, side=side) / n for side in ("right", "left"))
    np.testing.assert_array_equal(recalled(null, in_band(null, share)), (right <= share) | (left >= 1 - share))


def test_known_among():
    pairs = np.array([["A", "C"], ["A", "Z"], ["B", "D"], ["0", "A"]])
    i, j = known_among(np.array(["A", "B", "C", "D"]), pairs)
    assert list(zip(i, j, strict=True)) == [(0, 2), (1, 3)]
    assert len(known_among(np.zeros(0, dtype="U1"), pairs)[0]) == 0


def test_the_band_lists_its_pairs():
    similarities = pairwise_cosines(np.random.default_rng(1).normal(size=(30, 4)))
    band = band_of(similarities, 0.1)
    inside = [(i, j) for i in range(30) for j in range(i + 1, 30)
              if recalled(similarities.values[similarities.index(i, j)], in_band(similarities.values, 0.1))]  # fmt: skip
    assert sorted(zip(*(end.tolist() for end in band.pairs), strict=True)) == inside
    assert [len(tail[0]) for tail in band.tails] == [43, 43]  # a tenth of 435 pairs below and above


def test_influence_through_the_limits_of_the_band():
    """Doubling the weight of a gene's pairs among all pairs moves the limits, and with them the share of known pairs inside."""
    rng, p = np.random.default_rng(2), 120
    similarities = pairwise_cosines(rng.normal(size=(p, 4)) * np.linspace(0.5, 2, 4))
    band, known = band_of(similarities, 0.1), rng.choice(similarities.values, 6000, replace=False)
    i, j = np.triu_indices(p, 1)
    expected = []
    for gene in range(p):
        weighted = np.concatenate([similarities.values, similarities.values[(i == gene) | (j == gene)]])
        expected.append(recalled(known, in_band(weighted, 0.1)).mean() - recalled(known, band.limits).mean())
    found = band.influence(known)
    assert abs(found.sum()) < 1e-12
    assert np.corrcoef(found, expected)[0, 1] > 0.9
    assert np.polyfit(found, expected, 1)[0] == pytest.approx(1, abs=0.25)


def test_cluster_separation_is_scipys_test():
    x = np.random.default_rng(2).normal(size=(40, 5))
    x[:12] += 1
    statistic, p, gap = cluster_separation(unit_rows(x), np.arange(12))
    cosines = cosine_similarity(x)
    within, between = cosines[:12, :12][np.triu_indices(12, 1)], cosines[:12, 12:].ravel()
    expected = ks_2samp(within, between)
    assert (statistic, gap) == pytest.approx((expected.statistic, within.mean() - between.mean()), abs=1e-6)
    assert p == pytest.approx(expected.pvalue, rel=1e-3)


def test_shared_effects_are_recalled_and_nothing_else_is(annotations):
    genes, _ = annotations
    scores = {s.metric: s for s in recall.run(view_of(*_planted(genes)))}
    assert set(scores) == {m.name for m in recall.TASK.metrics}
    # 180 of 780 pairs are known: the upper tail of 39 (and 78) pairs can hold no others, the lower tail holds none
    assert scores["recall_corum"].value == pytest.approx(39 / 180, abs=0.03)
    assert scores["recall_corum_10"].value == pytest.approx(78 / 180, abs=0.03)
    assert scores["precision_corum"].value == pytest.approx(0.5, abs=0.05)
    assert scores["corum_ks"].value == 1
    assert scores["corum_ks"].n == 4
    noise = {s.metric: s for s in recall.run(view_of(*_planted(genes, effect=0)))}
    assert noise["recall_corum"].value == pytest.approx(0.1, abs=0.06)
    assert noise["corum_ks"].value <= 0.25
    low, high = interval(noise["recall_corum"].items, n_boot=300, seed=1)
    assert low < 0.1 < high


def test_all_known_pairs_are_recalled_when_they_are_few(annotations, tmp_path):
    genes, _ = annotations
    pairs = [(genes[i], genes[i + 1]) for i in range(0, 40, 2)]
    pd.DataFrame(pairs, columns=["entity1", "entity2"]).to_csv(tmp_path / "HuMAP.txt", index=False)
    relationships._read_pairs.cache_clear()
    labels = np.repeat(genes, 3)
    x = np.eye(20)[np.repeat(np.arange(40) // 2, 3)] + 0.01 * np.random.default_rng(0).normal(size=(120, 20))
    scores = {s.metric: s for s in recall.run(view_of(x, labels, np.full(120, "a"), protocol="paper"))}
    relationships._read_pairs.cache_clear()
    assert scores["recall_humap"].value == 1


def test_mean_weighs_sources_not_pairs(annotations):
    genes, _ = annotations
    measured = pd.DataFrame({"gene_id": genes, "symbol": genes, "ensembl_id": ""})
    x, labels, batch = _planted(genes)
    x, labels, batch = np.vstack([x, x[:2]]), np.append(labels, ["HS2"] * 2), np.append(batch, batch[:2])
    scores = {s.metric: s for s in recall.run(view_of(x, labels, batch, genes=measured))}
    available = [scores[f"recall_{s}"].value for s in ("corum", "humap", "reactome", "stringdb")]
    assert scores["recall_signor"].status == "not_applicable"
    # HS2 is an enhancer: it is in the ranking, but is none of the genes
    assert "1 pair known to SIGNOR among 40 perturbed genes" in scores["recall_signor"].reason
    assert scores["recall_mean"].value == pytest.approx(np.mean(available), abs=1e-12)
    assert "without SIGNOR" in scores["recall_mean"].reason
    assert scores["recall_mean"].items.denominator.sum() == pytest.approx(1)


def test_names_are_symbols_ensembl_ids_or_combinations(annotations):
    genes, _ = annotations
    x, labels, batch = _planted(genes)
    table = pd.DataFrame({"gene_id": ["ENSG1", "ENSG2"], "ensembl_id": ["ENSG1", "ENSG2"], "symbol": ["G00", "G01"]})
    by_symbol = view_of(x, labels, batch, genes=table)
    renamed = np.where(labels == "G00", "ENSG1", labels)
    combined = np.append(renamed, ["G03+G04"] * 3)
    wide = np.vstack([x, np.full((3, 16), 99)])
    view = view_of(wide, combined, np.append(batch, ["a"] * 3), genes=table)
    names, means = recall.gene_means(view.embedding, view.screen)
    expected_names, expected = recall.gene_means(by_symbol.embedding, by_symbol.screen)
    np.testing.assert_array_equal(names, expected_names)
    np.testing.assert_allclose(means, expected, atol=1e-6)


def test_order_and_rotation_do_not_matter(annotations):
    genes, _ = annotations
    view = view_of(*_planted(genes))
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))
    turned = replace(view, embedding=(view.embedding @ rotation).astype(np.float32))
    shuffled = turned.take(np.random.default_rng(2).permutation(len(view.embedding)))
    for a, b in zip(recall.run(view), recall.run(shuffled), strict=True):
        assert a.metric == b.metric
        assert b.value == pytest.approx(a.value, abs=0.02, nan_ok=True)


def test_absent_with_a_reason(annotations):
    genes, _ = annotations
    view = view_of(*_planted(genes))
    few = view.take(np.flatnonzero(np.isin(view.screen.perturbation, ["G00", "G01", "ctrl"])))
    for changed in (few,):
        scores = recall.run(changed)
        assert {s.metric for s in scores} == {m.name for m in recall.TASK.metrics}
        assert all(s.status == "not_applicable" and s.reason for s in scores)
    paper = {s.metric: s for s in recall.run(replace(view, protocol="paper"))}
    assert set(paper) == {m.name for m in recall.TASK.metrics}
    assert paper["recall_corum"].status == "ok"
    assert paper["corum_ks"].status == paper["precision_corum"].status == "not_applicable"
    facts = {"n_perturbations": 100, "perturbation_type": "CRISPRi", "organism": "human"}
    assert recall.not_applicable(facts) == ""
    assert "compounds" in recall.not_applicable({**facts, "perturbation_type": "chemical"})
    assert recall.not_applicable({**facts, "organism": "mouse"}) == ""
    assert "the cells are other" in recall.not_applicable({**facts, "organism": "other"})
    assert "1 perturbation" in recall.not_applicable({**facts, "n_perturbations": 1})


def test_a_tail_that_known_pairs_fill_leaves_nothing_to_vary():
    """Where all pairs above the limit are known, one more that is recalled takes the place of another: whichever genes were
    drawn, as many are recalled."""
    similarities = pairwise_cosines(np.random.default_rng(3).normal(size=(60, 4)))
    band = band_of(similarities, 0.05)
    known = np.flatnonzero(similarities.values >= np.quantile(similarities.values, 0.8))
    value = similarities.values[known]
    hit, ends = recalled(value, band.limits).astype(float), similarities.pairs(known)
    own = sum(np.bincount(end, hit / len(hit), minlength=60) for end in ends)
    own -= own.mean()
    assert np.abs(own).max() > 0.005
    np.testing.assert_allclose(band.influence(value), -own, atol=0.02 * np.abs(own).max())


def test_noise_takes_pairs_out_of_the_band_as_normal_similarities_say():
    """By drawing: exact similarities, observed with noise, and how many of the exact band stay in it."""
    rng = np.random.default_rng(0)
    exact = rng.normal(size=400_000)
    for rho in (0.0, 0.2, 0.6, 0.95):
        observed = np.sqrt(rho) * exact + np.sqrt(1 - rho) * rng.normal(size=len(exact))
        bands = [(x < np.quantile(x, 0.05)) | (x > np.quantile(x, 0.95)) for x in (exact, observed)]
        assert recall_of_exact(rho) == pytest.approx((bands[0] & bands[1]).mean() / 0.1, abs=0.01)
    assert recall_of_exact(1.0) == pytest.approx(1, abs=1e-3)
    assert recall_of_exact(-0.3) == pytest.approx(0.1)
    assert recall_of_exact(np.array([[0.0], [1.0]])).shape == (2, 1)


def test_the_ceiling_of_recall_is_that_of_pairs_planted_in_the_band():
    """A screen whose exact effects are known: the share of its extreme pairs that the noisy means keep."""
    found, truth = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        effects, cells = rng.normal(size=(60, 12)), 12
        names = np.repeat([f"G{i:02d}" for i in range(60)] + ["ctrl"], cells)
        x = np.repeat(np.vstack([effects, np.zeros((1, 12))]), cells, axis=0) + 1.5 * rng.normal(size=(len(names), 12))
        view = view_of(x, names, np.arange(len(names)) % 2)
        found.append(recall._ceiling(view).value)
        means = recall.gene_means(view.embedding, view.screen)[1]
        exact, observed = (cosine_similarity(m)[np.triu_indices(60, 1)] for m in (effects, means))
        bands = [(c <= np.quantile(c, 0.05)) | (c >= np.quantile(c, 0.95)) for c in (exact, observed)]
        truth.append((bands[0] & bands[1]).sum() / bands[0].sum())
    assert np.mean(found) == pytest.approx(np.mean(truth), abs=0.08)
    assert 0.3 < np.mean(truth) < 0.9
