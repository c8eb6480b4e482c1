"""Which comparisons rest on data that the checkpoint may have seen in pre-training."""

import pandas as pd

from plumbline.embedding.contamination import NO_LIST, seen
from plumbline.embedding.variants import read_rows, row_of


def with_seen(comparisons: pd.DataFrame, facts: dict[str, dict]) -> pd.DataFrame:
    """The comparison table with ``seen`` (yes, no, unknown; '' for what was not pre-trained) and ``seen_source``.

    facts: data set -> its facts. Of an embedding that somebody brought, nobody said.
    """
    rows = {row["id"]: row for row in read_rows()}
    found = [
        seen(row, facts.get(dataset, {"name": dataset})) if (row := row_of(variant, rows)) else ("unknown", NO_LIST)
        for variant, dataset in zip(comparisons["variant"], comparisons["dataset"], strict=True)
    ]
    return comparisons.assign(seen=[answer for answer, _ in found], seen_source=[source for _, source in found])
