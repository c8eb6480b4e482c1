"""A benchmark: a screen, its tasks, and the baseline and references that every embedding is compared with."""

from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from plumbline.benchmark.embeddings import aligned, keys_of
from plumbline.benchmark.references import Compared, embedded
from plumbline.benchmark.result import Result
from plumbline.benchmark.scored import Scored, score
from plumbline.benchmark.screens import Screen
from plumbline.benchmark.settings import Settings
from plumbline.common.errors import UserError
from plumbline.common.threads import limited_threads
from plumbline.data.catalogue import NAME
from plumbline.embedding.contract import write_embedding
from plumbline.embedding.variants import read_variants


class Benchmark:
    """Score embeddings of one screen, and compare them with a baseline.

    Splits, baseline and references are made once, at the first evaluation or by ``prepare()``.

    Parameters
    ----------
    screen
        The screen (``Screen.from_anndata`` or ``Screen.read``).
    tasks
        'fast' (all that do not read expression), 'all', or names of tasks.
    baseline
        The variant that every embedding is compared with: a row of models.csv that needs no weights.
    references
        Further variants that give the scale: floors and ceilings.
    seeds
        Split seeds, among those of the screen.
    protocols
        'corrected', 'paper' or both; the first is that of ``Result.summary``.
    n_draws, n_boot
        Sizes of permutation nulls, and of the bootstrap.
    threads
        At most so many threads; by default one per processor.
    device
        'auto', 'cpu' or 'cuda': where tasks that train a network do so.
    exact
        Large data sets, too, without approximation: the pipeline's ``--exact``.
    """

    def __init__(  # noqa: PLR0913 - each is a choice of the user
        self,
        screen: Screen,
        tasks: str | Iterable[str] = "fast",
        baseline: str = "pca",
        references: str | Iterable[str] | None = ("random", "label_oracle"),
        seeds: int | Iterable[int] = (42,),
        protocols: str | Iterable[str] = ("corrected",),
        n_draws: int = 1000,
        n_boot: int = 1000,
        threads: int | None = None,
        device: str = "auto",
        exact: bool = False,
    ) -> None:
        self.screen = screen
        self.settings = Settings.of(
            screen_seeds=screen.seeds,
            tasks=tasks,
            baseline=baseline,
            references=references,
            seeds=seeds,
            protocols=protocols,
            n_draws=n_draws,
            n_boot=n_boot,
            threads=threads,
            device=device,
            exact=exact,
        )

    def prepare(self) -> "Benchmark":
        """Embed and score the baseline and the references now, rather than at the first evaluation.

        Returns
        -------
        Benchmark
            The benchmark itself.
        """
        _ = self.made
        return self

    @cached_property
    def made(self) -> Scored:
        """Baseline and references, embedded and scored."""
        variants, how = read_variants(), self.settings
        made = Scored.empty()
        with limited_threads(how.threads):
            for name in (how.baseline, *how.references):
                made.embeddings.extend(
                    embedded(variants[name], self.screen, how.seeds, how.threads, made.folder / "embeddings")
                )
            for embedding in made.embeddings:
                score(embedding, self.screen, how, made.folder)
        return made

    def evaluate(self, z: Any, name: str | None = None) -> Result:
        """Score one embedding, or several keys of ``obsm`` together.

        Parameters
        ----------
        z
            An array, sparse matrix or tensor (n_cells, d) in the order of ``screen.cell_id``; a DataFrame indexed by cell id; a
            key of ``adata.obsm``, a list of keys, or '*' for all; or a function of the AnnData that returns one of these.
        name
            What the embedding is called in every table; by default its key, or 'embedding'.

        Returns
        -------
        Result
            Its scores and comparisons, beside those of the baseline and the references.
        """
        keys = keys_of(z, self.screen)
        if keys is not None and len(keys) != 1 and name is not None:
            raise UserError(f"name={name!r}: several embeddings are evaluated, each named by its key. Leave name out.")
        given = {name or key: key for key in keys} if keys is not None else {name or "embedding": z}
        self._check_names(given)
        values = {variant: aligned(one, self.screen, variant) for variant, one in given.items()}
        self.prepare()
        candidates = Scored.empty()
        with limited_threads(self.settings.threads):
            for variant, array in values.items():
                candidates.embeddings.append(self._candidate(variant, array, candidates.folder))
        return Result(self.screen, self.settings, candidates, self.made)

    def sample(self, n_cells: int, seed: int = 0) -> "Benchmark":
        """The same benchmark on at most ``n_cells`` cells of the screen, drawn by their ids.

        Parameters
        ----------
        n_cells
            How many cells to keep.
        seed
            Seed of the draw.

        Returns
        -------
        Benchmark
            A new benchmark; this one if the screen is not larger.
        """
        screen = self.screen.sample(n_cells, seed)
        return self if screen is self.screen else Benchmark(screen, **asdict(self.settings))

    def _candidate(self, variant: str, values: np.ndarray, folder: Path) -> Compared:
        embedding = Compared(
            id=f"{self.screen.name}.{variant}",
            path=folder / "embeddings" / f"{self.screen.name}.{variant}.npz",
            model="external",
            variant=variant,
            role="external",
            fit_on="none",
            seeds=self.settings.seeds,
        )
        write_embedding(embedding.path, self.screen.prepared_id, values, {"model": "external", "variant": variant})
        score(embedding, self.screen, self.settings, folder)
        return embedding

    def _check_names(self, names: Iterable[str]) -> None:
        for name in names:
            if name in (self.settings.baseline, *self.settings.references):
                raise UserError(f"{name!r} is a variant of this benchmark. Call the embedding something else: name='mine'.")
            if not NAME.fullmatch(name):
                raise UserError(f"{name!r}: a name has letters, digits, '_', '.' and '-', and begins with a letter or digit. "
                                "Give another one: name='mine'.")  # fmt: skip

    def __repr__(self) -> str:
        how = self.settings
        return f"Benchmark of {self.screen.name!r}: {', '.join(how.tasks)}; baseline {how.baseline}, seeds {how.seeds}"
