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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtri

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))

from plumbline import tasks
from plumbline.data.simulate import choose_complexes
from plumbline.data.splits import make_split
from plumbline.genes.relationships import known_pairs
from plumbline.scoring.evaluation import evaluate
from plumbline.scoring.protocol import CHOSEN
from plumbline.scoring.screen import Screen, Subject
from plumbline.summary.contest import Contest
from plumbline.tasks import recall

SEEDS = (42, 43)
TASKS = ("magnitude", "consistency", "recall", "retrieval", "separability", "batch_effect", "map")
N_BOOT = 400
GOALS = (("different", (3, 7)), ("coverage", (93, 97)))
ADVANTAGES = (0.05, 0.10, 0.20)
HEAD = """# Do verdicts and intervals hold their level?

`python benchmarks/trust.py run --results DIR`, `... power --results DIR`, then `... table --results DIR >
benchmarks/trust.md`. Both commands add repeats to what DIR has, in pieces (`--seconds`), with one seed per repeat: the table
is the same in any pieces.

Screens are simulated in embedding space and scored by the tasks (split seeds 42 and 43, 199 draws per null, post-processing
chosen as always), and compared as SUMMARISE compares them. Two embeddings are **equals**: same effects, batch shifts and
cells, the noise of every cell their own. *Called different*: p <= 0.05 for their difference (goal 3 to 7 %; before
Benjamini-Hochberg over models and tasks, which makes it rarer). *Interval holds*: the 95 % interval of either holds the mean
of the metric over all repeats, each a new screen with new effects, batches, controls and cells (goal 93 to 97 %). ± is the
standard error of a percentage of as many repeats; an asterisk is more than two of them outside of the goal. Units: what is
resampled.

What this says, and what it does not:

- No metric calls equals different more often than it says (the highest is `auroc_control`, 8 ± 1 %). Where a goal is
  missed it is on the careful side: fewer than 3 % called different, or intervals that hold in more than 97 %. That is so
  of batch mixing (5 to 20 test batches are its units, and whether two mix is a matter of both), of recall where the pairs
  of a complex fill the whole band (`recall_corum` in `strong`), and of shares near 0 (Wilson's interval). Real
  differences of these are told too rarely.
- `consistency_fdr_pct` has intervals that hold in 90 to 93 %: it gets no verdict and no rank (`uncalibrated` in its
  record).
- Under no effect, `magnitude_pct` and `consistency_pct` are the level of their p values (5 % is right), `recall_mean` is
  at 0.10.
- `similarity_reliability` (a description, without a verdict) has intervals that are too narrow where effects are strong.
- Not measured: mAP, `magnitude_effect`, reconstruction (its decoder is too expensive for hundreds of repeats), magnitude
  and consistency of the protocol `paper` (their null needs unexpressed genes), data sets with one perturbation. Geometry
  has no verdict.

| design | what it is |
|---|---|
"""


@dataclass(frozen=True, kw_only=True)
class Design:
    """A kind of screen.

    cells: per perturbation, on average; spread: sd of their logarithm. unbalanced: sd of the logarithm of a batch's size, the
    same sizes in every repeat. effect: length of a mean effect, in sd of a cell's noise; shared: the part of its variance
    that a complex has in common. shift: sd of a batch's shift; twist: sd of what a batch adds to an effect, relative to it.
    """

    n_perturbations: int = 40
    cells: int = 15
    spread: float = 0.2
    n_batches: int = 8
    unbalanced: float = 0.0
    n_controls: int = 160
    effect: float = 1.0
    shared: float = 0.5
    shift: float = 0.5
    twist: float = 0.2
    d: int = 16


DESIGNS = {
    "few": Design(),
    "many": Design(n_perturbations=120, cells=10, n_batches=12, n_controls=240),
    "unbalanced": Design(unbalanced=0.8, n_batches=12),
    "weak": Design(effect=0.5, shared=0.2),
    "strong": Design(effect=2.0, shared=0.8),
    "spread": Design(n_perturbations=60, spread=0.9),
    "no effect": Design(effect=0.0),
    "batches": Design(n_batches=40, n_controls=400, cells=20),
}


