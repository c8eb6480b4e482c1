#!/usr/bin/env python3
"""Damage files of every kind that plumbline reads, and say what becomes of them: a Markdown table.

    ./plumb python tests benchmarks/robustness.py [--n 500 --seed 0] > docs/validation/robustness.md

A file is changed at four random bytes, or gets 64 zeroed bytes, or is cut; it is then read as the pipeline reads it.
Checkpoints are those that the untrained models make, in the authors' formats; each of their files is damaged in turn.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bin"), str(ROOT / "tests" / "unit")]

from plumbline.counts import hdf5

hdf5.LIMIT = 2  # seconds until a file that HDF5 does not get through is given up (45 in a run): it only saves time here

from mutated import FORMATS, MODELS, OUTCOMES, Case, checkpoints, made, outcomes


def tried(cases: Iterable[Case], n: int, seed: int) -> Counter:
    """How many of ``n`` mutations, shared among the files of ``cases``, end in which outcome."""
    found, cases = Counter(), list(cases)
    for number, case in enumerate(cases):
        share = n // len(cases) + (number < n % len(cases))
        found += outcomes(case, range(share), seed + number)
    return found


def row(name: str, make: Callable[[Path], Case | list[Case]], n: int, seed: int) -> Counter:
    """Print the row of one kind of file."""
    place, cases = made(make)
    with place:
        found = tried(cases if isinstance(cases, list) else [cases], n, seed)
    print(f"| {name} | {sum(found.values())} | {' | '.join(str(found[word]) for word in OUTCOMES)} |", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500, help="mutations of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="files whose name holds this word, such as checkpoint")
    args = parser.parse_args()
    print(f"| file | tried | {' | '.join(OUTCOMES)} |\n|---|{'---:|' * (len(OUTCOMES) + 1)}")
    total = Counter()
    kinds = dict(FORMATS) | {f"checkpoint, {model}": partial(checkpoints, model) for model in MODELS}
    for name in [name for name in kinds if args.only in name]:
        total += row(name, kinds[name], args.n, args.seed)
    print(f"| **all** | {sum(total.values())} | {' | '.join(str(total[word]) for word in OUTCOMES)} |")


if __name__ == "__main__":
    main()
