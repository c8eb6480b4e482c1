"""Slurm for real: jobs, memory, GPUs, and which failures are retried."""

import os
import re
import subprocess

import pandas as pd
import pytest
from pipeline.conftest import ROOT

from .conftest import SITE, Engine

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def run(ready, tmp_path_factory):
    """The little pipeline cluster.nf with conf/base.config, conf/gpu.config and conf/slurm.config."""
    ready("slurm")
    folder = tmp_path_factory.mktemp("cluster")
    here = ROOT / "tests" / "engines"
    command = [os.environ["PLUMBLINE_NEXTFLOW"], "run", here / "cluster.nf", "-c", here / "cluster.config"]
    quiet = os.environ | {"NXF_ANSI_LOG": "false"}
    done = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, timeout=600)
    return folder, done.stdout + done.stderr


@pytest.fixture(scope="module")
def trace(run) -> pd.DataFrame:
    return pd.read_csv(run[0] / "trace.txt", sep="\t", dtype=str)


def test_every_task_is_a_job(trace):
    assert trace.native_id.str.fullmatch(r"\d+").all()
    assert trace.native_id.is_unique


def test_a_job_killed_for_its_memory_gets_more_and_succeeds(run, trace):
    assert "HUNGRY succeeded at attempt 2" in run[1]
    states = trace[trace.name == "HUNGRY"].sort_values("attempt")
    assert list(states.status) == ["FAILED", "COMPLETED"]
    assert list(states.memory) == ["300 MB", "600 MB"]


def test_each_gpu_task_gets_a_gpu_of_its_own_and_a_cluster_has_more_than_one(run):
    found = re.findall(r"gpu (\d+) job \d+ partition gpu", run[1])
    assert sorted(found) == ["0", "1"]


def test_a_fault_of_the_task_itself_is_not_repeated(trace):
    faults = trace[trace.name == "FAULTY"]
    assert list(faults.exit) == ["1"]


def test_evaluations_run_as_job_arrays(ready, tiny_sheet, tmp_path):
    """The settings of docs/hpc_and_cloud.md, smaller: a job of an array is known by two numbers."""
    ready("slurm")
    config = tmp_path / "arrays.config"
    config.write_text(SITE["slurm"] + "process { withName: 'EVALUATE.*' { array = 4; memory = 2.GB; time = 1.h } }\n")
    run = Engine("slurm", config).run(tmp_path / "run", tiny_sheet, "--max_together", 0)
    assert run.code == 0, run.output
    jobs = pd.read_csv(run.info("trace", "txt"), sep="\t", dtype=str).set_index("name").native_id
    of_array = jobs.index.str.contains("EVALUATE_")
    assert of_array.sum() == 4
    assert jobs[of_array].str.fullmatch(r"\d+_\d+").all()
    assert not jobs[~of_array].str.contains("_").any()
