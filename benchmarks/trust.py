#!/usr/bin/env python3
"""Do verdicts and intervals hold their level? Screens simulated in embedding space, scored by the tasks themselves.

    python benchmarks/trust.py run --design few --repeats 400 --results DIR     (appends: an interrupted run goes on)
    python benchmarks/trust.py table --results DIR > benchmarks/trust.md

Every repeat is a new screen: new effects, batches, controls and cells. Two embeddings are equally good by construction: they
share effects and batch shifts, and the noise of every cell is their own. Further ones have effects 5, 10 and 20 % larger.
"""

import argparse
import pickle
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))

from trust_screens import DESIGNS, perturbed_genes, simulate

from plumbline import tasks
from plumbline.data.splits import make_split
from plumbline.genes.relationships import known_pairs
from plumbline.scoring.evaluation import evaluate
from plumbline.scoring.protocol import CHOSEN
from plumbline.scoring.screen import Screen, Subject
from plumbline.summary.contest import Contest
from plumbline.tasks import recall

SEEDS = (42, 43)
TASKS = ("magnitude", "consistency", "recall", "retrieval", "separability", "batch_effect", "map", "reconstruction")
N_BOOT = 400
ADVANTAGES = (0.05, 0.10, 0.20)


@cache
def pairs_of_perturbed(source: str, n: int) -> np.ndarray:
    """The known pairs with a perturbed gene: the task finds the same in them as in all, sooner."""
    pairs = known_pairs(source)
    return pairs[np.isin(pairs, perturbed_genes(n)[0]).any(axis=1)]


def score(
    screen: Screen,
    z: dict[str, np.ndarray],
    names: tuple[str, ...] = TASKS,
    n_draws: int = 199,
    seeds: tuple[int, ...] = SEEDS,
    protocol: str = "corrected",
    counts: Path | None = None,
) -> dict:
    """embedding -> metric -> seed -> Score, under a protocol with its chosen post-processing.

    counts: counts.h5ad, for tasks that read expression.
    """
    splits = [make_split(screen.perturbation, screen.is_control, screen.batch, seed, "batch") for seed in seeds]
    found: dict = {name: {} for name in z}
    with only_pairs_of_perturbed(screen.facts["n_perturbations"]):
        for name, values in z.items():
            subject = Subject.of_embedded(values, screen, n_draws=n_draws, counts=counts)
            for task in map(tasks.load, names):
                for row in evaluate(subject, task, splits, [protocol]):
                    if row.postprocess == CHOSEN[protocol] and row.score.items is not None:
                        found[name].setdefault(row.score.metric, {})[row.seed] = row.score
    return found


@contextmanager
def only_pairs_of_perturbed(n: int) -> Iterator[None]:
    """The task recall reads no pair without a perturbed gene, within the block: the tables are large."""
    before, recall.known_pairs = recall.known_pairs, partial(pairs_of_perturbed, n=n)
    try:
        yield
    finally:
        recall.known_pairs = before


def run(path: Path, repeats: int, advantages: tuple[float, ...], seconds: float) -> None:
    """Append repeats to ``path``, DESIGN.TASK.PROTOCOL.WHAT.pickle, until there are so many, or the seconds have passed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (design, task, protocol), start = path.name.split(".")[:3], time.monotonic()
    done = sum(1 for _ in read(path))
    with path.open("ab") as file, tempfile.TemporaryDirectory() as folder:
        for repeat in range(done, repeats):
            if time.monotonic() - start > seconds:
                break
            # a file of its own: decoders are remembered by the path of their counts
            counts = Path(folder, f"{repeat}.h5ad") if tasks.load(task).needs_counts else None
            screen, z = simulate(DESIGNS[design], 1000 + repeat, advantages, counts)
            pickle.dump(score(screen, z, (task,), protocol=protocol, counts=counts), file)
            file.flush()


def read(path: Path):
    """The repeats of a results file."""
    if path.exists():
        with path.open("rb") as file:
            while file.peek(1):
                yield pickle.load(file)


def contests(path: Path) -> Iterator[dict[str, Contest]]:
    """Of every repeat, metric -> the contest between its embeddings, as the summary makes it."""
    for repeat in read(path):
        metrics = set.intersection(*(set(scores) for scores in repeat.values()))
        yield {
            metric: Contest.of(
                [(name, {seed: one.items for seed, one in scores[metric].items()}) for name, scores in repeat.items()], N_BOOT
            )
            for metric in sorted(metrics)
        }


def levels(path: Path) -> pd.DataFrame:
    """One row per metric and repeat: the values of two equals, their intervals, p of their difference, units."""
    rows = []
    for number, found in enumerate(contests(path)):
        for metric, contest in found.items():
            ends = {f"{end}_{name}": x for name in "ab" for end, x in zip(("low", "high"), contest.interval(name), strict=True)}
            gap = contest.difference("a", "b")
            values = {name: contest.pooled[name].value for name in "ab"}
            rows.append({"repeat": number, "metric": metric, "p": gap.p, "units": gap.n_units, **values, **ends})
    return pd.DataFrame(rows)


def level(rows: pd.DataFrame) -> dict:
    """Of one metric in one design: repeats, mean of the score, units, percent called different, coverage of the intervals."""
    truth = rows[["a", "b"]].to_numpy().mean()
    holds = [(rows[f"low_{name}"] <= truth) & (truth <= rows[f"high_{name}"]) for name in "ab"]
    known, tested = np.isfinite(rows["low_a"]), rows["p"].dropna()
    return {"repeats": len(rows), "mean": truth, "units": rows["units"].median(), "different": 100 * (tested <= 0.05).mean(),
            "coverage": 100 * np.mean(np.concatenate([hold[known] for hold in holds]))}  # fmt: skip


def told(path: Path) -> pd.DataFrame:
    """Metric x advantage: in how many percent of repeats (n) an embedding with larger effects is told to be better."""
    rows = []
    for found in contests(path):
        for metric, contest in found.items():
            for name in contest.parts.keys() - {"a", "b"}:
                gap = contest.difference(name, "b")
                rows.append({"metric": metric, "advantage": name, "told": 100 * (gap.p <= 0.05 and gap.value > 0)})
    return pd.DataFrame(rows).pivot_table(index="metric", columns="advantage", values="told", aggfunc=["mean", "size"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("run", "power", "table"), help="equals; equals and better ones; the tables of both")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--designs", default=",".join(DESIGNS))
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--protocol", choices=sorted(CHOSEN), default="corrected")
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=np.inf, help="stop after so long; the next run goes on")
    arguments = parser.parse_args()
    if arguments.verb == "table":
        from trust_tables import table

        print(table(arguments.results))
        return
    advantages, start = ADVANTAGES if arguments.verb == "power" else (), time.monotonic()
    for design in arguments.designs.split(","):
        for task in arguments.tasks.split(","):
            path = arguments.results / f"{design}.{task}.{arguments.protocol}.{arguments.verb}.pickle"
            run(path, arguments.repeats, advantages, arguments.seconds - (time.monotonic() - start))


if __name__ == "__main__":
    main()
