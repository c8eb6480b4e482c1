"""A data set on its way from the input to the tables: what PREPARE has found out about it."""

from dataclasses import dataclass

import pandas as pd

from plumbline.data.catalogue import Dataset
from plumbline.data.cells import CellTable
from plumbline.data.genes import Genes
from plumbline.data.prepare import Sums


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One prepared data set.

    labels, genes: of all cells and genes of the input. annotations: names of its cell annotations. cells, gene_table:
    tables of the kept ones. split_by: 'batch' or 'cell'.
    """

    dataset: Dataset
    annotations: list[str]
    labels: CellTable
    genes: Genes
    sums: Sums
    cells: pd.DataFrame
    gene_table: pd.DataFrame
    split_by: str
