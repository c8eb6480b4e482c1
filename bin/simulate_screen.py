#!/usr/bin/env python3
"""Simulate a CRISPRi screen whose effects follow real CORUM complexes (the model: bin/plumbline/data/simulate.py)."""

import argparse
from dataclasses import fields
from pathlib import Path

from plumbline.common.errors import run_script

HELP = {
    "n_perturbations": "perturbed genes",
    "n_batches": "batches, balanced",
    "cells_per_perturbation": "cells per perturbation",
    "control_fraction": "share of non-targeting cells",
    "n_genes": "genes measured",
    "depth": "median counts per cell",
    "effect": "sd of the shared log effect; 0 = a screen without effects",
    "batch_effect": "sd of the log effect of a batch on a gene",
    "guides": "guides per perturbation",
    "guide_failure": "share of guides that do nothing",
    "escape": "share of cells of working guides without effect",
    "null_fraction": "share of perturbations of unexpressed genes, which do nothing",
    "seed": "seed of every random draw",
    "cells_seed": "another screen of the same genes and effects; 0 = the first",
    "nuisance": "sd of the log effect on a gene of being perturbed at all, whichever gene is hit",
}


def main() -> None:
    from plumbline.data.simulate import Design, simulate

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for item in fields(Design):
        option = "--" + item.name.replace("_", "-")
        parser.add_argument(option, type=type(item.default), default=item.default, help=HELP[item.name])
    parser.add_argument("--output", type=Path, required=True, help="h5ad to write")
    arguments = vars(parser.parse_args())
    output = arguments.pop("output")
    truth = simulate(Design(**arguments), output)
    n_complexes = len(set(truth.complexes.tolist()) - {""})
    print(f"{output}: {len(truth.perturbations)} perturbations, {n_complexes} CORUM complexes, {len(truth.genes)} genes")


if __name__ == "__main__":
    run_script(main)
