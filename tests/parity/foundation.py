"""What the parity tests of the foundation models share: options, small files of counts, subsets of a file."""

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from plumbline.counts.reading import Counts, open_counts
from plumbline.embedding.options import Options

ATOL = 1e-5  # float32 on a CPU, values of order 1: the tolerance the reference outputs state


def options(variant: str, weights: Path | None, seed: int = 42, batch_size: int = 0, **settings: object) -> Options:
    """Options as the command line would make them; device and tables among the keywords."""
    device = str(settings.pop("device", "cpu"))
    tables = settings.pop("tables", None)
    text = {name: str(value) for name, value in settings.items()}
    return Options(
        variant=variant,
        weights=weights,
        tables=tables,
        fit_on="all",
        seed=seed,
        device=device,
        batch_size=batch_size,
        threads=1,
        settings=text,
    )


def columns(
    source: Path, target: Path, keep: np.ndarray | slice = slice(None), rows: np.ndarray | slice = slice(None)
) -> Counts:
    """Open a copy of ``source`` with some columns and rows of it."""
    ad.read_h5ad(source)[rows, keep].copy().write_h5ad(target)
    return open_counts(target)


def named_as_they_stand(path: Path) -> Counts:
    """Open a fixture with the text of its Ensembl ids, as upstream looks them up.

    plumbline cuts versions off as it reads a file, and leaves other names out.
    """
    names = ad.read_h5ad(path, backed="r").var["ensembl_id"]
    return replace(open_counts(path), ensembl_id=names.to_numpy(dtype=str))


def make_counts(path: Path, matrix: np.ndarray, ensembl: list[str], symbol: list[str]) -> Counts:
    """Write and open a file of counts (n_cells, n_genes) with cells c0, c1, ..."""
    obs = pd.DataFrame(index=[f"c{row}" for row in range(len(matrix))])
    var = pd.DataFrame({"ensembl_id": ensembl, "symbol": symbol}, index=[f"g{column}" for column in range(len(symbol))])
    ad.AnnData(sp.csr_matrix(matrix.astype(np.float32)), obs=obs, var=var).write_h5ad(path)
    return open_counts(path)


def sequences(ragged) -> list[tuple[np.ndarray, ...]]:
    """The fields of each cell."""
    ends = np.cumsum(ragged.length)[:-1]
    return list(zip(*(np.split(field, ends) for field in ragged.fields), strict=True))


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)
