"""The transport problem where every change of a cell leads from a word to a word.

Sets of words are bits of a few integers, so that all words of a set step to their neighbours at
once. Compiled, like `flow.py`, whose paths it takes in the same order.
"""

import numba
import numpy as np

# Numbers below 64 whose bit s is unset: those that a step by `1 << s` exchanges with the others.
_LOWER = np.array(
    [sum(1 << v for v in range(64) if not v >> s & 1) for s in range(6)], dtype=np.uint64
)


@numba.njit(cache=True, nogil=True)
def _stepped(bits, mask):  # type: ignore[no-untyped-def]
    """Moves each of 64 words by a change of a cell, as far as they stay among the 64."""
    low, s = mask & 63, 0
    while low:
        if low & 1:
            shift, lower = np.uint64(1 << s), _LOWER[s]
            bits = ((bits >> shift) & lower) | ((bits & lower) << shift)
        low >>= 1
        s += 1
    return bits


@numba.njit(cache=True, nogil=True)
def _holds(sets, k, v):  # type: ignore[no-untyped-def]
    """Says whether set k holds word v."""
    return (sets[k, v >> 6] >> np.uint64(v & 63)) & np.uint64(1) != 0


@numba.njit(cache=True, nogil=True)
def _put_in(sets, k, v):  # type: ignore[no-untyped-def]
    """Puts word v into set k."""
    sets[k, v >> 6] |= np.uint64(1) << np.uint64(v & 63)


@numba.njit(cache=True, nogil=True)
def _take_out(sets, k, v):  # type: ignore[no-untyped-def]
    """Takes word v out of set k."""
    sets[k, v >> 6] &= ~(np.uint64(1) << np.uint64(v & 63))


@numba.njit(cache=True, nogil=True)
def _spread(sets, usable, masks, backward):  # type: ignore[no-untyped-def]
    """Adds all words to set 0 that are reached from it (or reach it, backward) at no cost.

    Args:
      sets: uint64 [3, words / 64]; sets 1 and 2 are scratch.
      usable: uint64 [changes, words / 64], the words whose change costs nothing.
    """
    parts = sets.shape[1]
    for i in range(parts):
        sets[1, i] = sets[0, i]
    found = True
    while found:
        found = False
        # the neighbours of those that were found last, all at once
        for i in range(parts):
            near = np.uint64(0)
            for e in range(masks.size):
                j = i ^ (masks[e] >> 6)
                if backward:
                    near |= _stepped(sets[1, j], masks[e]) & usable[e, i]
                else:
                    near |= _stepped(sets[1, j] & usable[e, j], masks[e])
            sets[2, i] = near & ~sets[0, i]
            found |= sets[2, i] != 0
        for i in range(parts):
            sets[1, i] = sets[2, i]
            sets[0, i] |= sets[2, i]


@numba.njit(cache=True, nogil=True)
def transport_words(excess, masks, flow):  # type: ignore[no-untyped-def]
    """Sends words of which there are too many to those that are lacking, by fewest changes.

    Primal-dual: words have prices, a change from one to the next costs nothing where it is dearer
    by one. Prices of words that lie beyond what is reached rise, until something lacking is.

    Args:
      excess: int32 [words], positive for too much; what is left is returned in it.
      masks: int64 [changes], the XOR of each change.
      flow: int32 [words * changes], zeros; returned: how many of each word change so.

    Returns:
      The cells that change.
    """
    count, changes, parts = excess.size, masks.size, (excess.size + 63) // 64
    # usable[e]: words whose change e costs nothing at the present prices
    usable, sets = np.zeros((changes, parts), np.uint64), np.empty((3, parts), np.uint64)
    ends = np.zeros((3, parts), np.uint64)  # too much, too few, and words that lead there
    path, entry = np.empty(count + 1, np.int64), np.empty(count, np.int64)
    sources, lacking = np.flatnonzero(excess > 0), 0
    for v in range(count):
        if excess[v] > 0:
            _put_in(ends, 0, v)
        elif excess[v] < 0:
            _put_in(ends, 1, v)
            lacking -= excess[v]
    total = 0
    while True:
        supply = False
        for i in range(parts):
            sets[0, i] = ends[0, i]
            supply |= sets[0, i] != 0
        if not supply or lacking == 0:
            return total
        _spread(sets, usable, masks, False)
        lack = False
        for i in range(parts):
            lack |= (sets[0, i] & ends[1, i]) != 0
        if lack:
            # only words that lead to something lacking are tried
            for i in range(parts):
                sets[0, i] &= ends[1, i]
            _spread(sets, usable, masks, True)
            for i in range(parts):
                ends[2, i] = sets[0, i]
            sent, cost = _augment(sources, excess, flow, usable, masks, ends, path, entry)
            lacking -= sent
            total += cost
            continue
        for e in range(changes):
            for i in range(parts):
                sets[1, i] = usable[e, i]
            for i in range(parts):
                j = i ^ (masks[e] >> 6)
                there, back = _stepped(sets[0, j], masks[e]), _stepped(sets[1, j], masks[e])
                # a way out that cost two changes costs one now; ways in cost one more
                usable[e, i] |= sets[0, i] & ~there & ~back
                usable[e, i] &= ~(there & ~sets[0, i])


@numba.njit(cache=True, nogil=True)
def _augment(sources, excess, flow, usable, masks, ends, path, entry):  # type: ignore[no-untyped-def]
    """Sends what goes at no cost, depth first; no change of a word is tried twice.

    Args:
      ends: too much, too few, and the words that may be on a path, which those that are no longer
        are taken out of.

    Returns:
      (sent, cost): words that found an end, and the cells that change.
    """
    changes, sent, cost = masks.size, 0, 0
    entry[:] = 0
    for source in sources:
        while excess[source] > 0 and _holds(ends, 2, source):
            depth = 0
            path[0] = source
            _take_out(ends, 2, source)
            while depth >= 0 and excess[path[depth]] >= 0:
                v, w = path[depth], 0
                e = entry[v]
                while e < changes:
                    w = v ^ masks[e]
                    if _holds(usable, e, v) and _holds(ends, 2, w):
                        break
                    e += 1
                entry[v] = e
                if e < changes:
                    depth += 1
                    path[depth] = w
                    _take_out(ends, 2, w)
                    continue
                # a dead end: back by one, past the change that led here
                depth -= 1
                if depth >= 0:
                    entry[path[depth]] += 1
            if depth < 0:
                break
            # as much as both ends and every change taken back allow
            amount = min(excess[source], -excess[path[depth]])
            for k in range(depth):
                taken = flow[path[k + 1] * changes + entry[path[k]]]
                if taken > 0:
                    amount = min(amount, taken)
            for k in range(depth):
                v, w = path[k], path[k + 1]
                e = entry[v]
                if flow[w * changes + e] > 0:
                    flow[w * changes + e] -= amount
                    cost -= amount
                    if flow[w * changes + e] == 0:
                        _take_out(usable, e, v)
                else:
                    flow[v * changes + e] += amount
                    cost += amount
                    _put_in(usable, e, w)
            excess[source] -= amount
            excess[path[depth]] += amount
            sent += amount
            # words of this path may serve the next one
            for k in range(depth + 1):
                _put_in(ends, 2, path[k])
            if excess[path[depth]] == 0:
                _take_out(ends, 1, path[depth])
        if excess[source] == 0:
            _take_out(ends, 0, source)
    return sent, cost
