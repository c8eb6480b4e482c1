"""Structural integrity under test: metrics against brute force, damages and their reading against planted answers."""

import json
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

import ablate_integrity
import prepare_dataset
from plumbline.data.simulate import Design, simulate
from plumbline.data.splits import read_split, write_splits
from plumbline.experiments import integrity_damages as damages
from plumbline.experiments.integrity_ablation import (
    COLUMNS,
    METRICS,
    ablate,
    energy_distance,
    half_of,
    mean_effects,
    measure,
    read_case,
    replicate_rows,
)
from plumbline.experiments.integrity_damages import INDIFFERENT, KEPT, SENSITIVE, Case, levels_of, take_apart, undamaged
from plumbline.experiments.integrity_reading import interval, judged, scaled, sensitivity, specificity


def made(seed: int = 0, n_batches: int = 4, n_perturbations: int = 8, genes: int = 40, noise: float = 0.5) -> Case:
    """A case with planted batch shifts and effects: 6 controls and 2 cells of each perturbation in every batch."""
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.repeat("control", 6), np.repeat([f"P{i}" for i in range(n_perturbations)], 2)])
    perturbation, batch = np.tile(label, n_batches), np.repeat([f"b{i}" for i in range(n_batches)], len(label))
    shift = {f"b{i}": rng.normal(2, 0.5, genes) for i in range(n_batches)}
    effect = {f"P{i}": rng.normal(0, 1, genes) * (rng.random(genes) < 0.4) for i in range(n_perturbations)} | {"control": 0}
    means = np.column_stack([shift[b] + effect[p] for b, p in zip(batch, perturbation, strict=True)])
    truth = (means + rng.normal(0, noise, means.shape)).astype(np.float32)
    return Case(batch, perturbation, perturbation == "control", truth, truth)


@pytest.fixture(scope="module")
def case() -> Case:
    return made()


@pytest.fixture(scope="module")
def good(case) -> tuple[Case, damages.Decomposition]:
    parts = take_apart(case)
    return undamaged(case, parts), parts


def brute_integrity(case: Case) -> float:
    above, below = [], []
    for name in np.unique(case.batch):
        own = case.batch == name
        controls = own & case.is_control
        if controls.any():
            t = case.truth[:, own] - case.truth[:, controls].astype(float).mean(axis=1, keepdims=True)
            p = case.prediction[:, own] - case.prediction[:, controls].astype(float).mean(axis=1, keepdims=True)
            above.append(np.linalg.norm(p - t) / own.sum())
            below.append(np.linalg.norm(t) / own.sum())
    return 1 - np.mean(above) / (2 * np.mean(below))


def test_every_metric_is_that_of_a_loop(case, good):
    rng = np.random.default_rng(1)
    some = damages.noise(*good, 0.3, rng).take(np.flatnonzero(~(case.is_control & (case.batch == "b2"))))
    found = measure(some)
    assert list(found) == list(METRICS)
    assert found["structural_integrity"] == pytest.approx(brute_integrity(some), abs=1e-6)
    assert found["si_effect"] == pytest.approx(2 * brute_integrity(some) - 1, abs=1e-6)
    assert found["mse"] == pytest.approx(np.mean((some.truth - some.prediction) ** 2), rel=1e-5)
    expected = [stats.spearmanr(t, p).statistic for t, p in zip(some.truth, some.prediction, strict=True)]
    assert found["spearman"] == pytest.approx(np.mean(expected), abs=1e-6)
    correlations, distances, effects = [], [], []
    for name in np.unique(some.perturbation[~some.is_control]):
        rows = np.flatnonzero(some.perturbation == name)
        p, t = some.prediction[:, rows].T.astype(float), some.truth[:, rows].T.astype(float)
        distances.append(2 * cdist(p, t).mean() - cdist(p, p).mean() - cdist(t, t).mean())
        deltas = []
        for row in rows[some.batch[rows] != "b2"]:  # b2 has no controls
            centre = some.truth[:, some.is_control & (some.batch == some.batch[row])].mean(axis=1)
            deltas.append((some.truth[:, row] - centre, some.prediction[:, row] - centre))
        true, predicted = np.mean(deltas, axis=0)
        correlations.append(stats.pearsonr(true, predicted).statistic)
        effects.append((np.linalg.norm(predicted - true), np.linalg.norm(true)))
    assert found["energy_distance"] == pytest.approx(np.mean(distances), abs=1e-5)
    assert found["effect_pearson"] == pytest.approx(np.mean(correlations), abs=1e-5)
    apart, size = np.sum(effects, axis=0)
    assert found["effect_integrity"] == pytest.approx(1 - apart / size, abs=1e-5)


