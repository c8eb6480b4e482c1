"""Verbs of ./plumb that start one script of bin/, in the environment that it needs."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher import environments, models
from launcher.home import REPO
from launcher.launch import wait
from launcher.parameters import value, values
from plumbline.common.errors import UserError, did_you_mean
from plumbline.data.catalogue import read_catalogue
from plumbline.embedding.variants import read_rows
from plumbline.summary.finished import check_finished

# verb -> script of bin/, whose arguments and --help are its own (docs/sharing_results.md)
SHARING = {
    "submit": ("submit_run.py", "write the results of a run as bundles that can be shared and verified"),
    "verify": ("verify_bundle.py", "score the embedding of a bundle again, and compare metric by metric"),
    "compare": ("compare_runs.py", "what differs between two runs or bundles, and whether it is more than noise"),
    "leaderboard": ("make_leaderboard.py", "one web page of many bundles"),
    "splits": ("share_splits.py", "export or import the splits of a data set"),
}


def add(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Add these verbs. verb(name, act, text, passes_on, shows_help) makes the parser of one."""
    embed = verb("embed", _embed, "one embedding: raw counts in, embedding out", "bin/embed_MODEL.py", shows_help=False)
    embed.add_argument("variant", metavar="VARIANT", help="a row of assets/models.csv: pca, scvi, ...")
    embed.add_argument("-h", "--help", action=_Help, help="after VARIANT: the arguments of its script (--input, --output, ...)")

    download = ("download a data set or a model's weights", "bin/fetch_dataset.py or fetch_weights.py")
    fetch = verb("fetch", _fetch, *download, shows_help=False)
    fetch.add_argument("name", metavar="NAME", help="a data set (plumb catalogue) or a variant with weights")
    fetch.add_argument("-h", "--help", action=_Help, help="after NAME: the arguments of its script (--output, ...)")

    verb("catalogue", _catalogue, "the public data sets known by name")

    contract = ("does a model keep the contract of plumbline?", "bin/check_model.py")
    check = verb("check-model", _check_model, *contract, shows_help=False)
    check.add_argument("variant", metavar="VARIANT", help="a row of assets/models.csv; any name with --script")
    check.add_argument("-h", "--help", action=_Help, help="after VARIANT: the arguments of bin/check_model.py")
    check.add_argument("--script", type=Path, help="an embedding script of your own (docs/adding_a_model.md)")
    check.add_argument("--environment", default="base", help="with --script: base (default), scgpt (has torch), ...")

    verb(
        "weights",
        _weights,
        "weights check VARIANT: are a model's weights read right?",
        "bin/check_weights.py",
        shows_help=False,
    )

    for name, (script, text) in SHARING.items():
        verb(name, _share, text, f"bin/{script}", shows_help=False)

    show = verb("show", _show, "one perturbation of a finished run, over all its models", "bin/show_gene.py")
    show.add_argument("gene", metavar="GENE", help="a perturbation, as the data set names it")
    show.add_argument("--run", type=Path, required=True, metavar="DIR", help="output folder of a run (its --outdir)")


class _Help(argparse.Action):
    """--help before the first argument explains the verb; after it, ``help`` is True: the script that it names has its own."""

    def __init__(self, option_strings: list[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, **more)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        """Print the help of the verb and end, or note that the script's is wanted."""
        if getattr(namespace, "variant", None) is None and getattr(namespace, "name", None) is None:
            parser.print_help()
            parser.exit()
        namespace.help = True


def _embed(arguments: argparse.Namespace, rest: list[str]) -> int:
    row = models.variant(arguments.variant)
    if arguments.help:
        return _script("base", f"embed_{row['model']}.py", ["--help"])
    settings = [word for pair in row["settings"].split(";") if pair for word in ("--set", pair)]
    lacks_weights = models.needs_weights(row, values([*settings, *rest], "--set")) and value(rest, "--weights") is None
    if lacks_weights:
        name, folder = row["id"], f"WEIGHTS/{row['model']}"
        raise UserError(f"{name} needs its checkpoint: ./plumb fetch {name} --output WEIGHTS, then add --weights {folder}")
    return _script(row["env"], f"embed_{row['model']}.py", ["--variant", row["id"], *settings, *rest])


def _fetch(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Unknown names and a missing --output are refused before an environment is made."""
    name, known = arguments.name, read_catalogue()
    weights = {row[column] for row in read_rows() for column in ("id", "model") if row["weights_files"]}
    if arguments.help:
        return _plain_help("fetch_weights.py" if name in weights else "fetch_dataset.py")
    if name in weights:
        return _script("base", "fetch_weights.py", [name, *rest])
    if "://" not in name and name not in known:
        hint = did_you_mean(name, [*known, *sorted(weights)])
        raise UserError(f"{name!r} is neither a data set of the catalogue nor a model with weights.{hint}")
    if value(rest, "--output") is None:
        raise UserError(f"No file to write {name} to: add --output FILE")
    return _script("base", "fetch_dataset.py", [name, *rest])


def _catalogue(_arguments: argparse.Namespace, _rest: list[str]) -> int:
    for name, row in read_catalogue().items():
        print(f"{name:<28}{row['title']}\n{'':<28}licence: {row['licence'] or 'not stated'}; {row['citation']}")
    return 0


def _check_model(arguments: argparse.Namespace, rest: list[str]) -> int:
    if arguments.help:
        return _script("base", "check_model.py", ["--help"])
    if arguments.script:
        words = [arguments.variant, "--script", str(arguments.script.absolute()), *rest]
        return _script(arguments.environment, "check_model.py", words)
    return _script(models.variant(arguments.variant)["env"], "check_model.py", [arguments.variant, *rest])


def _weights(_arguments: argparse.Namespace, rest: list[str]) -> int:
    if rest[:1] == ["check"] and len(rest) > 1 and not {"-h", "--help"} & set(rest):
        return _script(models.variant(rest[1])["env"], "check_weights.py", ["check", rest[1], *rest[2:]])
    # what is missing, or its help: needs no environment
    return wait([sys.executable, str(REPO / "bin/check_weights.py"), *rest], {})


def _share(arguments: argparse.Namespace, rest: list[str]) -> int:
    script = SHARING[arguments.verb][0]
    return _plain_help(script) if {"-h", "--help"} & set(rest) else _script("base", script, rest)


def _show(arguments: argparse.Namespace, rest: list[str]) -> int:
    check_finished(arguments.run)  # refused before an environment is made
    return _script("base", "show_gene.py", [arguments.gene, "--run", str(arguments.run), *rest])


def _plain_help(script: str) -> int:
    """The help of a script that needs no environment to print it."""
    return wait([sys.executable, str(REPO / "bin" / script), "--help"], {})


def _script(environment: str, script: str, words: list[str]) -> int:
    python = environments.python(environment)
    path = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONNOUSERSITE": "1"}
    return wait([str(python), str(REPO / "bin" / script), *words], path)
