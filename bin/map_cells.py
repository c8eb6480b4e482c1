#!/usr/bin/env python3
"""Map one data set: where the same cells lie in every embedding (UMAP), and which perturbations lie near which."""

import argparse
from pathlib import Path

from plumbline.common.arguments import Parser, whole
from plumbline.common.errors import run_script
from plumbline.common.threads import limit_threads


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="name of the data set, in the names of the tables")
    parser.add_argument("--tables", type=Path, required=True, help="folder that prepare_dataset.py wrote")
    parser.add_argument("--embeddings", type=Path, required=True, help="folder with embedding files and their provenance")
    parser.add_argument("--cells", type=whole(1), default=2000, help="cells to show, the same in every embedding")
    parser.add_argument("--threads", type=whole(1), default=1)
    parser.add_argument("--outdir", type=Path, required=True, help="gets NAME.{cells,neighbours,perturbations}.parquet")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    limit_threads(args.threads)
    from plumbline.common.files import whole_file
    from plumbline.summary.maps import map_dataset

    maps = map_dataset(args.tables, sorted(args.embeddings.glob("*.npz")), args.cells)
    for name, table in maps._asdict().items():
        with whole_file(args.outdir / f"{args.dataset}.{name}.parquet") as temporary:
            table.assign(dataset=args.dataset).to_parquet(temporary, index=False)


if __name__ == "__main__":
    run_script(main)
