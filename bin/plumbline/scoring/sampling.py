"""Which test cells are asked for their neighbours where all of them would take hours: a sample by their ids."""

import numpy as np

from plumbline.common.random import sample_by_id
from plumbline.scoring.screen import View

QUERIES = 20_000  # cells asked of a larger set: a standard error of about 0.001
BEYOND = {"corrected": 20_000, "paper": 100_000}  # cells up to which all are asked; `paper` is cut where it would take hours


def asked(view: View, cells: np.ndarray, what: str) -> tuple[np.ndarray, str]:
    """Positions, ascending, among ``cells`` (row numbers of the view, (n,)) of those to ask, and 'm of n' if they are not all.

    what: names the sample, with the split seed: every embedding has the same, in any order of the file.
    """
    if len(cells) <= BEYOND[view.protocol] or view.exact:
        return np.arange(len(cells)), ""
    return sample_by_id(view.screen.cell_id[cells], QUERIES, f"{what} {view.seed}"), f"{QUERIES:,} of {len(cells):,}"
