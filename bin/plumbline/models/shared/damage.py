"""Damaged counts: fewer per cell, or of fewer genes. What a model makes of them is the experiment ``robustness``.

Damage is done while counts are read, before the model sees them, so that every model gets the same and no copy is written.
"""

from dataclasses import replace

import numpy as np

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts
from plumbline.models.shared.fit_on import read_fit_on
from plumbline.models.shared.variable_genes import select_genes

THINNED, PANEL = "thinned", "panel"


def damaged(counts: Counts, fit_on: str, elsewhere: bool = False) -> Counts:
    """The counts under the damage that ``fit_on`` states, if any.

    ``thinned25`` keeps every count with a probability of 25 % (plumbline.counts.thinning). ``panel1000`` keeps the 1,000 most
    variable genes over all cells (variable_genes.py), as a targeted assay designed on a pilot would; no label enters.

    Parameters
    ----------
    counts
        The counts to be embedded.
    fit_on
        As in fit_on.py.
    elsewhere
        Whether another data set is given to fit on.

    Raises
    ------
    UserError
        For a damage that there is none of, or with another data set to fit on, which is not damaged.
    NotApplicable
        If the values are not counts, or the data set has no more genes than the panel.
    """
    damage = read_fit_on(fit_on, elsewhere).damage
    if not damage:
        return counts
    kind, size = _parsed(damage, fit_on)
    if elsewhere:
        raise UserError(f"--fit-on {fit_on}: a data set that is given as --source is not damaged. Leave +{damage} out.")
    if counts.x_kind != "counts":
        raise NotApplicable(f"counts are damaged, and the data set holds {counts.x_kind} values")
    if kind == THINNED:
        return replace(counts, thinned=size / 100)
    if counts.shape[1] <= size:
        raise NotApplicable(f"the data set has {counts.shape[1]:,} genes, no more than the panel")
    return counts.take_genes(select_genes(counts, np.arange(counts.shape[0]), counts.x_kind, size))


def _parsed(damage: str, fit_on: str) -> tuple[str, int]:
    kind = next((name for name in (THINNED, PANEL) if damage.startswith(name)), "")
    size = damage.removeprefix(kind)
    if not kind or not size.isdigit() or not int(size) or (kind == THINNED and int(size) > 100):
        raise UserError(f"--fit-on {fit_on}: expected {THINNED} and a percentage, or {PANEL} and a number of genes, after +.")
    return kind, int(size)
