"""SUMMARISE on the tables of a benchmark: the very comparison table of a run of the same models."""

import json

import pandas as pd

from plumbline.benchmark.scored import Scored
from plumbline.benchmark.screens import Screen
from plumbline.benchmark.settings import Settings
from plumbline.embedding.variants import read_variants
from plumbline.summary.experiments import Comparison, comparison_table
from plumbline.summary.item_writing import keys_first
from plumbline.summary.items import ItemTable
from plumbline.summary.schema import check_scores
from plumbline.summary.tables import read_expected, read_scores


def joined_scores(parts: list[Scored]) -> pd.DataFrame:
    """The score tables of several groups of embeddings as one, checked against the schema."""
    scores = pd.concat([read_scores(part.folder / "scores") for part in parts], ignore_index=True)
    check_scores(scores)
    return scores


def item_table(parts: list[Scored]) -> ItemTable:
    """Their item tables as one, to be read score by score."""
    return ItemTable([path for part in parts for path in sorted((part.folder / "items").glob("*.parquet"))])


def joined_items(parts: list[Scored]) -> pd.DataFrame:
    """The same in memory, its columns in the order of a run's file."""
    frames = [pd.read_parquet(path) for path in item_table(parts).paths]
    table = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
    return table[keys_first(list(table))]


def comparisons(parts: list[Scored], screen: Screen, settings: Settings, baseline: str) -> pd.DataFrame:
    """The comparison table (docs/results_format.md) of all embeddings of ``parts``."""
    items = item_table(parts)
    rows = [
        {**embedding.about(screen.name), "seeds": embedding.seeds, "task": task, "role": embedding.role, "id": embedding.id}
        for part in parts
        for embedding in part.embeddings
        for task in settings.tasks
    ]
    path = parts[0].folder / "expected.json"
    path.write_text(json.dumps(rows))
    how = Comparison(
        roles={name: variant.role for name, variant in read_variants().items()},
        facts={screen.name: screen.facts},
        baseline=baseline,
        n_boot=settings.n_boot,
        seed=settings.seeds[0],
    )
    return comparison_table(joined_scores(parts), items, read_expected(path), how)
