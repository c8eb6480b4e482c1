"""The commands of ./plumb. Each is a thin door: the work is done by Nextflow, pytest or a script of bin/ (scripts.py)."""

import argparse
import os
import signal
import sys
from pathlib import Path

from launcher import doctor, environments, models, scripts
from launcher.home import REPO, home, say
from launcher.launch import launch, wait
from launcher.nextflow import nextflow, tool
from launcher.parameters import Parameters, value, without
from plumbline import __version__
from plumbline.common.errors import DISK, UserError, disk_text, stop_writing

DESCRIPTION = "plumbline: does this cell embedding beat one PCA on perturbation data?"
EPILOG = """Set-up happens by itself, in $PLUMBLINE_HOME (now: {home}); it can be interrupted, repeated, and undone by deleting
that folder. `nextflow run {repo} -profile docker --input ...` is the same pipeline without ./plumb."""
STORY = """What the demo shows: planted_pathways is no model. It was made from the truth of the simulated screen and knows the
complex of a perturbed gene, not the gene itself. So it beats PCA at known biology and loses at telling perturbations apart;
the report finds both. Next: one gene (./plumb show GENE --run DIR), or your own data (./plumb run, docs/usage.md)."""


def main(words: list[str]) -> int:
    """Run one verb; the exit code is that of what it ran, or 1 after a message about bad input."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(words)
    if rest and not arguments.passes_on:
        parser.error(f"{arguments.verb}: unknown argument {rest[0]}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that nothing half-built stays
    try:
        code = arguments.act(arguments, rest)
        sys.stdout.flush()  # here, where a closed pipe is caught
        return code
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        stop_writing()
        return 141
    except OSError as error:
        if error.errno not in DISK:
            raise
        print(f"ERROR: {disk_text(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("interrupted; what was finished is kept, run again to continue")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="plumb", description=DESCRIPTION, epilog=EPILOG.format(home=home(), repo=REPO))
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, act, text: str, passes_on: str = "", shows_help: bool = True) -> argparse.ArgumentParser:
        epilog = f"Further arguments go to {passes_on}." if passes_on else None
        added = verbs.add_parser(name, help=text, description=text, epilog=epilog, allow_abbrev=False, add_help=shows_help)
        added.set_defaults(act=act, passes_on=passes_on)
        return added

    demo = verb("demo", _demo, "the whole evaluation on small real data sets", "`nextflow run`")
    demo.add_argument("--outdir", type=Path, default=Path("demo"), help="results and work folder (default: demo)")
    demo.add_argument("--weights", type=Path, help="folder of foundation model checkpoints")
    demo.add_argument(
        "--untrained", action="store_true", help="and the foundation models with tiny random weights: floors, named untrained"
    )
    demo.add_argument("--experiments", action="store_true", help="and every experiment (docs/experiments.md)")

    priced = "what a run would take, with the arguments of `plumb run`"
    # their --help is the pipeline's
    verb("estimate", lambda _, rest: launch([*rest, "--estimate_only"]), priced, "`nextflow run`", shows_help=False)
    verb("run", lambda _, rest: launch(rest), "`nextflow run` of this pipeline with everything set up", "`nextflow run`",
         shows_help=False)  # fmt: skip

    test = verb("test", _test, "the test suite", "pytest")
    test.add_argument("--quick", action="store_true", help="only the tests that do not start Nextflow")
    test.add_argument("--engines", default="", metavar="LIST", help="also run under podman,docker,slurm,... (comma-separated)")

    scripts.add(verb)

    doctor_ = verb("doctor", lambda a, _: doctor.report(a.weights), "what is there, what is missing, and how to mend it")
    doctor_.add_argument("--weights", type=Path, help="folder of foundation model checkpoints")

    setup = verb("setup", _setup, "fetch Nextflow, Java and environments ahead of time")
    setup.add_argument("names", nargs="*", metavar="ENVIRONMENT", help=f"one of {', '.join(environments.names())}")

    tool_ = verb("tool", _tool, "print the path of a tool that set-up fetched")
    tool_.add_argument("name", choices=["uv", "nextflow"])
    return parser


def _demo(arguments: argparse.Namespace, rest: list[str]) -> int:
    # the run's history lives in the output folder, so that the same command continues it from any directory
    outdir = arguments.outdir.absolute()
    state = outdir / "work/.nextflow"
    rest += ["--outdir", str(outdir), "-w", str(outdir / "work")]
    more = models.with_weights(arguments.weights) if arguments.weights else []
    more += models.untrained() if arguments.untrained else []
    if more:  # beside the demo's models
        chosen = (Parameters(nextflow(), rest, ["demo"]).get("models") or "").split(",")
        rest = [*without(rest, "--models"), "--models", ",".join(dict.fromkeys([*chosen, *more]))]
    rest += ["--weights", str(arguments.weights.absolute())] if arguments.weights else []
    rest += ["-resume"] if (state / "history").exists() and "-resume" not in rest else []
    also = "experiments" if arguments.experiments else None
    profiles = ",".join(filter(None, [value(rest, "-profile"), "demo", also]))
    rest = ["-profile", profiles, *without(rest, "-profile")]
    code = launch(rest, ["-log", str(outdir / "work/nextflow.log")], tells=True, NXF_CACHE_DIR=str(state))
    if code == 0:
        say(STORY)
    return code


def _test(arguments: argparse.Namespace, rest: list[str]) -> int:
    """One pytest, so that its closing line is the last one. Ruff and Nextflow's lint are tests as well."""
    python = environments.python("tests")
    variables = {"OMP_NUM_THREADS": "1", "PLUMBLINE_ENGINES": arguments.engines}
    folders = ["tests/unit", "tests/parity"]
    if not arguments.quick:
        program = nextflow()
        folder = environments.make(["base", "scvi", "multiqc"])
        variables |= program.environment | {"PLUMBLINE_NEXTFLOW": program.command, "PLUMBLINE_NEXTFLOW_JAR": str(program.jar)}
        variables["PLUMBLINE_ENV_DIR"] = str(folder)
        folders += ["tests/pipeline", *(["tests/engines"] if arguments.engines else [])]
    os.chdir(REPO)
    chosen = any(Path(word.partition("::")[0]).exists() for word in rest)
    whole = ["-n", "logical", "--maxprocesses", "4", "--dist", "loadgroup", *folders]  # groups: tests/conftest.py
    return wait([str(python), "-m", "pytest", *([] if chosen else whole), *rest], variables)


def _setup(arguments: argparse.Namespace, _rest: list[str]) -> int:
    names = arguments.names or ["base", "scvi", "multiqc"]
    for name in names:
        environments.requirements(name)  # a mistyped name is told before minutes are spent
    print(nextflow().command)
    print(environments.make(names))
    return 0


def _tool(arguments: argparse.Namespace, _rest: list[str]) -> int:
    print(tool(arguments.name))
    return 0
