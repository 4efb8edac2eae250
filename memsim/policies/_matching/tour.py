"""An order of outputs in which neighbours resemble each other. On the host, in compiled loops."""

import math

import numba
import numpy as np

from memsim.policies._matching.flow import Graph, scratch, transport

# Outputs whose distances from one another are held at once.
_TOUR_OUTPUTS = 4096
# Outputs whose nearest ones are found at once.
_ROWS_AT_ONCE = 256
# Nearest outputs whose distance is worked out exactly: without a tolerance, and with one, where
# that takes twice as long.
_TOUR_NEIGHBOURS = (8, 5)


def find_tour(codes: np.ndarray, graph: Graph) -> np.ndarray:
    """Orders a layer's outputs so that neighbours take few writes from one to the next.

    A closed tour: nearest neighbours, then 2-opt and or-opt. Distances are L1 between histograms of
    codes at several resolutions, which tracks the exact cost; for the nearest outputs it is the
    exact cost.

    Args:
      codes: int32 [outputs, inputs], from the graph's lowest.
      graph: of the words.

    Returns:
      int64 [outputs].
    """
    outputs = len(codes)
    if outputs > _TOUR_OUTPUTS:  # blocks of outputs of like size
        order = np.argsort(np.abs(codes + graph.lowest).mean(axis=1), kind="stable")
        blocks = np.array_split(order, math.ceil(outputs / _TOUR_OUTPUTS))
        return np.concatenate([block[find_tour(codes[block], graph)] for block in blocks])
    if outputs <= 3:
        return np.arange(outputs)
    # coarse distances of all pairs, then the nearest of each
    levels = _levels(codes, graph)
    distance = _distances(levels)
    neighbours = _nearest(distance, _TOUR_NEIGHBOURS[graph.tolerance > 0])
    # exact costs of these; all others are brought to the same scale
    exact = _exact_costs(codes, neighbours, graph, scratch(graph))
    near = np.take_along_axis(distance, neighbours, axis=1)
    distance *= exact.sum() / max(near.sum(), 1)
    rows = np.arange(outputs)[:, None]
    distance[rows, neighbours] = distance[neighbours, rows] = exact
    # within a tolerance the way back costs something else; integers, so that gains are exact
    whole = distance.view(np.int32)  # in place: distances of all pairs are the most there is
    _average_both_ways(distance, whole)
    # a first path, then improved until no move helps
    path: np.ndarray = _nearest_first(whole)
    _improve(path, whole, _nearest(whole, max(_TOUR_NEIGHBOURS)))
    return path


def _levels(codes: np.ndarray, graph: Graph) -> np.ndarray:
    """Histograms [outputs, bins] of words, and of their high-order bits alone, side by side."""
    words = graph.node_of_code[codes]
    size = graph.code_of_node.size
    outputs = len(codes)
    # one histogram over outputs and words side by side
    whole = np.bincount(
        (np.arange(outputs)[:, None] * size + words).reshape(-1), minlength=outputs * size
    ).reshape(outputs, size)
    depth = size.bit_length() - 1
    finest = graph.tolerance.bit_length() + (graph.tolerance > 0)
    levels = []
    # bins of ever more words: those that share their high-order bits
    for low in range(min(finest, depth - 1), depth):
        bins = np.arange(0, size, 1 << low)
        levels.append(np.add.reduceat(whole, bins, axis=1))
    return np.hstack(levels).astype(np.float32)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _distances(levels):  # type: ignore[no-untyped-def]
    """Computes L1 between all pairs of rows, float32 [rows, rows]."""
    rows, bins = levels.shape
    distance = np.zeros((rows, rows), np.float32)
    # four rows at once against each other one, which is then read from memory a quarter as often
    for i in range(0, rows, 4):
        a, b, c, d = i, min(i + 1, rows - 1), min(i + 2, rows - 1), min(i + 3, rows - 1)
        for j in range(d):
            to_a = to_b = to_c = to_d = np.float32(0)
            for k in range(bins):
                level = levels[j, k]
                to_a += abs(levels[a, k] - level)
                to_b += abs(levels[b, k] - level)
                to_c += abs(levels[c, k] - level)
                to_d += abs(levels[d, k] - level)
            distance[a, j] = distance[j, a] = to_a
            distance[b, j] = distance[j, b] = to_b
            distance[c, j] = distance[j, c] = to_c
            distance[d, j] = distance[j, d] = to_d
    return distance


def _nearest(distance: np.ndarray, count: int) -> np.ndarray:
    """Finds the nearest others of each row, nearest first: int64 [rows, at most count]."""
    count = min(count, len(distance) - 1)
    found = np.empty((len(distance), count), np.int64)
    for first in range(0, len(distance), _ROWS_AT_ONCE):  # copies stay small
        others = distance[first : first + _ROWS_AT_ONCE].astype(np.float64)
        # no row is its own neighbour
        row = np.arange(len(others))
        others[row, first + row] = np.iinfo(np.int32).max
        nearest = np.argpartition(others, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(others, nearest, axis=1), axis=1, kind="stable")
        found[first + row] = np.take_along_axis(nearest, order, axis=1)
    return found


