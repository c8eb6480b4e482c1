#!/usr/bin/env python3
"""Show what a finished run says about one perturbation: cells, scores per model, most similar perturbations, known partners."""

import argparse
from pathlib import Path

from plumbline.common.errors import UserError, did_you_mean, run_script


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gene", help="a perturbation, as the data set names it; upper and lower case are the same")
    parser.add_argument("--run", type=Path, required=True, help="output folder of the run")
    parser.add_argument("--dataset", default="", help="name of a data set; all by default")
    return parser.parse_args()


def shown(folder: Path, gene: str, dataset: str = "") -> str:
    """The text about one perturbation in each data set that has it. Raises UserError where none has."""
    from plumbline.report.gene_text import gene_text
    from plumbline.report.genes import read_genes
    from plumbline.report.run import read_run

    run = read_run(folder)
    if dataset and dataset not in run.datasets:
        raise UserError(f"{folder} has no data set {dataset!r}.{did_you_mean(dataset, run.datasets)}")
    found = [read_genes(run, folder, folder / "maps", name) for name in run.datasets if dataset in ("", name)]
    texts, names = [], set()
    for genes in [part for part in found if part]:
        names |= set(genes.table.index)
        texts += [gene_text(run, genes, name) for name in genes.table.index if name.lower() == gene.lower()]
    if not texts:
        raise UserError(f"No perturbation {gene!r} in {folder}.{did_you_mean(gene, sorted(names))}")
    return "\n\n".join(texts)


def main() -> None:
    args = arguments()
    print(shown(args.run, args.gene, args.dataset))


if __name__ == "__main__":
    run_script(main)
