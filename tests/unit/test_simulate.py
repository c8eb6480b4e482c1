"""The simulator does what its docstring says, against scipy's distributions and the planted answer."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
from scipy import stats

from plumbline.common.errors import UserError
from plumbline.common.files import sha256
from plumbline.data.simulate import (
    CONTROL,
    DISPERSION,
    KNOCKDOWN,
    STATES,
    Design,
    _compiled,
    add_states,
    check,
    choose_complexes,
    lay_out,
    other_genes,
    plant,
    simulate,
)
from plumbline.genes.relationships import annotations_folder, known_symbols

SMALL = Design(n_perturbations=60, n_batches=4, cells_per_perturbation=20, n_genes=500, depth=3000.0)


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulated") / "screen.h5ad"
    return simulate(SMALL, path), ad.read_h5ad(path)


@pytest.mark.parametrize("mean", [0.01, 0.5, 3.0, 40.0, 900.0])
def test_counts_are_negative_binomial(mean):
    drawn = _compiled()(np.full((1, 20000), mean), np.random.default_rng(0).random((1, 20000)), 1 / DISPERSION).ravel()
    law = stats.nbinom(1 / DISPERSION, 1 / (1 + DISPERSION * mean))
    uniform = law.cdf(drawn) - np.random.default_rng(1).random(20000) * law.pmf(drawn)  # randomised probability transform
    assert stats.kstest(uniform, "uniform").pvalue > 0.01


def test_inversion_is_exact():
    u = np.random.default_rng(0).random((5, 400))
    mean = np.exp(np.random.default_rng(1).normal(0, 2, (5, 400)))
    expected = stats.nbinom.ppf(u, 1 / DISPERSION, 1 / (1 + DISPERSION * mean))
    np.testing.assert_array_equal(_compiled()(mean, u, 1 / DISPERSION), expected)


def test_shape_labels_and_design(screen):
    truth, data = screen
    n_controls = round(1200 * 0.1 / 0.9)
    assert data.shape == (1200 + n_controls, 500)
    assert (data.obs["perturbation"] == CONTROL).sum() == n_controls
    assert (data.obs["perturbation"].value_counts().drop(CONTROL) == 20).all()
    assert data.obs["batch"].value_counts().between(n_controls // 4 + 280, n_controls // 4 + 320).all()
    assert set(data.obs.loc[data.obs["perturbation"] == CONTROL, "batch"]) == set(data.obs["batch"])
    assert list(data.var_names[:60]) == list(truth.perturbations)
    assert data.var_names.is_unique
    assert {*data.var_names[60:]} < known_symbols(), "real genes: foundation models know them"
    assert data.uns["seed"] == "1"
    depth = np.asarray(data.X.sum(1)).ravel()
    assert np.median(depth) == pytest.approx(3000, rel=0.4)


def test_genes_are_numbered_where_real_ones_run_out():
    names = other_genes({"TP53"}, 20_000)
    real = names[: len(known_symbols()) - 1]
    assert ("TP53" in real, len(names), len(set(names))) == (False, 20_000, 20_000)
    assert {*real} < known_symbols()
    assert names[len(real)] == "GENE00001"


def test_complexes_are_corums(screen):
    truth, _ = screen
    lines = (annotations_folder() / "CORUM_clusters.tsv").read_text().splitlines()
    corum = [(line.split("\t")[0], set(line.split("\t")[1].split())) for line in lines]
    names = set(truth.complexes) - {""}
    assert len(names) >= 5
    for name in names:
        members = set(truth.perturbations[truth.complexes == name])
        assert any(name == known and members <= genes for known, genes in corum)
    assert len(set(truth.perturbations)) == 60
    assert (truth.complexes == "").sum() == 9


def test_members_of_a_complex_share_their_direction(screen):
    truth, _ = screen
    off_target = truth.effects.copy()
    off_target[np.arange(60), np.arange(60)] = 0
    expressed = truth.complexes != ""
    assert not truth.effects[~expressed].any()
    similarity = np.corrcoef(off_target[expressed])
    same = truth.complexes[expressed][:, None] == truth.complexes[expressed]
    np.fill_diagonal(similarity, np.nan)
    assert np.nanmean(similarity[same]) > 0.5
    assert abs(np.nanmean(similarity[~same])) < 0.05


def test_guides_fail_and_working_ones_knock_down(screen):
    truth, data = screen
    perturbed = data.obs[data.obs["perturbation"] != CONTROL]
    expressed = perturbed[perturbed["complex"] != ""]
    assert not perturbed.loc[perturbed["complex"] == "", "is_effective"].any()
    assert not data.obs.loc[data.obs["perturbation"] == CONTROL, "is_effective"].any()
    by_guide = expressed.groupby("guide", observed=True)["is_effective"].mean()
    assert 0.01 < (by_guide == 0).mean() < 0.3
    assert by_guide[by_guide > 0].mean() == pytest.approx(0.8, abs=0.05)
    share = data.X.toarray() / np.asarray(data.X.sum(1))
    index = {gene: i for i, gene in enumerate(truth.perturbations)}
    own = np.array([index.get(name, 0) for name in data.obs["perturbation"]])
    control = share[(data.obs["perturbation"] == CONTROL).to_numpy()].mean(0)
    ratio = share[np.arange(len(own)), own] / control[own]
    effective = data.obs["is_effective"].to_numpy()
    silent = (data.obs["complex"] != "").to_numpy() & ~effective
    assert ratio[effective].mean() == pytest.approx(KNOCKDOWN, abs=0.05)
    assert ratio[silent].mean() == pytest.approx(1, abs=0.1)


def test_seed_decides_everything(tmp_path, screen):
    for name, design in {"a": SMALL, "b": SMALL, "c": replace(SMALL, seed=2)}.items():
        simulate(design, tmp_path / f"{name}.h5ad")
    assert sha256(tmp_path / "a.h5ad") == sha256(tmp_path / "b.h5ad") != sha256(tmp_path / "c.h5ad")


def test_the_response_to_being_perturbed_is_of_perturbed_cells_alone_and_changes_nothing_else(screen):
    plain, data = screen
    design = replace(SMALL, nuisance=0.5)
    rng = np.random.default_rng(design.seed)
    truth = plant(design, rng)
    plan = add_states(design, lay_out(design, truth, rng))
    np.testing.assert_array_equal(truth.effects, plain.effects)
    assert list(np.append(truth.perturbations, CONTROL)[plan.perturbation]) == list(data.obs["perturbation"])
    shift = plan.state @ plan.loadings
    control = plan.perturbation < 0
    assert not shift[control].any()
    assert shift[~control].std() == pytest.approx(0.5, rel=0.05)
    assert np.linalg.matrix_rank(shift) == STATES
    means = np.stack([shift[plan.perturbation == p].mean(axis=0) for p in range(60)])
    assert means.std() == pytest.approx(0.5 / np.sqrt(20), rel=0.1)  # of 20 cells: nothing shared
    assert "nuisance" not in data.uns  # a screen without is the file it was before there was this option


def corum_recall(data: ad.AnnData) -> float:
    """Plain PCA (50 components, log-normalised), centred on each batch's controls; share of CORUM pairs in the 5 % tails."""
    import pandas as pd
    from sklearn.decomposition import PCA

    counts = data.X.toarray()
    expression = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    embedding = PCA(50, random_state=0).fit_transform(expression)
    label, batch = data.obs["perturbation"].to_numpy(dtype=str), data.obs["batch"].to_numpy(dtype=str)
    for one in np.unique(batch):
        embedding[batch == one] -= embedding[(batch == one) & (label == CONTROL)].mean(0)
    genes = sorted(set(label) - {CONTROL})
    means = np.stack([embedding[label == gene].mean(0) for gene in genes])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosine = means @ means.T
    low, high = np.quantile(cosine[np.triu_indices(len(genes), 1)], [0.05, 0.95])
    position = {gene: i for i, gene in enumerate(genes)}
    table = pd.read_csv(annotations_folder() / "CORUM.txt").map(position.get).dropna().astype(int).to_numpy()
    values = cosine[tuple(np.unique(np.sort(table[table[:, 0] != table[:, 1]], axis=1), axis=0).T)]
    return float(((values <= low) | (values >= high)).mean())


