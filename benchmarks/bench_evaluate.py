#!/usr/bin/env python3
"""CPU seconds and peak memory of EVALUATE on the data set that big_screen.py made, task by task: rows of a Markdown table.

    python benchmarks/bench_evaluate.py --data /tmp/big --tasks consistency,recall [--protocols corrected] [--bin OTHER/bin]

Each row is the pipeline's own command in a process of its own; the peak is the operating system's (VmHWM of that process).
``--bin`` measures the code of another checkout on the same data.
"""

import argparse
import json
import sys
import tempfile
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


def main() -> None:
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
    arguments = parser.parse_args()
    size = json.loads((arguments.data / "embedding.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        for task in arguments.tasks.split(","):
            wall, cpu, peak = measured(command(arguments, task, str(arguments.keep or folder)))
            print(f"| {size['n_cells']:,} x {size['n_dimensions']:,} | {task} | {arguments.protocols} | {arguments.n_draws} | "
                  f"{wall:.0f} | {cpu:.0f} | {peak / 2**30:.2f} GB |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
