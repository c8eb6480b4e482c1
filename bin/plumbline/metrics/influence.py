"""How far a score moves with what its units share: the controls they are compared with, and the threshold of their tests."""

from zlib import crc32

import numpy as np

CONTROL_GROUPS = 40  # groups in which the influence of the controls is summed up
STEEPEST = 0.6  # slope beyond which Benjamini-Hochberg's threshold is not followed


def control_group(cell_id: np.ndarray, is_control: np.ndarray) -> np.ndarray:
    """Number of the group (n,) of each control, from its id alone, so that every seed has the same; 0 for other cells."""
    group = np.zeros(len(cell_id), dtype=np.int64)
    group[is_control] = [crc32(str(name).encode()) % CONTROL_GROUPS for name in cell_id[is_control]]
    return group


def influence_of_controls(distances: np.ndarray, wanted: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the unmarked cells (controls; arguments as in ``permutation_test``) and the influence of each on the energy
    distance: its derivative by the control's weight, relative to the mean of its stratum, over the number of controls."""
    stratum = np.repeat(np.arange(len(wanted)), np.diff(starts))
    marked = np.arange(len(distances)) - np.asarray(starts)[:-1][stratum] < wanted[stratum]
    others = np.flatnonzero(~marked)
    pull = 2 * (distances[others][:, marked].mean(axis=1) - distances[others][:, others].mean(axis=1))
    size = np.maximum(np.bincount(stratum[others], minlength=len(wanted)), 1)
    mean = np.bincount(stratum[others], pull, minlength=len(wanted)) / size
    return others, (pull - mean[stratum[others]]) / len(others)


def bh_threshold(p: np.ndarray, q: np.ndarray, alpha: float) -> tuple[float, float]:
    """The largest p with q <= alpha (alpha / k if there is none), and how much wider the share F(t) of p up to it spreads.

    Benjamini-Hochberg's threshold t solves F(t) = t / alpha; one more p below it raises it, and so lets in others: the
    influence of each p on F(t) is 1 / (1 - e) times that at a fixed t, e being the slope of log F over log t, here taken from t
    to 3 t, where there are p values in any case.
    """
    k, found = len(p), np.sort(p[q <= alpha])
    if not len(found):
        return alpha / max(k, 1), 1.0
    at = np.searchsorted(np.sort(p), [found[-1], 3 * found[-1]], side="right")
    slope = np.log(at[1] / at[0]) / np.log(3)
    return float(found[-1]), 1 / (1 - min(slope, STEEPEST))


def influence_on_share(observed: np.ndarray, null: np.ndarray, pull: np.ndarray, threshold: float) -> dict[str, float]:
    """Influence of groups of controls on the percentage of perturbations with p <= threshold.

    observed (k,); null (k, K); pull (k, groups): influence of each group on ``observed``. A group counts where it can turn the
    test: in units of the null's standard deviation, a normal kernel of width 1 about the null's (1 - threshold) quantile.
    """
    spread = np.nanstd(null, axis=1)
    spread = np.where(spread > 0, spread, np.inf)  # a null of one value has no slope
    beyond = (observed - np.nanquantile(null, 1 - threshold, axis=1)) / spread
    density = np.exp(-np.minimum(beyond**2, 200) / 2) / np.sqrt(2 * np.pi)
    total = 100 * (density / spread) @ pull / max(len(observed), 1)
    return {f"controls {group}": float(part) for group, part in enumerate(total) if part}


def influence_of_left_out(change: np.ndarray, left: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Influence (g,) of groups of controls on the mean over k units, from what each unit's value is without each of them.

    change (g, k): that value less the one with all controls. left (g,): share of the controls beside which a group stands that
    is left without it. share (g,): of all controls. The jackknife's, by strata (Rao & Wu 1985, JASA 80:620). What a group does
    to single units is chance that resampling the units holds already: it is taken out, as the intersection is of two-way
    clusters (Cameron, Gelbach & Miller 2011, J Bus Econ Stat 29:238), here by one factor for all groups.
    """
    k = change.shape[1]
    pull = -np.sqrt(left)[:, None] * change / k
    pull -= share[:, None] * pull.sum(axis=0)
    total, of_units = pull.sum(axis=1), float((pull**2).sum())
    whole = float(total @ total)
    common = max(whole - of_units, 0.0) * k / max(k - 1, 1)
    return total * np.sqrt(common / whole) if whole else total
