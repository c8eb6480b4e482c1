"""Effects and profiles of controls without some of the controls: what scores owe to the controls that their units share."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from plumbline.metrics.groups import Groups, means_of, numbered
from plumbline.metrics.repeats import own_controls
from plumbline.scoring.vectors import Vectors


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What is left without one group of the controls.

    moved (m, d): what that adds to the effects of perturbations. values (c, d), n_cells (c,): profiles of controls; some may
    have no cells. left: share of the controls of its batches and parts that is left, the mean over the group. share: of all
    controls that it is.
    """

    group: int
    moved: np.ndarray
    values: np.ndarray
    n_cells: np.ndarray
    left: float
    share: float


def left_out(
    x: Vectors | np.ndarray, own: sp.csr_matrix, cells: Groups, place: np.ndarray, controls: Groups, group: np.ndarray
) -> Iterator[LeftOut]:
    """Effects and profiles of controls without the controls of each ``group`` (n,) in turn.

    own (m, places): what each effect has of the means of the controls of each place, a batch in a part (``EffectMap.own``).
    cells, place (n,), controls: as ``controls_by_profile`` gives them. Where a place has no other controls, they stay. x (n, d)
    is read once.
    """
    n, d = int(group.max(initial=0)) + 1, x.shape[1]
    finer = [numbered(n * groups.codes + group, groups.codes >= 0) for groups in (controls, cells)]
    of_controls, of_cells, controls_in, cells_in = means_of(x, [controls, cells, *finer])
    # beside the means of profiles, where their cells lie: without some of them, that is elsewhere
    of_cells, cells_in = (np.hstack([means, own_controls(groups, place, controls).toarray()])
                          for means, groups in ((of_cells, cells), (cells_in, finer[1])))  # fmt: skip
    for number in np.unique(group[controls.codes >= 0]).tolist():
        gone = [groups.names % n == number for groups in finer]
        means, sizes = _without(of_controls, controls.sizes, finer[0], controls_in, gone[0], n)
        values, n_cells = _without(of_cells, cells.sizes, finer[1], cells_in, gone[1], n)
        fewer = controls.sizes - sizes
        left = fewer @ (sizes / controls.sizes) / max(fewer[sizes > 0].sum(), 1)
        yield LeftOut(
            group=number,
            moved=own @ (of_controls - means),
            values=values[:, :d] - values[:, d:] @ means,
            n_cells=n_cells,
            left=float(left),
            share=float(fewer.sum() / controls.sizes.sum()),
        )


def _without(
    whole: np.ndarray, sizes: np.ndarray, finer: Groups, means: np.ndarray, gone: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means (g, d) and sizes (g,) of groups without the parts of them that are ``gone``; a mean stays where nothing is left."""
    code, fewer, left = finer.names[gone] // n, finer.sizes[gone], sizes.copy()
    left[code] -= fewer
    values, weight = whole.copy(), fewer / np.maximum(left[code], 1)
    values[code] += weight[:, None] * (whole[code] - means[gone])
    return values, left