def simulate(design: Design, seed: int, advantages: tuple[float, ...] = ()) -> tuple[Screen, dict[str, np.ndarray]]:
    """A screen, and the embeddings of its cells: 'a' and 'b', equally good, and one per advantage, to be compared with b."""
    rng = np.random.default_rng(seed)
    genes, complexes = perturbed_genes(design.n_perturbations)
    code, batch = _cells(design, rng)
    common = rng.normal(size=(complexes.max() + 1, design.d))[complexes]
    own = rng.normal(size=(design.n_perturbations, design.d))
    length = design.effect * np.exp(rng.normal(0, 0.5, design.n_perturbations)) / np.sqrt(design.d)
    effect = (np.sqrt(design.shared) * common + np.sqrt(1 - design.shared) * own) * length[:, None]
    shift = design.shift * rng.normal(size=(design.n_batches, design.d))
    twist = design.twist * length[:, None, None] * rng.normal(size=(design.n_perturbations, design.n_batches, design.d))
    moved = np.where((code >= 0)[:, None], effect[code] + twist[code, batch], 0)
    noise = rng.normal(size=(2, len(code), design.d))
    made = {"a": 0.0, "b": 0.0} | {f"+{100 * more:.0f} %": more for more in advantages}
    z = {name: (shift[batch] + (1 + more) * moved + noise[int(name == "b")]).astype(np.float32) for name, more in made.items()}
    return _screen(design, np.array([*genes, "control"])[code], code < 0, batch), z


@cache
def perturbed_genes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Genes of n perturbations, the same in every repeat, and the number of the CORUM complex of each."""
    chosen = list(choose_complexes(n, np.random.default_rng(0)).values())
    return np.concatenate(chosen), np.repeat(np.arange(len(chosen)), list(map(len, chosen)))


@cache
def pairs_of_perturbed(source: str, n: int) -> np.ndarray:
    """The known pairs with a perturbed gene: the task finds the same in them as in all, sooner."""
    pairs = known_pairs(source)
    return pairs[np.isin(pairs, perturbed_genes(n)[0]).any(axis=1)]


def _cells(design: Design, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Perturbation (n,), -1 for controls, and batch (n,) of every cell."""
    size = design.cells * np.exp(rng.normal(0, design.spread, design.n_perturbations) - design.spread**2 / 2)
    code = np.repeat(np.arange(-1, design.n_perturbations), [design.n_controls, *np.maximum(4, np.round(size)).astype(int)])
    share = np.exp(design.unbalanced * ndtri((np.arange(design.n_batches) + 0.5) / design.n_batches))
    return code, rng.choice(design.n_batches, len(code), p=share / share.sum())


def _screen(design: Design, perturbation: np.ndarray, is_control: np.ndarray, batch: np.ndarray) -> Screen:
    genes = pd.DataFrame({"gene_id": [""], "symbol": [""], "ensembl_id": [""]})
    facts = {"n_perturbations": design.n_perturbations, "n_batches": design.n_batches, "has_batches": True,
             "has_controls": True, "organism": "human", "perturbation_type": "CRISPRi"}  # fmt: skip
    names = np.char.add("c", np.arange(len(batch)).astype(str))
    return Screen(names, perturbation.astype(str), is_control, np.char.add("b", batch.astype(str)), genes, facts)


def score(
    screen: Screen,
    z: dict[str, np.ndarray],
    names: tuple[str, ...] = TASKS,
    n_draws: int = 199,
    seeds: tuple[int, ...] = SEEDS,
    protocol: str = "corrected",
) -> dict:
    """embedding -> metric -> seed -> Score, under a protocol with its chosen post-processing."""
    splits = [make_split(screen.perturbation, screen.is_control, screen.batch, seed, "batch") for seed in seeds]
    found: dict = {name: {} for name in z}
    with only_pairs_of_perturbed(screen.facts["n_perturbations"]):
        for name, values in z.items():
            subject = Subject.of_embedded(values, screen, n_draws=n_draws)
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
    with path.open("ab") as file:
        for repeat in range(done, repeats):
            if time.monotonic() - start > seconds:
                break
            screen, z = simulate(DESIGNS[design], 1000 + repeat, advantages)
            pickle.dump(score(screen, z, (task,), protocol=protocol), file)
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


