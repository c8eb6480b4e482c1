"""How a benchmark scores: tasks, variants, seeds, protocols, checked before anything is computed."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from plumbline import tasks as all_tasks
from plumbline.benchmark import given
from plumbline.common.errors import UserError, did_you_mean
from plumbline.embedding.variants import find_variant, read_variants
from plumbline.genes.relationships import annotations_folder
from plumbline.scoring.protocol import PROTOCOLS


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of ``Benchmark``, each in one form."""

    tasks: list[str]
    baseline: str
    references: list[str]
    seeds: list[int]
    protocols: list[str]
    n_draws: int
    n_boot: int
    threads: int
    device: str
    exact: bool

    @staticmethod
    def of(  # noqa: PLR0913 - each is a choice of the user
        *,
        screen_seeds: list[int],
        tasks: str | Iterable[str],
        baseline: str,
        references: str | Iterable[str] | None,
        seeds: int | Iterable[int],
        protocols: str | Iterable[str],
        n_draws: int,
        n_boot: int,
        threads: int | None,
        device: str,
        exact: bool,
    ) -> "Settings":
        """Check what was given. Raises UserError with a hint for an unknown name, or a seed that the screen has not."""
        variants, wanted = read_variants(), _tasks(tasks)
        _check_relationships(wanted)
        if not isinstance(exact, bool):
            raise UserError(f"exact={exact!r}: expected True or False.")
        return Settings(
            tasks=wanted,
            baseline=find_variant(str(baseline), variants).id,
            references=[find_variant(name, variants).id for name in given.names(references, "references") if name != baseline],
            seeds=_seeds(seeds, screen_seeds),
            protocols=_protocols(protocols),
            n_draws=given.whole(n_draws, "n_draws", 1),
            n_boot=given.whole(n_boot, "n_boot", 1),
            threads=os.cpu_count() or 1 if threads is None else given.whole(threads, "threads", 1),
            device=given.device(device),
            exact=exact,
        )


def _tasks(tasks: str | Iterable[str]) -> list[str]:
    """Names of tasks in the order of the report. Raises UserError with a hint for an unknown name."""
    records, wanted = all_tasks.records(), given.names(tasks, "tasks")
    if wanted in (["fast"], ["all"]):
        return [name for name, task in records.items() if wanted == ["all"] or not task.needs_counts]
    for name in wanted:
        all_tasks.load(name)
    if not wanted:
        raise UserError(f"tasks is empty. Known: {', '.join(records)}; or tasks='fast'.")
    return [name for name in records if name in wanted]


def _check_relationships(tasks: list[str]) -> None:
    """Raises UserError with the command that installs them, before anything is computed."""
    reading = [name for name in tasks if all_tasks.load(name).needs_relationships]
    try:
        if reading:
            annotations_folder()
    except UserError as error:
        others = ", ".join(repr(name) for name in tasks if name not in reading)
        raise UserError(f"{error} {' and '.join(reading)} read them; without: tasks=[{others}].") from error


def _seeds(seeds: int | Iterable[int], known: list[int]) -> list[int]:
    wanted = given.seeds_of(seeds)
    if not wanted or set(wanted) - set(known):
        raise UserError(f"seeds={wanted}: the screen was prepared with the seeds {known}. Choose among them, or prepare it "
                        "with others: Screen.from_anndata(..., seeds=...).")  # fmt: skip
    return wanted


def _protocols(protocols: str | Iterable[str]) -> list[str]:
    wanted = given.names(protocols, "protocols")
    for name in wanted:
        if name not in PROTOCOLS:
            raise UserError(f"unknown protocol {name!r}.{did_you_mean(name, list(PROTOCOLS))}")
    if not wanted:
        raise UserError(f"protocols is empty. Known: {', '.join(PROTOCOLS)}.")
    return wanted
