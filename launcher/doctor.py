"""What is there, what is missing, and the command that mends it: one line each."""

from pathlib import Path


def report(weights: Path | None) -> int:
    return 0
