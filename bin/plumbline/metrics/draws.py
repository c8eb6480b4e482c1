"""Random draws in compiled loops: relabellings of cells within their batches (consistency, magnitude).

The generator is splitmix64 (Steele, Lea & Flood 2014): one word of state, so that every perturbation has its own stream.
Bounded draws take the high half of a product; with fewer than 2^32 cells the bias is below 1e-9. The loops release the
interpreter's lock, so that threads share the work.
"""

import numpy as np

from plumbline.common.compiled import compiled

LANES = 32  # dimensions summed at a time: 128 bytes, so that a batch of some thousand cells fits a cache


@compiled(inline="always")
def _below(state, bound):
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))) >> np.uint64(32)
    return np.int64((z * np.uint64(bound)) >> np.uint64(32))


@compiled(nogil=True)
def draw_cells(barred, low, high, wanted, stamp, tick, state, out):  # noqa: PLR0913 - a compiled kernel takes arrays
    """out[:, 1 + k]: the positions of draw k, ``wanted[b]`` of low[b]..high[b] that are not ``barred``, in the order of b.

    stamp: the last draw each position was in; these are numbered from ``tick``. state: the generator's, which is moved on.
    """
    for draw in range(1, out.shape[1]):
        column = 0
        for part in range(len(low)):
            left = wanted[part]
            while left:
                cell = low[part] + _below(state, high[part] - low[part])
                if barred[cell] or stamp[cell] == tick + draw:
                    continue
                stamp[cell] = tick + draw
                out[column, draw] = cell
                column += 1
                left -= 1


@compiled(nogil=True)
def add_square_lengths(values, drawn, begins, part_item, part_column, total, out):
    """Add to out[i, k] the squared length of the sum of the rows that draw k of item i holds.

    values (slabs, n, LANES): rows, LANES dimensions at a time, so that those of a batch stay in the processor's cache.
    drawn: the draws of all items, each (its cells, draws), flat, item i from begins[i]. part_item, part_column: the column of
    which item to add next, batch by batch. total (items, draws, LANES): room for the sums.
    """
    draws, lanes = out.shape[1], total.shape[2]  # a loop up to a variable is vectorised, one up to a constant is unrolled
    for slab in range(len(values)):
        total[:] = 0
        for part in range(len(part_item)):
            item = part_item[part]
            start = begins[item] + part_column[part] * draws
            for draw in range(draws):
                row, so_far = values[slab, drawn[start + draw]], total[item, draw]
                for lane in range(lanes):
                    so_far[lane] += row[lane]
        for item in range(len(out)):
            for draw in range(draws):
                square = 0.0
                for lane in range(lanes):
                    square += float(total[item, draw, lane]) * float(total[item, draw, lane])
                out[item, draw] += square


@compiled(nogil=True)
def draw_members(starts, wanted, state, urn, out):
    """out[k, i] = 1 for ``wanted[b]`` of the positions starts[b]..starts[b + 1], without replacement, in each draw.

    state, urn: of the generator and of the last draw (at first the positions in order), which are moved on.
    """
    for draw in range(out.shape[0]):
        for part in range(len(wanted)):
            for left in range(wanted[part]):
                place = starts[part] + left
                other = place + _below(state, starts[part + 1] - place)
                urn[place], urn[other] = urn[other], urn[place]
                out[draw, urn[place]] = 1
