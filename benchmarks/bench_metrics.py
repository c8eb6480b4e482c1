#!/usr/bin/env python3
"""Every metric compared with the best library and a plain transcription of its definition, in one run: a Markdown table.

    OMP_NUM_THREADS=1 python benchmarks/bench_metrics.py [--quick] > benchmarks/metrics.md

CPU-seconds of one thread, second call (imports and compilation are done). A ratio above 1 is the speed-up of plumbline.
"""

import argparse
import platform
import time
from collections.abc import Callable

import bench_metrics_neighbours as neighbours
import bench_metrics_perturbation as perturbation


def seconds(function: Callable | None, share: float = 1.0) -> float:
    """CPU seconds of the second of two calls (the first compiles and imports), scaled up to all work; NaN without function."""
    if function is None:
        return float("nan")
    function()
    start = time.process_time()
    function()
    return (time.process_time() - start) / share


def rows(quick: bool):
    """(name, cells, ours, peer name, peer, transcription), seconds; a peer that does not exist is NaN."""
    for module in (neighbours, perturbation):
        for case in module.cases(quick):
            times = [seconds(case["ours"]), seconds(case["peer"])]
            times.append(seconds(case["transcription"], case["transcription_share"]))
            yield case["name"], case["n_cells"], case["peer_name"], *times


def ratio(theirs: float, ours: float) -> str:
    return "" if theirs != theirs else f"{theirs / ours:.1f}x"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    quick = parser.parse_args().quick
    print(f"CPU-seconds, one thread of {platform.processor() or platform.machine()}, Python {platform.python_version()}.\n")
    print("| metric | cells | plumbline | library | library / plumbline | transcription / plumbline |")
    print("|---|---|---|---|---|---|")
    for name, cells, peer_name, ours, peer, plain in rows(quick):
        print(f"| {name} | {cells:,} | {ours:.3f} s | {peer_name} | {ratio(peer, ours)} | {ratio(plain, ours)} |", flush=True)


if __name__ == "__main__":
    main()
