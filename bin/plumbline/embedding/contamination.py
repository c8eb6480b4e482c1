"""Whether a checkpoint saw a data set in pre-training: yes, no or unknown, with the source of that statement.

No foundation model publishes a complete list of the cells it was trained on, so that most answers are ``unknown``; they are
said, not hidden. ``no`` rests on a statement of the authors (contamination.csv) or on dates: a corpus that was closed before
the data were public cannot hold them.
"""

import csv
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

TABLE = Path(__file__).with_name("contamination.csv")
ANSWERS = ("yes", "no", "unknown")
NO_LIST = "no list of the cells of its corpus is published"


@lru_cache
def read_statements(path: Path = TABLE) -> tuple[dict[str, str], ...]:
    """The rows of contamination.csv. The first whose ``checkpoint`` (a pattern) and ``dataset`` (patterns) match holds."""
    with open(path, newline="", encoding="utf-8") as stream:
        return tuple(csv.DictReader(stream))


def seen(variant: dict, dataset: dict) -> tuple[str, str]:
    """Whether a checkpoint was pre-trained on a data set, and why one can say so.

    variant: a row of models.csv (``id``, ``role``, ``weights_files``, ``corpus_until``: the month in which its corpus was
    closed at the latest, YYYY-MM). dataset: facts (``name``, ``public_since``: the month in which it became public at the
    earliest, YYYY-MM). Returns ('', '') for what was not pre-trained; else 'yes', 'no' or 'unknown', and the source.
    """
    if not variant.get("weights_files"):
        return "", ""
    name = dataset.get("name", "").removesuffix(".heldout")
    for row in read_statements():
        if fnmatchcase(variant["id"], row["checkpoint"]) and any(fnmatchcase(name, p) for p in row["dataset"].split()):
            return row["seen"], row["source"]
    closed, public = variant.get("corpus_until", ""), dataset.get("public_since", "")
    if closed and public and closed < public:
        return "no", f"the corpus was closed by {closed}, the data were not public before {public}"
    return "unknown", NO_LIST
