"""A small run of the whole pipeline under each engine: it works, it resumes, it survives kill -9, and the table is the same."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from pipeline.conftest import ROOT, plumb_run

from .conftest import SMALL_RUN, Engine

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def reference(tiny_sheet, tmp_path_factory) -> pd.DataFrame:
    """The score table of the same run in the local environments, undisturbed."""
    run = plumb_run(tmp_path_factory.mktemp("local"), "--input", tiny_sheet, *SMALL_RUN, "-profile", "test")
    assert run.code == 0, run.output
    return pd.read_parquet(run.results / "scores.parquet")


@pytest.fixture(scope="module")
def run(engine: Engine, tiny_sheet, tmp_path_factory):
    """The run under an engine; its seconds are printed for docs/hpc_and_cloud.md."""
    begin = time.monotonic()
    done = engine.run(tmp_path_factory.mktemp(f"run_{engine.name}"), tiny_sheet)
    print(f"\n{engine.name}: {time.monotonic() - begin:.0f} s")
    assert done.code == 0, done.output
    return done


def test_every_task_ran_where_it_should(engine: Engine, run):
    assert set(run.tasks().values()) == {"COMPLETED"}
    assert (run.results / "multiqc_report.html").exists()
    scripts = [path.read_text() for path in run.folder.glob("work/*/*/.command.run")]
    if "slurm" in engine.profile:
        assert all("#SBATCH --mem" in script for script in scripts)
        jobs = (Path(os.environ["SLURM_CONF"]).parents[1] / "log" / "jobcomp.txt").read_text() if os.geteuid() == 0 else ""
        trace = pd.read_csv(run.info("trace", "txt"), sep="\t", dtype=str)
        assert os.geteuid() != 0 or all(f"JobId={job} " in jobs for job in trace.native_id)
    if engine.containers:
        launchers = {"charliecloud": "ch-run", "singularity": "singularity exec"}
        launcher = launchers.get(engine.containers, f"{engine.containers} run")
        assert all(launcher in script for script in scripts)


def test_scores_are_those_of_the_local_environments(run, reference):
    """Same pins, same seeds: the table may differ by rounding of another build of a library, and by nothing else."""
    found = pd.read_parquet(run.results / "scores.parquet")
    pd.testing.assert_frame_equal(found, reference, rtol=1e-6)


def test_a_second_run_repeats_nothing(engine: Engine, run, tiny_sheet):
    before = run.tasks()
    again = engine.run(run.folder, tiny_sheet, "-resume")
    assert again.code == 0, again.output
    assert again.tasks() == dict.fromkeys(before, "CACHED")


def test_any_user_id_will_do(engine: Engine, tiny_sheet, tiny_screen, tmp_path):
    """Without a home, without a name: caches of numba and matplotlib must not need one, nor bin/ be writable."""
    if engine.name not in ("podman", "docker"):
        pytest.skip("chooses its user itself")
    config = tmp_path / "user.config"
    config.write_text(f"{engine.name}.runOptions = '--user 12345:12345'\n")
    for folder in (tmp_path.parent, tmp_path, tiny_screen.parent):
        folder.chmod(0o755)
    before = os.umask(0)  # so that this user may write into the work folders of the one who runs the test
    try:
        done = Engine(engine.name, config).run(tmp_path / "run", tiny_sheet)
    finally:
        os.umask(before)
    assert done.code == 0, done.output
    assert {path.stat().st_uid for path in (tmp_path / "run").glob("work/*/*/*.npz")} == {12345}


@pytest.mark.parametrize("victim", ["nextflow", "task"])
def test_a_killed_run_resumes_and_ends_with_the_same_table(victim, engine: Engine, run, tiny_sheet, tmp_path):
    killed = start_and_kill(engine, tmp_path, tiny_sheet, victim)
    assert killed != 0 or victim == "task"  # a task that was killed is retried
    done = engine.run(tmp_path, tiny_sheet, "-resume")
    assert done.code == 0, done.output
    states = list(done.tasks().values())
    assert "CACHED" in states
    found = pd.read_parquet(done.results / "scores.parquet")
    pd.testing.assert_frame_equal(found, pd.read_parquet(run.results / "scores.parquet"), check_exact=True)


def start_and_kill(engine: Engine, folder: Path, sheet: Path, victim: str) -> int:
    """Start the run, wait until an EVALUATE task is at work, kill -9 it (or Nextflow), and wait for the end."""
    profile = ["-profile", engine.profile, "-c", engine.config]
    words = [ROOT / "plumb", "run", "--input", sheet, "--outdir", "results", *SMALL_RUN, *profile]
    with (folder / "output.txt").open("w") as output:
        environment = os.environ | {"NXF_ANSI_LOG": "false"}
        run = subprocess.Popen(list(map(str, words)), cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        work = wait_for(lambda: task_at_work(folder))
        if victim == "nextflow":
            chosen = [child for child in psutil.Process(run.pid).children(recursive=True) if child.name() == "java"]
        else:
            chosen = wait_for(lambda: evaluating(work))
        assert chosen
        for process in chosen:
            process.send_signal(signal.SIGKILL)
        code = run.wait(timeout=600)
    wait_for(lambda: not evaluating(work))  # orphans of a killed Nextflow end by themselves
    return code


def task_at_work(folder: Path) -> Path | None:
    """The work folder of an EVALUATE task that has begun and not ended."""
    for script in folder.glob("work/*/*/.command.sh"):
        task = script.parent
        if (
            (task / ".command.begin").exists()
            and not (task / ".exitcode").exists()
            and "evaluate_embedding" in script.read_text()
        ):
            return task
    return None


def evaluating(work: Path) -> list[psutil.Process]:
    """The Python processes that evaluate in a work folder, in a container or not."""
    found = []
    for process in psutil.process_iter():
        try:
            if "python" in process.name() and "evaluate_embedding.py" in " ".join(process.cmdline()):
                found += [process] if Path(process.cwd()).name == work.name else []
        except psutil.Error:
            continue
    return found


def wait_for(condition, seconds: float = 300):
    """The value of ``condition()`` as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return value
