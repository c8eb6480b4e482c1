"""Item tables: what scores are sums over, read one score at a time.

They can be large: of 9,866 perturbations that of recall has 4.5 million rows per embedding and seed, so that no step holds one.

Rows of one score lie next to each other. An index of such stretches is made from the columns that they share, which are read
without any other; then the rows of a score are read alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from plumbline.common.files import reading
from plumbline.scoring.protocol import CHOSEN
from plumbline.scoring.scores import SHARED, Items

SHARES = ("dataset", "model", "variant", "fit_on", "task", "metric", "protocol", "postprocess", "seed", "unit_kind")
SCORE = ["task", "metric", "protocol", "postprocess", "seed"]
SUMS = ("numerator", "denominator", "offset", "scale")
UNITS = ("unit", "unit2", "numerator", "denominator", "offset", "scale", "p", "influence")  # what ``Items`` need
HELD = 16  # row groups that stay decoded


class Stretch(NamedTuple):
    """Rows start:stop of a row group of a file, and what they have in common."""

    path: Path
    group: int
    start: int
    stop: int
    dataset: str
    model: str
    variant: str
    fit_on: str
    task: str
    metric: str
    protocol: str
    postprocess: str
    seed: int
    unit_kind: str

    def has(self, wanted: dict[str, Any]) -> bool:
        """Whether its columns have these values, each one value or a collection of them."""
        mine = ((getattr(self, name), value) for name, value in wanted.items())
        return all(own in value if isinstance(value, (set, frozenset)) else own == value for own, value in mine)


class ItemTable:
    """The rows of some parquet files (in that order) whose columns have the values ``wanted`` (``Stretch.has``)."""

    def __init__(self, paths: Iterable[Path], within: "ItemTable | None" = None, **wanted: Any) -> None:
        self.paths, self._within, self._wanted = list(paths), within, wanted

    def of(self, **wanted: Any) -> "ItemTable":
        """Those of its rows that have further values; one index serves both."""
        return ItemTable(self.paths, self, **wanted)

    @cached_property
    def stretches(self) -> dict[tuple, list[Stretch]]:
        """(task, metric, protocol, postprocess) -> the stretches of these scores, in the order of the files."""
        found = defaultdict(list)
        for part in self._within.parts() if self._within else (part for path in self.paths for part in _stretches(path)):
            if part.has(self._wanted):
                found[part.task, part.metric, part.protocol, part.postprocess].append(part)
        return dict(found)

    def parts(self, **wanted: Any) -> Iterator[Stretch]:
        """The stretches of these values, score by score."""
        return (part for parts in self.stretches.values() for part in parts if part.has(wanted))

    def read(self, task: str, metric: str, protocol: str, **run: str) -> dict[int, Items]:
        """seed -> items of one model's score under its chosen post-processing. run: values of dataset, variant, fit_on."""
        of_seed = defaultdict(list)
        for part in self.stretches.get((task, metric, protocol, CHOSEN[protocol]), []):
            if part.has(run):
                of_seed[part.seed].append(part)
        return {seed: items_of(frame_of(parts)) for seed, parts in sorted(of_seed.items())}

    def sums(self) -> pd.DataFrame:
        """numerator, denominator (sums), offset and scale of every score; index SCORE."""
        found: dict[tuple, np.ndarray] = {}
        for part in self.parts():
            frame = _rows(part, SUMS)
            key = tuple(getattr(part, name) for name in SCORE)
            total = found.setdefault(key, np.array([0.0, 0.0, *frame[["offset", "scale"]].iloc[0]], dtype=float))
            total[:2] += frame[["numerator", "denominator"]].sum().to_numpy(dtype=float)
        index = pd.MultiIndex.from_tuples(found, names=SCORE)
        return pd.DataFrame(list(found.values()), index=index, columns=["numerator", "denominator", "offset", "scale"])


def frame_of(parts: list[Stretch], columns: tuple[str, ...] = UNITS) -> pd.DataFrame:
    """The rows of stretches, in their order: ``columns`` as far as the files have them, seed and unit_kind."""
    frames = [_rows(part, columns).assign(seed=part.seed, unit_kind=part.unit_kind) for part in parts]
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]


def items_of(frame: pd.DataFrame) -> Items:
    """The items of one score: rows of the item table under one seed, protocol and post-processing."""
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


def _rows(part: Stretch, columns: tuple[str, ...]) -> pd.DataFrame:
    table = _group(part.path, part.group, columns).slice(part.start, part.stop - part.start)
    return table.to_pandas(ignore_metadata=True).astype(_text_of(table))


def _text_of(table) -> dict[str, type]:
    return {name: object for name in ("unit", "unit2") if name in table.column_names}


@lru_cache(maxsize=HELD)
def _group(path: Path, group: int, columns: tuple[str, ...]):
    file = open_items(path)
    with reading(path):
        return file.read_row_group(
            group, columns=[name for name in columns if name in file.schema_arrow.names], use_threads=False
        )


def open_items(path: Path):
    """A parquet file whose texts are read as numbers of a dictionary."""
    import pyarrow.parquet as parquet

    with reading(path):
        schema = parquet.read_schema(path)
        return parquet.ParquetFile(path, read_dictionary=[field.name for field in schema if is_text(field.type)])


def is_text(kind) -> bool:
    """Whether a type of arrow is text."""
    import pyarrow as arrow

    return arrow.types.is_string(kind) or arrow.types.is_large_string(kind)


def _stretches(path: Path) -> Iterator[Stretch]:
    """The stretches of a file, from the columns of SHARES alone; one that a file lacks is '' there."""
    file = open_items(path)
    names = [name for name in SHARES if name in file.schema_arrow.names]
    for group in range(file.num_row_groups):
        with reading(path):
            table = file.read_row_group(group, columns=names, use_threads=False)
        if not len(table):
            continue
        columns = {name: pd.Series(table[name].to_pandas()) for name in names}
        codes = [pd.factorize(column)[0] for column in columns.values()]
        changes = np.logical_or.reduce([np.diff(code) != 0 for code in codes])
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(int)
        stops = np.append(starts[1:], len(table))
        values = [columns[name].iloc[starts].tolist() if name in columns else [""] * len(starts) for name in SHARES]
        for start, stop, *shared in zip(starts.tolist(), stops.tolist(), *values, strict=True):
            yield Stretch(path, group, start, stop, *shared)
