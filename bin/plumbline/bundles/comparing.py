"""Two runs or bundles: what differs between their manifests, and which scores differ by more than the noise between units."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plumbline.bundles.files import file_problems, item_table, read_table
from plumbline.bundles.manifest import Bundle, find_bundles, read_bundle
from plumbline.bundles.runs import RunOutput, contents_of, is_run, read_output
from plumbline.bundles.writing import manifest_of
from plumbline.common.errors import UserError
from plumbline.scoring.protocol import CHOSEN
from plumbline.scoring.scores import Items
from plumbline.scoring.stats import bh, paired_difference, rounding_of
from plumbline.scoring.units import pool
from plumbline.summary.finished import check_finished
from plumbline.summary.items import ItemTable

LEVEL = 0.05
ORDER = ("changed", "other status", "only in A", "only in B", "other rules", "too few units", "within noise", "identical")
COLUMNS = ["evidence", "dataset", "variant", "task", "metric", "protocol", "a", "b", "difference", "low", "high", "p", "q",
           "n_units", "n_left_out", "note"]  # fmt: skip
_SCORE = ["task", "metric", "protocol"]
_IGNORED = (
    *("files", "cost", "submission", "left_out", "bundle_version", "hardware.written_on", "dataset.title"),
    "dataset.public_since",
)
_PLACES = (".file", ".provenance")  # names within a bundle
Pair = tuple[str, str]


@dataclass(frozen=True)
class Entry:
    """One model on one data set: its manifest, and its score and item tables."""

    manifest: dict
    scores: pd.DataFrame
    items: ItemTable


def entries_of(folder: Path) -> dict[Pair, Callable[[], Entry]]:
    """(data set, variant) -> how to read it, for the output folder of a run, a bundle, or a folder of bundles."""
    if is_run(folder):
        run = read_output(folder)
        return {pair: partial(_of_run, run, *pair) for pair in run.pairs}
    found: dict[Pair, Callable[[], Entry]] = {}
    for path in find_bundles(folder):
        bundle = read_bundle(path)
        pair = (bundle.dataset, bundle.variant)
        if pair in found:
            raise UserError(
                f"{folder} holds {bundle.variant} on {bundle.dataset} more than once. Name the folder of one revision."
            )
        found[pair] = partial(_of_bundle, bundle)
    if not found:
        check_finished(folder, "neither the output folder of a run nor a folder with bundles")
    return found


def _of_run(run: RunOutput, dataset: str, variant: str) -> Entry:
    contents = contents_of(run, dataset, variant)
    return Entry(manifest_of(contents), contents.scores, contents.items)


def _of_bundle(bundle: Bundle) -> Entry:
    problems = file_problems(bundle)
    if problems:
        raise UserError(f"{bundle.folder}: {problems[0]}. See ./plumb verify {bundle.folder}")
    return Entry(bundle.manifest, read_table(bundle, "scores"), item_table(bundle))


def pairs_of(a: dict, b: dict) -> list[tuple[Pair, Pair]]:
    """What is compared with what: the same model on the same data set; where each side has one model, that with the other."""
    variants = [{variant for _, variant in side} for side in (a, b)]
    if all(len(names) == 1 for names in variants):
        (one,), (other,) = variants
        return [((dataset, one), (dataset, other)) for dataset, _ in sorted(a) if (dataset, other) in b]
    return [(pair, pair) for pair in sorted(a) if pair in b]


def compare_entries(a: Entry, b: Entry, n_boot: int = 1000) -> pd.DataFrame:
    """One row per score of either: COLUMNS, without q and evidence of a family of tests (see ``judged``)."""
    sides = [_chosen(entry.scores) for entry in (a, b)]
    keys = sorted(set(sides[0]) | set(sides[1]))
    names = [a.manifest["model"]["variant"], b.manifest["model"]["variant"]]
    variant = names[0] if names[0] == names[1] else " / ".join(names)
    rows = []
    for key in keys:
        row = dict(zip(_SCORE, key, strict=True)) | {"dataset": a.manifest["dataset"]["name"], "variant": variant}
        rows.append(row | _row(a, b, key, [side.get(key) for side in sides], n_boot))
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def _chosen(scores: pd.DataFrame) -> dict[tuple, pd.DataFrame]:
    rows = scores[(scores["postprocess"] == scores["protocol"].map(CHOSEN)) & (scores["metric"] != "")]
    return dict(iter(rows.groupby(_SCORE)))


def _row(a: Entry, b: Entry, key: tuple, found: list[pd.DataFrame | None], n_boot: int) -> dict[str, Any]:
    """Everything of one row but what it is about."""
    values = [np.nan if rows is None else rows["value"].mean() for rows in found]
    row: dict[str, Any] = {"a": values[0], "b": values[1], "evidence": "", "note": ""}
    if found[0] is None or found[1] is None:
        return row | {"evidence": "only in B" if found[0] is None else "only in A"}
    rules = [entry.manifest["tasks"].get(key[0], {}) for entry in (a, b)]
    if any(rules[0].get(name) != rules[1].get(name) for name in ("version", "rules")):
        return row | {"evidence": "other rules", "note": "the task has another meaning: not comparable"}
    states = [_status(rows) for rows in found]
    if states != ["ok", "ok"]:
        same = states[0] == states[1]
        return row | {"evidence": "identical" if same else "other status", "note": " -> ".join(dict.fromkeys(states))[:200]}
    of_a, of_b = (entry.items.read(*key) for entry in (a, b))
    if not of_a and not of_b and values[0] == values[1]:  # such as a description of a model, which is no sum over units
        return row | {"evidence": "identical"}
    return row | _difference(of_a, of_b, n_boot)


def _status(rows: pd.DataFrame) -> str:
    if (rows["status"] == "ok").any():
        return "ok"
    return f"{rows['status'].iloc[0]}: {rows['reason'].iloc[0]}"


def _difference(a: dict[int, Items], b: dict[int, Items], n_boot: int) -> dict[str, Any]:
    """B less A on the seeds and units that both have."""
    seeds = sorted(set(a) & set(b))
    if not seeds:
        return {"evidence": "too few units", "note": "no split seed in common"}
    new, old = (pool([side[seed] for seed in seeds]) for side in (b, a))
    result = paired_difference(new, old, n_boot)
    about = {"difference": result.value, "low": result.low, "high": result.high, "p": result.p}
    about |= {"n_units": result.n_units, "n_left_out": result.n_left_out}
    largest = np.abs(np.nan_to_num([result.value, result.low, result.high])).max()
    if largest <= rounding_of(new.value, old.value):
        return about | {"evidence": "identical", "p": np.nan, "note": "but for rounding" if largest else ""}
    return about | {"evidence": "" if np.isfinite(result.p) else "too few units"}


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with q (Benjamini-Hochberg over all of them) and evidence, the strongest first."""
    table = table.assign(q=bh(table["p"].to_numpy(dtype=float)))
    tested = table["evidence"] == ""
    evidence = table["evidence"].mask(tested, np.where(table["q"] <= LEVEL, "changed", "within noise"))
    table = table.assign(evidence=evidence, size=table["difference"].abs(), place=evidence.map(ORDER.index))
    table = table.sort_values(["place", "p", "size"], ascending=[True, True, False], kind="stable", ignore_index=True)
    return table[COLUMNS]


def changes(a: dict, b: dict) -> Iterator[tuple[str, str, str]]:
    """(what, in A, in B) for everything that two manifests state differently."""
    left, right = dict(_flat(a)), dict(_flat(b))
    for name in sorted(left | right):
        if left.get(name) != right.get(name) and not name.startswith(_IGNORED) and not name.endswith(_PLACES):
            yield name, _short(left.get(name)), _short(right.get(name))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, part in enumerate(value):
            yield from _flat(part, f"{name}.{number}")
    else:
        yield name, value


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return f"{text[:12]}..." if len(text) == 64 else text[:60]
