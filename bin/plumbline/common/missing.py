"""What stands for a missing value in labels and names, in one list: files of every format agree."""

import numpy as np

MISSING = ("", "nan", "na", "n/a", "#n/a", "<na>", "none", "null", "nat")  # in any case
NO_NAME = (*MISSING, "-", "--", ".", "?")  # of a gene


def is_missing(text: np.ndarray, words: tuple[str, ...] = MISSING) -> np.ndarray:
    """Which of the strings (n,) stand for a missing value, (n,) bool; case and surrounding blanks do not count."""
    return np.isin(np.char.lower(np.char.strip(np.asarray(text, dtype=str))), words)