@numba.njit(cache=True, nogil=True)
def _average_both_ways(distance, whole):  # type: ignore[no-untyped-def]
    """Rounds the mean of there and back, float32, to whole numbers: int32, of the same memory."""
    for i in range(len(distance)):
        for j in range(i + 1):
            mean = np.rint((distance[i, j] + distance[j, i]) / np.float32(2))
            whole[i, j] = whole[j, i] = np.int32(mean)


@numba.njit(cache=True, nogil=True)
def _exact_costs(codes, neighbours, graph, flow):  # type: ignore[no-untyped-def]
    """Computes what it costs to overwrite each output by each of its neighbours."""
    words, count = graph.code_of_node.size, neighbours.shape[1]
    costs = np.empty(neighbours.shape, np.float32)
    for i in range(neighbours.shape[0]):
        for k in range(count):
            # without a tolerance the way back costs the same: taken from there
            known = count
            if graph.tolerance == 0 and neighbours[i, k] < i:
                known = 0
                while known < count and neighbours[neighbours[i, k], known] != i:
                    known += 1
            if known < count:
                costs[i, k] = costs[neighbours[i, k], known]
                continue
            # words of this output have to become those that the neighbour needs
            excess = np.zeros(graph.target.shape[0], np.int32)
            for code in codes[i]:
                excess[graph.node_of_code[code]] += 1
            for code in codes[neighbours[i, k]]:
                excess[words + code if graph.tolerance > 0 else graph.node_of_code[code]] -= 1
            flow[:] = 0
            costs[i, k] = transport(excess, graph, flow)
    return costs


@numba.njit(cache=True, nogil=True)
def _nearest_first(distance):  # type: ignore[no-untyped-def]
    """Follows a path that always goes on to the nearest row left."""
    rows = len(distance)
    # the tour starts at the first output
    left = np.ones(rows, np.bool_)
    order = np.zeros(rows, np.int64)
    left[0] = False
    for k in range(1, rows):
        best = -1
        for j in range(rows):
            if left[j] and (best < 0 or distance[order[k - 1], j] < distance[order[k - 1], best]):
                best = j
        order[k] = best
        left[best] = False
    return order


@numba.njit(cache=True, nogil=True)
def _improve(order, distance, neighbours):  # type: ignore[no-untyped-def]
    """Makes 2-opt and or-opt moves to near neighbours, until none shortens the closed tour."""
    rows = order.size
    # the inverse: where in the tour each output is
    place = np.empty(rows, np.int64)
    for i in range(rows):
        place[order[i]] = i
    improved = True
    while improved:
        improved = False
        # sweeps over all outputs, until one changes nothing
        for a in range(rows):
            for k in range(neighbours.shape[1]):
                c = neighbours[a, k]
                # join a and c, and what follows them (or what goes before them)
                b, d = order[(place[a] + 1) % rows], order[(place[c] + 1) % rows]
                y, z = order[(place[a] - 1) % rows], order[(place[c] - 1) % rows]
                ahead = distance[a, b] + distance[c, d] - distance[a, c] - distance[b, d]
                behind = distance[a, y] + distance[c, z] - distance[a, c] - distance[y, z]
                # 2-opt: the part in between is turned round
                if max(ahead, behind) > 0:
                    if ahead >= behind:
                        _reverse(order, place, place[b], place[c])
                    else:
                        _reverse(order, place, place[c], place[y])
                    improved = True
                    continue
                # move a, and up to two that follow it, next to c
                for length in range(1, 4):
                    # a to e is moved, `after` then follows what came before a
                    e = order[(place[a] + length - 1) % rows]
                    after = order[(place[a] + length) % rows]
                    if (place[c] - place[a]) % rows < length or rows < length + 3:
                        break
                    freed = distance[y, a] + distance[e, after] - distance[y, after]
                    # between c and d: ... c a..e d (turned: c e..a d is not next to c)
                    gain = freed + distance[c, d] - distance[c, a] - distance[e, d]
                    if gain > 0 and c != y:
                        # y [a..e] [after..c] d -> y [after..c] [a..e] d
                        _reverse(order, place, place[a], place[c])
                        _reverse(order, place, place[c], place[after])
                        _reverse(order, place, place[e], place[a])
                        improved = True
                        break


@numba.njit(cache=True, nogil=True)
def _reverse(order, place, i, j):  # type: ignore[no-untyped-def]
    """Turns the part of a closed tour from place i to place j round."""
    rows = order.size
    # swaps ends inwards; the part may run over the end of the array
    for _ in range(((j - i) % rows + 1) // 2):
        order[i], order[j] = order[j], order[i]
        place[order[i]], place[order[j]] = i, j
        i, j = (i + 1) % rows, (j - 1) % rows
