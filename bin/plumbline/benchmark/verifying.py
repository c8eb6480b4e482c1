"""A bundle against its data set: the same cells, genes and splits, and the same scores when its embedding is scored again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline import tasks
from plumbline.benchmark.evaluation import Scoring, scored
from plumbline.bundles.checks import checked
from plumbline.bundles.differences import baseline_of, difference_findings
from plumbline.bundles.digests import FACTS, data_identity
from plumbline.bundles.files import read_table
from plumbline.bundles.findings import FAILED, UNVERIFIED, Finding, failed, note, ok, unverified
from plumbline.bundles.manifest import Bundle
from plumbline.common.errors import UserError
from plumbline.scoring.evaluation import score_rows
from plumbline.scoring.records import Task
from plumbline.summary.items import SCORE

TOLERANCE = 1e-5  # of a score's scale (_deviations): other processors and thread counts moved values and ends by up to 6e-6
TRAINED = {"separability": 5e-3, "reconstruction": 2e-2}  # tasks that train a classifier or a decoder, which amplifies rounding
_DESCRIPTIVE = ("title", "input_sha256", "public_since")  # may differ between two files of the same cells
DIFFERS = (
    "Where only last digits differ, another processor may be the cause (--tolerance); otherwise these are not the scores of "
    "this embedding"
)
_FIELDS = ("value", "ci_low", "ci_high")


@dataclass(frozen=True, kw_only=True)
class Data:
    """A prepared data set. counts: counts.h5ad, or None. tolerance: over that of every task, None for their own."""

    tables: Path
    counts: Path | None
    tolerance: float | None = None
    threads: int = 1
    device: str = "cpu"


def prepared_data(folder: Path, counts: Path | None = None, **more) -> Data:
    """The tables of results/data/NAME, or of the tables folder itself, and counts.h5ad if it lies there."""
    tables = folder if (folder / "dataset.json").is_file() else folder / "tables"
    if not (tables / "dataset.json").is_file():
        raise UserError(
            f"{folder} is not a prepared data set: it has no tables/dataset.json. Give results/data/NAME of a run, "
            "what prepare_dataset.py wrote, or the name of a data set of the catalogue."
        )
    beside = tables.parent / "counts.h5ad"
    return Data(tables=tables, counts=counts or (beside if beside.is_file() else None), **more)


def verify(bundle: Bundle, data: Data | None, others: Sequence[Bundle] = ()) -> list[Finding]:
    """Every check; scores only if the bundle itself is sound and the data set is its own.

    others: bundles that may be of its baseline.
    """
    findings, items = checked(bundle)
    unsound = any(finding.status == FAILED for finding in findings if not finding.what.startswith("protocol"))
    if items is None or unsound:
        return findings
    findings += difference_findings(bundle, items, baseline_of(bundle, others))
    if data is None:
        advice = f"Add --data results/data/{bundle.dataset}, or --data {bundle.dataset} if it is in the catalogue"
        return [*findings, unverified("scores", "no data set was given to score the embedding on", advice)]
    identity = list(_identity(bundle, data))
    doubtful = any(finding.status in (FAILED, UNVERIFIED) for finding in identity)
    findings += identity
    if doubtful or "embedding" in bundle.manifest["left_out"]:
        return findings
    scores = read_table(bundle, "scores")
    known = [name for name in bundle.manifest["tasks"] if name in tasks.names()]
    return findings + [finding for name in known for finding in _rescored(bundle, data, tasks.load(name), scores)]


def _identity(bundle: Bundle, data: Data) -> Iterator[Finding]:
    stated = bundle.manifest["dataset"]
    try:
        found = data_identity(data.tables, bundle.manifest["settings"]["seeds"])
    except UserError as error:
        seeds = ",".join(map(str, bundle.manifest["settings"]["seeds"]))
        yield unverified("data", str(error), f"Prepare the data set with --seeds {seeds}")
        return
    for name in FACTS:
        if found[name] != stated.get(name):
            text = f"{name} is {str(stated.get(name))[:80]!r} in the bundle, {found[name]!r} here"
            yield note("data", text) if name in _DESCRIPTIVE else failed("data", text, "Give the data set it was scored on")
    for name in ("cells", "genes"):
        if found[name] == stated[name]:
            yield ok("data", f"the {name} are those of the bundle (sha256 {found[name][:12]})")
        else:
            advice = "Prepare the data set from the same file, with the same row of the sheet"
            yield failed("data", f"the {name} are not those of the bundle", advice)
    others = [seed for seed, digest in found["splits"].items() if digest != stated["splits"].get(seed)]
    if others:
        advice = "Import the splits that it was scored on: ./plumb splits import"
        yield failed("splits", f"other cells are in the splits of the seeds {', '.join(others)}", advice)


def _rescored(bundle: Bundle, data: Data, task: Task, scores: pd.DataFrame) -> Iterator[Finding]:
    """One finding per metric of a task."""
    if task.needs_counts and data.counts is None:
        advice = "Add --counts FILE, or --data NAME of the catalogue"
        yield unverified(task.name, "needs counts, and the data set has no counts.h5ad", advice)
        return
    settings, frames = bundle.manifest["settings"], []
    for part in bundle.manifest["embeddings"]:
        how = Scoring(
            seeds=part["seeds"],
            protocols=settings["protocols"],
            n_draws=settings["n_draws"],
            decoder_budget=1e9 * settings["decoder_budget"],
            exact=settings["exact"],
            threads=data.threads,
            device=data.device,
        )
        counts = data.counts if task.needs_counts else None
        rows = scored(bundle.folder / part["file"], data.tables, counts, task.name, how)
        frames.append(pd.DataFrame(list(score_rows(rows, task, settings["n_boot"]))).assign(task=task.name))
    yield from compared_scores(task, scores[scores["task"] == task.name], pd.concat(frames, ignore_index=True), data.tolerance)


def compared_scores(task: Task, stated: pd.DataFrame, again: pd.DataFrame, tolerance: float | None = None) -> Iterator[Finding]:
    """One finding per metric: the largest deviation of a value or an end of its interval, as a share of its scale."""
    share = TRAINED.get(task.name, TOLERANCE) if tolerance is None else tolerance
    both = stated.merge(again, on=SCORE, how="outer", suffixes=("", "_again"), indicator="side")
    for metric, rows in both.groupby("metric", sort=False):
        yield _finding(f"{task.name}: {metric}", rows, share)


def _finding(what: str, rows: pd.DataFrame, tolerance: float) -> Finding:
    problems = [*_one_sided(rows), *_states(rows)]
    deviations = _deviations(rows[rows["side"] == "both"])
    largest = float(deviations.max(initial=0.0))
    if not largest <= tolerance:
        at, field = np.unravel_index(deviations.argmax(), deviations.shape)
        row, name = rows[rows["side"] == "both"].iloc[at], _FIELDS[field]
        where = f"{row['protocol']}, {row['postprocess']}, seed {row['seed']}"
        problems.append(
            f"{name} is {row[name]:.9g}, scored again it is {row[f'{name}_again']:.9g} ({where}); tolerance {tolerance:.1g}, "
            f"deviation {largest:.1g}"
        )
    if problems:
        return failed(what, "; ".join(problems), DIFFERS)
    return ok(what, f"{len(rows)} scores, largest deviation {largest:.1g} (tolerance {tolerance:.1g})")


def _deviations(rows: pd.DataFrame) -> np.ndarray:
    """Of values and ends (rows, 3), as shares of the score's scale; infinite where only one of two numbers is missing.

    The scale is the metric's largest value or the width of the score's interval, whichever is larger, and 1 at least: an end
    rests on derivatives, which amplify last digits, and is as uncertain as its interval is wide. It is that of the scores
    made here, so that no stated number widens its own tolerance.
    """
    stated = rows[list(_FIELDS)].to_numpy(dtype=float)
    value, low, high = again = rows[[f"{name}_again" for name in _FIELDS]].to_numpy(dtype=float).T
    scale = np.fmax(np.fmax.reduce(np.abs(value), initial=1.0), high - low)
    gaps = np.where(np.isnan(stated) & np.isnan(again.T), 0.0, np.abs(stated - again.T))
    return np.where(np.isnan(gaps), np.inf, gaps) / scale[:, None]


def _one_sided(rows: pd.DataFrame) -> list[str]:
    n_left, n_right = ((rows["side"] == side).sum() for side in ("left_only", "right_only"))
    return [
        f"{n} scores are {where}" for n, where in ((n_left, "in the bundle alone"), (n_right, "missing in the bundle")) if n
    ]


def _states(rows: pd.DataFrame) -> list[str]:
    both = rows[rows["side"] == "both"]
    return [
        f"{name} is {row[name]!r}, scored again it is {row[f'{name}_again']!r} ({row['protocol']}, {row['postprocess']})"
        for name in ("status", "n")
        for _, row in both[both[name] != both[f"{name}_again"]].head(1).iterrows()
    ]
