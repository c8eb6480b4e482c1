#!/usr/bin/env python3
"""Compare embeddings across data sets: do they agree on what the same perturbations do?"""

import argparse
import json
from pathlib import Path

from plumbline.common.arguments import SEEDS, Parser, whole
from plumbline.common.errors import run_script
from plumbline.common.threads import limit_threads


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--embeddings", type=Path, required=True, help="folder with embedding files and their provenance")
    parser.add_argument("--tables", type=Path, required=True, help="folder below which lie the tables of every data set")
    parser.add_argument(
        "--about", type=Path, required=True, help="JSON list of {file, dataset, variant, fit_on}, one per embedding"
    )
    parser.add_argument("--seed", type=whole(*SEEDS), default=42, help="seeds permutations and halves")
    parser.add_argument("--n-boot", type=whole(1, 1_000_000), default=1000, help="bootstrap resamples of an interval")
    parser.add_argument("--output", type=Path, required=True, help="parquet file, a row per pair of embeddings and measure")
    return parser.parse_args()


def contexts_of(args: argparse.Namespace) -> list:
    """The effects of every embedding; embeddings of data sets without controls or perturbations are left out."""
    from plumbline.embedding.contract import open_embedding, rows_of
    from plumbline.experiments.contexts import context_of
    from plumbline.scoring.screen import Subject, read_screen
    from plumbline.scoring.vectors import Vectors

    screens = {str(one.facts["name"]): one for one in map(read_screen, tables_below(args.tables))}
    found = []
    for row in json.loads(args.about.read_text()):
        screen, path = screens[row["dataset"]], args.embeddings / row["file"]
        embedding = open_embedding(path)
        if embedding.provenance["status"] == "ok" and screen.facts["has_controls"] and screen.facts["n_perturbations"]:
            rows, vectors = rows_of(embedding.cell_id, screen.cell_id, str(path)), Vectors.of(embedding.values)
            subject = Subject.of_embedded(vectors if rows is None else vectors.take(rows), screen)
            space = row["variant"] if row["fit_on"] == "none" else ""
            found.append(context_of(subject, row["dataset"], row["variant"], space, args.seed))
    return found


def tables_below(folder: Path) -> list[Path]:
    """Every folder that holds a dataset.json; links are followed, as Nextflow brings folders as links."""
    import glob

    return [Path(path).parent for path in sorted(glob.glob(f"{folder}/**/dataset.json", recursive=True))]


def main() -> None:
    args = arguments()
    limit_threads(1)
    from plumbline.common.files import write_parquet
    from plumbline.experiments.contexts import compare

    write_parquet(args.output, compare(contexts_of(args), args.seed, args.n_boot))


if __name__ == "__main__":
    run_script(main)
