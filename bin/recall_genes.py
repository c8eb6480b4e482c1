#!/usr/bin/env python3
"""Recall of known gene relationships by tables of gene vectors, compared with the PCA loadings of a data set."""

import argparse
from pathlib import Path

from plumbline.common.arguments import SEEDS, Parser, whole
from plumbline.common.errors import run_script
from plumbline.common.threads import limit_threads


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--gene-tables", type=Path, nargs="*", default=[], help="files NAME.npz, .csv, ... of gene vectors")
    parser.add_argument("--counts", type=Path, help="counts.h5ad of a data set, whose PCA loadings are the baseline")
    parser.add_argument("--tables", type=Path, help="its tables folder")
    parser.add_argument("--dataset", default="", help="its name, copied into every row")
    parser.add_argument("--n-boot", type=whole(1, 1_000_000), default=1000, help="bootstrap resamples of an interval")
    parser.add_argument("--seed", type=whole(*SEEDS), default=42)
    parser.add_argument("--threads", type=whole(1), default=1)
    parser.add_argument("--output", required=True, help="prefix: PREFIX.gene_recall.parquet")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    limit_threads(args.threads)
    import pandas as pd

    from plumbline.common.files import write_parquet
    from plumbline.experiments.gene_recall import COLUMNS, LOADINGS, GeneVectors, gene_recall
    from plumbline.models.gene_tables import GeneTable, by_symbol
    from plumbline.models.gene_vectors import read_vectors
    from plumbline.models.pca.loadings import pca_loadings

    tables = []
    for path in sorted(args.gene_tables):
        names, vectors = read_vectors(path)
        table = by_symbol(GeneTable(names=names, vectors=vectors))
        tables.append(GeneVectors(name=path.stem, genes=table.names, vectors=table.vectors))
    loadings = None
    if args.counts:
        genes, vectors = pca_loadings(args.counts, args.tables)
        loadings = GeneVectors(name=LOADINGS, genes=genes, vectors=vectors)
    rows = gene_recall(args.dataset, tables, loadings, args.n_boot, args.seed)
    write_parquet(f"{args.output}.gene_recall.parquet", pd.DataFrame(rows).reindex(columns=COLUMNS))


if __name__ == "__main__":
    run_script(main)
