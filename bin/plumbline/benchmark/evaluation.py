"""EVALUATE as one call: an embedding file and the tables of its data set -> every row of one task."""

from dataclasses import dataclass
from pathlib import Path

from plumbline import tasks
from plumbline.common.errors import UserError
from plumbline.data.splits import read_splits
from plumbline.embedding.contract import OpenEmbedding, open_embedding, rows_of
from plumbline.scoring.evaluation import Row, absent_rows, evaluate
from plumbline.scoring.protocol import NOISE
from plumbline.scoring.screen import Screen, Subject, read_screen
from plumbline.scoring.vectors import Vectors


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How embeddings are scored. n_draws: size of permutation nulls. device: 'cpu' or 'cuda'.

    decoder_budget: operations that one training of a decoder may take on a CPU. exact: no approximation of large data.
    """

    seeds: list[int]
    protocols: list[str]
    n_draws: int = 1000
    decoder_budget: float = 2e11
    threads: int = 1
    device: str = "cpu"
    exact: bool = False


def scored(path: Path, tables: Path, counts: Path | None, task_name: str, how: Scoring) -> list[Row]:
    """Every row: scores where the task applies, reasons where it does not.

    path: embedding.npz, its JSON beside it. tables: PREPARE's folder. counts: counts.h5ad, for tasks that read expression.
    """
    task, embedding = tasks.load(task_name), open_embedding(path)
    if embedding.provenance["status"] != "ok":
        return absent_rows(task, how.seeds, how.protocols, embedding.provenance["reason"])
    if task.needs_counts and counts is None:
        raise UserError(f"the task {task_name} reads expression: give --counts counts.h5ad.")
    subject = subject_of(embedding, path, tables, counts, how)
    del embedding  # the ids of two million cells, which would stay until the end
    splits = [split.take(subject.rows) for split in read_splits(tables, how.seeds)]
    return evaluate(subject, task, splits, how.protocols)


def subject_of(embedding: OpenEmbedding, path: Path, tables: Path, counts: Path | None, how: Scoring) -> Subject:
    """The cells of a prepared data set that the embedding of file ``path`` holds, to be scored as ``how`` says."""
    screen = read_screen(tables)
    return Subject.of_embedded(
        _vectors(embedding, screen, path),
        screen,
        counts=counts,
        predictor=embedding.provenance.get("predictor", ""),
        n_draws=how.n_draws,
        decoder_budget=how.decoder_budget,
        threads=how.threads,
        device=how.device,
        exact=how.exact,
        chance=embedding.provenance.get("kind") in NOISE,
    )


def _vectors(embedding: OpenEmbedding, screen: Screen, path: Path) -> Vectors:
    """The vectors of the screen's cells, in its order. Raises UserError unless they are those of the embedding."""
    rows, vectors = rows_of(embedding.cell_id, screen.cell_id, str(path)), Vectors.of(embedding.values)
    return vectors if rows is None else vectors.take(rows)


def device_of(option: str) -> str:
    """'cuda' where one is visible; torch is asked only if the driver's device file exists, for its import is slow."""
    if option != "auto":
        return option
    if not Path("/dev/nvidiactl").exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
