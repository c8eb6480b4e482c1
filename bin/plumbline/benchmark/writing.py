"""An AnnData as the h5ad that PREPARE reads."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from plumbline.common.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from anndata import AnnData


def write_input(path: Path, adata: "AnnData", columns: list[str], layer: str | None) -> None:
    """Write the values of ``adata`` (X or a layer), the named columns of obs ('' = none) and the names of its genes."""
    from anndata import AnnData

    columns = [name for name in columns if name]
    for name in columns:
        if name not in adata.obs:
            known = [str(column) for column in adata.obs]
            raise UserError(f"adata.obs has no column {name!r}.{did_you_mean(name, known)}")
    if layer is not None and layer not in adata.layers:
        raise UserError(f"adata has no layer {layer!r}.{did_you_mean(layer, list(adata.layers))}")
    values = adata.X if layer is None else adata.layers[layer]
    if values is None:
        raise UserError("adata.X is empty. Name the layer that holds the counts: layer='counts'.")
    repeated = adata.obs_names[adata.obs_names.duplicated()]
    if len(repeated):
        raise UserError(f"adata has the cell id {repeated[0]!r} more than once. Call adata.obs_names_make_unique() first.")
    obs = pd.DataFrame({name: _text(adata.obs[name]) for name in columns}, index=adata.obs_names.astype(str))
    var = adata.var[[name for name in adata.var if not pd.api.types.is_numeric_dtype(adata.var[name])]]
    var = pd.DataFrame({str(name): _text(var[name]) for name in var}, index=adata.var_names.astype(str))
    AnnData(values, obs, var).write_h5ad(path)


def _text(column: pd.Series) -> pd.Series | np.ndarray:
    """Labels as strings, missing ones as ''; numbers as they are, for PREPARE writes them in its own way."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column.to_numpy()
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=object)