def test_a_prediction_without_effect_has_no_correlation_and_few_cells_no_distance(case, good):
    assert mean_effects(replace(case, prediction=good[1].centre)) == pytest.approx((0, 0), abs=1e-6)
    assert np.isnan(mean_effects(case.take(np.flatnonzero(case.is_control)))).all()
    few = case.take(np.flatnonzero(case.is_control | (case.batch == "b0")))
    assert np.isnan(energy_distance(few))  # two cells a perturbation


def test_parts_add_up_to_the_truth_and_hold_what_was_planted():
    exact = made(noise=0.0)
    parts = take_apart(exact)
    np.testing.assert_allclose(parts.own, 0, atol=1e-5)
    np.testing.assert_allclose(parts.centre + parts.effect, exact.truth, atol=1e-5)
    case = made(seed=3)
    parts = take_apart(case)
    np.testing.assert_allclose(parts.centre + parts.effect + parts.own / KEPT, case.truth, atol=1e-5)
    rows = np.flatnonzero(case.perturbation == "P3")
    np.testing.assert_allclose(parts.effect[:, rows[0]], (case.truth - parts.centre)[:, rows].mean(axis=1), atol=1e-5)
    assert not parts.effect[:, case.is_control].any()
    assert mean_effects(undamaged(case, parts)) == pytest.approx((1, 1), abs=1e-4)


def test_no_effect_is_half_and_perfect_is_one_whatever_the_controls_and_batches(case, good):
    rng = np.random.default_rng
    for value, prediction in ((0.5, good[1].centre), (1.0, case.truth)):
        given = replace(case, prediction=prediction)
        assert measure(given)["structural_integrity"] == pytest.approx(value, abs=1e-9)
        for name, (damage, levels, _) in INDIFFERENT.items():
            if name != "batch_shifted" or value == 0.5:
                changed = damage(given, good[1], levels[-1], rng(0))
                assert measure(changed)["structural_integrity"] == pytest.approx(value, abs=1e-6), name


def test_integrity_of_a_planted_damage(case, good):
    """Own deviations kept by half, or by nothing: the values follow from the norms of the parts alone."""
    own = good[1].own / KEPT
    norms = [
        (np.linalg.norm(own[:, case.batch == b]), np.linalg.norm((good[1].effect + own)[:, case.batch == b]))
        for b in np.unique(case.batch)
    ]
    lost, whole = np.sum(norms, axis=0)
    assert measure(good[0])["si_effect"] == pytest.approx(1 - (1 - KEPT) * lost / whole, abs=1e-5)
    assert measure(damages.own_erased(*good, 1.0, None))["si_effect"] == pytest.approx(1 - lost / whole, abs=1e-5)


@pytest.mark.parametrize("name", list(SENSITIVE))
def test_a_sensitive_damage_lowers_integrity_step_by_step(good, name):
    damage, levels = SENSITIVE[name][0], levels_of(name, 4, 8)
    curve = [measure(good[0])["si_effect"]]
    curve += [measure(damage(*good, level, np.random.default_rng(2)))["si_effect"] for level in levels]
    assert (np.diff(curve) < 0).all()


