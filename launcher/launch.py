"""Nextflow and scripts as children of ./plumb: started with what they need, waited for, stopped with it."""

import compileall
import ctypes
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from launcher import environments, models
from launcher.home import REPO, say
from launcher.nextflow import Nextflow, nextflow
from launcher.outdir import claimed
from launcher.parameters import Parameters, value, without
from launcher.progress import Progress

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# words of Nextflow's log -> what they mean here
EXPLAINED = {
    "Unable to acquire lock": "A run that was started here is still going on; -resume continues it once it has ended.\n"
    "Wait for it, or find it with `ps -ef | grep nextflow` and end it with `kill PROCESS-ID`; then run again.",
    "No space left on device": "The disk is full: of the output folder, of the work folder (-w), or of this one. Make room, or "
    "name other folders;\nthen run the same command again with -resume, which also replaces what was written in part.",
}
KILLED = 137


def launch(arguments: list[str], before: Sequence[str] = (), tells: bool = False, **variables: str) -> int:
    """`nextflow run` with the uv profile, unless an engine is used; ends with where the results are.

    tells: say where the run is in plain words, instead of a line per task.
    """
    profiles = [name for name in (value(arguments, "-profile") or "").split(",") if name]
    program = nextflow()
    asked_for_help = "--help" in arguments
    parameters = Parameters(program, arguments, profiles)
    extra: list[str] = []
    if not asked_for_help and not parameters.engine():
        parameters.profiles = profiles = [*profiles, *([] if "uv" in profiles else ["uv"])]
        if not value(arguments, "--env_dir"):
            wanted = models.environments(parameters)
            if environments.lacking(wanted) and (code := _refused(program, arguments, profiles)):
                return code
            extra = ["--env_dir", str(environments.make(wanted))]
            _compile_package()
    options = [*(["-profile", ",".join(profiles)] if profiles else []), *without(arguments, "-profile"), *extra]
    start = time.time()
    named = parameters.get("outdir") or "results"
    outdir = Path(named).absolute()
    log = Path(value(list(before), "-log") or ".nextflow.log")
    progress = Progress(log, outdir / "pipeline_info/estimate.tsv") if tells and not _chosen_log(arguments) else None
    command = [program.command, *before, "run", str(REPO), *_plain_lines(arguments, progress is not None), *options]
    is_run = not {"--help", "--estimate_only", "-preview"} & set(arguments)
    with claimed(named) if is_run else nullcontext(()) as kept, nullcontext({}) if is_run else _aside() as more:
        code = wait(command, program.environment | variables | more, progress, kept)
    if code:
        _explain(code, log, start)
    if is_run:
        _say_where(outdir, code, start)
    return code


@contextmanager
def _aside() -> Iterator[dict[str, str]]:
    """Where Nextflow remembers what is no run, such as an estimate: -resume would continue it in place of the last run."""
    with tempfile.TemporaryDirectory() as folder:
        yield {"NXF_CACHE_DIR": folder}


def _compile_package() -> None:
    """Bytecode of bin/, where it is missing or old: tasks write none (nextflow.config), and each would compile its imports."""
    if os.access(REPO / "bin", os.W_OK):
        compileall.compile_dir(REPO / "bin", quiet=2)


def _chosen_log(arguments: list[str]) -> bool:
    return "NXF_ANSI_LOG" in os.environ or value(arguments, "-ansi-log") is not None


def _plain_lines(arguments: list[str], tells: bool) -> list[str]:
    """Nextflow redraws its table of tasks; without a terminal, each drawing would be further lines."""
    return [] if _chosen_log(arguments) or (sys.stdout.isatty() and not tells) else ["-ansi-log", "false"]


def _say_where(outdir: Path, code: int, start: float) -> None:
    """Also after a run that lost a task, whose report says which, and after one whose every task was cached."""
    report = outdir / "multiqc_report.html"
    if report.exists() and (code == 0 or report.stat().st_mtime >= start):
        say(f"report:  {report}\nresults: {outdir}")


def _explain(code: int, log: Path, start: float) -> None:
    """What an exit code, and Nextflow's words about locks and disks, mean here, and what to do next."""
    if code == KILLED:
        say("Nextflow was killed (kill -9, or lack of memory). What was finished is kept: run the same command with -resume.")
    if log.is_file() and log.stat().st_mtime >= start:
        text = log.read_text(errors="replace")
        for words, meaning in EXPLAINED.items():
            if words in text:
                say(meaning)


def _refused(program: Nextflow, arguments: list[str], profiles: list[str]) -> int:
    """What the pipeline says to these arguments before minutes are spent on environments: 0, or an exit code after its message.

    Nextflow's preview checks parameters and sheets and starts no task. It leaves nothing behind.
    """
    kept = [word for word in arguments if word != "-resume"]
    for option in ("-profile", "--outdir", "-w", "-work-dir"):
        kept = without(kept, option)
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


def wait(command: list[str], variables: dict[str, str], progress: Progress | None = None, kept: Sequence[int] = ()) -> int:
    """Run to the end and pass on the exit code. A signal that ends plumb ends the child, which cleans up first.

    progress: gets the lines that the command prints. kept: file descriptors that the child inherits.
    """
    children: list[subprocess.Popen] = []
    received: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        received.append(number)
        if not children:
            sys.exit(128 + number)
        if number != signal.SIGINT or not _ctrl_c_reaches_all():
            children[0].send_signal(number)

    for number in PASSED_ON:
        # nohup, and jobs in the background of a script, ignore some
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    pipe = subprocess.PIPE if progress else None
    how: dict[str, Any] = {"preexec_fn": _end_with_parent, "stdout": pipe, "pass_fds": tuple(kept)}
    with subprocess.Popen(command, env=os.environ | variables, **how) as child:
        children.append(child)
        if progress and child.stdout:
            _hand_over(child.stdout.fileno(), progress)
        code = child.wait()
    if received:
        say(f"stopped by {signal.Signals(received[0]).name}; what was finished is kept")
        return 128 + received[0]
    return code if code >= 0 else 128 - code


def _hand_over(pipe: int, progress: Progress) -> None:
    """Give each line from a pipe to ``progress``, and let it speak once per second, until the pipe is closed."""
    rest = b""
    while True:
        if select.select([pipe], [], [], 1.0)[0]:
            read = os.read(pipe, 65_536)
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                progress.line(line.decode(errors="replace"))
            if not read:
                break
        progress.tick()
    if rest:
        progress.line(rest.decode(errors="replace"))
    progress.close()


def _ctrl_c_reaches_all() -> bool:
    """Whether plumb is in front at a terminal, which then sends Ctrl-C to the child as well."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _end_with_parent() -> None:
    """Run in the child before its program starts: where plumb is killed outright (kill -9), Linux asks the child to end."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
