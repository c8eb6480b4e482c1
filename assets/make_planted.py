#!/usr/bin/env python3
"""Make planted_pathways.npz: an embedding of the data set simulated_corum that is made of the simulation's truth.

It knows the complex of a cell's perturbed gene and nothing of the gene itself, in noise. So it must beat PCA where known
relationships are asked for, and must lose to it where single perturbations are told apart: the demo shows both. It is no model.
"""

import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "bin"))

from plumbline.common.random import normal  # noqa: E402 - bin/ is put on the path first
from plumbline.data.simulate import Design, lay_out, plant  # noqa: E402

DIMENSIONS, SIGNAL, SCALE = 12, 1.7, 24  # noise has standard deviation 1; stored as whole numbers of 1 / SCALE


def planted(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """cell_id (n,) and embedding (n, DIMENSIONS), int8: SIGNAL times a direction of the cell's complex, plus noise."""
    rng = np.random.default_rng(design.seed)
    truth = plant(design, rng)
    plan = lay_out(design, truth, rng)
    cells = np.array([f"cell_{number:07d}" for number in range(len(plan.perturbation))])
    complexes = np.append(truth.complexes, "")[plan.perturbation]
    direction = normal(complexes, DIMENSIONS, "planted complex")
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    values = normal(cells, DIMENSIONS, "planted noise") + SIGNAL * direction * plan.is_effective[:, None]
    return cells, np.clip(np.rint(SCALE * values), -127, 127).astype(np.int8)


def main() -> None:
    cells, values = planted(Design())
    np.savez_compressed(FOLDER / "planted_pathways.npz", cell_id=cells, embedding=values)


if __name__ == "__main__":
    main()
