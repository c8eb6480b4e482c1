"""What SUMMARISE reads beside item tables (items.py): scores, the runs that were expected, the models, the data sets."""

import glob
import json
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline import tasks
from plumbline.common.errors import UserError
from plumbline.embedding.variants import read_rows
from plumbline.scoring.records import Metric, Task
from plumbline.scoring.scores import COLUMNS

RUN = ["dataset", "variant", "fit_on", "task"]
_TEXT = [name for name in COLUMNS if name not in ("seed", "value", "ci_low", "ci_high", "n")]


def read_scores(folder: Path) -> pd.DataFrame:
    """Every score table under ``folder`` (parquet, plumbline.scoring.scores.COLUMNS) as one."""
    frames = []
    for path in sorted(folder.rglob("*.parquet")):
        frame = pd.read_parquet(path)
        missing = [name for name in COLUMNS if name not in frame]
        if missing:
            raise UserError(f"{path} is no score table: it lacks {', '.join(missing)}. Give files of evaluate_embedding.py.")
        frames.append(frame[COLUMNS])
    scores = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
    scores[_TEXT] = scores[_TEXT].fillna("").astype(str)
    return scores.astype({"seed": "int64", "n": "int64", "value": float, "ci_low": float, "ci_high": float})


def read_models(path: Path) -> pd.DataFrame:
    """assets/models.csv, indexed by variant id; columns at least model, title, role."""
    models = pd.DataFrame(read_rows(path))
    missing = [name for name in ("id", "model", "title", "role") if name not in models]
    if missing:
        raise UserError(f"{path}: the list of models lacks the column {', '.join(missing)}.")
    return models.set_index("id")


def read_expected(path: Path) -> pd.DataFrame:
    """What the run should have produced, one row an embedding and task.

    A JSON list of {dataset, model, variant, fit_on, seeds, protocols, task, role, id, experiment, compared_with, failure,
    not_applicable, code}: ``seeds`` are the split seeds it is scored on ('42,43', a list, or one), ``id`` names the embedding,
    and its provenance file; a run that the main run and an experiment ask for has a row for each; ``failure`` is what a
    failed task said; ``not_applicable`` is why the task does not apply to the data set, ``code`` the digest of its code.
    The columns ``seeds`` (int) and ``protocols`` are lists.
    """
    try:
        rows = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: expected a JSON list of the runs ({error}).") from error
    columns = ["dataset", "model", "variant", "fit_on", "task", "role", "id", "experiment", "compared_with", "failure"]
    columns += ["not_applicable", "code"]
    table = pd.DataFrame([{name: str(row.get(name) or "") for name in columns} for row in rows], columns=columns)
    protocols = [[word for word in str(row.get("protocols") or "").split(",") if word] for row in rows]
    return table.assign(seeds=[_seeds(row.get("seeds", row.get("seed", ""))) for row in rows], protocols=protocols)


def _seeds(value: object) -> list[int]:
    words = value if isinstance(value, list) else str(value).split(",")
    return [int(word) for word in words if str(word).strip().isdigit()]


def read_datasets(folder: Path | None, plans: Path | None = None) -> dict[str, dict]:
    """name -> {'facts': dataset.json, 'report': data_report.json} of every table folder below ``folder``.

    plans: folder of what plan_evaluation.py wrote: the sizes of the splits join the report, its warnings those of the data.
    """
    made = [json.loads(path.read_text()) for path in sorted(plans.rglob("*.json"))] if plans else []
    planned = {plan["dataset"]: plan for plan in made}
    found = {}
    # glob follows linked folders, which is how Nextflow brings them; Path.rglob does not before Python 3.13
    for path in map(Path, sorted(glob.glob(f"{folder}/**/dataset.json", recursive=True))) if folder else []:
        facts, report = json.loads(path.read_text()), path.with_name("data_report.json")
        about = json.loads(report.read_text()) if report.exists() else {}
        plan = planned.get(str(facts["name"]), {"splits": [], "warnings": []})
        about |= {"splits": plan["splits"], "warnings": [*about.get("warnings", []), *plan["warnings"]]}
        found[str(facts["name"])] = {"facts": facts, "report": about}
    return found


def read_provenance(folder: Path | None, expected: pd.DataFrame) -> pd.DataFrame:
    """One row an embedding: its JSON and its data set (the JSON's own, or that of the expected run of the same id)."""
    where = dict(zip(expected["id"], expected["dataset"], strict=True))
    rows = []
    for path in sorted(folder.rglob("*.json")) if folder else []:
        about = json.loads(path.read_text())
        rows.append({"dataset": where.get(path.stem, ""), **about, "embedding": path.stem})
    return pd.DataFrame(rows)


def known_task(name: str) -> Task | None:
    """The record of a task; None for one that this version does not have."""
    return tasks.records().get(name)


def known_metric(name: str) -> Metric:
    """The record of a metric; of one that this version does not have, a record without bounds."""
    return tasks.metrics().get(name) or Metric(name=name, title=name, lowest=-np.inf, highest=np.inf)


def describes(task: str) -> bool:
    """Whether a task describes models and does not compare them."""
    record = known_task(task)
    return record is not None and record.describes


def main_metric(task: str, facts: dict, protocol: str = "corrected") -> str:
    """The metric that ranks models on a data set; '' for a task that does not rank them, or that this version does not have."""
    record = known_task(task)
    return record.main(facts, protocol) if record and not describes(task) else ""