def test_damages_do_what_they_say(case, good):
    whole, parts = good
    rng = np.random.default_rng
    deviation = np.sqrt(np.mean((case.truth - parts.centre) ** 2))
    added = damages.noise(*good, 0.5, rng(0)).prediction - whole.prediction
    assert added.std() == pytest.approx(0.5 * deviation, rel=0.05)
    np.testing.assert_allclose(damages.noise(*good, 1.0, rng(0)).prediction - whole.prediction, 2 * added, atol=1e-5)

    flat = damages.mean_only(*good, 1.0, None).prediction - parts.centre
    moved = ~case.is_control
    np.testing.assert_allclose(flat[:, moved], np.tile(flat[:, moved][:, :1], moved.sum()), atol=1e-5)
    np.testing.assert_allclose(flat[:, case.is_control], 0, atol=1e-6)

    half = np.abs(damages.genes_shuffled(*good, 0.5, rng(0)).prediction - whole.prediction) > 1e-4
    assert half.any(axis=1).sum() == 20
    np.testing.assert_allclose(damages.wrong_scale(*good, 1.0, None).prediction, whole.prediction + parts.effect, atol=1e-5)

    leaked = damages.batch_leaked(*good, 1.0, rng(0)).prediction - whole.prediction
    assert not leaked[:, case.is_control].any()
    shifted = damages.batch_shifted(*good, 1.0, rng(0)).prediction - whole.prediction
    np.testing.assert_array_equal(shifted[:, moved], leaked[:, moved])
    centres = {b: parts.centre[:, case.batch == b][:, 0] for b in np.unique(case.batch)}
    for b, own in centres.items():
        one = shifted[:, case.batch == b][:, 0]
        assert any(np.allclose(one, other - own, atol=1e-4) for name, other in centres.items() if name != b)


def test_swapped_labels_carry_each_others_effects(case, good):
    whole, parts = good
    effect = {name: parts.effect[:, case.perturbation == name][:, 0] for name in np.unique(case.perturbation[~case.is_control])}
    for level, swapped in ((0.25, 2), (1.0, 8)):
        wrong = damages.labels_swapped(*good, level, np.random.default_rng(0)).prediction - parts.centre - parts.own
        source = {}
        for name in effect:
            got = wrong[:, case.perturbation == name][:, 0]
            source[name] = min(effect, key=lambda other, got=got: np.abs(effect[other] - got).sum())
            np.testing.assert_allclose(got, effect[source[name]], atol=1e-4)
        assert sum(source[name] != name for name in effect) == swapped
        assert sorted(source.values()) == sorted(effect)
    np.testing.assert_array_equal(whole.prediction[:, case.is_control], (parts.centre + parts.own)[:, case.is_control])


def test_controls_and_batches_that_are_taken_away(case, good):
    rng = np.random.default_rng
    fewer = [damages.fewer_controls(*good, level, rng(0)) for level in (0.5, 0.95)]
    assert [int(part.is_control.sum()) for part in fewer] == [4 * 3, 4 * 1]
    assert all((~part.is_control).sum() == (~case.is_control).sum() for part in fewer)
    tiny = damages.tiny_batches(*good, 16.0, rng(0))
    controls = pd.Series(tiny.is_control).groupby(tiny.batch).sum()
    assert (len(controls), controls.min(), controls.max()) == (4 * 6, 1, 1)  # six controls a batch: six pieces
    assert (np.sort(tiny.batch) == tiny.batch).all()
    np.testing.assert_array_equal(np.sort(tiny.truth, axis=1), np.sort(case.truth, axis=1))
    lost = damages.without_controls(*good, 0.5, rng(0))
    assert lost.batch[lost.is_control].tolist() == np.repeat(np.unique(lost.batch[lost.is_control]), 6).tolist()
    assert len(np.unique(lost.batch[lost.is_control])) == 2
    most = damages.without_controls(*good, 1.0, rng(0))
    assert len(np.unique(most.batch[most.is_control])) == 1


def test_levels_that_would_be_the_same_are_left_out():
    assert levels_of("labels_swapped", 4, 2) == [1.0]
    assert levels_of("labels_swapped", 4, 8) == [0.25, 0.5, 1.0]
    assert levels_of("without_controls", 2, 8) == [0.25]
    assert levels_of("without_controls", 8, 8) == [0.25, 0.5, 0.75]
    assert levels_of("batch_leaked", 1, 8) == []
    assert levels_of("noise", 1, 1) == list(SENSITIVE["noise"][1])


def test_halves(case):
    first, again, other = (half_of(case, 42, number) for number in (0, 0, 1))
    assert len(np.unique(first.perturbation)) == 1 + 4
    np.testing.assert_array_equal(first.truth, again.truth)
    assert set(first.perturbation) != set(other.perturbation)
    assert first.is_control.sum() == case.is_control.sum()
    few = made(n_perturbations=2)
    part = half_of(few, 42, 0)
    assert pd.Series(part.perturbation).value_counts().to_dict() == {"control": 24, "P0": 4, "P1": 4}


