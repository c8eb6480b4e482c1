"""One call for one AnnData."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from plumbline.benchmark.benchmark import Benchmark
from plumbline.benchmark.result import Result
from plumbline.benchmark.screens import Screen

if TYPE_CHECKING:
    from anndata import AnnData


def evaluate(  # noqa: PLR0913 - Screen, Benchmark and evaluate in one
    adata: "AnnData",
    z: Any,
    perturbation: str,
    control: str | Iterable[str] | None,
    batch: str | None = None,
    *,
    organism: str = "human",
    layer: str | None = None,
    seeds: Iterable[int] = (42,),
    **settings: Any,
) -> Result:
    """Score embeddings of an AnnData. To evaluate more than once, make a ``Benchmark`` and keep it.

    Parameters
    ----------
    adata
        Cells in rows, raw counts in ``X`` or in ``layer``.
    z
        A key of ``adata.obsm``, a list of keys, or '*'; or whatever else ``Benchmark.evaluate`` takes.
    perturbation, control, batch, organism, layer, seeds
        As for ``Screen.from_anndata``.
    **settings
        Further arguments of ``Benchmark``, such as ``tasks='all'``.

    Returns
    -------
    Result
        Scores and comparisons.
    """
    seeds = list(seeds)
    screen = Screen.from_anndata(adata, perturbation, control, batch, organism=organism, layer=layer, seeds=seeds)
    return Benchmark(screen, seeds=seeds, **settings).evaluate(z)
