#!/usr/bin/env python3
"""Does the plateau that few cells predict hold? Screens simulated in embedding space (benchmarks/trust.py), scored with all
cells and from 24 cells per perturbation.

    python benchmarks/plateau.py --tasks retrieval,magnitude --repeats 20 > benchmarks/plateau.md
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "bin"), str(Path(__file__).resolve().parent)]

import trust

from plumbline import tasks
from plumbline.common.errors import NotApplicable
from plumbline.data.splits import make_split
from plumbline.experiments.cells_per_perturbation import curve, rows_of
from plumbline.scoring.evaluation import score_under
from plumbline.scoring.screen import Subject

FEW, MANY, EFFECTS = 24, 240, (0.5, 1.0, 2.0, 4.0)
HEAD = f"""# Does the plateau that {FEW} cells predict hold?

`python benchmarks/plateau.py --tasks TASKS --repeats REPEATS > benchmarks/plateau.md`

Simulated screens of 40 perturbations in 8 batches (`benchmarks/trust.py`; recall: 120 perturbations), effects of several
lengths in standard deviations of a cell's noise. {FEW} cells per perturbation are scored as the experiment
`cells_per_perturbation` does; *truth* is the score with {MANY} cells per perturbation, under the same post-processing.
*Plateau holds*: the 95 % interval of the plateau (or its lower bound, where the curve may be a straight line) holds the
truth. The last four columns: how many repeats had which result.

| task | effect | {FEW} cells | truth | plateau | plateau holds | more cells help | enough cells | cannot tell | no estimate |
|---|---|---|---|---|---|---|---|---|---|
"""


def one(task_name: str, effect: float, seed: int) -> dict:
    """A screen of MANY cells per perturbation, FEW of them, and what these say of all."""
    design = trust.Design(cells=MANY, effect=effect, spread=0.0, n_perturbations=120 if task_name == "recall" else 40)
    screen, embeddings = trust.simulate(design, seed)
    task, z = tasks.load(task_name), embeddings["a"]
    split = make_split(screen.perturbation, screen.is_control, screen.batch, 42, "batch")
    whole = Subject(embedding=z, screen=screen, rows=np.arange(len(z)), n_draws=199)
    order = np.random.default_rng(seed).permutation(len(z))
    rank = pd.Series(0, index=order)
    rank[:] = pd.Series(screen.perturbation[order]).groupby(screen.perturbation[order]).cumcount().to_numpy()
    keep = np.flatnonzero(screen.is_control | (rank.sort_index().to_numpy() < FEW))
    part = Subject(embedding=z[keep], screen=screen.take(keep), rows=keep, n_draws=199)
    try:
        rows = list(rows_of(curve(part, task, split.take(keep)), 400, seed))
    except NotApplicable:
        return {"verdict": "no estimate"}
    found = score_under(whole.view(split, "corrected"), task, rows[0]["postprocess"])
    truth = next(score.value for score in found if score.metric == rows[0]["metric"])
    end = rows[-1]
    least = float(end["reason"].split()[-3]) if "no plateau in sight" in end["reason"] else np.nan
    holds = end["ci_low"] <= truth <= end["ci_high"] if np.isfinite(end["value"]) else truth >= least
    estimated = end["verdict"] != "no estimate"
    return {"verdict": end["verdict"], "few": rows[2]["value"], "truth": truth, "plateau": end["value"],
            "holds": float(holds) if estimated else np.nan}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="retrieval")
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    print(HEAD, end="")
    for task in args.tasks.split(","):
        for effect in EFFECTS:
            found = pd.DataFrame([one(task, effect, seed) for seed in range(args.repeats)]).reindex(
                columns=["verdict", "few", "truth", "plateau", "holds"]
            )
            mean, n = found[["few", "truth", "plateau"]].mean(), int(found["holds"].notna().sum())
            counts = found["verdict"].value_counts()
            words = [str(counts.get(word, 0)) for word in ("more cells help", "enough cells", "cannot tell", "no estimate")]
            held = f"{found['holds'].sum():.0f} of {n}" if n else "–"
            cells = [task, f"{effect:g}", *(f"{value:.3g}" if np.isfinite(value) else "–" for value in mean), held, *words]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
