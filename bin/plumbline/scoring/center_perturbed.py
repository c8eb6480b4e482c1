"""Post-processing center_perturbed: what all perturbations have in common is taken away (Systema, 2025)."""

import numpy as np

from plumbline.common.errors import NotApplicable
from plumbline.scoring.alignment import Standardise
from plumbline.scoring.postprocess import postprocess
from plumbline.scoring.screen import View
from plumbline.scoring.vectors import Vectors


def center_perturbed(view: View, fit: np.ndarray) -> Vectors:
    """The vectors of ``center``; of perturbed cells also less the mean effect of the train perturbations.

    fit: the controls that each batch is centred on, (n_cells,). Every train perturbation counts the same. Controls stay at
    their mean, so that effects, too, lose what they have in common. Raises NotApplicable without controls, or without a
    perturbed train cell.
    """
    screen = view.screen
    centred, _ = postprocess(view.embedding, fit, screen.batch, "center")
    effect = _mean_effect(centred, screen.perturbation, view.split.train & ~screen.is_control)
    mean, code, source = np.zeros((1, len(effect))), np.zeros(len(centred), dtype=np.int32), centred
    if isinstance(centred.transform, Standardise) and centred.batch is not None:
        mean, code, source = centred.transform.mean, centred.batch, view.embedding
    moved = np.where(screen.is_control, 0, len(mean)).astype(np.int32)
    return source.mapped(Standardise(np.vstack([mean, mean + effect])), code + moved)


def _mean_effect(centred: Vectors, perturbation: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Mean over the perturbations of the ``train`` cells of the mean over their cells, (d,) float64."""
    rows = np.flatnonzero(train)
    if not len(rows):
        raise NotApplicable("post-processing 'center_perturbed' needs perturbed cells among the train cells")
    _, code, size = np.unique(perturbation[rows].astype(str), return_inverse=True, return_counts=True)
    weight = 1 / (size[code] * len(size))
    total = np.zeros(centred.shape[1])
    for positions, values in centred.blocks(rows):
        total += weight[positions] @ values
    return total
