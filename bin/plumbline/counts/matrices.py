"""The matrices of an h5ad (X, layers, raw), and what values that are not counts seem to be."""

import h5py
import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import UserError

RAW = ("raw/X", "raw.X")  # today's place of adata.raw, and that of anndata before 0.7
ROUND = "Round them first (adata.X.data = adata.X.data.round())."


def layer_name(node: str) -> str:
    """What the column layer of the sheet calls a matrix."""
    return "raw" if node in RAW else node.removeprefix("layers/")


def matrices(file: h5py.File) -> dict[str, str]:
    """{name as the sheet says it: node} of the matrices of an h5ad: X, layers, raw."""
    nodes = ["X", *(f"layers/{name}" for name in file.get("layers", {})), *RAW]
    return {layer_name(node): node for node in nodes if node in file}


def var_of(file: h5py.File, node: str) -> h5py.Group | h5py.Dataset:
    """The gene table of a matrix: raw has its own. Raises UserError if there is none."""
    own = {"raw/X": "raw/var", "raw.X": "raw.var"}.get(node, "var")
    if own not in file and "var" not in file:
        raise UserError(
            f"{file.filename} has no gene table (var). It holds {', '.join(file)}. Write the file again with anndata."
        )
    return file[own if own in file else "var"]


def are_whole(block: sp.csr_matrix) -> bool:
    """Whether a block (n, genes) holds whole numbers, none negative, and any at all: counts."""
    return bool(len(block.data) and (block.data >= 0).all() and (np.rint(block.data) == block.data).all())


def looks_like(block: sp.csr_matrix) -> tuple[str, str]:
    """What values that are not whole numbers seem to be, and what to do about them. block: (n, genes), none negative."""
    if_log = "If that is intended, say x_kind log."
    sums = np.asarray(block.expm1().sum(axis=1)).ravel() if block.data.max() < 30 else np.zeros(0)
    if (target := _constant(sums)) is not None:
        return f"these are log-normalised (log1p of counts to {target:.0f} per cell).", if_log
    if (target := _constant(np.asarray(block.sum(axis=1)).ravel())) is not None:
        return f"these look normalised (to {target:.0f} per cell).", if_log
    if block.data.max() > 50:
        return "these look like fractional counts, as RSEM, alevin, kallisto or CellBender estimate them.", ROUND
    return "these look normalised or log-transformed.", if_log


def _constant(sums: np.ndarray) -> float | None:
    sums = sums[sums > 0]
    return float(np.median(sums)) if len(sums) > 1 and np.ptp(sums) < 0.01 * np.median(sums) else None
