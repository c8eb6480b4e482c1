"""An AnnData as the h5ad that PREPARE reads."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from plumbline.common.errors import UserError, did_you_mean
from plumbline.counts.frames import as_text
from plumbline.counts.matrices import are_whole, looks_like
from plumbline.counts.row_blocks import usable
from plumbline.data.catalogue import Dataset
from plumbline.data.cells import control_labels

if TYPE_CHECKING:
    from anndata import AnnData

FIRST = 1000  # cells by which values are told to be counts before all are written


def write_input(path: Path, adata: "AnnData", dataset: Dataset, layer: str | None) -> None:
    """Write the values of ``adata`` (X, raw or a layer), the labels that ``dataset`` names and the names of its genes.

    What can be checked before values are copied, which takes minutes of millions of cells, is.
    """
    from anndata import AnnData

    columns = [name for name in (dataset.perturbation_column, dataset.batch_column, dataset.guide_column) if name]
    for name in columns:
        if list(adata.obs.columns).count(name) > 1:
            raise UserError(f"adata.obs has the column {name!r} more than once. Rename one of them.")
        if name not in adata.obs:
            known = [str(column) for column in adata.obs]
            raise UserError(f"adata.obs has no column {name!r}.{did_you_mean(name, known)}")
    matrices = _matrices(adata)
    if (layer or "X") not in matrices:
        raise UserError(f"adata has no layer {layer!r}.{did_you_mean(str(layer), [name for name in matrices if name != 'X'])}")
    values, var = matrices[layer or "X"]
    if values is None:
        raise UserError("adata.X is empty. Name the layer that holds the counts: layer='counts'.")
    repeated = adata.obs_names[adata.obs_names.duplicated()]
    if len(repeated):
        raise UserError(f"adata has the cell id {repeated[0]!r} more than once. Call adata.obs_names_make_unique() first.")
    labels = as_text(adata.obs[dataset.perturbation_column], dataset.kept_labels)
    control_labels(labels.fillna("").to_numpy(dtype=str), dataset, path)
    if dataset.x_kind == "counts":
        _counts_are_here(layer or "X", matrices)
    obs = pd.DataFrame({name: _text(adata.obs[name]) for name in columns}, index=_names(adata.obs))
    kept = var[[name for name in var if not pd.api.types.is_numeric_dtype(var[name])]]
    genes = pd.DataFrame({str(name): _text(kept[name]) for name in kept}, index=_names(var))
    AnnData(values, obs, genes).write_h5ad(path)


def _matrices(adata: "AnnData") -> dict[str, tuple[Any, pd.DataFrame]]:
    """{name as a sheet says it: (values, gene table)}; raw has its own genes."""
    found = {"X": (adata.X, adata.var)}
    found |= {"raw": (adata.raw.X, adata.raw.var)} if adata.raw is not None else {}
    return found | {name: (values, adata.var) for name, values in adata.layers.items()}


def _counts_are_here(chosen: str, matrices: dict[str, tuple[Any, pd.DataFrame]]) -> None:
    """Raises UserError if the values are not counts, but those of another layer are: PREPARE gets one matrix only."""
    first = {name: _first(values) for name, (values, _) in matrices.items() if values is not None}
    block = first.pop(chosen)
    others = [name for name, one in first.items() if are_whole(one)]
    if not others or are_whole(block) or not len(block.data):
        return
    what = "they are negative in part." if block.data.min() < 0 else looks_like(block)[0]
    raise UserError(f"adata: {chosen} does not hold raw counts; {what} Whole numbers are in: {', '.join(others)}. Say "
                    f"layer={others[0]!r}; if {chosen} is intended, x_kind='log' or 'signed'.")  # fmt: skip


def _first(values: Any) -> sp.csr_matrix:
    block = values[:FIRST]
    return sp.csr_matrix(block if sp.issparse(block) else usable(np.asarray(block)))


def _names(table: pd.DataFrame) -> pd.Index:
    """Its index as strings, without a name: that may be the name of a column."""
    return table.index.astype(str).rename(None)


def _text(column: pd.Series) -> pd.Series | np.ndarray:
    """Labels as strings, missing ones as ''; numbers as they are, for PREPARE writes them in its own way."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column.to_numpy()
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=object)
