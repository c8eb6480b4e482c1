"""The rows of expected runs that left no scores: the task or the model does not apply, or something failed."""

import numpy as np
import pandas as pd

from plumbline.scoring.protocol import CHOSEN, PROTOCOLS
from plumbline.scoring.scores import COLUMNS
from plumbline.summary.tables import RUN, known_task


def absent_rows(scores: pd.DataFrame, expected: pd.DataFrame, provenance: pd.DataFrame) -> pd.DataFrame:
    """A row for every seed, protocol and metric of the expected runs that left no scores.

    'not_applicable', with the reason, where the model could not take the data set (its provenance says so) or the task does
    not apply to it (the expected run says so): the pipeline starts no EVALUATE there. 'failed' in all other cases.
    """
    have = set(map(tuple, scores[[*RUN, "seed"]].to_numpy().tolist()))
    made = provenance.set_index("embedding") if len(provenance) else pd.DataFrame()
    scored = [name for name in PROTOCOLS if name in set(scores["protocol"])] or list(PROTOCOLS)
    rows = []
    for run in expected.to_dict("records"):
        key, protocols = tuple(run[name] for name in RUN), run["protocols"] or scored
        seeds = _without_scores(run, key, protocols, have)
        have |= {(*key, seed) for seed in seeds}  # the main run and an experiment may expect the same
        if seeds:
            status, reason, code = _why(run, made)
            about = {"status": status, "reason": reason, "code": code}
            rows += [{**row, **about, "seed": seed} for seed in seeds for row in _metrics(run, protocols)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _without_scores(run: dict, key: tuple, protocols: list[str], have: set) -> list[int]:
    """Seeds without any row. Without a split, `paper` scores the first seed alone."""
    task, seeds = known_task(run["task"]), run["seeds"] or [0]
    missing = [seed for seed in seeds if (*key, seed) not in have]
    if not run["seeds"]:
        return [] if any(known[:-1] == key for known in have) else seeds
    once = protocols == ["paper"] and task is not None and not task.uses_split
    return [] if once and seeds[0] not in missing else missing


def _why(run: dict, made: pd.DataFrame) -> tuple[str, str, str]:
    """(status, reason, code) of a run without scores."""
    embedding = made.loc[run["id"]] if run["id"] in made.index else {"status": "" if run["id"] else "ok"}
    if embedding.get("status", "ok") not in ("ok", ""):
        return "not_applicable", str(embedding["reason"]), run["code"]
    if embedding.get("status", "ok") and run["not_applicable"]:
        return "not_applicable", run["not_applicable"], run["code"]
    step = "EVALUATE" if embedding.get("status", "ok") else "EMBED"
    failed = f"failed: {run['failure']}" if run["failure"] else "left no result: see the log of that task"
    return "failed", f"{step} {failed}", ""


def _metrics(run: dict, protocols: list[str]) -> list[dict]:
    task = known_task(run["task"])
    about = {name: run[name] for name in ("dataset", "model", "variant", "fit_on", "task")}
    about |= {"task_version": task.version if task else "", "n": 0}
    about |= dict.fromkeys(("value", "ci_low", "ci_high"), np.nan)
    metrics = [metric.name for metric in task.metrics] if task else [""]
    return [{**about, "protocol": p, "postprocess": CHOSEN[p], "metric": m} for p in protocols for m in metrics]
