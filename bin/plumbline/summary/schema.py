"""The score table against its JSON schema (scores.schema.json), column by column: tables can be long.

Reads the keywords that schema uses (required, additionalProperties, type, enum, pattern, minLength, minimum, and one
if/then on ``status``); tests compare it with the reference implementation.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError

# beside the code and not in assets/: where work directories are remote, only bin/ travels with a task
SCHEMA = Path(__file__).with_name("scores.schema.json")
_TYPES = {"string": str, "integer": (int, np.integer), "number": (int, float, np.number), "null": type(None)}


def load_schema() -> dict:
    """The JSON schema of the score table; its ``version`` changes when the meaning of a column does."""
    return json.loads(SCHEMA.read_text())


def check_scores(scores: pd.DataFrame) -> None:
    """Raises UserError with the first rows that break the schema."""
    problems = violations(scores, load_schema()["items"])
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:10])
        raise UserError(f"{len(problems)} problems in the score table ({SCHEMA.name}):\n{listed}")


def violations(scores: pd.DataFrame, schema: dict) -> list[str]:
    """What breaks the schema of one row, in words; empty if nothing does."""
    known = schema["properties"]
    problems = [f"the column {name} is missing" for name in schema["required"] if name not in scores]
    problems += [f"the column {name} is unknown" for name in scores if name not in known]
    present = [name for name in known if name in scores]
    problems += [text for name in present for text in _column(name, scores[name], known[name])]
    if "status" in scores:
        for rule in schema.get("allOf", []):
            status = rule["if"]["properties"]["status"]["const"]
            part = scores[scores["status"] == status]
            wanted = rule["then"]["properties"]
            problems += [f"{text}, though status is {status}" for name in wanted if name in part
                         for text in _column(name, part[name], wanted[name])]  # fmt: skip
    return problems


def _column(name: str, column: pd.Series, rule: dict) -> list[str]:
    return [f"{name}: {value!r} {why}" for value in _distinct(column) for why in _value(value, rule)]


def _distinct(column: pd.Series) -> list:
    values = column.drop_duplicates().tolist()
    return [None if isinstance(value, float) and np.isnan(value) else value for value in values]


def _value(value: object, rule: dict) -> list[str]:
    types = [rule["type"]] if isinstance(rule.get("type"), str) else rule.get("type", [])
    if types and not any(isinstance(value, _TYPES[kind]) for kind in types):
        return [f"is not {' or '.join(types)}"]
    if "enum" in rule and value not in rule["enum"]:
        return [f"is not one of {', '.join(map(str, rule['enum']))}"]
    if isinstance(value, str):
        if len(value) < rule.get("minLength", 0):
            return ["is empty"]
        if "pattern" in rule and not pd.Series([value]).str.contains(rule["pattern"]).iloc[0]:
            return [f"does not match {rule['pattern']}"]
    if isinstance(value, (int, float)) and value < rule.get("minimum", -np.inf):
        return [f"is below {rule['minimum']}"]
    return []