def test_the_default_screen_is_neither_trivial_nor_hopeless(tmp_path):
    simulate(Design(), tmp_path / "default.h5ad")
    assert 0.3 < corum_recall(ad.read_h5ad(tmp_path / "default.h5ad")) < 0.8
    simulate(Design(effect=0.0), tmp_path / "null.h5ad")
    null = ad.read_h5ad(tmp_path / "null.h5ad")
    assert not null.obs["is_effective"].any()
    assert corum_recall(null) == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_perturbations": 1}, "n-perturbations must be 2 or more"),
        ({"n_genes": 10}, "n-genes must be 60 or more"),
        ({"escape": 1.0}, r"escape must be in \[0, 1\)"),
        ({"depth": 0.0}, "depth must be positive"),
        ({"effect": -1.0}, "effect and batch-effect must not be negative"),
        ({"nuisance": -1.0}, "nor nuisance"),
    ],
)
def test_impossible_designs_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        check(replace(SMALL, **change))


def test_more_genes_than_corum_has():
    with pytest.raises(UserError, match="lower n-perturbations"):
        choose_complexes(100_000, np.random.default_rng(0))


def test_null_perturbations_are_not_expressed():
    design = replace(SMALL, n_batches=1, batch_effect=0.0)
    truth = plant(design, np.random.default_rng(0))
    mean = design.depth * np.exp(truth.log_share) / np.exp(truth.log_share).sum()
    assert (mean[:60][truth.complexes == ""] < 0.05).all()
    assert (mean[:60][truth.complexes != ""] > 0.5).all()
