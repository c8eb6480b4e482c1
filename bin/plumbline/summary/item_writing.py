"""One item table of many, as SUMMARISE and bundles write it."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plumbline.common.files import reading, whole_file
from plumbline.summary.items import ItemTable, is_text, open_items

FIRST = ["dataset", "model", "variant", "fit_on", "postprocess", "seed", "protocol", "task", "metric"]  # columns, when written
ROWS = 1_000_000  # of a row group, at most
SMALL = 100_000  # rows up to which row groups are joined when written: each has its own dictionaries and footer


def write_items(items: ItemTable, path: Path) -> None:
    """One file of all rows, keys first; a column that a file lacks is empty there. Memory stays that of some row groups."""
    import pyarrow.parquet as parquet

    schema = _schema([path for path in items.paths if parquet.read_metadata(path).num_rows])
    # text as numbers of a dictionary, as it was read: four times as fast. Readers find plain text (store_schema)
    how: dict[str, Any] = {"compression": "zstd", "store_schema": False}
    with whole_file(path) as temporary, parquet.ParquetWriter(temporary, schema, **how) as writer:
        for table in _joined(_portions(items, schema)):
            writer.write_table(table, row_group_size=ROWS)


def _portions(items: ItemTable, schema) -> Iterator:
    """All rows in the order of the files, as tables of arrow."""
    import pyarrow as arrow

    of_group = defaultdict(list)
    for part in items.parts():
        of_group[part.path, part.group].append(part)
    order = {path: place for place, path in enumerate(items.paths)}
    for (path, group), parts in sorted(of_group.items(), key=lambda found: (order[found[0][0]], found[0][1])):
        with reading(path):
            table = open_items(path).read_row_group(group, use_threads=False)
        parts.sort(key=lambda part: part.start)
        if sum(part.stop - part.start for part in parts) < len(table):
            table = arrow.concat_tables([table.slice(part.start, part.stop - part.start) for part in parts])
        yield _conform(table, schema)


def keys_first(columns: list[str]) -> list[str]:
    """The columns in the order of a run's item table."""
    return [*(name for name in FIRST if name in columns), *(name for name in columns if name not in FIRST)]


def _schema(paths: list[Path]):
    """The columns of all files, keys first; text as numbers of a dictionary."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    schemas = [parquet.read_schema(path).remove_metadata() for path in paths]
    schema = arrow.unify_schemas(schemas, promote_options="permissive") if schemas else arrow.schema([])
    fields = [schema.field(name) for name in keys_first(schema.names)]
    text = arrow.dictionary(arrow.int32(), arrow.string())
    return arrow.schema([arrow.field(one.name, text) if is_text(one.type) else one for one in fields])


def _joined(tables: Iterator) -> Iterator:
    """The same rows, tables that follow one another as one of up to SMALL rows."""
    import pyarrow as arrow

    held: list = []
    for table in tables:
        if held and sum(map(len, held)) + len(table) > SMALL:
            yield arrow.concat_tables(held).unify_dictionaries()
            held = []
        held.append(table)
    if held:
        yield arrow.concat_tables(held).unify_dictionaries()


def _conform(table, schema):
    """The columns of ``schema``, in its order, null where a task has no such column."""
    import pyarrow as arrow

    known = {name for name in table.column_names if not arrow.types.is_null(table.schema.field(name).type)}
    columns = [
        table[field.name].cast(field.type) if field.name in known else arrow.nulls(len(table), field.type) for field in schema
    ]
    return arrow.Table.from_arrays(columns, schema=schema)
