"""How hidden states are named: <variant>.layer4, pooled in the model's own way, or <variant>.layer4_mean."""

import re

STATE = re.compile(r"(?P<variant>.+)\.layer(?P<number>\d+)(?:_(?P<pooling>mean))?")


def state_of(name: str) -> tuple[str, int, str] | None:
    """(variant, number, pooling: own or mean) of a hidden state by its name; None for all other variants."""
    found = STATE.fullmatch(name)
    return (found["variant"], int(found["number"]), found["pooling"] or "own") if found else None
