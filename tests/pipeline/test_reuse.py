"""Another pipeline includes EVALUATE alone (tests/pipeline/reuse): it runs, on files that the scripts of bin/ made."""

import json
import os
import subprocess

import pandas as pd
import pytest

from .conftest import ROOT

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def embedding(tiny_screen, environment_python, tmp_path_factory):
    """A folder with tables/, counts.h5ad (PREPARE) and embedding.npz (PCA) of the tiny screen."""
    folder = tmp_path_factory.mktemp("reuse")
    columns = {"perturbation_column": "perturbation", "control_label": "non-targeting", "batch_column": "batch"}
    (folder / "row.json").write_text(json.dumps({"name": "mine", "min_counts": 0, **columns}))
    inputs = f"--row {folder}/row.json --input {tiny_screen} --catalogue {ROOT}/assets/catalogue.csv"
    script(environment_python, "prepare_dataset.py", f"{inputs} --outdir {folder}")
    inputs = f"--counts {folder}/counts.h5ad --tables {folder}/tables --variant pca_all --fit-on all"
    script(environment_python, "embed_pca.py", f"{inputs} --set n_components=8 --output {folder}/embedding.npz")
    return folder


def script(python, name: str, words: str) -> None:
    subprocess.run([python, ROOT / "bin" / name, *words.split()], check=True)


def test_evaluate_in_a_pipeline_of_its_own_gives_the_scores_of_the_script(embedding, environment_python, tmp_path):
    files = {"embedding": "embedding.npz", "provenance": "embedding.json", "tables": "tables"}
    words = [str(word) for name, file in files.items() for word in (f"--{name}", embedding / file)]
    command = [os.environ["PLUMBLINE_NEXTFLOW"], "run", str(ROOT / "tests/pipeline/reuse"), "-profile", "uv"]
    command += ["--env_dir", os.environ["PLUMBLINE_ENV_DIR"], *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("work/*/*/mine.consistency.scores.parquet")
    scores = pd.read_parquet(path)
    options = "--task consistency --seeds 42 --protocols corrected --n-draws 50 --n-boot 50"
    about = "--dataset mine --model external --variant my_model --fit-on none --code any"
    given = f"--embedding {embedding}/embedding.npz --tables {embedding}/tables {options} {about} --output {tmp_path}/direct"
    script(environment_python, "evaluate_embedding.py", given)
    pd.testing.assert_frame_equal(scores, pd.read_parquet(tmp_path / "direct.scores.parquet"))
    assert set(scores.dataset) == {"mine"}
    assert set(scores.variant) == {"my_model"}
    # planted effects: more perturbations are consistent than by chance (5 percent)
    share = scores.query("metric == 'consistency_pct'").value
    assert share.max() > 15, share