def test_half_samples_vary_as_the_whole_does():
    """The standard deviation over halves is the standard error of the mean over all perturbations."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=40)
    halves = [values[rng.permutation(40)[:20]].mean() for _ in range(4000)]
    assert np.std(halves) == pytest.approx(values.std(ddof=1) / np.sqrt(40), rel=0.05)
    mean, low, high = interval(np.array([1.0, 2.0, 3.0]))
    assert (mean, high - mean) == pytest.approx((2.0, stats.t.ppf(0.975, 2)))
    assert low == pytest.approx(4.0 - high)
    assert np.isnan(interval(np.array([1.0, np.nan]))[1:]).all()


def planted_table(curves: dict, replicates: int = 6) -> pd.DataFrame:
    """A long table whose scaled values are ``curves``: (kind, damage, metric) -> values at levels 1, 2, ..."""
    rng, rows = np.random.default_rng(0), []
    for number in range(replicates):
        for metric, (none, whole) in {"structural_integrity": (0.5, 0.8), "mse": (2.0, 0.5)}.items():
            rows += [
                ("reference", "no_effect", 0.0, number, metric, none),
                ("reference", "undamaged", 0.0, number, metric, whole),
            ]
            for (kind, damage, name), values in curves.items():
                if name == metric:
                    wobble = values + rng.normal(0, 0.01, len(values))
                    rows += [(kind, damage, i + 1.0, number, metric, none + v * (whole - none)) for i, v in enumerate(wobble)]
    return pd.DataFrame(rows, columns=COLUMNS[:6])


def test_reading_finds_what_was_planted():
    falling, flat = np.array([0.9, 0.5, 0.1]), np.array([1.0, 1.0, 1.0])
    table = planted_table({
        ("sensitive", "noise", "structural_integrity"): falling, ("sensitive", "noise", "mse"): flat,
        ("sensitive", "wrong_scale", "structural_integrity"): np.array([1.0, 1.0, 0.7]),
        ("sensitive", "wrong_scale", "mse"): falling,
        ("indifferent", "batch_shifted", "structural_integrity"): flat,
        ("indifferent", "batch_shifted", "mse"): np.array([0.9, 0.6, 1.0]),
    })  # fmt: skip
    curves = scaled(table)
    found = sensitivity(curves).set_index(["damage", "metric"])
    row = found.loc[("noise", "structural_integrity")]
    assert (row["rho"], row["rho_low"], row["first"]) == (-1, -1, 1.0)
    assert row["low"] < 0.9 < row["high"]
    assert row["drop"] == pytest.approx(0.9, abs=0.02)
    assert found.loc[("wrong_scale", "structural_integrity"), "first"] == 3.0
    assert np.isnan(found.loc[("noise", "mse"), "first"])
    moves = specificity(curves).set_index(["damage", "metric"])
    assert moves.loc[("batch_shifted", "mse"), ["level", "change"]].tolist() == pytest.approx([2.0, -0.4], abs=0.02)
    verdicts = judged(found.reset_index(), moves.reset_index())
    assert verdicts.loc["structural_integrity"].tolist() == [["noise", "wrong_scale"], [], []]
    assert verdicts.loc["mse"].tolist() == [["wrong_scale"], ["noise"], ["batch_shifted"]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A simulated screen, prepared: 40 perturbations in 6 batches."""
    folder = tmp_path_factory.mktemp("screen")
    simulate(Design(n_perturbations=40, n_batches=6, cells_per_perturbation=24, n_genes=120, depth=2000.0), folder / "x.h5ad")
    return prepare(folder, folder / "x.h5ad")


def prepare(folder: Path, path: Path, **more) -> Path:
    row = {"name": "x", "perturbation_column": "perturbation", "control_label": "non-targeting", "batch_column": "batch"}
    (folder / "row.json").write_text(json.dumps(row | {"min_counts": 0, "perturbation_type": "crispri"} | more))
    command = ["prepare", "--row", folder / "row.json", "--input", path, "--outdir", folder]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [str(part) for part in command])
        prepare_dataset.main()
    return folder


