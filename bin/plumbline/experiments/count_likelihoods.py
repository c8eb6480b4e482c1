"""Maximum likelihood of the counts of one gene under Poisson, negative binomial (NB) and zero-inflated NB (ZINB).

mu_c = exp(a) depth_c rate_b is the mean of cell c; NB has variance mu + phi mu^2 (Hilbe 2011, NB2) and ZINB is also 0 with
probability pi (Greene 1994). a corrects the rates, which are those of the Poisson fit. Parameters are theta = (a, log phi,
logit pi); Newton's method with Levenberg's damping, analytic derivatives, from several starts.
"""

import math
from typing import NamedTuple

import numpy as np

from plumbline.common.compiled import compiled

LEAST_PHI, MOST_PHI = 1e-8, 1e4  # the least stands for the Poisson limit: it is reported as 0
_LOW, _HIGH = math.log(LEAST_PHI), math.log(MOST_PHI)
_LOGIT = 16.0  # |logit pi| stays below


class GeneCounts(NamedTuple):
    """Sufficient statistics of one gene (count_statistics), a tuple because compiled code takes those.

    mu, cells, counts, nonzero: expected count, cells, sum of counts and non-zero cells of each grid point. above[j]: cells with
    more than j counts; large, tail: counts that were not tallied one by one, and the number of cells with each.
    """

    mu: np.ndarray
    cells: np.ndarray
    counts: np.ndarray
    nonzero: np.ndarray
    above: np.ndarray
    large: np.ndarray
    tail: np.ndarray


@compiled(inline="always")
def _rising(u, phi):
    """Sum over j < u of log(1 + phi j) by Euler and Maclaurin, up to a constant, and two derivatives by log phi; u >= 256."""
    x = phi * u
    log = math.log1p(x)
    value = ((1 + x) * log - x) / phi - log / 2 + phi / (1 + x) / 12
    first = u - log / phi - x / (1 + x) / 2 + phi / (1 + x) ** 2 / 12
    second = (log - x / (1 + x)) / phi - x / (1 + x) ** 2 / 2 + phi * (1 - x) / (1 + x) ** 3 / 12
    return value, first, second


@compiled(nogil=True)
def _counts_term(phi, above, large, tail):
    """Sum over cells of log Gamma(y + 1/phi) - log Gamma(1/phi) + y log phi = sum over j < y of log(1 + phi j), and two
    derivatives by log phi."""
    value, first, second = 0.0, 0.0, 0.0
    for j in range(1, len(above)):
        if above[j] == 0.0:
            return value, first, second
        x = phi * j
        value += above[j] * math.log1p(x)
        first += above[j] * x / (1 + x)
        second += above[j] * x / (1 + x) ** 2
    base, base1, base2 = _rising(float(len(above)), phi)
    for k in range(len(tail)):
        if tail[k] != 0.0:
            here, here1, here2 = _rising(large[k], phi)
            value += tail[k] * (here - base)
            first += tail[k] * (here1 - base1)
            second += tail[k] * (here2 - base2)
    return value, first, second


@compiled(nogil=True)
def log_likelihood(theta, inflated, gene, g, h):
    """Log-likelihood minus its constant (sum of y log mu - log y!); fills gradient g (3,) and Hessian h (3, 3).

    inflated False: NB; theta[2] is ignored.
    """
    mu0, cells, counts, nonzero, above, large, tail = gene
    a, phi, u = theta[0], math.exp(theta[1]), theta[2]
    pi = 1 / (1 + math.exp(-u)) if inflated else 0.0
    value, first, second = _counts_term(phi, above, large, tail)
    g[:], h[:, :] = 0.0, 0.0
    g[1], h[1, 1] = first, second
    for k in range(len(mu0)):
        mu = mu0[k] * math.exp(a)
        x = phi * mu
        log, q = math.log1p(x), 1 / (1 + x)
        m = mu * q
        big = log / phi  # minus the log-probability of a zero under NB
        big_t, big_tt = m - big, -phi * m * m - m + big
        y, n, z = counts[k], nonzero[k], cells[k] - nonzero[k]
        if not inflated:
            n, z = n + z, 0.0
        value -= y * log + n * big
        g[0] += y - y * phi * m - n * m
        g[1] -= y * phi * m + n * big_t
        h[0, 0] -= y * phi * m * q + n * m * q
        h[0, 1] -= y * phi * m * q - n * phi * m * m
        h[1, 1] -= y * phi * m * q + n * big_tt
        if inflated:
            top = max(u, -big)
            value += z * (top + math.log(math.exp(u - top) + math.exp(-big - top)))
            w = 1 / (1 + math.exp(min(u + big, 700.0)))  # probability that a zero is one of NB's
            s = w * (1 - w)
            g[0] -= z * w * m
            g[1] -= z * w * big_t
            g[2] += z * (1 - w)
            h[0, 0] += z * (s * m * m - w * m * q)
            h[0, 1] += z * (s * m * big_t + w * phi * m * m)
            h[1, 1] += z * (s * big_t * big_t - w * big_tt)
            h[0, 2] += z * s * m
            h[1, 2] += z * s * big_t
            h[2, 2] += z * s
    value += a * counts.sum()
    if inflated:
        n_all = cells.sum()
        value -= n_all * (max(u, 0.0) + math.log1p(math.exp(-abs(u))))
        g[2] -= n_all * pi
        h[2, 2] -= n_all * pi * (1 - pi)
    h[1, 0], h[2, 0], h[2, 1] = h[0, 1], h[0, 2], h[1, 2]
    return value


