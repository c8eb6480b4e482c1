"""One real run on real data (and a simulated screen), all tasks, and what a user finds at its end."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from plumbline import tasks
from plumbline.bundles.digests import task_code

from .conftest import plumb_run, write_sheet

pytestmark = pytest.mark.pipeline
MODELS = "pca,random,label_oracle,no_effect,mean_effect"


@pytest.fixture(scope="session")
def run(shared, simulate, tmp_path_factory):
    """Norman 2019 (CRISPRa, 33 perturbations), Kang 2018 (one perturbation, 8 donors), a simulated screen, an embedding."""
    folder = tmp_path_factory.mktemp("real")
    real = shared / "data" / "real"
    options = "--n-perturbations 200 --n-batches 8 --cells-per-perturbation 20 --n-genes 1000 --seed 3"
    screen = simulate("screen", *options.split())
    sheet = write_sheet(
        folder / "sheet.csv",
        f"norman,{real / 'norman2019_k562_crispra.h5ad'},perturbation,control,batch,human,counts,0,crispra",
        f"kang,{real / 'kang2018_pbmc_ifnb_small.h5ad'},perturbation,control,batch,human,counts,500,cytokine",
        f"screen,{screen},perturbation,non-targeting,batch,human,counts,0,crispri",
    )
    mine = bring_an_embedding(folder, real / "norman2019_k562_crispra.h5ad")
    arguments = ["--models", MODELS, "--seeds", "42", "--n_draws", 200, "--n_boot", 200, "-profile", "test"]
    done = plumb_run(folder, "--input", sheet, "--embeddings", mine, *arguments, "--model_settings", "pca:n_components=50")
    assert done.code == 0, done.output
    return done


def bring_an_embedding(folder, counts):
    """The user's own embedding of Norman: log counts of the first 20 genes, rows shuffled, keyed by cell id.

    Its path is relative to the sheet, which is not where the run starts.
    """
    import anndata

    data = anndata.read_h5ad(counts)
    rows = np.random.default_rng(0).permutation(data.n_obs)
    values = np.log1p(data.X[rows][:, :20].toarray())
    (folder / "own").mkdir()
    np.savez(folder / "own/mine.npz", cell_id=data.obs_names.to_numpy().astype(str)[rows], embedding=values)
    (folder / "own/embeddings.csv").write_text("dataset,name,path\nnorman,mine,mine.npz\n")
    return folder / "own/embeddings.csv"


@pytest.fixture(scope="session")
def scores(run) -> pd.DataFrame:
    return pd.read_parquet(run.results / "scores.parquet")


def value(scores: pd.DataFrame, dataset: str, variant: str, metric: str, protocol: str = "corrected") -> pd.Series:
    chosen = {"corrected": "selected", "paper": "best"}[protocol]
    rows = scores.query("dataset == @dataset and variant == @variant and metric == @metric and protocol == @protocol")
    rows = rows[rows.postprocess == chosen]
    assert len(rows) == 1
    return rows.iloc[0]


def test_every_cell_of_the_grid_is_in_the_table_and_none_failed(scores):
    grid = scores.groupby(["dataset", "variant", "task"]).size()
    variants = {"norman": [*MODELS.split(","), "mine"], "kang": MODELS.split(","), "screen": MODELS.split(",")}
    predictors = ("no_effect", "mean_effect")  # of expression: no embeddings, so only reconstruction scores them
    wanted = {(d, v, t) for d, models in variants.items() for v in models for t in tasks.names()
              if v not in predictors or t == "reconstruction"}  # fmt: skip
    assert set(grid.index) == wanted
    assert set(scores.status) == {"ok", "not_applicable"}
    assert (scores[scores.status == "not_applicable"].reason != "").all()


def test_the_digests_of_the_code_are_those_that_a_bundle_compares_with(scores):
    """Nextflow computes them for a run, Python for what it verifies."""
    codes = scores.groupby("task").code.unique()
    assert {task: list(found) for task, found in codes.items()} == {task: [task_code(task)] for task in codes.index}


def test_interferon_is_separated_by_pca_and_not_by_noise(scores):
    assert value(scores, "kang", "pca", "auroc_control").value > 0.95
    noise = value(scores, "kang", "random", "auroc_control")
    assert noise.ci_low < 0.5 < noise.ci_high or abs(noise.value - 0.5) < 0.05


def test_recall_on_the_screen_is_above_chance_for_pca_at_chance_for_noise_high_for_the_oracle(scores):
    pca, noise, oracle = (value(scores, "screen", v, "recall_corum") for v in ("pca", "random", "label_oracle"))
    assert pca.value > 0.2
    assert pca.ci_low > 0.10
    assert noise.ci_low < 0.10 < noise.ci_high
    assert oracle.value > 0.8


def test_perturbations_are_retrieved_by_pca_and_the_oracle_and_not_from_noise(scores):
    pca, noise, oracle = (value(scores, "screen", v, "retrieval_pds") for v in ("pca", "random", "label_oracle"))
    assert pca.ci_low > 0.5
    assert noise.value == pytest.approx(0.5, abs=0.1)
    assert oracle.value == pytest.approx(1)
    active = [value(scores, "screen", v, "map_activity").value for v in ("random", "pca", "label_oracle")]
    assert active == sorted(active)
    assert value(scores, "screen", "random", "map_activity_pct").value <= 5


def test_no_effect_has_structural_integrity_one_half(scores):
    for dataset in ("norman", "screen"):
        assert value(scores, dataset, "no_effect", "structural_integrity").value == pytest.approx(0.5, abs=1e-9)


def test_what_does_not_apply_says_why(scores):
    recall = scores.query("dataset == 'kang' and task == 'recall' and variant == 'pca'")
    assert set(recall.status) == {"not_applicable"}


def test_the_baseline_is_compared_with_every_other_model(run):
    table = pd.read_csv(run.results / "comparisons.tsv", sep="\t")
    verdicts = table.query("dataset == 'screen' and task == 'recall' and metric == 'recall_mean' and protocol == 'corrected'")
    found = verdicts.set_index("variant")
    assert found.verdict["pca"] == "baseline"
    assert found.diff_high["random"] < 0  # paired on the same pairs of genes
    assert found.diff_low["label_oracle"] > 0
    lone = table.query("dataset == 'kang' and task == 'separability' and variant == 'pca' and main")
    assert set(lone.metric) == {"auroc_control"}  # one perturbation: nothing to tell it from but the controls


def test_the_results_folder_holds_what_the_docs_say(run):
    names = {path.relative_to(run.results).as_posix() for path in run.results.rglob("*") if path.is_file()}
    for wanted in ("multiqc_report.html", "scores.parquet", "scores.tsv", "items.parquet",
                   "comparisons.tsv", "embeddings/norman.pca.42.npz", "embeddings/norman.pca.42.json",
                   "data/norman/tables/cells.parquet",
                   "pipeline_info/plumbline_software_mqc_versions.yml"):  # fmt: skip
        assert wanted in names
    for kind, ending in (("trace", "txt"), ("execution_report", "html"), ("execution_timeline", "html"), ("params", "json")):
        assert run.info(kind, ending).stat().st_size > 0


def test_provenance_says_how_an_embedding_was_made(run):
    about = json.loads((run.results / "embeddings" / "norman.pca.42.json").read_text())
    assert about["fit_on"] == "train"
    assert about["n_dimensions"] == 50
    assert about["seconds"] > 0
    assert about["genes_total"] == 500


def test_the_report_answers_the_question(run):
    html = (run.results / "multiqc_report.html").read_text()
    assert re.search(r"beat.{0,20}PCA", html)
    assert "Norman 2019" in html  # the title that the catalogue has for this name
    versions = (run.results / "pipeline_info" / "plumbline_software_mqc_versions.yml").read_text()
    assert "Nextflow" in versions
    assert "numpy" in versions


def test_the_last_lines_tell_the_outcome_and_where_the_report_is(run):
    assert "multiqc_report.html" in run.output
