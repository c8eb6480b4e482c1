"""The rank of the right class among the scores of all classes."""

import numpy as np

from plumbline.common.compiled import compiled


def rank_of(scores: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Rank (n,) of class code (n,) in scores (n, n_classes): how many classes score higher; ties go to the lower class.

    A score that is not a number is never the higher one of the right class, and never below it.
    """
    return _rank_of(np.ascontiguousarray(scores), code)


@compiled()
def _rank_of(scores, code):
    ranks = np.zeros(len(code), dtype=np.int64)
    for row in range(len(code)):
        own = scores[row, code[row]]
        for other in range(code[row]):
            ranks[row] += not scores[row, other] < own
        for other in range(code[row] + 1, scores.shape[1]):
            ranks[row] += not scores[row, other] <= own
    return ranks
