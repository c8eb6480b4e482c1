"""What can be checked of a bundle without its data set: files, tables, and that every score is the sum of its items."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from plumbline import __version__
from plumbline.bundles.differences import wrong_verdicts
from plumbline.bundles.digests import task_code
from plumbline.bundles.files import file_problems, item_table, open_embedding_of, read_table
from plumbline.bundles.findings import Finding, failed, note, ok, unverified
from plumbline.bundles.manifest import TABLES, Bundle
from plumbline.common.errors import UserError
from plumbline.scoring.protocol import CHOSEN
from plumbline.scoring.rules import rules_digest
from plumbline.summary.items import SCORE, ItemTable
from plumbline.summary.schema import check_scores
from plumbline.summary.tables import describes, known_task

EXACT = 1e-9  # relative: the same numbers added up in another order
CHANGED = "The tables were changed after scoring: make the bundle again from the run"


def check_bundle(bundle: Bundle) -> list[Finding]:
    """Everything that needs no data set. After a damaged file nothing else is read."""
    return checked(bundle)[0]


def checked(bundle: Bundle) -> tuple[list[Finding], ItemTable | None]:
    """The findings of ``check_bundle``, and the items, whose index takes time, for what is checked next; None if unreadable."""
    problems = file_problems(bundle)
    if problems:
        return [failed("files", text) for text in problems], None
    files = ok("files", f"{len(bundle.manifest['files'])} files as the manifest lists them")
    try:
        scores, comparisons, items = read_table(bundle, "scores"), read_table(bundle, "comparisons"), item_table(bundle)
        check_scores(scores)
        sums = items.sums()
    except UserError as error:
        return [files, failed("tables", str(error))], None
    findings = [*_about(bundle, scores, comparisons, items), *_sums(bundle, scores, sums), *_means(scores, comparisons)]
    findings += [failed("comparisons", text, CHANGED) for text in wrong_verdicts(comparisons)]
    names = ", ".join(TABLES)
    passed = [] if findings else [ok("tables", f"{names} agree with each other and the manifest")]
    return [files, *findings, *passed, *_embeddings(bundle), *_code(bundle)], items


def _about(bundle: Bundle, scores: pd.DataFrame, comparisons: pd.DataFrame, items: ItemTable) -> Iterator[Finding]:
    """Every row is of the model and data set of the manifest."""
    wanted = {"dataset": bundle.dataset, "variant": bundle.variant}
    wanted |= {name: bundle.manifest["model"][name] for name in ("model", "fit_on")}
    for column, value in wanted.items():
        found = {name: set(table[column].astype(str)) for name, table in (("scores", scores), ("comparisons", comparisons))}
        found["items"] = {str(getattr(part, column)) for part in items.parts()}
        for name, values in found.items():
            others = sorted(values - {value})
            if others:
                text = f"{name}.parquet: {column} is {others[0]!r}, but {value!r} in the manifest"
                yield failed("tables", text, "Make the bundle again: ./plumb submit")


def _sums(bundle: Bundle, scores: pd.DataFrame, sums: pd.DataFrame) -> Iterator[Finding]:
    """Every score is offset + scale * sum(numerator) / sum(denominator) of its items, which mere descriptions may lack."""
    scored = scores[scores["status"] == "ok"]
    if "items" in bundle.manifest["left_out"]:
        scored = scored[scored["postprocess"].isin(list(CHOSEN.values()))]
    joined = scored.set_index(SCORE)[["value"]].join(sums)
    total = joined["offset"] + joined["scale"] * joined["numerator"] / joined["denominator"]
    size = np.maximum(joined["value"].abs(), joined["offset"].abs() + joined["scale"].abs())
    described = np.array([describes(task) for task in joined.index.get_level_values("task")], dtype=bool)
    bare = joined["numerator"].isna() & described
    wrong = joined[~bare & ~((total - joined["value"]).abs() <= EXACT * np.maximum(size, 1.0))]
    for key, row in wrong.head(5).iterrows():
        lacks = np.isnan(row["numerator"])
        found = "has no items" if lacks else f"is {row['value']:.9g}, but its items add up to {total[key]:.9g}"
        yield failed("scores", f"{_named(key)} {found}{_more(len(wrong))}", CHANGED)


def _means(scores: pd.DataFrame, comparisons: pd.DataFrame) -> Iterator[Finding]:
    """Every value of the comparison table is the mean of its scores over seeds."""
    chosen = scores[(scores["status"] == "ok") & (scores["postprocess"] == scores["protocol"].map(CHOSEN))]
    means = chosen.groupby(["task", "metric", "protocol"])["value"].mean().rename("mean")
    joined = comparisons[comparisons["status"] == "ok"].set_index(["task", "metric", "protocol"])[["value"]].join(means)
    wrong = joined[~((joined["mean"] - joined["value"]).abs() <= EXACT * np.maximum(joined["value"].abs(), 1.0))]
    for key, row in wrong.head(5).iterrows():
        text = f"{', '.join(key)} is {row['value']:.9g}, but the mean of its scores is {row['mean']:.9g}"
        yield failed("comparisons", text, CHANGED)


def _embeddings(bundle: Bundle) -> Iterator[Finding]:
    reason = bundle.manifest["left_out"].get("embedding")
    if reason:
        advice = "Compare its scores with those of a run of your own: ./plumb compare BUNDLE RUN"
        yield unverified("embedding", f"not in the bundle ({str(reason)[:200]})", advice)
        return
    for part in bundle.manifest["embeddings"]:
        try:
            n_cells, d = open_embedding_of(bundle, part).values.shape
        except UserError as error:
            yield failed("embedding", str(error))
            continue
        if bundle.manifest["files"][part["file"]] == part["sha256"]:
            yield ok("embedding", f"{part['file']}: {n_cells} cells, {d} dimensions")
        else:
            text = f"{part['file']} is not the embedding that was scored: its sha256 is not the one recorded then"
            yield failed("embedding", text, "Submit the embedding with its own scores")


def other_rules(bundle: Bundle) -> dict[str, str]:
    """Tasks that were scored by other rules than those of this version, or that it does not have: which rules."""
    found = {}
    for name, about in bundle.manifest["tasks"].items():
        task = known_task(name)
        if task is None:
            found[name] = "this version of plumbline has no such task"
        elif (about["version"], about["rules"]) != (task.version, rules_digest(task)):
            here = f"here it is version {task.version} (rules {rules_digest(task)})"
            found[name] = f"scored by version {about['version']} (rules {about['rules']}); {here}"
    return found


def _code(bundle: Bundle) -> Iterator[Finding]:
    """Other rules are a failure, as the numbers have another meaning; other code of the same rules is a note."""
    others = other_rules(bundle)
    for name, text in others.items():
        yield (failed if known_task(name) else unverified)(f"protocol of {name[:40]}", text, _checkout(bundle))
    codes = {name: (about["code"], task_code(name)) for name, about in bundle.manifest["tasks"].items() if name not in others}
    changed = [f"{name} ({there}, here {here})" for name, (there, here) in codes.items() if there and here and there != here]
    if changed:
        yield note("code", f"scored by other code of the same rules: {', '.join(changed)}")
    same = not others and all(there and there == here for there, here in codes.values())
    yield _version(bundle.manifest["plumbline"][:40], same)


def _version(stated: str, same_code: bool) -> Finding:
    """A version is what a manifest states. What was recorded while scoring are digests of code, which name no version."""
    if same_code and stated == __version__:
        return ok("version", f"plumbline {stated}: the code recorded for every task is the one here")
    if same_code:
        text = f"plumbline {stated} is stated, but the code recorded for every task is that of plumbline {__version__} here"
        return note("version", text)
    text = f"plumbline {stated} is stated, not proven: the code here, plumbline {__version__}, is another or not known"
    return note("version", text)


def _checkout(bundle: Bundle) -> str:
    return f"Use plumbline {bundle.manifest['plumbline'][:40]} to verify it, or score the embedding again with this version"


def _named(key: tuple) -> str:
    task, metric, protocol, method, seed = key
    return f"{metric} ({task}, {protocol}, {method}, seed {seed})"


def _more(n: int) -> str:
    return f" (and {n - 1} more)" if n > 5 else ""
