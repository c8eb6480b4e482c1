"""Leading eigenpairs of a symmetric matrix that is known only through products with blocks of vectors.

Thick-restart block Lanczos with full reorthogonalisation (Wu and Simon 2000, doi:10.1137/S0895479898334605; Golub and
Underwood 1977). scipy's ``eigsh`` multiplies one vector at a time: over streamed data each product is a pass, so vectors
must come in blocks. Iterated until the residuals say that the pairs are right, not for a fixed number of passes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BLOCK = 64  # vectors multiplied at once, at most: fewer converge with fewer products, more with fewer passes
MIN_BLOCK = 16
MIN_BASIS = 1024  # up to this size (and that of the basis) the whole matrix is formed and solved directly
TOLERANCE = 1e-4  # |A v - w v| relative to the smallest wanted eigenvalue; the eigenvalues' error is its square
MAX_PRODUCTS = 400  # a multiple of CHECK_EVERY
CHECK_EVERY = 4  # products between looks at the residual: a look costs the eigenpairs of the basis
ORTHONORMAL = 1e-13  # of squared lengths and cosines
NEGLIGIBLE = 1e-12  # of the largest eigenvalue: directions below it are rounding


@dataclass(frozen=True)
class Eigenpairs:
    """values (k,) descending, vectors (size, k) orthonormal; products: passes made; residual: the largest, relative."""

    values: np.ndarray
    vectors: np.ndarray
    products: int
    residual: float


def top_eigenpairs(apply: Callable[[np.ndarray], np.ndarray], size: int, k: int, tolerance: float | None = None) -> Eigenpairs:
    """The ``k`` largest eigenpairs of a positive semi-definite matrix (size, size); fewer if its rank is lower.

    apply: (size, b) float64 -> the matrix times that block. The start block is fixed, so equal matrices give equal results.
    tolerance: of the residual; TOLERANCE if None.
    """
    if is_small(size, k):
        values, vectors = np.linalg.eigh(_symmetric(apply(np.eye(size))))
        return _positive(values[::-1][:k], vectors[:, ::-1][:, :k], 1, 0.0)
    return _lanczos(apply, size, k, TOLERANCE if tolerance is None else tolerance)


def is_small(size: int, k: int) -> bool:
    """Whether the whole matrix is formed and solved directly."""
    return size <= max(MIN_BASIS, 4 * (k + BLOCK))


def _lanczos(apply: Callable, size: int, k: int, tolerance: float) -> Eigenpairs:
    width, basis_limit = min(BLOCK, max(MIN_BLOCK, k // 4)), 4 * (k + BLOCK)
    basis = np.empty((size, basis_limit + width), order="F")
    inner = np.zeros((basis_limit + width, basis_limit + width))
    block = np.linalg.qr(np.random.default_rng(0).standard_normal((size, width)))[0]
    n = products = 0
    while products < MAX_PRODUCTS:
        products += 1
        last = slice(n, n + block.shape[1])
        basis[:, last], n = block, last.stop
        image = apply(block)
        inner[:n, last] = basis[:, :n].T @ image
        inner[last, :n] = inner[:n, last].T
        image -= basis[:, :n] @ inner[:n, last]
        block, rest = _next_block(image, basis[:, :n], np.abs(inner[:n, :n]).max())
        full = n + block.shape[1] > basis_limit
        if not full and block.shape[1] and (n < k or products % CHECK_EVERY):
            continue
        values, ritz = np.linalg.eigh(_symmetric(inner[:n, :n]))
        values, ritz = values[::-1], ritz[:, ::-1]
        wanted = min(k, n)
        residual = np.linalg.norm(rest @ ritz[last, :wanted], axis=0).max(initial=0) / max(values[wanted - 1], 1e-300)
        if not block.shape[1] or (n >= k and residual <= tolerance):
            break
        if full:
            n = _restart(basis, inner, values, ritz, min(2 * k, n))
    return _positive(values[:k], basis[:, : len(ritz)] @ ritz[:, :k], products, float(residual))


def _next_block(image: np.ndarray, basis: np.ndarray, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal new directions (size, <= b) of ``image`` and its coefficients on them; none if it lies in the basis.

    image: made orthogonal to the basis once already; twice is enough (Kahan and Parlett). Orthonormalised through the small
    Gram matrix (Stathopoulos and Wu 2002, SVQB): matrix products only, several times faster than a QR of a tall block.
    Repeated, because the square of the condition enters.
    """
    image = image - basis @ (basis.T @ image)
    directions = image
    for round_ in range(3):
        weights, axes = np.linalg.eigh(_symmetric(directions.T @ directions))
        if round_ and np.abs(weights - 1).max(initial=0.0) < ORTHONORMAL:
            break
        floor = (NEGLIGIBLE * abs(largest)) ** 2 if round_ == 0 else 0.0
        good = weights > max(floor, 1e-15 * weights.max(initial=0.0))
        directions = directions @ (axes[:, good] / np.sqrt(weights[good]))
        if round_ == 0 or weights[good].min(initial=1.0) < 0.5:  # small columns were mostly rounding
            directions = directions - basis @ (basis.T @ directions)
    return directions, directions.T @ image


def _restart(basis: np.ndarray, inner: np.ndarray, values: np.ndarray, ritz: np.ndarray, keep: int) -> int:
    """Shrink the basis to its ``keep`` best Ritz vectors; the couplings to the next block come from its own product."""
    n = len(ritz)
    basis[:, :keep] = basis[:, :n] @ ritz[:, :keep]
    inner[:] = 0
    inner[np.arange(keep), np.arange(keep)] = values[:keep]
    return keep


def _positive(values: np.ndarray, vectors: np.ndarray, products: int, residual: float) -> Eigenpairs:
    good = values > NEGLIGIBLE * max(values[0], 0) if len(values) else np.zeros(0, dtype=bool)
    return Eigenpairs(values[good], vectors[:, good], products, residual)


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2
