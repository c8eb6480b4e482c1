"""The rows of the leaderboard: every sound bundle, its main metrics against the baseline, and what is known of the model."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plumbline.bundles.checks import check_bundle, other_rules
from plumbline.bundles.files import read_table
from plumbline.bundles.findings import FAILED
from plumbline.bundles.manifest import Bundle, find_bundles, read_bundle
from plumbline.bundles.submission import seen_of
from plumbline.common.errors import UserError
from plumbline.report.words import metric_title, task_title
from plumbline.scoring.protocol import REFERENCES

_STATED = ("code", "code_licence", "weights", "weights_licence", "corpus")
_VALUES = ("value", "ci_low", "ci_high", "difference", "diff_low", "diff_high", "calibrated")


@dataclass(frozen=True)
class Board:
    """scores: one row per bundle, main metric and protocol. submissions: one per bundle. left_out: path and reason."""

    scores: list[dict]
    submissions: list[dict]
    left_out: list[tuple[str, str]]


def read_board(folders: list[Path]) -> Board:
    """Read all bundles below the folders; what is not sound, or scored by other rules, is left out, with the reason.

    Of several bundles of one model, revision and data set the first is shown, those with an embedding before those without.
    """
    scores, submissions, left_out = [], [], []
    shown: dict[tuple[str, str, str], Path] = {}
    paths = {path for folder in folders for path in find_bundles(folder)}
    for path in sorted(paths, key=lambda path: (not any(path.glob("embedding*.npz")), path)):
        try:
            bundle = read_bundle(path)
            others = other_rules(bundle)
            findings = [one for one in check_bundle(bundle) if one.status == FAILED and not one.what.startswith("protocol of")]
            if findings:
                raise UserError(f"{findings[0].what}: {findings[0].text}")
            _check_first(bundle, shown)
            about = _about(bundle)
            scores += [about | row for row in _scores(bundle) if row["task"] not in others]
            left_out += [(f"{path}, {task}", why) for task, why in others.items()]
            submissions.append(about | _submission(bundle))
            shown[bundle.variant, bundle.revision, bundle.dataset] = path
        except UserError as error:
            left_out.append((str(path), str(error)))
    if not submissions:
        reasons = "".join(f"\n  {path}: {why}" for path, why in left_out[:5])
        raise UserError(f"no sound bundle in {', '.join(map(str, folders))}. Write some with ./plumb submit RUN.{reasons}")
    # stable: what readers look for comes first, references and what has no score last
    scores.sort(key=lambda row: (row["kind"] == "reference", math.isnan(row["value"])))
    return Board(scores, submissions, sorted(left_out))


def _check_first(bundle: Bundle, shown: dict[tuple[str, str, str], Path]) -> None:
    """Raises UserError if the board has this revision of the model on this data set: its verdicts would count twice."""
    other = shown.get((bundle.variant, bundle.revision, bundle.dataset))
    if other is not None:
        raise UserError(f"the same model, revision and data set as {other}. Another result needs another --revision.")


def _about(bundle: Bundle) -> dict:
    """What both tables say of a bundle."""
    manifest, stated = bundle.manifest, bundle.manifest["submission"]
    answer, source = seen_of(bundle.variant, manifest["dataset"], stated)
    licences = [str(stated.get(name) or "not stated") for name in ("weights_licence", "code_licence")]
    n_cells, cost = manifest["dataset"]["n_cells"], manifest["cost"]
    return {
        "model": manifest["model"]["title"],
        "variant": bundle.variant,
        "revision": bundle.revision,
        "kind": "reference" if manifest["model"]["role"] in REFERENCES else "model",
        "dataset": bundle.dataset,
        "dataset_title": str(manifest["dataset"].get("title") or bundle.dataset),
        "seen": answer,
        "seen_source": source,
        "licence": licences[1] if licences[0] == "none" else licences[0],
        "seconds": _number(cost.get("seconds")) / max(n_cells, 1) * 1000,
        "memory": _number(cost.get("peak_gpu_memory_bytes", cost.get("peak_memory_bytes"))) / 1e9,
    }


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _scores(bundle: Bundle) -> Iterator[dict]:
    table = read_table(bundle, "comparisons")
    for row in table[table["main"].astype(bool)].to_dict("records"):
        yield {
            "task": str(row["task"]),
            "task_title": task_title(str(row["task"])),
            "metric": str(row["metric"]),
            "metric_title": metric_title(str(row["metric"])),
            "protocol": str(row["protocol"]),
            "baseline": str(row["compared_with"]),
            "verdict": str(row["verdict"] if row["status"] == "ok" else row["status"]),
            "why": "; ".join(str(row[name]) for name in ("note", "reason") if row[name] and row[name] == row[name]),
            **{name: _number(row[name]) for name in _VALUES},
        }


def _submission(bundle: Bundle) -> dict:
    manifest, stated = bundle.manifest, bundle.manifest["submission"]
    machine = manifest["hardware"].get("embedded_on")
    machine = machine if isinstance(machine, dict) else {}
    return {
        "plumbline": manifest["plumbline"],
        "rules": " ".join(f"{name} {task['version']} ({task['rules']})" for name, task in manifest["tasks"].items()),
        "seeds": len(manifest["settings"]["seeds"]),
        "cells": manifest["dataset"]["n_cells"],
        "data_sha": manifest["dataset"]["cells"],
        "embedding_sha": manifest["embeddings"][0]["sha256"] if manifest["embeddings"] else "",
        "verifiable": "no" if "embedding" in manifest["left_out"] else "yes",
        "hardware": str(machine.get("gpu") or machine.get("device") or "not stated"),
        **{
            name: str(stated.get(name) or "not stated")
            for name in ("code", "code_licence", "weights", "weights_licence", "corpus")
        },
    }
