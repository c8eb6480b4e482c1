"""The baseline and the references of a benchmark: embedded by the models' own code, or found in a run."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from plumbline.benchmark.screens import Screen
from plumbline.common.errors import UserError
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.embedding.variants import Variant


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One embedding that is scored: its file and who made it. seeds: the split seeds it is scored on."""

    id: str
    path: Path
    model: str
    variant: str
    role: str
    fit_on: str
    seeds: list[int]

    def about(self, dataset: str) -> dict[str, str]:
        """The columns of every row about it; ``code`` is a digest that the pipeline alone makes."""
        return {"dataset": dataset, "model": self.model, "variant": self.variant, "fit_on": self.fit_on, "code": ""}


def embedded(variant: Variant, screen: Screen, seeds: list[int], threads: int, folder: Path) -> list[Compared]:
    """The embeddings of a variant, one per seed if it is fitted on train cells, else one."""
    made = []
    for seed in seeds if variant.seeded else seeds[:1]:
        name = f"{screen.name}.{variant.id}" + (f".{seed}" if variant.seeded else "")
        made.append(
            Compared(
                id=name,
                path=_of_run(screen, name) or _embed(variant, screen, seed, threads, folder / f"{name}.npz"),
                model=variant.model,
                variant=variant.id,
                role=variant.role,
                fit_on=variant.fit_on,
                seeds=[seed] if variant.seeded else seeds,
            )
        )
    return made


def _of_run(screen: Screen, name: str) -> Path | None:
    """The embedding that the run left beside the data it prepared (results/embeddings), or None."""
    path = screen.run / "embeddings" / f"{name}.npz" if screen.run else None
    return path if path and path.is_file() and path.with_suffix(".json").is_file() else None


def _embed(variant: Variant, screen: Screen, seed: int, threads: int, path: Path) -> Path:
    from plumbline.models.command import embed_to, opened

    if screen.counts is None:
        raise UserError(f"{screen.folder} holds no counts.h5ad, and the run next to it no embedding {path.stem}.npz. Give the "
                        "whole output folder of a run of that model, or prepare the data set again.")  # fmt: skip
    options = Options(
        variant=variant.id,
        weights=None,
        tables=screen.tables,
        fit_on=variant.fit_on,
        seed=seed,
        device="cpu",
        batch_size=0,
        threads=threads,
        settings=variant.settings,
    )
    embed_to(path, variant.model, _forward_pass(variant), opened(screen.counts, "X", options), options)
    return path


def _forward_pass(variant: Variant) -> Callable[[Counts, Options], Result]:
    """The model's own function. Raises UserError for a model that needs an environment or weights of its own."""
    if variant.row["env"] != "base" or variant.role == "foundation":
        raise UserError(f"{variant.id} needs an environment or weights of its own, so it cannot be a reference here. Embed "
                        f"with bin/embed_{variant.model}.py, and evaluate the result.")  # fmt: skip
    module = import_module(f"plumbline.models.{variant.model}")
    if not hasattr(module, "embed"):
        module = import_module(f"plumbline.models.{variant.model}.{variant.model}")
    return module.embed
