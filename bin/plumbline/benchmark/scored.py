"""Embeddings on every task of a benchmark, left as the score and item tables that EVALUATE leaves."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from plumbline import tasks
from plumbline.benchmark.evaluation import Scoring, device_of, scored
from plumbline.benchmark.references import Compared
from plumbline.benchmark.screens import Screen
from plumbline.benchmark.settings import Settings
from plumbline.common.errors import UserError
from plumbline.common.usage import usage
from plumbline.scoring.writing import write_rows


@dataclass(frozen=True)
class Scored:
    """Embeddings whose tables lie in ``folder``/scores and ``folder``/items. The folder is removed with this object."""

    embeddings: list[Compared]
    temporary: tempfile.TemporaryDirectory

    @staticmethod
    def empty() -> "Scored":
        """No embeddings yet, and an empty folder for them."""
        return Scored([], tempfile.TemporaryDirectory(prefix="plumbline_"))

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return Path(self.temporary.name)


def score(embedding: Compared, screen: Screen, settings: Settings, folder: Path) -> None:
    """Leave the tables of an embedding on every task."""
    how = Scoring(
        seeds=embedding.seeds,
        protocols=settings.protocols,
        n_draws=settings.n_draws,
        threads=settings.threads,
        device=device_of(settings.device),
        exact=settings.exact,
    )
    for name in settings.tasks:
        task, start = tasks.load(name), time.monotonic()
        if embedding.role == "predictor" and not task.scores_predictors:
            continue
        if task.needs_counts and screen.counts is None:
            raise UserError(f"the task {name} reads expression, but {screen.folder} holds no counts.h5ad. Leave the task "
                            "out, or prepare the data set again.")  # fmt: skip
        rows = scored(embedding.path, screen.tables, screen.counts if task.needs_counts else None, name, how)
        file = f"{embedding.id}.{name}.parquet"
        cost = usage(start) | {"threads": settings.threads}
        write_rows(
            rows, task, embedding.about(screen.name), settings.n_boot, cost, (folder / "scores" / file, folder / "items" / file)
        )
