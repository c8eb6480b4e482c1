"""Random draws in compiled loops: relabellings of cells within their batches (consistency, magnitude).

The generator is splitmix64 (Steele, Lea & Flood 2014): one word of state, so that every perturbation has its own stream.
Bounded draws take the high half of a product; with fewer than 2^32 cells the bias is below 1e-9. The loops release the
interpreter's lock, so that threads share the work.
"""

import numpy as np

from plumbline.common.compiled import compiled


@compiled(inline="always")
def _below(state, bound):
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))) >> np.uint64(32)
    return np.int64((z * np.uint64(bound)) >> np.uint64(32))


@compiled(nogil=True)
def draw_sums(unit, weight, order, barred, low, high, wanted, stamp, tick, seed, out):  # noqa: PLR0913 - a compiled kernel takes arrays
    """out[k]: mean pairwise cosine of draw k: ``wanted[b]`` positions of low[b]..high[b] that are not ``barred``.

    unit: rows of length 1 (or 0: ``weight`` is their squared length). stamp: the last draw each position was in.
    """
    total = np.empty(unit.shape[1], dtype=np.float32)
    state = np.array([seed], dtype=np.uint64)
    for draw in range(len(out)):
        total[:] = 0
        alone, n = 0.0, 0
        for part in range(len(low)):
            left = wanted[part]
            n += left
            while left:
                cell = low[part] + _below(state, high[part] - low[part])
                if barred[cell] or stamp[cell] == tick + draw:
                    continue
                stamp[cell] = tick + draw
                total += unit[order[cell]]
                alone += weight[order[cell]]
                left -= 1
        norm = 0.0
        for j in range(len(total)):
            norm += float(total[j]) * float(total[j])
        out[draw] = (norm - alone) / (n * (n - 1))


@compiled(nogil=True)
def draw_members(starts, wanted, seed, out):
    """out[k, i] = 1 for ``wanted[b]`` of the positions starts[b]..starts[b + 1], without replacement, in each draw."""
    state = np.array([seed], dtype=np.uint64)
    urn = np.arange(out.shape[1])
    for draw in range(out.shape[0]):
        for part in range(len(wanted)):
            for left in range(wanted[part]):
                place = starts[part] + left
                other = place + _below(state, starts[part + 1] - place)
                urn[place], urn[other] = urn[other], urn[place]
                out[draw, urn[place]] = 1
