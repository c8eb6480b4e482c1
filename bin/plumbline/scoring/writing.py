"""The score and item tables that EVALUATE leaves of one embedding and task."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from plumbline.common.files import whole_file
from plumbline.scoring.evaluation import Row, item_frames, score_rows
from plumbline.scoring.records import Task
from plumbline.scoring.scores import COLUMNS

PORTION = 250_000  # rows of the item table that are made at once


def write_rows(rows: list[Row], task: Task, about: dict[str, str], n_boot: int, cost: dict, paths: tuple[Path, Path]) -> None:
    """Write score and item table (``paths``, parquet), whole or not at all.

    about: dataset, model, variant, fit_on and code of every row. cost: what the step used (plumbline.common.usage), and on how
    many dimensions and seeds; it travels in the tables' metadata.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    about = about | {"task": task.name}
    scores = pd.DataFrame(list(score_rows(rows, task, n_boot))).assign(**about, task_version=task.version)[COLUMNS]
    metadata = {b"plumbline.usage": json.dumps(cost).encode()}
    with whole_file(paths[0]) as temporary:
        table = arrow.Table.from_pandas(scores, preserve_index=False)
        parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata}), temporary)
    about.pop("code", None)
    schema = arrow.Schema.from_pandas(_heads(rows).assign(**about), preserve_index=False)
    schema = schema.with_metadata({**(schema.metadata or {}), **metadata})
    with whole_file(paths[1]) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for frame in _portions(rows):
            full = frame.assign(**about, **dict.fromkeys(set(schema.names) - {*frame.columns, *about}))
            writer.write_table(arrow.Table.from_pandas(full[schema.names], schema, preserve_index=False))


def _heads(rows: list[Row]) -> pd.DataFrame:
    """One row of every part of the item table: which columns it has, and their types."""
    heads = [frame.iloc[:1] for frame in item_frames(rows)]
    return pd.concat(heads, ignore_index=True) if heads else pd.DataFrame({"task": pd.Series([], dtype=object)})


def _portions(rows: list[Row]) -> Iterator[pd.DataFrame]:
    """The item table in portions: of 9,866 perturbations that of recall has millions of rows, which take a gigabyte at once."""
    held: list[pd.DataFrame] = []
    for frame in item_frames(rows):
        held.append(frame)
        if sum(map(len, held)) >= PORTION:
            yield pd.concat(held, ignore_index=True)
            held = []
    if held:
        yield pd.concat(held, ignore_index=True)
