"""plumbline from Python gives the numbers of the pipeline, refuses what it cannot score, and spares a training run."""

import importlib
import importlib.util
import json
import logging
import os
import random
import runpy
import subprocess
import sys
import types
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import plumbline as pl
from plumbline.benchmark.screens import Screen as ScreenOfModule
from plumbline.common.errors import UserError
from plumbline.data.simulate import CONTROL, Design, simulate
from plumbline.data.splits import read_split
from plumbline.embedding.contract import read_embedding

BIN = Path(pl.__file__).resolve().parents[1]
DESIGN = Design(n_perturbations=16, n_batches=4, cells_per_perturbation=12, n_genes=120, depth=1500.0, effect=0.8)
LABELS = {"perturbation": "perturbation", "control": CONTROL, "batch": "batch"}
MIN_COUNTS = 900  # leaves out some cells, so that rows of the embedding and of the prepared data set differ
SEEDS, TASKS, DRAWS = [42, 43], ["recall", "consistency", "separability"], 50
# every script in one process: each import costs seconds
DRIVER = """
import json, runpy, sys
for command in json.load(open(sys.argv[1])):
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "tiny.h5ad"
    simulate(DESIGN, path)
    return path


@pytest.fixture(scope="module")
def adata(file) -> ad.AnnData:
    data = ad.read_h5ad(file)
    rng = np.random.default_rng(0)
    data.obsm["X_mine"] = rng.normal(size=(data.n_obs, 6)).astype(np.float32) + np.asarray(data.X[:, :6].todense())
    data.obsm["X_noise"] = rng.normal(size=(data.n_obs, 6)).astype(np.float32)
    return data


@pytest.fixture(scope="module")
def screen(adata) -> ScreenOfModule:
    return pl.Screen.from_anndata(adata, **LABELS, min_counts=MIN_COUNTS, seeds=SEEDS, name="tiny")


@pytest.fixture(scope="module")
def bench(screen):
    """One quick task; what is tested with it is not its numbers."""
    return pl.Benchmark(screen, tasks="consistency", references=["random"], n_draws=20, n_boot=20, threads=1)


def run_scripts(folder: Path, commands: list[list]) -> None:
    (folder / "commands.json").write_text(json.dumps([[str(BIN / words[0]), *map(str, words[1:])] for words in commands]))
    command = [sys.executable, "-c", DRIVER, folder / "commands.json"]
    # the environment stays: a BLAS of another kernel (OPENBLAS_CORETYPE) has other last digits
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(BIN)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def pipeline_run(file: Path, adata: ad.AnnData, folder: Path) -> None:
    """What Nextflow starts: PREPARE, EMBED, EVALUATE and SUMMARISE of PCA, two references and an embedding of the user."""
    row = {"name": "tiny", "perturbation_column": "perturbation", "control_label": CONTROL, "batch_column": "batch"}
    (folder / "row.json").write_text(json.dumps(row | {"min_counts": MIN_COUNTS}))
    order = np.random.default_rng(1).permutation(adata.n_obs)  # joined by id, so any order does
    ids = adata.obs_names.to_numpy(dtype=str)[order]
    np.savez(folder / "mine.npz", cell_id=ids, embedding=adata.obsm["X_mine"][order])
    seeds, tables, counts = ",".join(map(str, SEEDS)), folder / "tables", folder / "counts.h5ad"
    variants = [("pca", "pca", "train", seed, seed, ["n_components=256", "input=lognorm"]) for seed in SEEDS]
    variants += [("reference", name, "none", 42, seeds, [f"kind={name}"]) for name in ("random", "label_oracle")]
    variants += [("external", "mine", "none", 42, seeds, [])]
    prepare = ["prepare_dataset.py", "--row", folder / "row.json", "--input", file, "--outdir", folder]
    commands: list[list] = [prepare]
    expected = []
    for model, variant, fit_on, seed, scored_on, settings in variants:
        path = folder / f"embeddings/tiny.{variant}.{seed}.npz"
        own = ["--embedding", folder / "mine.npz"] if model == "external" else []
        commands.append([f"embed_{model}.py", "--counts", counts, "--tables", tables, "--variant", variant, "--fit-on", fit_on,
                         "--seed", seed, "--threads", 1, "--output", path, *own,
                         *(word for setting in settings for word in ("--set", setting))])  # fmt: skip
        about = {"dataset": "tiny", "model": model, "variant": variant, "fit_on": fit_on}
        for task in TASKS:
            options = [word for name, value in about.items() for word in (f"--{name.replace('_', '-')}", value)]
            commands.append(["evaluate_embedding.py", "--embedding", path, "--tables", tables, "--task", task,
                             "--seeds", scored_on, "--n-draws", DRAWS, "--n-boot", DRAWS, *options,
                             "--output", folder / f"evaluated/{path.stem}.{task}"])  # fmt: skip
            role = "external" if model == "external" else ""
            expected.append({**about, "task": task, "seeds": str(scored_on), "role": role, "id": path.stem})
    (folder / "expected.json").write_text(json.dumps(expected))
    run_scripts(folder, commands)
    for kind in ("scores", "items"):
        (folder / kind).mkdir()
        for path in (folder / "evaluated").glob(f"*.{kind}.parquet"):
            path.rename(folder / kind / path.name)
    run_scripts(folder, [["summarise_scores.py", "--scores", folder / "scores", "--items", folder / "items", "--expected",
                          folder / "expected.json", "--models", BIN.parent / "assets/models.csv", "--data-reports", folder,
                          "--n-boot", DRAWS, "--seed", SEEDS[0], "--outdir", folder / "summary"]])  # fmt: skip


def test_numbers_are_those_of_the_pipelines_scripts_to_the_last_digit(file, adata, screen, tmp_path):
    pipeline_run(file, adata, tmp_path)
    bench = pl.Benchmark(screen, TASKS, seeds=SEEDS, protocols=["paper", "corrected"], n_draws=DRAWS, n_boot=DRAWS, threads=1)
    result = bench.evaluate("X_mine", name="mine")
    keys = {
        "scores": ["variant", "task", "metric", "protocol", "postprocess", "seed"],
        "comparisons": ["variant", "task", "metric", "protocol"],
        "items": ["variant", "task", "metric", "protocol", "postprocess", "seed", "unit", "unit2"],
    }
    for name, columns in keys.items():
        theirs = pd.read_parquet(tmp_path / f"summary/{name}.parquet").sort_values(columns, ignore_index=True)
        ours = getattr(result, name).sort_values(columns, ignore_index=True)
        assert len(ours) > 20
        assert ours["variant"].nunique() == 4
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True, check_like=True, check_dtype=False)
    assert result.scores["value"].notna().sum() > 50


def test_cells_are_joined_by_id_whatever_the_order(adata, screen, bench):
    assert 5 < len(screen.dropped_id) < 100
    by_key = bench.evaluate("X_mine", name="mine")
    assert set(by_key.scores["status"]) == {"ok"}
    array = adata.obsm["X_mine"]
    table = pd.DataFrame(array, index=adata.obs_names).sample(frac=1, random_state=0)
    kept = table[table.index.isin(screen.prepared_id)]  # the cells left out need not be given
    named = table.rename_axis("cell_id").reset_index()  # as the parquet file of a sheet of embeddings
    tensor = torch.tensor(array, requires_grad=True)
    tensors = (tensor, tensor.double(), tensor.detach().to_sparse())
    for z in (array, table, kept, named, *tensors, lambda data: data.obsm["X_mine"], array.astype(float)):
        again = bench.evaluate(z, name="mine")
        pd.testing.assert_frame_equal(again.comparisons, by_key.comparisons, check_exact=True)
        np.testing.assert_array_equal(read_embedding(again._candidates.embeddings[0].path).values[0], array[
            list(adata.obs_names).index(screen.prepared_id[0])])  # fmt: skip
    other = bench.evaluate(array[::-1], name="mine")
    assert not other.items["p"].equals(by_key.items["p"])


def wrong(adata: ad.AnnData) -> dict:
    array = adata.obsm["X_mine"]
    hole, table = array.copy(), pd.DataFrame(array, index=adata.obs_names)
    hole[3, 1] = np.nan
    return {
        "an array of 7 rows, but the screen has": array[:7],
        r"1 rows hold NaN or infinite values, or numbers beyond 1e\+15 \(first: cell": hole,
        "expected numbers": array[:, 0],
        r"of shape \(\d+, 2\) and type <U1": np.full((len(array), 2), "a"),
        "do not hold the same cells: 1 missing": table[table.index != adata.obs_names[adata.obs_names.isin(table.index)][-1]],
        "1 extra .*'nobody'": pd.concat([table, table.iloc[:1].set_axis(["nobody"])]),
        "the columns label are not numeric": table.assign(label="x"),
        "an embedding that is a NoneType; expected numbers": lambda _: None,  # a forgotten return
        r"an AnnData is not an embedding.*adata\.obsm": adata,
        r"Expected numbers \(n_cells, d\)": [[1.0, 2.0], [3.0]],
        "the columns is_control seem to be annotations": table.assign(is_control=True),
        "the columns leiden seem to be annotations": table.assign(leiden=1),
        "obsm has no 'X_mime'.*Did you mean 'X_mine'": "X_mime",
        "more than once": pd.concat([table, table.iloc[-1:]]),
        "rows hold NaN or infinite values, .* Give every cell finite numbers": np.ma.masked_greater(array, 1),
    }


@pytest.mark.parametrize("place", range(15))
def test_what_cannot_be_scored_is_refused_with_a_reason(adata, bench, place):
    message, z = list(wrong(adata).items())[place]
    with pytest.raises(UserError, match=message):
        bench.evaluate(z, name="mine")


@pytest.mark.parametrize("name", ["pca", "random", "a/b", ""])
def test_a_name_is_free_and_can_be_a_file_name(bench, name):
    if not name:
        assert bench.evaluate("X_mine", name=name).names == ["X_mine"]
        return
    with pytest.raises(UserError, match="name='mine'"):
        bench.evaluate("X_mine", name=name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ["recal"]}, "Did you mean 'recall'"),
        ({"baseline": "pcaa"}, "Did you mean 'pca'"),
        ({"seeds": [7]}, r"prepared with the seeds \[42, 43\]"),
        ({"protocols": ["corect"]}, "Did you mean 'corrected'"),
        ({"protocols": []}, "protocols is empty"),
        ({"tasks": []}, "tasks is empty"),
        ({"tasks": None}, "tasks is empty"),
        ({"references": [7]}, "7 is not a name"),
        ({"baseline": "PCA"}, "Did you mean 'pca'"),
        ({"seeds": [42.5]}, "expected a whole number from 0"),
        ({"n_draws": 0}, "n_draws=0: expected a whole number from 1"),
        ({"n_boot": True}, "n_boot=True"),
        ({"threads": -1}, "threads=-1"),
        ({"device": "gpu"}, "expected 'auto', 'cpu' or 'cuda'"),
        ({"exact": "no"}, "exact='no': expected True or False"),
    ],
)
def test_settings_are_checked_before_anything_is_computed(screen, change, message):
    with pytest.raises(UserError, match=message):
        pl.Benchmark(screen, **change)


def test_one_or_several_and_each_once(screen):
    """A repeated seed would count its units twice; a text is one name, not its letters."""
    once = {"tasks": "consistency", "seeds": 42, "protocols": "paper", "references": "random"}
    twice = {name: [value, value] for name, value in once.items()} | {"seeds": np.array([42, 42])}
    assert pl.Benchmark(screen, **twice).settings == pl.Benchmark(screen, **once).settings
    assert pl.Benchmark(screen, **once).settings.seeds == [42]
    assert pl.Benchmark(screen, **once | {"references": None}).settings.references == []


@pytest.mark.parametrize(("column", "control"), [("code", 0), ("code", np.int64(0)), ("code", [0]), ("flag", True)])
def test_control_labels_may_be_numbers_and_truth_values(adata, column, control):
    """0 and False are labels, not the absence of one."""
    is_control = adata.obs["perturbation"] == CONTROL
    data = ad.AnnData(adata.X, adata.obs[["batch"]].assign(code=np.where(is_control, 0, 7), flag=is_control), adata.var)
    screen = pl.Screen.from_anndata(data, **LABELS | {"perturbation": column, "control": control})
    assert screen.facts["n_controls"] == is_control.sum()


def test_without_known_relationships_the_command_comes_before_the_first_score(screen, monkeypatch, tmp_path):
    monkeypatch.setenv("PLUMBLINE_RELATIONSHIPS", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"recall and map read them; without: tasks=\['separability'"):
        pl.Benchmark(screen)
    pl.Benchmark(screen, tasks=["consistency"])


def test_a_reference_with_an_environment_of_its_own_is_refused(screen):
    with pytest.raises(UserError, match=r"bin/embed_scvi\.py"):
        pl.Benchmark(screen, references=["scvi"], n_draws=9, threads=1).prepare()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"perturbation": "perturbatoin"}, "Did you mean 'perturbation'"),
        ({"control": "ntc"}, "matches no cell"),
        ({"layer": "raw"}, "adata has no layer 'raw'. There is none"),
        ({"control": [["a"]]}, "expected one name, or a list of names"),
        ({"seeds": [-1]}, "seeds=-1: expected a whole number from 0"),
        ({"x_kind": "count"}, "Did you mean 'counts'"),
        ({"min_counts": 1e9}, "no cell has more than min_counts"),
    ],
)
def test_a_screen_that_prepare_refuses(adata, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        pl.Screen.from_anndata(adata, **LABELS | change, folder=tmp_path / "kept")
    assert list((tmp_path / "kept").glob("*")) == [], "something half-written remains"


def test_a_control_label_of_no_cell_is_told_before_values_are_copied(adata, monkeypatch):
    monkeypatch.setattr(ad.AnnData, "write_h5ad", None)
    with pytest.raises(UserError, match=f"Did you mean '{CONTROL}'"):
        pl.Screen.from_anndata(adata, **LABELS | {"control": CONTROL[:-1]})


def test_cell_ids_that_occur_twice_are_refused(adata):
    twice = ad.concat([adata, adata[:3]])
    with pytest.raises(UserError, match="obs_names_make_unique"):
        pl.Screen.from_anndata(twice, **LABELS)


def test_a_screen_is_not_changed_by_being_prepared(adata, tmp_path):
    before = adata.copy()
    pl.Screen.from_anndata(adata, **LABELS, folder=tmp_path)
    assert list(adata.obs) == list(before.obs)
    assert (adata.X != before.X).nnz == 0


def test_the_summary_is_flat_and_names_the_baseline(bench):
    result = bench.evaluate("X_mine")
    row = result.comparisons.query("variant == 'X_mine' and metric == 'consistency_pct'").iloc[0]
    assert result.summary() == {
        "consistency_pct": row["value"],
        "consistency_pct/vs_pca": row["difference"],
        "consistency_pct/verdict": row["verdict"],
    }
    assert all(type(value) in (float, str) for value in result.summary().values())
    with pytest.raises(UserError, match="'paper' was not scored"):
        result.summary("paper")


def test_several_keys_are_compared_together(bench):
    result = bench.evaluate(["X_mine", "X_noise"])
    assert result.names == bench.evaluate("*").names == ["X_mine", "X_noise"]
    assert list(result.summary()) == [
        f"{name}/consistency_pct{end}" for name in result.names for end in ("", "/vs_pca", "/verdict")
    ]
    alone = bench.evaluate("X_noise")
    assert alone.summary()["consistency_pct"] == result.summary()["X_noise/consistency_pct"]
    ranks = result.comparisons.query("metric == 'consistency_pct'").set_index("variant")["rank_high"]
    assert ranks[result.names].max() <= 3  # PCA and the two, in one contest
    with pytest.raises(UserError, match="each named by its key"):
        bench.evaluate(["X_mine", "X_noise"], name="both")


def test_compare_takes_another_baseline_from_this_result_or_from_another(bench):
    first, second = bench.evaluate("X_mine", name="step_1"), bench.evaluate("X_noise", name="step_2")
    table = second.compare(first)
    together = bench.evaluate(["X_mine", "X_noise"]).compare("X_mine").query("variant == 'X_noise'")
    assert set(table["variant"]) == {"step_2"}
    assert set(table["compared_with"]) == {"step_1"}
    np.testing.assert_array_equal(table["difference"], together["difference"])
    assert table["difference"].notna().any()
    assert set(second.compare("random")["compared_with"]) == {"random"}
    for other, message in (("rendom", "Did you mean 'random'"), (second, "a name of its own")):
        with pytest.raises(UserError, match=message):
            second.compare(other)
    elsewhere = pl.Benchmark(bench.screen, "consistency", references=[], n_draws=19, n_boot=20, threads=1).evaluate("X_mine")
    with pytest.raises(UserError, match="different screens or settings"):
        second.compare(elsewhere)


def test_rows_follow_the_anndata_as_it_is_now(adata):
    """Reordered in place after an evaluation, as scanpy.pp.subsample does it: a key of obsm comes in the new order."""
    data = adata.copy()
    bench = pl.Benchmark(pl.Screen.from_anndata(data, **LABELS), tasks="consistency", references=None, n_draws=20, n_boot=20)
    columns = ["variant", "postprocess", "metric", "value"]
    before = bench.evaluate("X_mine").scores[columns]
    data._inplace_subset_obs(np.random.default_rng(0).permutation(data.n_obs))
    pd.testing.assert_frame_equal(bench.evaluate("X_mine").scores[columns], before)


def stored(adata, way, tmp_path) -> ad.AnnData:
    """The same cells in another state of an AnnData."""
    data = adata.copy()
    if way == "backed":
        data.write_h5ad(tmp_path / "backed.h5ad")
        return ad.read_h5ad(tmp_path / "backed.h5ad", backed="r")
    if way == "view":
        return data[np.arange(data.n_obs)]
    if way == "blanks":
        data.obs_names = data.obs_names + " "
    if way == "index named as a column":
        data.obs.index.name = LABELS["batch"]
        data.var.index.name = data.var.columns[0]
    return data


@pytest.mark.parametrize("way", ["backed", "view", "blanks", "index named as a column"])
def test_the_states_of_an_anndata_make_one_screen(adata, screen, tmp_path, way):
    data = stored(adata, way, tmp_path)
    made = pl.Screen.from_anndata(data, **LABELS, min_counts=MIN_COUNTS, seeds=SEEDS, name="tiny")
    assert made.facts | {"input_sha256": ""} == screen.facts | {"input_sha256": ""}
    assert list(made.sample(60).prepared_id) == list(screen.sample(60).prepared_id)


def test_counts_elsewhere_in_the_anndata_are_found(adata):
    data = adata.copy()
    data.raw = data.copy()
    data.layers["counts"], data.X = data.X.copy(), data.X.log1p()
    message = r"X does not hold raw counts.*Whole numbers are in: raw, counts. Say layer='raw'"
    with pytest.raises(UserError, match=message):
        pl.Screen.from_anndata(data, **LABELS)
    screens = [pl.Screen.from_anndata(data, **LABELS, layer=layer) for layer in ("raw", "counts")]
    tables = [pd.read_parquet(one.tables / "cells.parquet") for one in screens]
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["n_counts"].sum() == pytest.approx(adata.X.sum())
    assert pl.Screen.from_anndata(data, **LABELS, x_kind="log").facts["x_kind"] == "log"
    data.obs = pd.concat([data.obs, data.obs[["batch"]]], axis=1)
    with pytest.raises(UserError, match="the column 'batch' more than once"):
        pl.Screen.from_anndata(data, **LABELS, layer="raw")


def test_what_is_saved_can_be_scored_again(bench, tmp_path):
    result = bench.evaluate("X_mine", name="mine")
    folder = result.save(tmp_path / "my_model/rev1")
    tables = ["comparisons.parquet", "items.parquet", "scores.parquet"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*tables, "embedding.json", "embedding.npz", "manifest.json"]
    )
    embedding = read_embedding(folder / "embedding.npz")
    again = bench.evaluate(pd.DataFrame(embedding.values, index=embedding.cell_id), name="mine")
    for name in ("scores", "items", "comparisons"):
        wanted = getattr(again, name).query("variant == 'mine'").reset_index(drop=True)
        pd.testing.assert_frame_equal(pd.read_parquet(folder / f"{name}.parquet"), wanted, check_exact=True)
    about = json.loads((folder / "manifest.json").read_text())
    assert about["plumbline"] == pl.__version__
    assert about["dataset"]["n_cells"] == len(embedding.cell_id)
    wanted = {"baseline": "pca", "references": ["random"], "seeds": [42], "protocols": ["corrected"]}
    assert about["settings"] == wanted | {"n_draws": 20, "n_boot": 20, "decoder_budget": 200, "exact": False}
    several = bench.evaluate("*").save(tmp_path / "several")
    assert sorted(path.name for path in several.iterdir()) == ["X_mine", "X_noise"]


def test_the_figure_has_a_panel_per_task_and_the_difference_in_it(bench):
    result = bench.evaluate(["X_mine", "X_noise"])
    figure = result.plot()
    (axis,) = [axis for axis in figure.axes if axis.get_visible()]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["X_noise", "X_mine"]
    drawn = {float(line.get_xdata()[0]) for line in axis.lines}
    wanted = result.comparisons.query("metric == 'consistency_pct' and variant in ['X_mine', 'X_noise']")["difference"]
    assert set(wanted) <= drawn


def test_a_prepared_folder_is_read_with_or_without_counts(adata, screen, bench, tmp_path):
    data = tmp_path / "results/data/tiny"
    kept = pl.Screen.from_anndata(adata, **LABELS, min_counts=MIN_COUNTS, seeds=SEEDS, name="tiny", folder=data)
    read = pl.Screen.read(data)
    assert list(read.cell_id) == list(read.adata.obs_names) == list(kept.prepared_id) == list(screen.prepared_id)
    settings = {"tasks": "consistency", "references": ["random"], "n_draws": 20, "n_boot": 20, "threads": 1}
    z = adata[screen.prepared_id].obsm["X_mine"]
    wanted = bench.evaluate("X_mine", name="mine").summary()
    made = pl.Benchmark(read, **settings)
    assert made.evaluate(z, name="mine").summary() == wanted
    (data / "counts.h5ad").unlink()
    with pytest.raises(UserError, match=r"no counts\.h5ad, and the run next to it no embedding tiny\.pca\.42\.npz"):
        pl.Benchmark(pl.Screen.read(data), **settings).prepare()
    (tmp_path / "results/embeddings").mkdir()  # as a run leaves them
    for path in (made.made.folder / "embeddings").iterdir():
        path.rename(tmp_path / "results/embeddings" / path.name)
    assert pl.Benchmark(pl.Screen.read(data), **settings).evaluate(z, name="mine").summary() == wanted
    with pytest.raises(UserError, match=r"tables/dataset\.json"):
        pl.Screen.read(tmp_path)
    with pytest.raises(UserError, match="reconstruction reads expression"):
        pl.Benchmark(pl.Screen.read(data), **settings | {"tasks": "reconstruction"}).prepare()


def test_a_sample_is_drawn_by_cell_id(adata, screen):
    first = screen.sample(120)
    assert len(first.prepared_id) == 120
    order = np.random.default_rng(5).permutation(adata.n_obs)
    shuffled = pl.Screen.from_anndata(adata[order], **LABELS, min_counts=MIN_COUNTS, seeds=SEEDS, name="tiny").sample(120)
    assert set(shuffled.prepared_id) == set(first.prepared_id)
    assert set(screen.sample(120, seed=1).prepared_id) != set(first.prepared_id)
    assert set(screen.sample(60).prepared_id) < set(first.prepared_id)
    assert screen.sample(10_000) is screen
    assert first.facts["n_controls"] > 0
    assert first.seeds == SEEDS


@pytest.mark.parametrize(
    ("n_cells", "message"),
    [(0, "n_cells=0: expected a whole number"), (-1, "n_cells=-1"), (1e4, "n_cells=10000.0"), (1, "no control")],
)
def test_a_sample_of_no_cells_is_refused(bench, n_cells, message):
    with pytest.raises(UserError, match=message):
        bench.sample(n_cells)
    with pytest.raises(UserError, match=message):  # before the training, not at its first evaluation
        pl.callbacks.Evaluator(bench, lambda data: "X_mine", max_cells=n_cells)


def test_a_sample_may_lack_a_rare_control_label(adata):
    """Controls that are labelled by guide: some guides have no cell in a small sample."""
    control = (adata.obs["perturbation"] == CONTROL).to_numpy()
    names = np.where(control, np.char.add("NTC_", np.cumsum(control).astype(str)), adata.obs["perturbation"].astype(str))
    data = ad.AnnData(adata.X, adata.obs[["batch"]].assign(perturbation=names), adata.var)
    whole = pl.Screen.from_anndata(data, **LABELS | {"control": sorted(set(names[control]))})
    small = whole.sample(100)
    kept = np.isin(data.obs_names, small.prepared_id)
    assert small.facts["n_controls"] == control[kept].sum() < control.sum() == whole.facts["n_controls"]


def test_a_sample_of_a_folder_keeps_its_controls_and_batches(screen):
    read = pl.Screen.read(screen.folder)
    smaller, wanted = read.sample(120), screen.sample(120)
    assert list(smaller.prepared_id) == list(wanted.prepared_id)
    for name in ("n_controls", "n_batches", "n_perturbations", "x_kind", "organism"):
        assert smaller.facts[name] == wanted.facts[name], name


def test_the_evaluator_evaluates_every_n_steps_and_never_raises(bench, caplog):
    logged = []

    def encode(model: str, data: ad.AnnData):
        if model == "broken":
            raise RuntimeError("no more memory")
        return data.obsm[model]

    evaluator = pl.callbacks.Evaluator(
        bench, encode, every_n_steps=10, log=lambda summary, step: logged.append((step, summary))
    )
    assert [bool(evaluator(step, "X_mine")) for step in (0, 5, 10, 15, 20)] == [False, False, True, False, True]
    assert [step for step, _ in logged] == [entry["step"] for entry in evaluator.history] == [10, 20]
    with caplog.at_level(logging.WARNING, logger="plumbline"):
        assert evaluator(30, "broken") == {}
        assert evaluator.evaluate(31, "X_none") == {}
    assert "step 30 (RuntimeError: no more memory)" in caplog.text
    assert "step 31" in caplog.text
    assert len(evaluator.history) == 2


def test_the_evaluator_scores_a_sample(bench):
    sizes = []

    def encode(data: ad.AnnData):
        sizes.append(data.n_obs)
        return "X_mine"

    evaluator = pl.callbacks.Evaluator(bench, encode, every_n_steps=1, max_cells=120)
    assert evaluator(1)["consistency_pct"] >= 0
    assert sizes == [120]


class Network(torch.nn.Module):
    """A model that is trained but for one part, and what the callback uses of a LightningModule."""

    def __init__(self) -> None:
        super().__init__()
        self.trained, self.frozen, self.logged = torch.nn.Dropout(), torch.nn.Dropout().eval(), {}

    def log_dict(self, numbers: dict, logger: bool, rank_zero_only: bool) -> None:
        assert rank_zero_only
        assert not logger  # its loggers have them already
        self.logged |= numbers


def drawn() -> list[float]:
    """One number of each generator that a training may use."""
    return [random.random(), float(np.random.rand()), float(torch.rand(1))]  # noqa: NPY002


def test_a_training_goes_on_as_if_there_had_been_no_evaluation(bench):
    """Random numbers, modes of parts and gradients; after an evaluation that fails, too."""
    model, seen = Network(), []

    def encode(network: Network, data: ad.AnnData):
        seen.append((network.trained.training, torch.is_grad_enabled()))
        drawn()
        return data.obsm["X_mine"] if len(seen) == 1 else 1 / 0

    evaluator = pl.callbacks.Evaluator(bench, encode, every_n_steps=1)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    expected = drawn()
    for _ in range(2):
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        evaluator(1, model)
        assert drawn() == expected
        assert (model.training, model.trained.training, model.frozen.training) == (True, True, False)
        assert torch.is_grad_enabled()
    assert seen == [(False, False)] * 2
    assert len(evaluator.history) == 1


def test_only_encoding_is_without_gradients(bench, monkeypatch):
    """Tasks that train a decoder need them."""
    seen = []
    monkeypatch.setattr(pl.Benchmark, "evaluate", lambda *_, **__: seen.append(torch.is_grad_enabled()))
    pl.callbacks.Evaluator(bench, lambda data: "X_mine", every_n_steps=1)(1)
    assert seen == [True]


def test_only_rank_0_prepares_and_evaluates(bench, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    evaluator = pl.callbacks.Evaluator(bench, lambda data: "X_mine", every_n_steps=1, max_cells=120)
    assert "bench" not in vars(evaluator)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert evaluator(1) == {}
    assert evaluator.history == []
    assert "bench" not in vars(evaluator)


@pytest.fixture
def lightning(monkeypatch):
    """A stand-in for Lightning: the base class of callbacks."""
    package, module = types.ModuleType("lightning"), types.ModuleType("lightning.pytorch")
    module.Callback = type("Callback", (), {})
    package.pytorch = module
    monkeypatch.setitem(sys.modules, "lightning", package)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", module)
    return module


class Logger:
    """A logger of a trainer: keeps the steps."""

    def __init__(self) -> None:
        self.steps = []

    def log_metrics(self, numbers: dict, step: int) -> None:
        assert all(isinstance(value, float) for value in numbers.values())
        self.steps.append(step)


def test_the_lightning_callback_logs_every_n_steps_whatever_a_batch_counts(bench, lightning):
    """Accumulated gradients: several batches are one step; two optimizers: one batch is two; resumed: not at once."""
    callback = pl.callbacks.Lightning(bench, lambda module, data: data.obsm["X_mine"], every_n_steps=5, max_cells=None)
    assert isinstance(callback, lightning.Callback)
    module, logger = Network(), Logger()

    def end_of_batch(step: int, main: bool = True) -> None:
        trainer = types.SimpleNamespace(global_step=step, is_global_zero=main, loggers=[logger])
        callback.on_train_batch_end(trainer, module, None, None, 0)

    callback.on_train_start(types.SimpleNamespace(global_step=1007), module)
    for step in (1008, 1010, 1010, 1012, 1014, 1016):
        end_of_batch(step)
    end_of_batch(1020, main=False)
    assert logger.steps == [1010, 1016]
    assert set(module.logged) == {"plumbline/consistency_pct", "plumbline/consistency_pct/vs_pca"}
    callback.evaluator.encode = lambda module, data: 1 / 0
    end_of_batch(1025)
    assert logger.steps == [1010, 1016]


def test_lightning_itself_calls_it_and_goes_on_after_a_failure(bench, adata, caplog, tmp_path):
    if importlib.util.find_spec("lightning") is None:
        pytest.skip("needs lightning, which comes with scvi-tools")
    trainer_of = importlib.import_module("lightning.pytorch")

    class Autoencoder(trainer_of.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(6, 6)

        def training_step(self, batch, _):
            return ((self.layer(batch) - batch) ** 2).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def encode(module: Autoencoder, data: ad.AnnData):
        if module.global_step > 2:
            raise RuntimeError("not now")
        return module.layer(torch.as_tensor(data.obsm["X_mine"]))

    callback = pl.callbacks.Lightning(bench, encode, every_n_steps=2, max_cells=None)
    loader = torch.utils.data.DataLoader(torch.as_tensor(adata.obsm["X_mine"][:32]), batch_size=8)
    logger = importlib.import_module("lightning.pytorch.loggers").CSVLogger(tmp_path)
    quiet = {"logger": logger, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = trainer_of.Trainer(max_steps=4, accelerator="cpu", callbacks=[callback], **quiet)
    trainer.fit(Autoencoder(), loader)
    assert trainer.global_step == 4
    assert [entry["step"] for entry in callback.evaluator.history] == [2]
    assert "plumbline/consistency_pct" in trainer.callback_metrics
    logged = pd.read_csv(Path(logger.log_dir) / "metrics.csv")  # which Lightning itself writes to at every 50th step alone
    assert logged["step"].tolist() == [2]
    assert "step 4 (RuntimeError: not now)" in caplog.text


def test_without_lightning_the_message_has_the_command(bench, monkeypatch):
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'plumbline\[lightning\]'"):
        pl.callbacks.Lightning(bench, None)


def test_evaluation_gives_the_threads_back(bench):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        bench.evaluate("X_mine")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_one_call(adata):
    result = pl.evaluate(adata, "X_mine", **LABELS, tasks="consistency", references=[], n_draws=20, n_boot=20, threads=1)
    assert "consistency_pct/vs_pca" in result.summary()
    assert "consistency_pct" in repr(result)


def test_one_call_takes_the_settings_of_both_and_refuses_others_at_once(adata, monkeypatch):
    made = pl.evaluate(adata, "X_mine", **LABELS, tasks="consistency", references=None, n_draws=20, n_boot=20,
                       seeds=7, min_counts=MIN_COUNTS, x_kind="log", name="mine")  # fmt: skip
    assert (made.settings.seeds, made.screen.name, made.screen.facts["x_kind"]) == ([7], "mine", "log")
    monkeypatch.setattr(pl.Screen, "from_anndata", None)  # nothing is prepared for settings that are none
    for change, message in (({"n_draw": 9}, "Did you mean 'n_draws'"), ({"min_count": 9}, "Did you mean 'min_counts'"),
                            ({"tasks": "recal"}, "Did you mean 'recall'"), ({"n_boot": 0}, "n_boot=0")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            pl.evaluate(adata, "X_mine", **LABELS, **change)


def test_the_import_takes_no_time_and_no_other_package():
    code = (
        "import sys, time\nstart = time.perf_counter()\nimport plumbline\nseconds = time.perf_counter() - start\n"
        "assert seconds < 0.5, seconds\nassert not {'numpy', 'pandas', 'torch', 'anndata'} & set(sys.modules)\n"
        "assert 'Benchmark' in dir(plumbline)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(BIN)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_face_names_what_exists_and_nothing_else():
    assert all(getattr(pl, name) is not None for name in pl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Bench'"):
        _ = pl.Bench


def test_exact_is_the_pipelines_exact(adata, screen, monkeypatch, tmp_path):
    """On data that count as large, the scores are approximate unless exact ones are asked for, here and in the script."""
    settings = {"tasks": "consistency", "references": [], "n_draws": 300, "n_boot": 20, "threads": 1}
    small = pl.Benchmark(screen, **settings).evaluate("X_noise").items["p"]
    monkeypatch.setattr("plumbline.metrics.ranks.CURTAILED_CELLS", 10)
    exact = pl.Benchmark(screen, **settings, exact=True).evaluate("X_noise")
    pd.testing.assert_series_equal(exact.items["p"], small, check_exact=True)
    assert not pl.Benchmark(screen, **settings).evaluate("X_noise").items["p"].equals(small)
    assert json.loads((exact.save(tmp_path / "exact") / "manifest.json").read_text())["settings"]["exact"] is True


def test_split_order_id_makes_the_splits_of_the_pipeline(file, adata, tmp_path, monkeypatch):
    """Whatever the order of the cells; a sample keeps the rule."""
    row = {"name": "tiny", "perturbation_column": "perturbation", "control_label": CONTROL, "batch_column": "batch"}
    (tmp_path / "row.json").write_text(json.dumps(row | {"min_counts": MIN_COUNTS, "split_order": "id"}))
    words = ["prepare_dataset.py", "--row", tmp_path / "row.json", "--input", file, "--outdir", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    runpy.run_path(str(BIN / words[0]), run_name="__main__")
    order = np.random.default_rng(5).permutation(adata.n_obs)
    shuffled = pl.Screen.from_anndata(adata[order], **LABELS, min_counts=MIN_COUNTS, seeds=SEEDS, split_order="id")
    for seed in SEEDS:
        theirs = pd.Series(read_split(tmp_path / "run/tables", seed).train, pl.Screen.read(tmp_path / "run").prepared_id)
        ours = pd.Series(read_split(shuffled.tables, seed).train, shuffled.prepared_id)
        pd.testing.assert_series_equal(ours.sort_index(), theirs.sort_index())
    assert shuffled.sample(120).facts["split_order"] == pl.Screen.read(shuffled.folder).sample(120).facts["split_order"] == "id"


def test_only_tasks_that_read_expression_get_the_counts(screen, monkeypatch):
    from plumbline.benchmark import scored
    from plumbline.scoring.evaluation import absent_rows
    from plumbline.tasks import load, names

    given = {}

    def spied(path, tables, counts, task, how):
        given[task] = counts
        return absent_rows(load(task), how.seeds, how.protocols, "not scored in this test")

    monkeypatch.setattr(scored, "scored", spied)
    bench = pl.Benchmark(screen, "all", references=[], n_draws=9, n_boot=9, threads=1)
    assert bench.evaluate("X_mine").summary() == {}
    assert sorted(given) == names()
    assert {task for task, counts in given.items() if counts} == {"reconstruction"}
    assert sorted(pl.Benchmark(screen).settings.tasks) == sorted(set(given) - {"reconstruction"})
