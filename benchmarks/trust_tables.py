"""The tables of trust.md, from the results of trust.py."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bin"))

from trust import level, levels, told
from trust_screens import DESIGNS, Design

from plumbline import tasks
from plumbline.scoring.protocol import CHOSEN

GOALS = (("different", (3, 7)), ("coverage", (93, 97)))
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

- No metric with a verdict calls equals different more often than it says (the highest is `auroc_control`, 8 ± 1 %). Where a
  goal is missed it is on the careful side: fewer than 3 % called different, or intervals that hold in more than 97 %; but
  for intervals named below. That is so of batch mixing (5 to 20 test batches are its units, and whether two mix is a matter
  of both), of recall where the pairs of a complex fill the whole band (`recall_corum` in `strong`), and of shares near 0
  (Wilson's interval). Real differences of these are told too rarely.
- `consistency_fdr_pct` has intervals that hold in 90 to 93 %: it gets no verdict and no rank (`uncalibrated` in its
  record).
- mAP: with the influence of the controls and genes that units share, `map_activity` calls 3 to 5 % of equals different and
  `map_consistency` 1 to 7 % (without it 8 % and 22 to 24 %). Intervals hold in 94 and 92 % of `small`; they are somewhat
  narrow in `few` (90 and 89 %). Of activity it is the same in `apart` (91 %), where perturbations share no effects: low
  scores have short intervals, and the number of profiles of controls, with which the level of chance changes, is drawn anew
  in each repeat. Of consistency it is not (97 %): in `few`, complexes as a whole are strong or weak. Two embeddings of one
  data set have all of this in common, and verdicts rest on their difference (standard deviation in `few` 0.0217 and 0.064,
  by its intervals 0.0219 and 0.068). The percentages of q values call up to 36 % of equals different: no verdict and no
  rank.
- `magnitude_effect` calls 1 to 2 % different (at most 4 % by Wilson's 95 % interval), and its intervals hold in 93 to 98 %.
- Reconstruction, decoded from 60 genes whose counts follow the same effects (100 repeats of a design): `effect_pearson`
  calls 3 to 4 % of equals different, and its intervals hold in 88 to 94 %. Those of `effect_integrity` hold in 85 to 92 %,
  those of `pearson` and `spearman` in 63 to 87 and 66 to 90 % (9 to 12 and 4 to 14 % called different): their units are
  genes, which share cells and a decoder. These three get no verdict and no rank. Metrics over batches had 2 or 3 of them
  here, and are not compared with fewer than 8.
- Under no effect, `magnitude_pct` and `consistency_pct` are the level of their p values (5 % is right), `recall_mean` is
  at 0.10.
- `similarity_reliability` (a description, without a verdict) has intervals that are too narrow where effects are strong.
- Not measured: magnitude and consistency of the protocol `paper` (their null needs unexpressed genes), metrics of
  reconstruction over 8 batches or more, data sets with one perturbation. Geometry has no verdict.

| design | what it is |
|---|---|
"""


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