def test_cells_of_the_ablation_are_test2(prepared):
    case, about = read_case(prepared / "counts.h5ad", prepared / "tables", 42)
    cells = pd.read_parquet(prepared / "tables" / "cells.parquet")
    test = cells[read_split(prepared / "tables", 42).test2]
    assert about["n_cells"] == about["n_cells_test"] == (~test["is_control"]).sum()
    assert about["n_controls"] == test["is_control"].sum()
    assert sorted(case.perturbation) == sorted(test["perturbation"])
    assert case.truth.shape == (120, len(test))
    assert about["halves_of"] == "perturbations"
    assert about["cells_median"] == test.loc[~test["is_control"], "perturbation"].value_counts().median()


def test_whole_ablation(prepared, monkeypatch, tmp_path):
    command = ["ablate", "--counts", prepared / "counts.h5ad", "--tables", prepared / "tables", "--output", tmp_path / "X"]
    monkeypatch.setattr("sys.argv", [str(part) for part in command])
    ablate_integrity.main()
    table = pd.read_parquet(tmp_path / "X.integrity.parquet")
    assert list(table.columns) == COLUMNS
    assert json.loads((tmp_path / "X.integrity.json").read_text())["status"] == "ok"
    assert set(table["damage"]) == {*SENSITIVE, *INDIFFERENT, "undamaged", "no_effect", "perfect"}
    found = sensitivity(scaled(table)).set_index(["damage", "metric"])
    moves = specificity(scaled(table)).set_index(["damage", "metric"])
    for damage in ("noise", "mean_only", "own_erased", "genes_shuffled"):
        assert found.loc[(damage, "structural_integrity"), "rho_high"] < -0.9
    assert found.loc[("effect_erased", "effect_pearson"), "drop"] == pytest.approx(1, abs=0.15)
    assert found.loc[("effect_erased", "effect_integrity"), "drop"] == pytest.approx(1, abs=0.15)
    for metric in ("effect_pearson", "effect_integrity"):
        assert abs(found.loc[("own_erased", metric), "drop"]) < 1e-3
    assert found.loc[("wrong_scale", "effect_integrity"), "drop"] > 0.3
    assert abs(found.loc[("wrong_scale", "effect_pearson"), "drop"]) < 1e-3
    assert abs(moves.loc[("batch_shifted", "structural_integrity"), "change"]) < 1e-3
    assert moves.loc[("batch_shifted", "mse"), "high"] < -0.05


def test_order_of_the_cells_does_not_matter(prepared, tmp_path):
    (tmp_path / "tables").mkdir()
    data = ad.read_h5ad(prepared / "counts.h5ad")
    order = np.random.default_rng(0).permutation(data.n_obs)
    data[order].write_h5ad(tmp_path / "counts.h5ad")
    write_splits(prepared / "tables", [42], tmp_path / "splits.parquet")
    for path in (prepared / "tables/cells.parquet", tmp_path / "splits.parquet"):
        pd.read_parquet(path).iloc[order].to_parquet(tmp_path / "tables" / path.name)
    for name in ("genes.parquet", "dataset.json"):
        (tmp_path / "tables" / name).write_bytes((prepared / "tables" / name).read_bytes())
    values = [
        ablate(folder / "counts.h5ad", folder / "tables", 42, replicates=1)[0]["value"] for folder in (prepared, tmp_path)
    ]
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "reason"), [("one", "one perturbation"), ("none", "control")])
def test_where_there_is_nothing_to_predict(prepared, tmp_path, kind, reason):
    data = ad.read_h5ad(prepared / "x.h5ad")
    control = data.obs["perturbation"] == "non-targeting"
    some = data.obs["perturbation"] == data.obs["perturbation"][~control].iloc[0]
    data[control | some if kind == "one" else ~control].write_h5ad(tmp_path / "y.h5ad")
    folder = prepare(tmp_path, tmp_path / "y.h5ad", **({} if kind == "one" else {"control_label": ""}))
    table, about = ablate(folder / "counts.h5ad", folder / "tables", 42)
    assert table.empty
    assert about["status"] == "not_applicable"
    assert reason in about["reason"]


def test_replicates_of_one_batch_skip_what_needs_two(case):
    one = case.take(np.flatnonzero(case.batch == "b0"))
    found = {row[1] for row in replicate_rows(one, 42, 0)}
    assert found.isdisjoint({"batch_leaked", "batch_shifted", "without_controls"})
    assert {"noise", "tiny_batches"} <= found
