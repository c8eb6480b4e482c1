"""Nextflow and scripts as children of ./plumb: started with what they need, waited for, their exit code passed on."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from launcher import environments, models
from launcher.home import REPO, say
from launcher.nextflow import Nextflow, nextflow


def launch(arguments: list[str], before: Sequence[str] = (), **variables: str) -> int:
    """`nextflow run` with the uv profile, unless an engine is named; ends with where the results are."""
    profiles = [name for name in (models.value(arguments, "-profile") or "").split(",") if name]
    extra: list[str] = []
    program = nextflow()
    if "--help" not in arguments and not set(profiles) & set(models.ENGINES):
        profiles += [] if "uv" in profiles else ["uv"]
        if not models.value(arguments, "--env_dir"):
            wanted = models.environments(arguments, profiles)
            if environments.lacking(wanted) and (code := _refused(program, arguments, profiles)):
                return code
            extra = ["--env_dir", str(environments.make(wanted))]
    options = [*(["-profile", ",".join(profiles)] if profiles else []), *models.without(arguments, "-profile"), *extra]
    start = time.time()
    code = wait([program.command, *before, "run", str(REPO), *options], program.environment | variables)
    outdir = Path(models.parameter(arguments, profiles, "outdir") or "results").absolute()
    report = outdir / "multiqc_report.html"
    if report.exists() and report.stat().st_mtime >= start:  # also after a run that lost a task: the report says which
        say(f"report:  {report}\nresults: {outdir}")
    return code


def _refused(program: Nextflow, arguments: list[str], profiles: list[str]) -> int:
    """What the pipeline says to these arguments before minutes are spent on environments: 0, or an exit code after its message.

    Nextflow's preview checks parameters and sheets and starts no task. It leaves nothing behind.
    """
    kept = [word for word in arguments if word != "-resume"]
    for option in ("-profile", "--outdir", "-w", "-work-dir"):
        kept = models.without(kept, option)
    with tempfile.TemporaryDirectory() as folder:
        options = ["-preview", "-profile", ",".join(profiles), *kept, "--outdir", folder, "-w", folder, "--env_dir", folder]
        done = subprocess.run(
            [program.command, "-log", f"{folder}/log", "run", str(REPO), *options],
            env=os.environ | program.environment | {"NXF_CACHE_DIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if done.returncode:
        print(done.stdout, file=sys.stderr, end="")
    return done.returncode


def wait(command: list[str], variables: dict[str, str]) -> int:
    """Run to the end and pass on the exit code. Ctrl-C reaches the child by itself; it cleans up and then ends."""
    with subprocess.Popen(command, env=os.environ | variables) as child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        code = child.wait()
    return code if code >= 0 else 128 - code
