#!/usr/bin/env python3
"""CPU seconds and peak memory of EVALUATE on the data set that big_screen.py made, task by task: rows of a Markdown table.

    python benchmarks/bench_evaluate.py --data /tmp/big --tasks consistency,recall [--protocols corrected] [--bin OTHER/bin]

Each row is the pipeline's own command in a process of its own; the peak is the operating system's (VmHWM of that process).
``--bin`` measures the code of another checkout on the same data. ``--methods center,tvn`` measures, in place of the whole task,
one post-processing at a time on the cells that `corrected` reports on: what a task holds at once, in a fraction of its time.
"""

import argparse
import json
import sys
import tempfile
from itertools import product
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from bench_memory import measured


def command(arguments: argparse.Namespace, task: str, folder: str) -> list:
    """The pipeline's call of one task."""
    about = ["--seeds", arguments.seeds, "--protocols", arguments.protocols, "--n-draws", arguments.n_draws]
    about += ["--n-boot", 100, "--threads", arguments.threads, "--device", "cpu", *arguments.more.split()]
    data = ["--embedding", arguments.data / "embedding.npz", "--tables", arguments.data / "tables"]
    return [
        sys.executable,
        arguments.bin / "evaluate_embedding.py",
        *data,
        "--task",
        task,
        *about,
        "--output",
        f"{folder}/{task}",
    ]


def piece(arguments: argparse.Namespace, task: str, method: str) -> list:
    """This script, to score one post-processing in a process of its own."""
    told = ["--data", arguments.data, "--tasks", task, "--seeds", arguments.seeds, "--n-draws", arguments.n_draws]
    return [sys.executable, __file__, *told, "--threads", arguments.threads, "--bin", arguments.bin, "--only", method]


def score(arguments: argparse.Namespace) -> None:
    """One task under one post-processing, under the protocol `corrected`; its scores go to stderr."""
    sys.path.insert(0, str(arguments.bin))
    from plumbline import tasks
    from plumbline.benchmark.evaluation import Scoring, subject_of
    from plumbline.common.threads import limit_threads
    from plumbline.data.splits import read_splits
    from plumbline.embedding.contract import open_embedding
    from plumbline.scoring.evaluation import score_under

    limit_threads(arguments.threads)
    path, tables, seeds = arguments.data / "embedding.npz", arguments.data / "tables", [int(arguments.seeds)]
    how = Scoring(seeds=seeds, protocols=["corrected"], n_draws=arguments.n_draws, threads=arguments.threads)
    subject = subject_of(open_embedding(path), path, tables, None, how)
    view = subject.view(read_splits(tables, seeds)[0], "corrected")
    for found in score_under(view, tasks.load(arguments.tasks), arguments.only):
        print(found.metric, found.value, found.reason, file=sys.stderr)


def main() -> None:
    """A row for every task, or for every post-processing of every task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default="recall,consistency,magnitude,batch_effect,separability")
    parser.add_argument("--protocols", default="paper,corrected")
    parser.add_argument("--seeds", default="42")
    parser.add_argument("--n-draws", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bin", type=Path, default=HERE.parent / "bin")
    parser.add_argument("--more", default="", help="further arguments of evaluate_embedding.py")
    parser.add_argument("--keep", type=Path, help="a folder for the score tables")
    parser.add_argument("--methods", default="", help="post-processings to be measured one at a time")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        score(arguments)
        return
    size = json.loads((arguments.data / "embedding.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        for task, method in product(arguments.tasks.split(","), arguments.methods.split(",")):
            whole = command(arguments, task, str(arguments.keep or folder))
            wall, cpu, peak = measured(piece(arguments, task, method) if method else whole)
            print(f"| {size['n_cells']:,} x {size['n_dimensions']:,} | {task} | {method or arguments.protocols} | "
                  f"{arguments.n_draws} | {wall:.0f} | {cpu:.0f} | {peak / 2**30:.2f} GB |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
