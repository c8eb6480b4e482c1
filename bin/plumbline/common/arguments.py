"""The argument parser of the scripts that the pipeline starts."""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

SEEDS = (0, 2**32 - 1)  # what numpy's random generators take


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that also reads ``@file``: each line of the file is a JSON list of arguments.

    The pipeline writes into such a file what users name: no word of theirs reaches a shell.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(fromfile_prefix_chars="@", **more)

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """The arguments of one line. A line that is not a JSON list of strings ends the script with a message."""
        try:
            words = json.loads(arg_line)
        except json.JSONDecodeError:
            words = None
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            self.error(f'{arg_line[:80]!r} in an @file is not a JSON list of strings, such as ["--seed=42"].')
        return words


def whole(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    """The ``type`` of an argument that is a whole number from ``lowest`` to ``highest``."""
    bounds = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"

    def parse(text: str) -> int:
        number = int(text) if re.fullmatch(r"-?\d{1,20}", text) else None
        if number is None or number < lowest or (highest is not None and number > highest):
            raise argparse.ArgumentTypeError(f"expected a whole number {bounds}, got {text!r}")
        return number

    return parse


def share(text: str) -> float:
    """The ``type`` of a number from 0 to 1; nan would pass every comparison with it."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return number


def seeds(text: str) -> list[int]:
    """The ``type`` of seeds separated by commas; an empty text has none."""
    numbers = [whole(*SEEDS)(word.strip()) for word in text.split(",")] if text else []
    return _once(text, numbers)


def among(known: Sequence[str]) -> Callable[[str], list[str]]:
    """The ``type`` of known words separated by commas."""

    def parse(text: str) -> list[str]:
        words = [word.strip() for word in text.split(",")]
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"unknown: {word!r}. Known: {', '.join(known)}.")
        return _once(text, words)

    return parse


def _once(text: str, parts: list) -> list:
    if len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(f"{text!r} names one twice")
    return parts
