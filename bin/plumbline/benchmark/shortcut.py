"""One call for one AnnData."""

from collections.abc import Iterable
from dataclasses import fields
from inspect import signature
from typing import TYPE_CHECKING, Any

from plumbline.benchmark.benchmark import Benchmark
from plumbline.benchmark.given import seeds_of
from plumbline.benchmark.result import Result
from plumbline.benchmark.screens import Screen
from plumbline.benchmark.settings import Settings
from plumbline.common.errors import UserError, did_you_mean
from plumbline.data.catalogue import Dataset

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
    seeds: int | Iterable[int] = (42,),
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
        Further arguments of ``Benchmark``, such as ``tasks='all'``, and of ``Screen.from_anndata``, such as ``x_kind='log'``.

    Returns
    -------
    Result
        Scores and comparisons.
    """
    wanted = seeds_of(seeds)
    own, columns = _parted(settings)
    Settings.of(screen_seeds=wanted, **_DEFAULTS | own | {"seeds": wanted})  # a mistake is told before anything is written
    columns |= {"organism": organism, "layer": layer, "seeds": wanted}
    screen = Screen.from_anndata(adata, perturbation, control, batch, **columns)
    return Benchmark(screen, seeds=wanted, **own).evaluate(z)


_DEFAULTS = {name: one.default for name, one in signature(Benchmark).parameters.items() if one.default is not one.empty}
_OF_SCREEN = sorted({*signature(Screen.from_anndata).parameters, *(field.name for field in fields(Dataset))} - {"columns"})


def _parted(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(those of ``Benchmark``, those of ``Screen.from_anndata``). Raises UserError for one that is neither's."""
    for name in settings:
        if name not in (*_DEFAULTS, *_OF_SCREEN):
            raise UserError(f"there is no setting {name!r}.{did_you_mean(name, [*_DEFAULTS, *_OF_SCREEN])}")
    own = {name: value for name, value in settings.items() if name in _DEFAULTS}
    return own, {name: value for name, value in settings.items() if name not in own}
