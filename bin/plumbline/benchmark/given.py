"""What users give as arguments, each in one form: one or several words, seeds, whole numbers, a device."""

import re
from collections.abc import Iterable
from numbers import Integral
from typing import Any

from plumbline.common.arguments import SEEDS
from plumbline.common.errors import UserError

MOST = 1_000_000  # draws and resamplings, as of the scripts


def several(value: Any, what: str) -> list:
    """A list of what is one or several: None has none, and a text or a number is one. Each once, in the order given."""
    if value is None:
        return []
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        value = [value]
    parts = [part.item() if hasattr(part, "item") else part for part in value]  # of numpy
    if any(isinstance(part, (list, tuple, dict, set, bytes)) for part in parts):
        raise UserError(f"{what}={value!r}: expected one name, or a list of names.")
    return list(dict.fromkeys(parts))


def names(value: Any, what: str) -> list[str]:
    """One or several names. Raises UserError for anything but text."""
    parts = several(value, what)
    if wrong := [part for part in parts if not isinstance(part, str)]:
        raise UserError(f"{what}={value!r}: {wrong[0]!r} is not a name.")
    return parts


def seeds_of(value: Any) -> list[int]:
    """One or several seeds. Raises UserError for what numpy's random generators do not take."""
    return [whole(seed, "seeds", *SEEDS) for seed in several(value, "seeds")]


def whole(value: Any, what: str, lowest: int, highest: int = MOST) -> int:
    """A whole number within bounds, or a UserError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not lowest <= int(value) <= highest:
        raise UserError(f"{what}={value!r}: expected a whole number from {lowest} to {highest}.")
    return int(value)


def device(value: Any) -> str:
    """'auto', 'cpu', or a GPU that is there. Raises UserError for others."""
    if value in ("auto", "cpu"):
        return value
    if not (isinstance(value, str) and re.fullmatch(r"cuda(:\d+)?", value)):
        raise UserError(f"device={value!r}: expected 'auto', 'cpu' or 'cuda'.")
    import torch

    if not torch.cuda.is_available():
        raise UserError(f"device={value!r}: torch finds no GPU here. device='auto' takes the CPU then.")
    return value
