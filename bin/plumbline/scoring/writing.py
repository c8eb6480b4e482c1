"""The score and item tables that EVALUATE leaves of one embedding and task."""

import json
from pathlib import Path

import pandas as pd

from plumbline.common.files import whole_file
from plumbline.scoring.evaluation import Row, item_frames, score_rows
from plumbline.scoring.records import Task
from plumbline.scoring.scores import COLUMNS


def write_rows(rows: list[Row], task: Task, about: dict[str, str], n_boot: int, cost: dict, paths: tuple[Path, Path]) -> None:
    """Write score and item table (``paths``, parquet), whole or not at all.

    about: dataset, model, variant, fit_on and code of every row. cost: what the step used (plumbline.common.usage), and on how
    many dimensions and seeds; it travels in the tables' metadata.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    about = about | {"task": task.name}
    scores = pd.DataFrame(list(score_rows(rows, task, n_boot))).assign(**about, task_version=task.version)[COLUMNS]
    frames = list(item_frames(rows))
    items = pd.concat(frames, ignore_index=True).assign(**about) if frames else pd.DataFrame({"task": []})
    metadata = {b"plumbline.usage": json.dumps(cost).encode()}
    for path, frame in zip(paths, (scores, items.drop(columns="code", errors="ignore")), strict=True):
        table = arrow.Table.from_pandas(frame, preserve_index=False)
        with whole_file(path) as temporary:
            parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata}), temporary)