def error(share: float, n: int) -> float:
    """Standard error of a percentage."""
    return 100 * np.sqrt(max(share, 100 / n) / 100 * (1 - min(share, 100 - 100 / n) / 100) / n)


def table(results: Path) -> str:
    """All tables in Markdown. An asterisk: more than two standard errors outside of the goal."""
    paths = [path for path in sorted(results.glob("*.run.pickle")) if path.stat().st_size]
    used = {path.name.split(".")[0] for path in paths}
    lines = [f"| {name} | {described(design)} |" for name, design in DESIGNS.items() if name in used]
    for protocol in CHOSEN:
        found = level_lines(protocol, [path for path in paths if path.name.split(".")[2] == protocol])
        lines += ["", *found] if found else []
    for path in sorted(results.glob("*.power.pickle")):
        lines += ["", *power_lines(path)] if path.stat().st_size else []
    return HEAD + "\n".join(lines)


def level_lines(protocol: str, paths: list[Path]) -> list[str]:
    """The table of levels of one protocol."""
    head = ["metric", "design", "repeats", "units", "mean score", "called different, %", "interval holds, %"]
    found = []
    for path in paths:
        rows, design = levels(path), path.name.split(".")[0]
        found += [(metric, design, level(part)) for metric, part in rows.groupby("metric")]
    order, designs = list(tasks.metrics()), list(DESIGNS)
    lines = [f"Protocol `{protocol}`:", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"] if found else []
    for metric, design, row in sorted(found, key=lambda one: (order.index(one[0]), designs.index(one[1]))):
        shares = " | ".join(with_error(row[name], row["repeats"], goal) for name, goal in GOALS)
        lines.append(f"| `{metric}` | {design} | {row['repeats']} | {row['units']:.0f} | {row['mean']:.3g} | {shares} |")
    return lines


def described(design: Design) -> str:
    """'40 perturbations, 15 cells each, ...': the settings of a design."""
    return (
        f"{design.n_perturbations} perturbations, {design.cells} cells each (sd of the logarithm {design.spread}), "
        f"{design.n_batches} batches (sd of the logarithm of their size {design.unbalanced}), {design.n_controls} controls, "
        f"effects of {design.effect} sd, {design.shared} of their variance shared in a complex"
    )


def power_lines(path: Path) -> list[str]:
    """The table of one file of ``power``."""
    power = told(path)
    names = sorted(power["mean"].columns, key=lambda name: float(name.strip("+ %")))
    lines = [
        f"Design `{path.name.split('.')[0]}`, larger effects said to be better (p <= 0.05), percent of repeats:",
        "",
    ]
    lines += [f"| metric | repeats | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for metric in power.index:
        shares = " | ".join(f"{power['mean'].loc[metric, name]:.0f}" for name in names)
        lines.append(f"| `{metric}` | {int(power['size'].loc[metric].max())} | {shares} |")
    return lines


def with_error(share: float, n: int, goal: tuple[float, float]) -> str:
    """'5 ± 2', with an asterisk outside of the goal."""
    return f"{share:.0f} ± {error(share, n):.0f}{'*' if outside(share, goal, n) else ''}"


def outside(share: float, goal: tuple[float, float], n: int) -> bool:
    """Whether a percentage lies more than two standard errors outside of its goal."""
    return share < goal[0] - 2 * error(share, n) or share > goal[1] + 2 * error(share, n)


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
        print(table(arguments.results))
        return
    advantages, start = ADVANTAGES if arguments.verb == "power" else (), time.monotonic()
    for design in arguments.designs.split(","):
        for task in arguments.tasks.split(","):
            path = arguments.results / f"{design}.{task}.{arguments.protocol}.{arguments.verb}.pickle"
            run(path, arguments.repeats, advantages, arguments.seconds - (time.monotonic() - start))


if __name__ == "__main__":
    main()
