"""What a score would be with any number of cells, from its values at a quarter, half and all of them.

Form. score(n) = floor + A n / (n + k). n: cells per perturbation; A: what any number of cells attains above the floor; k: the
cells with which half of that is attained. Why: what tasks read of a perturbation is a mean over n cells, whose noise has the
variance s^2 / n. So it has the reliability n / (n + k), k = noise / signal (Spearman 1910; Brown 1910, both Br J Psychol 3).
Where n is large this is the expansion of any smooth score in that variance, plateau - c / n; without cells it is at the floor.
It has two parameters, and there are three depths: the third shows whether the form holds; where it does not, nothing is said.

Tasks that train on cells (a probe, a decoder) have learning curves, which may approach their end more slowly, as a power of n
between 1/2 and 1 (Amari et al. 1992, Neural Comput 4:605). For them n^(1/2) in place of n is fitted as well, and intervals
span both.
"""

from dataclasses import dataclass

import numpy as np

from plumbline.scoring.scores import counted

LARGEST = 32.0  # k over n: beyond it the curve is a straight line, and its plateau anywhere
ENOUGH = 0.9  # share of the plateau's advantage that is as good as all of it
FEW_UNITS = 8
MISFIT = 0.05  # of the advantage: a deviation from the form that matters
_RATIOS = np.concatenate([[0.0], np.geomspace(1e-3, LARGEST, 400)])


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval; nan where there is none."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """What the curve says. value: the score at any number of cells. attained: share of its advantage over the floor that all
    cells have, 0..1. cells: cells per perturbation for ENOUGH of it. verdict: 'more cells help' (less than ENOUGH is attained,
    with 95 % confidence), 'enough cells' (at least ENOUGH is), 'cannot tell' (either may be), or 'no estimate'. ``reason``: why
    there is no estimate, or no plateau.
    """

    verdict: str
    reason: str = ""
    value: Estimate = Estimate()
    attained: Estimate = Estimate()
    cells: Estimate = Estimate()


def fit(shares: np.ndarray, advantage: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares fit of A x / (x + ratio) for curves over one set of depths.

    Every depth uses each cell once (its draws are disjoint), so that all have about the same noise and the same weight.

    Parameters
    ----------
    shares
        Depths as shares of all cells, (m,).
    advantage
        Score less floor at each depth, (curves, m).

    Returns
    -------
    tuple
        A (curves,); ratio (curves,): k in units of all cells, 0..LARGEST; residuals (curves, m).
    """
    x = shares / (shares + _RATIOS[:, None])  # (ratios, m)
    a = advantage @ x.T / (x**2).sum(axis=1)  # (curves, ratios)
    left = (advantage**2).sum(axis=1)[:, None] - a**2 * (x**2).sum(axis=1)
    best = np.argmin(left, axis=1)
    rows = np.arange(len(advantage))
    return a[rows, best], _RATIOS[best], advantage - a[rows, best][:, None] * x[best]


def plateau(
    shares: np.ndarray,
    values: np.ndarray,
    drawn: np.ndarray,
    floor: float,
    n_cells: float,
    n_units: int,
    trains: bool = False,
) -> Plateau:
    """Extrapolate a score to any number of cells.

    Parameters
    ----------
    shares
        Depths as shares of all cells, (3,), increasing to 1.
    values
        Score at each depth, (3,); higher is better.
    drawn
        Their joint bootstrap, (draws, 3).
    floor
        The score of an embedding without information.
    n_cells
        Cells per perturbation that share 1 stands for.
    n_units
        Units that were resampled.
    trains
        Whether the score is that of something trained on the cells.

    Returns
    -------
    Plateau

    References
    ----------
    Spearman 1910, Br J Psychol 3:271; Brown 1910, Br J Psychol 3:296.
    """
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    reason = _refused(values, drawn, floor, n_units)
    if reason:
        return Plateau(verdict="no estimate", reason=reason)
    forms = [_form(shares, values, drawn, floor, n_cells, exponent) for exponent in ((1.0, 0.5) if trains else (1.0,))]
    forms = [form for form in forms if form is not None]
    if not forms:
        return Plateau(verdict="no estimate", reason="the curve does not have the form floor + A n / (n + k)")
    value, attained, cells = (_span([getattr(form, name) for form in forms]) for name in ("value", "attained", "cells"))
    sure = attained.high < ENOUGH, attained.low >= ENOUGH
    verdict = "more cells help" if sure[0] else "enough cells" if sure[1] else "cannot tell"
    if any(form.straight for form in forms):
        reason = f"the curve may be a straight line: no plateau in sight, it is {value.low:.3g} or more"
        return Plateau(verdict=verdict, reason=reason)
    return Plateau(verdict=verdict, value=value, attained=attained, cells=cells)


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What one form says. straight: its curve may be a straight line."""

    value: Estimate
    attained: Estimate
    cells: Estimate
    straight: bool


def _form(
    shares: np.ndarray, values: np.ndarray, drawn: np.ndarray, floor: float, n_cells: float, exponent: float
) -> _Form | None:
    """What the form in n^exponent says; None if the curve does not have it."""
    a, ratio, left = fit(shares**exponent, values[None] - floor)
    drawn_a, drawn_ratio, drawn_left = fit(shares**exponent, drawn - floor)
    if _misfit(left[0], drawn_left, values[-1] - floor):
        return None

    def cells(ratio: np.ndarray) -> np.ndarray:
        return n_cells * (ENOUGH / (1 - ENOUGH) * ratio) ** (1 / exponent)

    return _Form(
        value=_estimate(floor + a[0], floor + drawn_a),
        attained=_estimate(1 / (1 + ratio[0]), 1 / (1 + drawn_ratio)),
        cells=_estimate(cells(ratio[0]), cells(drawn_ratio)),
        straight=bool((drawn_ratio >= LARGEST).mean() > 0.025),
    )


def _span(parts: list[Estimate]) -> Estimate:
    """The value of the first, with an interval that holds those of all."""
    return Estimate(value=parts[0].value, low=min(part.low for part in parts), high=max(part.high for part in parts))


def _refused(values: np.ndarray, drawn: np.ndarray, floor: float, n_units: int) -> str:
    if n_units < FEW_UNITS:
        return f"{counted(n_units, 'unit')} scored at all depths; {FEW_UNITS} are needed"
    if len(drawn) < 2 or not np.isfinite(floor):
        return "there is no floor, or no interval"
    if np.quantile(drawn[:, -1], 0.025) <= floor or values[-1] <= floor:
        return "with all cells, the score is not above the floor"
    if np.quantile(drawn[:, -1] - drawn[:, 0], 0.975) < 0:
        return "the score falls with more cells"
    return ""


def _misfit(left: np.ndarray, drawn: np.ndarray, advantage: float) -> bool:
    """Whether the deviation from the form is significant, and matters."""
    worst = int(np.argmax(np.abs(left)))
    low, high = np.quantile(drawn[:, worst], [0.005, 0.995])
    return bool((low > 0 or high < 0) and np.abs(left[worst]) > MISFIT * advantage)


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value=float(value), low=float(min(low, value)), high=float(max(high, value)))