@compiled(nogil=True)
def maximise(theta, inflated, gene):
    """The maximum reached from ``theta``, which is set to its position: Newton steps, damped until the likelihood rises."""
    size = 3 if inflated else 2
    g, h, g1, h1 = np.zeros(3), np.zeros((3, 3)), np.zeros(3), np.zeros((3, 3))
    best = log_likelihood(theta, inflated, gene, g, h)
    damping = 1e-3
    for _ in range(200):
        left = -h[:size, :size].copy()
        for i in range(size):
            left[i, i] += damping * abs(h[i, i]) + 1e-9 + damping * 1e-6
        step = np.linalg.solve(left, g[:size])
        longest = np.abs(step).max()
        if not np.isfinite(longest):
            return best
        trial = theta.copy()
        trial[:size] += step * min(1.0, 2.0 / max(longest, 1e-300))
        trial[1] = min(max(trial[1], _LOW), _HIGH)
        trial[2] = min(max(trial[2], -_LOGIT), _LOGIT)
        value = log_likelihood(trial, inflated, gene, g1, h1)
        if value > best:
            gain, best = value - best, value
            theta[:], g[:], h[:, :] = trial, g1, h1
            damping = max(damping / 8, 1e-9)
            if gain < 1e-9:
                return best
        else:
            damping *= 6
            if damping > 1e9:
                return best
    return best


@compiled(nogil=True)
def expected_zeros(theta, pi, gene):
    """Expected number of zeros among the cells on the grid."""
    phi, total = math.exp(theta[1]), 0.0
    for k in range(len(gene.mu)):
        none = math.exp(-math.log1p(phi * gene.mu[k] * math.exp(theta[0])) / phi)
        total += gene.cells[k] * (pi + (1 - pi) * none)
    return total


@compiled(nogil=True)
def cells_above(tally, n_tail):
    """above[j]: number of cells with more than j counts, where tally[j] have j and ``n_tail`` more than all of these."""
    above = np.zeros(len(tally))
    running = n_tail
    for j in range(len(above) - 1, -1, -1):
        above[j] = running
        running += tally[j]
    return above


@compiled(nogil=True)
def fit_gene(gene, square, out):
    """Fit one gene. square: sum of squared counts. out (9,): log-likelihood minus its constant of Poisson, NB, ZINB; phi of NB
    and of ZINB; pi; expected zeros under each."""
    total, squares, n_cells = gene.counts.sum(), (gene.cells * gene.mu * gene.mu).sum(), gene.cells.sum()
    spread = square - 2 * (gene.counts * gene.mu).sum() + squares - total
    theta = np.array([0.0, math.log(min(max(spread / squares, 1e-4), 100.0)), 0.0])
    flat = np.array([0.0, _LOW, 0.0])
    poisson = -total
    nb = maximise(theta, False, gene)
    if nb <= poisson:
        nb, theta = poisson, flat.copy()
    best, place, pi = nb, theta.copy(), 0.0
    none = expected_zeros(flat, 0.0, gene) / n_cells
    extra = ((gene.cells - gene.nonzero).sum() / n_cells - none) / max(1 - none, 1e-12)
    extra = min(max(extra, 0.02), 0.95)
    starts = np.array([[theta[0], theta[1], -3.0], [-math.log(1 - extra), math.log(0.02), math.log(extra / (1 - extra))]])
    for start in starts:
        value = maximise(start, True, gene)
        if value > best:
            best, place, pi = value, start.copy(), 1 / (1 + math.exp(-start[2]))
    out[0], out[1], out[2] = poisson, nb, best
    out[3], out[4], out[5] = math.exp(theta[1]), math.exp(place[1]), pi
    out[6], out[7], out[8] = none * n_cells, expected_zeros(theta, 0.0, gene), expected_zeros(place, pi, gene)


@compiled(nogil=True)
def fit_genes(genes, moments, grid, large, out):
    """Fit the genes numbered ``genes`` into the rows of out (g, 9) (``fit_gene``). large: the counts of ``moments.tail``."""
    points = np.arange(grid.cells.shape[1])
    for i in genes:
        mu = np.exp(grid.low[i] + grid.step[i] * points)
        above = cells_above(moments.tally[i], moments.tail[i].sum())
        gene = GeneCounts(mu, grid.cells[i], grid.counts[i], grid.nonzero[i], above, large, moments.tail[i])
        fit_gene(gene, moments.square[i], out[i])
