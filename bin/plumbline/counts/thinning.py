"""Fewer counts per cell, as shallower sequencing of the same library would give: every count is kept with one probability."""

import numpy as np
import scipy.sparse as sp

from plumbline.common.errors import NotApplicable
from plumbline.common.random import generator_of
from plumbline.counts.matrices import are_whole


def thin(block: sp.csr_matrix, cell_id: np.ndarray, share: float) -> sp.csr_matrix:
    """Binomial thinning of a block of counts.

    Parameters
    ----------
    block
        Counts, CSR (n, genes); not changed.
    cell_id
        Names of the cells, (n,). Each cell draws from a stream of its own, so that its counts depend neither on the cells
        around it nor on the order, blocks or shards in which they are read.
    share
        Probability that a count is kept, in (0, 1].

    Returns
    -------
    scipy.sparse.csr_matrix
        Binomial(count, share) in place of each count, without zeros; float32.

    Raises
    ------
    NotApplicable
        If the values are not counts.
    """
    if len(block.data) and not are_whole(block):
        raise NotApplicable("counts are thinned, and these values are not counts")
    kept = np.empty(len(block.data), dtype=np.float32)
    for row, name in enumerate(cell_id):
        span = slice(block.indptr[row], block.indptr[row + 1])
        kept[span] = generator_of(f"thin\t{share:g}\t{name}").binomial(block.data[span].astype(np.int64), share)
    thinned = sp.csr_matrix((kept, block.indices.copy(), block.indptr.copy()), shape=block.shape)
    thinned.eliminate_zeros()
    return thinned
