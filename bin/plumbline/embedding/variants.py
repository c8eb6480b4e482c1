"""The list of models, assets/models.csv: a variant is a row. What a user may select, and what a row must hold."""

import csv
from dataclasses import dataclass
from pathlib import Path

from plumbline.common.errors import UserError, did_you_mean
from plumbline.common.states import state_of

TABLE = Path(__file__).with_name("models.csv")
ALLOWED = {
    "role": ("baseline", "trained", "foundation", "floor", "ceiling", "predictor", "external"),
    "fit_on": ("none", "train", "all"),
    "seeded": ("true", "false"),
    "x_kind": ("counts", "any"),
    "device": ("cpu", "gpu"),
}
REQUIRED = ("id", "model", "title", "env", *ALLOWED)


@dataclass(frozen=True)
class Variant:
    """A row of the table. seeded: refitted for every split seed. row: all its columns, as text."""

    id: str
    model: str
    title: str
    role: str
    fit_on: str
    seeded: bool
    settings: dict[str, str]
    row: dict[str, str]


def read_variants(path: Path = TABLE) -> dict[str, Variant]:
    """All variants by id. Raises UserError that names the row and column of the first mistake."""
    variants: dict[str, Variant] = {}
    for row in read_rows(path):
        variant = _variant(row, path.name)
        if variant.id in variants:
            raise UserError(f"{path.name}: the id {variant.id!r} occurs twice. An id names one variant.")
        variants[variant.id] = variant
    return variants


def read_rows(path: Path = TABLE) -> list[dict[str, str]]:
    """The rows of the table as text, unchecked: the one place that opens it."""
    with open(path, newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))


def find_variant(name: str, variants: dict[str, Variant]) -> Variant:
    """The variant of that id. Raises UserError with a hint for a mistyped one."""
    if name not in variants:
        raise UserError(f"There is no model {name!r} in the table of models.{did_you_mean(name, list(variants))}")
    return variants[name]


def row_of(name: str, rows: dict[str, dict[str, str]]) -> dict[str, str] | None:
    """The row of a variant, or of the one whose hidden state it is; None for an embedding of a user."""
    state = state_of(name)
    return rows.get(name) or (rows.get(state[0]) if state else None)


def _variant(row: dict[str, str], source: str) -> Variant:
    name = row.get("id") or "(a row without id)"
    if None in row or None in row.values():
        raise UserError(f"{source}, {name}: the row does not have as many fields as the header.")
    missing = [column for column in REQUIRED if not row.get(column)]
    if missing:
        raise UserError(f"{source}, {name}: {', '.join(missing)} must not be empty.")
    for column, allowed in ALLOWED.items():
        if row[column] not in allowed:
            raise UserError(f"{source}, {name}: {column} is {row[column]!r}.{did_you_mean(row[column], list(allowed))}")
    if (row["seeded"] == "true") != (row["fit_on"] == "train"):
        raise UserError(f"{source}, {name}: seeded must be true exactly where fit_on is train.")
    main = {column: row[column] for column in ("id", "model", "title", "role", "fit_on")}
    return Variant(**main, seeded=row["seeded"] == "true", settings=_settings(row, source), row=row)


def _settings(row: dict[str, str], source: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in (row.get("settings") or "").split(";") if pair]
    wrong = [name for name, equals, _ in pairs if not (name and equals)]
    if wrong:
        raise UserError(f"{source}, {row['id']}: settings holds {wrong[0]!r}; expected key=value;key=value.")
    return {name: value for name, _, value in pairs}
