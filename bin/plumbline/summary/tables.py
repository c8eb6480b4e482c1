"""What SUMMARISE reads: score tables, item tables, the runs that were expected, the models, the data sets."""

import glob
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline import tasks
from plumbline.common.errors import UserError
from plumbline.embedding.variants import read_rows
from plumbline.scoring.protocol import CHOSEN, PROTOCOLS
from plumbline.scoring.records import Metric, Task
from plumbline.scoring.scores import COLUMNS, SHARED, Items

RUN = ["dataset", "variant", "fit_on", "task"]
_ITEM_COLUMNS = ["metric", "protocol", "seed", "unit_kind", "unit", "unit2", "numerator", "denominator", "offset", "scale"]
_ITEM_COLUMNS += ["p", "influence"]
_SMALL = 100_000  # rows of an item table that is read once and kept, rather than once a metric
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

    A JSON list of {dataset, model, variant, fit_on, seeds, task, role, id, experiment, compared_with, failure}:
    ``seeds`` are the split seeds it is scored on ('42,43', a list, or one), ``id`` names the embedding, and its provenance
    file; a run that the main run and an experiment ask for has a row for each; ``failure`` is what a failed task said.
    The column ``seeds`` is a list of int.
    """
    try:
        rows = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: expected a JSON list of the runs ({error}).") from error
    columns = ["dataset", "model", "variant", "fit_on", "task", "role", "id", "experiment", "compared_with", "failure"]
    table = pd.DataFrame([{name: str(row.get(name) or "") for name in columns} for row in rows], columns=columns)
    return table.assign(seeds=[_seeds(row.get("seeds", row.get("seed", ""))) for row in rows])


def _seeds(value: object) -> list[int]:
    words = value if isinstance(value, list) else str(value).split(",")
    return [int(word) for word in words if str(word).strip().isdigit()]


def read_datasets(folder: Path | None) -> dict[str, dict]:
    """name -> {'facts': dataset.json, 'report': data_report.json} of every table folder below ``folder``."""
    found = {}
    # glob follows linked folders, which is how Nextflow brings them; Path.rglob does not before Python 3.13
    for path in map(Path, sorted(glob.glob(f"{folder}/**/dataset.json", recursive=True))) if folder else []:
        facts, report = json.loads(path.read_text()), path.with_name("data_report.json")
        found[str(facts["name"])] = {"facts": facts, "report": json.loads(report.read_text()) if report.exists() else {}}
    return found


def read_provenance(folder: Path | None, expected: pd.DataFrame) -> pd.DataFrame:
    """One row an embedding: its JSON and its data set (the JSON's own, or that of the expected run of the same id)."""
    where = dict(zip(expected["id"], expected["dataset"], strict=True))
    rows = []
    for path in sorted(folder.rglob("*.json")) if folder else []:
        about = json.loads(path.read_text())
        rows.append({"dataset": where.get(path.stem, ""), **about, "embedding": path.stem})
    return pd.DataFrame(rows)


def missing_rows(scores: pd.DataFrame, expected: pd.DataFrame, provenance: pd.DataFrame) -> pd.DataFrame:
    """A row 'failed' for every seed, protocol and metric of the expected runs that left no scores."""
    have = set(map(tuple, scores[[*RUN, "seed"]].to_numpy().tolist()))
    some = {key[:-1] for key in have}
    embedded = set(provenance["embedding"]) if len(provenance) else set()
    protocols = [name for name in PROTOCOLS if name in set(scores["protocol"])] or list(PROTOCOLS)
    rows = []
    for run in expected.to_dict("records"):
        key, seeds = tuple(run[name] for name in RUN), run["seeds"]
        if any((*key, seed) in have for seed in seeds) or (not seeds and key in some):
            continue
        step = "EVALUATE" if not run["id"] or run["id"] in embedded else "EMBED"
        reason = f"{step} failed: {run['failure']}" if run["failure"] else f"{step} left no result: see the log of that task"
        rows += [{**row, "seed": seed, "reason": reason} for seed in seeds or [0] for row in _failed(run, protocols)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _failed(run: dict, protocols: list[str]) -> list[dict]:
    task = known_task(run["task"])
    about = {name: run[name] for name in ("dataset", "model", "variant", "fit_on", "task")}
    about |= {"task_version": task.version if task else "", "n": 0, "status": "failed", "code": ""}
    about |= dict.fromkeys(("value", "ci_low", "ci_high"), np.nan)
    metrics = [metric.name for metric in task.metrics] if task else [""]
    return [{**about, "protocol": p, "postprocess": CHOSEN[p], "metric": m} for p in protocols for m in metrics]


def known_task(name: str) -> Task | None:
    """The record of a task; None for one that this version does not have."""
    return tasks.records().get(name)


def known_metric(name: str) -> Metric:
    """The record of a metric; of one that this version does not have, a record without bounds."""
    return tasks.metrics().get(name) or Metric(name=name, title=name, lowest=-np.inf, highest=np.inf)


def main_metric(task: str, facts: dict) -> str:
    """The metric that ranks models on a data set; '' for a task this version does not have."""
    record = known_task(task)
    return record.main(facts) if record else ""


class ItemFiles:
    """The item tables of a run, found by what they are about, read one metric at a time: they can be large."""

    def __init__(self, folder: Path | None) -> None:
        import pyarrow.parquet as parquet

        self.paths: dict[tuple, list[Path]] = {}
        for path in sorted(folder.rglob("*.parquet")) if folder else []:
            file = parquet.ParquetFile(path)
            if file.metadata.num_rows and set(RUN) <= set(file.schema_arrow.names):
                first = next(file.iter_batches(batch_size=1, columns=RUN)).to_pylist()[0]
                self.paths.setdefault(tuple(str(first[name]) for name in RUN), []).append(path)

    def read(self, dataset: str, variant: str, fit_on: str, task: str, metric: str, protocol: str) -> dict[int, Items]:
        """seed -> items of one model's score under its chosen post-processing."""
        found = {}
        for path in self.paths.get((dataset, variant, fit_on, task), []):
            frame = _chosen_items(path, metric, protocol)
            found |= {int(seed): _items(part) for seed, part in frame.groupby("seed")}
        return found


def _chosen_items(path: Path, metric: str, protocol: str) -> pd.DataFrame:
    import pyarrow.parquet as parquet

    if parquet.read_metadata(path).num_rows > _SMALL:
        return _read_items(path, [("metric", "==", metric), ("protocol", "==", protocol)])
    frame = _small_items(path)
    return frame[(frame["metric"] == metric) & (frame["protocol"] == protocol)]


@lru_cache(maxsize=256)
def _small_items(path: Path) -> pd.DataFrame:
    return _read_items(path, [])


def _read_items(path: Path, wanted: list[tuple]) -> pd.DataFrame:
    import pyarrow.parquet as parquet

    columns = [name for name in _ITEM_COLUMNS if name in parquet.read_schema(path).names]
    return pd.read_parquet(path, columns=columns, filters=[*wanted, ("postprocess", "in", list(CHOSEN.values()))])


def _items(frame: pd.DataFrame) -> Items:
    rest = frame[frame["unit_kind"] == SHARED]
    influence = dict(zip(rest["unit"].astype(str), rest["influence"].astype(float), strict=True)) if len(rest) else {}
    frame = frame[frame["unit_kind"] != SHARED]
    kind, offset, scale = (frame[name].iloc[0] for name in ("unit_kind", "offset", "scale"))
    unit2 = frame["unit2"].to_numpy(dtype=str) if kind == "pair" else None
    sums = [frame[name].to_numpy(dtype=float) for name in ("numerator", "denominator")]
    # the p values of another metric of the task leave an empty column
    extra = {"p": frame["p"].to_numpy(dtype=float)} if "p" in frame and frame["p"].notna().any() else {}
    unit = frame["unit"].to_numpy(dtype=str)
    return Items(str(kind), unit, *sums, unit2, float(offset), float(scale), extra, influence)
