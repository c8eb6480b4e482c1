"""What an evaluation returns: tables, a flat summary for loggers, a figure, files."""

import math
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from plumbline import __version__, tasks
from plumbline.benchmark.comparing import comparisons, item_table, joined_items, joined_scores
from plumbline.benchmark.evaluation import Scoring
from plumbline.benchmark.references import Compared
from plumbline.benchmark.scored import Scored
from plumbline.benchmark.screens import Screen
from plumbline.benchmark.settings import Settings
from plumbline.bundles.digests import data_identity, task_code
from plumbline.bundles.submission import default_revision, stated_of
from plumbline.bundles.writing import Contents, write_bundle
from plumbline.common.errors import UserError, did_you_mean
from plumbline.common.files import sha256
from plumbline.scoring.rules import rules_digest

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Result:
    """Scores of one or more embeddings, next to those of the baseline and the references.

    Attributes
    ----------
    names
        What the embeddings are called in the column ``variant``.
    scores, comparisons, items
        The tables of a run (docs/results_format.md), of the embeddings, the baseline and the references.
    """

    def __init__(self, screen: Screen, settings: Settings, candidates: Scored, references: Scored) -> None:
        self.screen, self.settings = screen, settings
        self._candidates, self._references = candidates, references
        self.names = [embedding.variant for embedding in candidates.embeddings]

    @property
    def _parts(self) -> list[Scored]:
        return [self._candidates, self._references]

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Every score: one row per metric, embedding, seed, protocol and post-processing."""
        return joined_scores(self._parts)

    @cached_property
    def items(self) -> pd.DataFrame:
        """What the scores are made of: one row per unit (perturbation, batch, pair, cell) of a score."""
        return joined_items(self._parts)

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """Every embedding against the baseline: one row per metric and embedding, seeds pooled."""
        return comparisons(self._parts, self.screen, self.settings, self.settings.baseline)

    def _main_rows(self, protocol: str | None) -> pd.DataFrame:
        """Rows of the main metrics under one protocol. Raises UserError for one that was not scored."""
        protocol = protocol or self.settings.protocols[0]
        if protocol not in self.settings.protocols:
            raise UserError(f"protocol {protocol!r} was not scored.{did_you_mean(protocol, self.settings.protocols)}")
        return self.comparisons[self.comparisons["main"] & (self.comparisons["protocol"] == protocol)]

    def summary(self, protocol: str | None = None) -> dict[str, float | str]:
        """The main metrics as a flat dictionary, for a logger.

        Parameters
        ----------
        protocol
            'corrected' or 'paper'; by default the first of the benchmark.

        Returns
        -------
        dict
            For each main metric with a score: ``recall_mean`` (value), ``recall_mean/vs_pca`` (difference to the baseline)
            and ``recall_mean/verdict`` ('better', 'worse', 'tied' or 'not tested'). Where several embeddings were evaluated,
            each key begins with the name of one: ``X_mine/recall_mean``.
        """
        rows = self._main_rows(protocol)
        rows = rows[rows["status"] == "ok"]
        flat: dict[str, float | str] = {}
        for name in self.names:
            before = f"{name}/" if len(self.names) > 1 else ""
            for row in rows[rows["variant"] == name].itertuples():
                flat[f"{before}{row.metric}"] = float(row.value)
                if not math.isnan(row.difference):
                    flat[f"{before}{row.metric}/vs_{self.settings.baseline}"] = float(row.difference)
                flat[f"{before}{row.metric}/verdict"] = str(row.verdict)
        return flat

    def compare(self, other: "str | Result") -> pd.DataFrame:
        """The comparison table with another baseline.

        Parameters
        ----------
        other
            The name of an embedding or a reference of this result; or another result of the same screen and settings, whose
            one embedding becomes the baseline.

        Returns
        -------
        pandas.DataFrame
            The rows of this result's embeddings (docs/results_format.md).
        """
        if isinstance(other, Result):
            table = self._compare_result(other)
        else:
            known = sorted(set(self.scores["variant"]))
            if other not in known:
                raise UserError(f"no embedding {other!r} in this result.{did_you_mean(other, known)}")
            table = comparisons(self._parts, self.screen, self.settings, other)
        return table[table["variant"].isin(self.names)].reset_index(drop=True)

    def _compare_result(self, other: "Result") -> pd.DataFrame:
        if (self.screen.facts, self.settings) != (other.screen.facts, other.settings):
            raise UserError("the two results are of different screens or settings. Evaluate both with one Benchmark.")
        if len(other.names) != 1 or other.names[0] in self.names:
            raise UserError(f"compare takes a result of one embedding with a name of its own; this one has {self.names}, the "
                            f"other {other.names}. Give names: bench.evaluate(z, name='step_1000').")  # fmt: skip
        return comparisons([*self._parts, other._candidates], self.screen, self.settings, other.names[0])

    def plot(self, protocol: str | None = None) -> "Figure":
        """Differences to the baseline in the main metrics, with 95 % intervals; better is to the right.

        Parameters
        ----------
        protocol
            'corrected' or 'paper'; by default the first of the benchmark.

        Returns
        -------
        matplotlib.figure.Figure
            One panel per task.
        """
        from plumbline.benchmark.plotting import forest

        rows = self._main_rows(protocol)
        return forest(rows[rows["variant"].isin(self.names)], self.names, self.settings.baseline)

    def save(self, folder: Path | str) -> Path:
        """Write the embedding and everything that was found out about it.

        Parameters
        ----------
        folder
            Becomes a bundle (docs/sharing_results.md): ``scores.parquet``, ``comparisons.parquet``, ``items.parquet``,
            ``embedding.npz`` with its provenance ``embedding.json``, and ``manifest.json``; where several embeddings were
            evaluated, a bundle for each.

        Returns
        -------
        pathlib.Path
            The folder.
        """
        folder = Path(folder)
        for embedding in self._candidates.embeddings:
            write_bundle(folder / embedding.variant if len(self.names) > 1 else folder, self._contents(embedding))
        return folder

    def _contents(self, embedding: Compared) -> Contents:
        name, how = embedding.variant, asdict(self.settings)
        scores, comparisons = (table[table["variant"] == name] for table in (self.scores, self.comparisons))
        about = {"variant": name, "model": embedding.model, "title": name, "role": embedding.role, "fit_on": embedding.fit_on}
        return Contents(
            plumbline=__version__,
            model=about | {"revision": default_revision(name, __version__, sha256(embedding.path))},
            dataset=data_identity(self.screen.tables, embedding.seeds),
            tasks={task: self._task(task) for task in self.settings.tasks},
            settings={
                name: how[name] for name in ("baseline", "references", "seeds", "protocols", "n_draws", "n_boot", "exact")
            }
            | {"decoder_budget": Scoring.decoder_budget / 1e9},
            submission=stated_of(name, self.screen.facts),
            embeddings=[(embedding.path, embedding.seeds)],
            scores=scores,
            comparisons=comparisons,
            items=item_table(self._parts).of(variant=name),
        )

    def _task(self, name: str) -> dict[str, str]:
        task = tasks.load(name)
        stated = {"version": task.version, "rules": rules_digest(task), "code": task_code(name)}
        return stated | {"main_metric": task.main(self.screen.facts)}

    def __repr__(self) -> str:
        lines = [f"Result of {', '.join(self.names)} on {self.screen.name!r}"]
        return "\n".join(lines + [f"  {key}: {value:.3f}" if isinstance(value, float) else f"  {key}: {value}"
                                  for key, value in self.summary().items()])  # fmt: skip
