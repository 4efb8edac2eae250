"""Matched placement: every weight goes where the cells already hold nearly the same word.

Within one output any position (section, row) is as good as any other. So the step from one output
to the next is a transport problem: move the multiset of words that the cells hold to the multiset
that the next output needs, with as few cell changes as possible. It is solved exactly, as a minimum
cost flow on the graph of words that differ in one cell. Offline, on the host, in compiled loops.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numba
import numpy as np
import scipy.optimize

from memsim.codes import encode, hamming_distance
from memsim.config import MATCHED_BITS, CrossbarConfig, Policy
from memsim.placement import Placement, inverse_positions

# Outputs whose distances from one another are held at once.
_TOUR_OUTPUTS = 4096
# Nearest outputs whose distance is worked out exactly.
_TOUR_NEIGHBOURS = 8


class Graph(NamedTuple):
    """Words that differ in one cell, and the codes that each may serve.

    Nodes are words (the erased one is node 0), then, where a tolerance allows a choice, codes.
    Entry [v, e] is an arc out of node v, one into it of which flow can be taken back, or both.

    Attributes:
      target: int32 [nodes, entries], the node at the other end; -1 past the last entry.
      out, back: int32 [nodes, entries], the arc to it and the arc from it; -1 for none.
      cost: int32 [nodes, entries].
      changes: uint8 [words, words], cells in which two words differ.
      node_of_code: int32 [codes], the word of the code `lowest + i`.
      code_of_node: int32 [words], code - lowest; -1 for a word that no code is encoded as.
      lowest: the lowest code that a word can hold.
      tolerance: largest error of a code.
      price: cost of a cell change, in squared code errors.
      longest: an upper bound on the cost of a shortest path.
    """

    target: np.ndarray
    out: np.ndarray
    back: np.ndarray
    cost: np.ndarray
    changes: np.ndarray
    node_of_code: np.ndarray
    code_of_node: np.ndarray
    lowest: int
    tolerance: int
    price: int
    longest: int


@functools.cache
def word_graph(config: CrossbarConfig, tolerance: int = 0, price: int = 1) -> Graph:
    """The graph of a config's words.

    Args:
      tolerance: largest error of a code, in codes.
      price: what a cell change costs, in squared code errors.
    """
    codes = np.arange(config.min_code, config.max_code + 1)
    code_words = np.asarray(encode(jnp.asarray(codes), config)).astype(np.int64)
    words = np.sort(code_words) if config.encoding == "differential" else np.arange(2**config.bits)
    node_of_code = np.searchsorted(words, code_words).astype(np.int32)
    code_of_node = np.full(words.size, -1, np.int32)
    code_of_node[node_of_code] = np.arange(codes.size)
    changes = [
        level << ((mask & -mask).bit_length() - 1)
        for mask in config.column_masks
        for level in range(1, 2 ** mask.bit_count())
    ]
    reached = words[:, None] ^ np.asarray(changes)
    place = np.minimum(np.searchsorted(words, reached), words.size - 1)
    known = words[place] == reached
    arcs, size = len(changes), words.size
    number = np.arange(size)[:, None] * arcs + np.arange(arcs)
    target = np.where(known, place, -1)
    out = np.where(known, number, -1)
    back = np.where(known, place * arcs + np.arange(arcs), -1)  # a change undoes itself
    cost = np.full((size, arcs), price)
    arrays: tuple[np.ndarray, ...] = (target, out, back, cost)
    if tolerance:
        arrays = _tolerate(arrays, node_of_code, code_of_node, tolerance)
    differ = words[:, None] ^ words
    changed = sum(((differ & mask) != 0).astype(np.uint8) for mask in config.column_masks)
    target, out, back, cost = (np.ascontiguousarray(x, np.int32) for x in arrays)
    longest = price * config.columns + tolerance**2
    return Graph(
        target, out, back, cost, changed, node_of_code, code_of_node, config.min_code, tolerance,
        price, longest,
    )  # fmt: skip


def _tolerate(
    arrays: tuple[np.ndarray, ...],
    node_of_code: np.ndarray,
    code_of_node: np.ndarray,
    tolerance: int,
) -> tuple[np.ndarray, ...]:
    """Adds a node for every code, and arcs to it from every word near enough to serve it."""
    target, out, back, cost = arrays
    words, codes = code_of_node.size, node_of_code.size
    errors = np.arange(-tolerance, tolerance + 1)
    first = target.size  # number of the first new arc: word * errors + error

    def arc(word: np.ndarray) -> np.ndarray:
        return first + word * errors.size + np.arange(errors.size)

    code = code_of_node[:, None] + errors  # that a word serves
    fits = (code >= 0) & (code < codes) & (code_of_node[:, None] >= 0)
    server = np.arange(codes)[:, None] - errors  # code of the words that serve a code
    serves = (server >= 0) & (server < codes)
    word = node_of_code[np.clip(server, 0, codes - 1)]
    none, nothing = np.full((codes, target.shape[1]), -1), np.full(code.shape, -1)
    squares = np.broadcast_to(errors**2, (words + codes, errors.size))
    return (
        np.block([[target, np.where(fits, words + code, -1)], [none, np.where(serves, word, -1)]]),
        np.block(
            [
                [out, np.where(fits, arc(np.arange(words)[:, None]), -1)],
                [none, none[:, :1].repeat(errors.size, 1)],
            ]
        ),
        np.block([[back, nothing], [none, np.where(serves, arc(word), -1)]]),
        np.hstack([np.vstack([cost, none]), squares]),
    )


@numba.njit(cache=True, nogil=True)
def _transport(excess, graph, flow):  # type: ignore[no-untyped-def]
    """Sends what nodes have too much to nodes that lack it at the least cost. Primal-dual.

    Args:
      excess: int32 [nodes], positive for too much; what is left is returned in it.
      flow: int32 [arcs], zeros or a least-cost flow; the flow is returned in it.

    Returns:
      The cost.
    """
    target, out, back, cost = graph.target, graph.out, graph.back, graph.cost
    nodes, entries = target.shape
    potential = np.zeros(nodes, np.int32)
    distance = np.empty(nodes, np.int32)
    first = np.empty(graph.longest + 1, np.int32)  # buckets of nodes by distance
    after = np.empty(nodes * entries + nodes, np.int32)
    member = np.empty(nodes * entries + nodes, np.int32)
    entry = np.empty(nodes, np.int32)
    seen = np.empty(nodes, np.bool_)
    path = np.empty(nodes + 1, np.int32)
    total = 0
    while True:
        # reduced distances from every excess to the nearest lack
        first[:] = -1
        distance[:] = graph.longest + 1
        queued, nearest, supply = 0, graph.longest + 1, False
        for v in range(nodes):
            if excess[v] > 0:
                supply = True
                distance[v] = 0
                member[queued], after[queued], first[0] = v, first[0], queued
                queued += 1
        if not supply:
            return total
        d = 0
        while d < nearest and d <= graph.longest:
            while first[d] >= 0:
                v = member[first[d]]
                first[d] = after[first[d]]
                if distance[v] != d:
                    continue
                if excess[v] < 0:
                    nearest = d
                    break
                for e in range(entries):
                    w = target[v, e]
                    if w < 0:
                        continue
                    if back[v, e] >= 0 and flow[back[v, e]] > 0:
                        c = -cost[v, e]
                    elif out[v, e] >= 0:
                        c = cost[v, e]
                    else:
                        continue
                    reached = d + c + potential[v] - potential[w]
                    if reached < distance[w]:
                        distance[w] = reached
                        member[queued], after[queued] = w, first[reached]
                        first[reached] = queued
                        queued += 1
            d += 1
        if nearest > graph.longest:
            return total  # nothing lacks anything any more
        for v in range(nodes):
            potential[v] += min(distance[v], nearest)
        # augment along arcs of reduced cost 0
        entry[:] = 0
        seen[:] = False
        for source in range(nodes):
            while excess[source] > 0:
                depth = 0
                path[0] = source
                seen[source] = True
                while depth >= 0:
                    v = path[depth]
                    if excess[v] < 0:
                        break
                    forward = False
                    while entry[v] < entries:
                        e = entry[v]
                        w = target[v, e]
                        if w >= 0 and not seen[w]:
                            if back[v, e] >= 0 and flow[back[v, e]] > 0:
                                c = -cost[v, e]
                            elif out[v, e] >= 0:
                                c = cost[v, e]
                            else:
                                entry[v] += 1
                                continue
                            if c + potential[v] == potential[w]:
                                depth += 1
                                path[depth] = w
                                seen[w] = True
                                forward = True
                                break
                        entry[v] += 1
                    if not forward:
                        depth -= 1
                        if depth >= 0:
                            entry[path[depth]] += 1
                if depth < 0:
                    break
                amount = min(excess[source], -excess[path[depth]])
                for k in range(depth):
                    v = path[k]
                    arc = back[v, entry[v]]
                    if arc >= 0 and flow[arc] > 0:
                        amount = min(amount, flow[arc])
                for k in range(depth):
                    v = path[k]
                    arc = back[v, entry[v]]
                    if arc >= 0 and flow[arc] > 0:
                        flow[arc] -= amount
                        total -= amount * cost[v, entry[v]]
                    else:
                        flow[out[v, entry[v]]] += amount
                        total += amount * cost[v, entry[v]]
                excess[source] -= amount
                excess[path[depth]] += amount
                for k in range(depth + 1):
                    seen[path[k]] = False


@numba.njit(cache=True, nogil=True)
def _assign(held, codes, graph, flow, item, word):  # type: ignore[no-untyped-def]
    """Gives every position one of the items, at the least cost in all.

    Args:
      held: int32 [positions], the word node each position holds.
      codes: int32 [items], code of each, from the graph's lowest; at least as many as positions.
      flow: int32 [arcs], scratch.
      item: int32 [positions], returned: the item each position takes.
      word: int32 [positions], returned: the word node it then holds.
    """
    words, entries = graph.code_of_node.size, graph.target.shape[1]
    nodes, tolerant = graph.target.shape[0], graph.tolerance > 0
    excess = np.zeros(nodes, np.int32)
    flow[:] = 0
    # positions at each word, items of each code: linked lists
    at = np.full(words, -1, np.int32)
    following = np.empty(held.size, np.int32)
    for i in range(held.size):
        following[i] = at[held[i]]
        at[held[i]] = i
        excess[held[i]] += 1
    of = np.full(graph.node_of_code.size, -1, np.int32)
    next_item = np.empty(codes.size, np.int32)
    for i in range(codes.size - 1, -1, -1):
        next_item[i] = of[codes[i]]
        of[codes[i]] = i
        excess[words + codes[i] if tolerant else graph.node_of_code[codes[i]]] -= 1
    _transport(excess, graph, flow)
    # positions follow the flow: from word to word first, whenever there are some to move
    moving = True
    while moving:
        moving = False
        for v in range(words):
            if at[v] < 0:
                continue
            for e in range(entries):
                arc, w = graph.out[v, e], graph.target[v, e]
                if arc < 0 or w >= words:
                    continue
                while flow[arc] > 0 and at[v] >= 0:
                    i = at[v]
                    at[v] = following[i]
                    following[i] = at[w]
                    at[w] = i
                    flow[arc] -= 1
                    moving = True
    for v in range(words):
        for e in range(entries):
            arc, w = graph.out[v, e], graph.target[v, e]
            if arc < 0 or w < words:
                continue
            for _ in range(flow[arc]):
                i = at[v]
                at[v] = following[i]
                c = w - words
                item[i], word[i] = of[c], v
                of[c] = next_item[of[c]]
        if not tolerant:
            c = graph.code_of_node[v]
            while at[v] >= 0:
                i = at[v]
                at[v] = following[i]
                item[i], word[i] = of[c], v
                of[c] = next_item[of[c]]


@numba.njit(cache=True, nogil=True)
def _trace(codes, tour, graph, flow, inputs, words):  # type: ignore[no-untyped-def]
    """Leads every position of a pool through all outputs.

    Args:
      codes: int32 [outputs, positions], from the graph's lowest.
      tour: int64 [outputs], their order.
      inputs: int32 [outputs, positions], returned in the order of the tour: which input sits there.
      words: int32 [outputs, positions], returned: the word node held.
    """
    for i in range(codes.shape[1]):
        inputs[0, i] = i
        words[0, i] = graph.node_of_code[codes[tour[0], i]]
    for k in range(1, tour.size):
        _assign(words[k - 1], codes[tour[k]], graph, flow, inputs[k], words[k])


@numba.njit(cache=True, nogil=True)
def _arrange(codes, first, last, held, rows, pools, graph, flow, slot):  # type: ignore[no-untyped-def]
    """Chooses the section and row of every position, so that sections follow well on one another.

    Args:
      codes: int32 [positions], the code of each at the first output, from the graph's lowest.
      first, last: int32 [positions], the word nodes it holds at the first and last output.
      held: int32 [rows], the word nodes the crossbar holds; returned: what it holds afterwards.
      rows: of a crossbar.
      pools: whether section s must take positions s * rows to (s + 1) * rows - 1.
      slot: int32 [positions], returned: section * rows + row of each.
    """
    count = codes.size
    free = np.arange(count)
    item, word = np.empty(rows, np.int32), np.empty(rows, np.int32)
    for start in range(0, count, rows):
        used = min(rows, count - start)
        chosen = np.arange(start, start + used) if pools else free
        _assign(held[:used], codes[chosen], graph, flow, item, word)
        taken = np.zeros(chosen.size, np.bool_)
        for row in range(used):
            position = chosen[item[row]]
            slot[position] = start + row
            held[row] = last[position]
            taken[item[row]] = True
        free = chosen[~taken]


@numba.njit(cache=True, nogil=True)
def _polish(codes, held, graph, words):  # type: ignore[no-untyped-def]
    """The words that cost a row least, for the weights that follow one another there.

    A shortest path, exact.

    Args:
      codes: int32 [steps], from the graph's lowest.
      held: the word node before.
      words: int32 [steps], returned: the word node after each step.
    """
    changes, price = graph.changes, graph.price
    tolerance, count = graph.tolerance, graph.node_of_code.size
    width = 2 * tolerance + 1
    cost, before = np.zeros(width, np.int64), np.zeros(width, np.int64)
    choice = np.empty((codes.size, width), np.int8)
    for k in range(codes.size):
        before[:] = cost
        for e in range(width):
            code = codes[k] + e - tolerance
            cost[e] = 1 << 60
            if code < 0 or code >= count:
                continue
            node, error = graph.node_of_code[code], (e - tolerance) ** 2
            if k == 0:
                cost[e] = price * changes[held, node] + error
                continue
            for f in range(width):
                last = codes[k - 1] + f - tolerance
                if last < 0 or last >= count:
                    continue
                here = before[f] + price * changes[graph.node_of_code[last], node] + error
                if here < cost[e]:
                    cost[e], choice[k, e] = here, f
    e = int(np.argmin(cost))
    for k in range(codes.size - 1, -1, -1):
        words[k] = graph.node_of_code[codes[k] + e - tolerance]
        e = choice[k, e]


def tour(codes: np.ndarray, graph: Graph) -> np.ndarray:
    """An order of a layer's outputs in which neighbours take few writes from one to the next.

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
        return np.concatenate([block[tour(codes[block], graph)] for block in blocks])
    if outputs <= 3:
        return np.arange(outputs)
    levels = _levels(codes, graph)
    distance = _distances(levels)
    neighbours = _nearest(distance)
    exact = _exact_costs(codes, neighbours, graph, _scratch(graph))
    near = np.take_along_axis(distance, neighbours, axis=1)
    distance *= exact.sum() / max(near.sum(), 1)
    rows = np.arange(outputs)[:, None]
    distance[rows, neighbours] = distance[neighbours, rows] = exact
    # within a tolerance the way back costs something else; integers, so that gains are exact
    distance = np.rint((distance + distance.T) / 2).astype(np.int32)
    order = _nearest_first(distance)
    _improve(order, distance, _nearest(distance))
    return order


def _levels(codes: np.ndarray, graph: Graph) -> np.ndarray:
    """Histograms [outputs, bins] of words, and of their high-order bits alone, side by side."""
    words = graph.node_of_code[codes]
    size = graph.code_of_node.size
    outputs = len(codes)
    whole = np.bincount(
        (np.arange(outputs)[:, None] * size + words).reshape(-1), minlength=outputs * size
    ).reshape(outputs, size)
    finest = graph.tolerance.bit_length() + (graph.tolerance > 0)
    levels = []
    for low in range(finest, size.bit_length() - 1):
        bins = np.arange(0, size, 1 << low)
        levels.append(np.add.reduceat(whole, bins, axis=1))
    return np.hstack(levels).astype(np.float32)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _distances(levels):  # type: ignore[no-untyped-def]
    """L1 between all pairs of rows, float32 [rows, rows]."""
    rows, bins = levels.shape
    distance = np.zeros((rows, rows), np.float32)
    for i in range(rows):
        for j in range(i):
            total = np.float32(0)
            for b in range(bins):
                total += abs(levels[i, b] - levels[j, b])
            distance[i, j] = distance[j, i] = total
    return distance


def _nearest(distance: np.ndarray) -> np.ndarray:
    """The nearest others of each row, nearest first: int64 [rows, neighbours]."""
    count = min(_TOUR_NEIGHBOURS, len(distance) - 1)
    others = distance.astype(np.float64)
    np.fill_diagonal(others, np.iinfo(np.int32).max)
    nearest = np.argpartition(others, count - 1, axis=1)[:, :count]
    order = np.argsort(np.take_along_axis(others, nearest, axis=1), axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1)


@numba.njit(cache=True, nogil=True)
def _exact_costs(codes, neighbours, graph, flow):  # type: ignore[no-untyped-def]
    """What it costs to overwrite each output by each of its neighbours."""
    words = graph.code_of_node.size
    costs = np.empty(neighbours.shape, np.float32)
    for i in range(neighbours.shape[0]):
        for k in range(neighbours.shape[1]):
            known = np.flatnonzero(neighbours[neighbours[i, k]] == i)
            if graph.tolerance == 0 and neighbours[i, k] < i and known.size:
                costs[i, k] = costs[neighbours[i, k], known[0]]
                continue
            excess = np.zeros(graph.target.shape[0], np.int32)
            for code in codes[i]:
                excess[graph.node_of_code[code]] += 1
            for code in codes[neighbours[i, k]]:
                excess[words + code if graph.tolerance > 0 else graph.node_of_code[code]] -= 1
            flow[:] = 0
            costs[i, k] = _transport(excess, graph, flow)
    return costs


@numba.njit(cache=True, nogil=True)
def _nearest_first(distance):  # type: ignore[no-untyped-def]
    """A path that always goes on to the nearest row left."""
    rows = len(distance)
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
def _reverse(order, place, i, j):  # type: ignore[no-untyped-def]
    """Turns the part of a closed tour from place i to place j round."""
    rows = order.size
    for _ in range(((j - i) % rows + 1) // 2):
        order[i], order[j] = order[j], order[i]
        place[order[i]], place[order[j]] = i, j
        i, j = (i + 1) % rows, (j - 1) % rows


@numba.njit(cache=True, nogil=True)
def _improve(order, distance, neighbours):  # type: ignore[no-untyped-def]
    """2-opt and or-opt moves to near neighbours, until none shortens the closed tour."""
    rows = order.size
    place = np.empty(rows, np.int64)
    for i in range(rows):
        place[order[i]] = i
    improved = True
    while improved:
        improved = False
        for a in range(rows):
            for k in range(neighbours.shape[1]):
                c = neighbours[a, k]
                # join a and c, and what follows them (or what goes before them)
                b, d = order[(place[a] + 1) % rows], order[(place[c] + 1) % rows]
                y, z = order[(place[a] - 1) % rows], order[(place[c] - 1) % rows]
                ahead = distance[a, b] + distance[c, d] - distance[a, c] - distance[b, d]
                behind = distance[a, y] + distance[c, z] - distance[a, c] - distance[y, z]
                if max(ahead, behind) > 0:
                    if ahead >= behind:
                        _reverse(order, place, place[b], place[c])
                    else:
                        _reverse(order, place, place[c], place[y])
                    improved = True
                    continue
                # move a, and up to two that follow it, next to c
                for length in range(1, 4):
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
    return order


class Traced(NamedTuple):
    """Weights led through all outputs of a layer, one line of them for every position.

    Attributes:
      graph: of the words.
      tour: int64 [outputs], their order.
      codes: int32 [outputs, positions], in the order of the tour, from the graph's lowest.
      inputs: int32 [outputs, positions], which input each weight belongs to.
      words: int32 [outputs, positions], the word nodes held.
    """

    graph: Graph
    tour: np.ndarray
    codes: np.ndarray
    inputs: np.ndarray
    words: np.ndarray


def trace(codes: np.ndarray, config: CrossbarConfig, policy: Policy) -> Traced:
    """Orders the outputs of a layer and matches each to the one before.

    Args:
      codes: signed integers [outputs, inputs].
      policy: tolerance, price and pool.
    """
    graph, seen = graph_of(codes, config, policy)
    seen = seen - graph.lowest
    order = tour(seen, graph)
    inputs, words = np.empty(seen.shape, np.int32), np.empty(seen.shape, np.int32)
    pool = config.rows if policy.pool == "section" else seen.shape[1]
    for start in range(0, seen.shape[1], pool):
        members = slice(start, start + pool)
        of_pool = np.ascontiguousarray(seen[:, members])
        taken, held = np.empty_like(of_pool), np.empty_like(of_pool)
        _trace(of_pool, order, graph, _scratch(graph), taken, held)
        inputs[:, members], words[:, members] = taken + start, held
    return Traced(graph, order, np.take_along_axis(seen[order], inputs, 1), inputs, words)


def graph_of(codes: np.ndarray, config: CrossbarConfig, policy: Policy) -> tuple[Graph, np.ndarray]:
    """The graph that codes are matched on, and the codes as it sees them, int32."""
    dropped = max(0, config.bits - MATCHED_BITS)
    dropped = -(-dropped // config.cell_bits) * config.cell_bits  # whole cells
    codes = codes.astype(np.int32)
    if dropped and config.encoding in ("twos_complement", "offset_binary"):
        codes = codes >> dropped
    elif dropped:
        codes = np.sign(codes) * (np.abs(codes) >> dropped)
    config = dataclasses.replace(config, bits=config.bits - dropped)
    price = 12 * policy.tolerance**2 if policy.price is None else policy.price
    return word_graph(config, policy.tolerance, max(1, price)), codes


@numba.njit(cache=True, nogil=True)
def _polish_rows(codes, held, graph, rows, words):  # type: ignore[no-untyped-def]
    """`_polish` for every row, through all its sections.

    Args:
      codes: int32 [outputs, positions], position section * rows + row.
      held: int32 [rows], word nodes before; returned: afterwards.
      words: int32 [outputs, positions], returned.
    """
    outputs, count = codes.shape
    for row in range(min(rows, count)):
        sections = (count - row - 1) // rows + 1
        steps, after = (
            np.empty(sections * outputs, np.int32),
            np.empty(sections * outputs, np.int32),
        )
        for s in range(sections):
            for k in range(outputs):
                steps[s * outputs + k] = codes[k, s * rows + row]
        _polish(steps, held[row], graph, after)
        for s in range(sections):
            for k in range(outputs):
                words[k, s * rows + row] = after[s * outputs + k]
        held[row] = after[-1]


def _scratch(graph: Graph) -> np.ndarray:
    return np.zeros(int(max(graph.out.max(), graph.back.max())) + 1, np.int32)


def settle(
    traced: Traced, held: np.ndarray, config: CrossbarConfig, policy: Policy
) -> tuple[Placement, np.ndarray, np.ndarray]:
    """Arranges traced weights in sections and rows, given what the crossbar holds before.

    Args:
      held: int32 [rows], word nodes.

    Returns:
      (placement, delta, held): delta int8 [weights], what is added to each code; the word nodes
      held afterwards.
    """
    graph, order, codes, inputs, words = traced
    outputs, count = codes.shape
    rows = config.rows
    slot, held = np.empty(count, np.int32), held.copy()
    before = held.copy()
    _arrange(
        codes[0], words[0], words[-1], held, rows, policy.pool == "section", graph,
        _scratch(graph), slot,
    )  # fmt: skip
    at = np.argsort(slot)
    codes, inputs, words = (x[:, at] for x in (codes, inputs, words))
    if graph.tolerance:
        words = np.ascontiguousarray(words)
        _polish_rows(np.ascontiguousarray(codes), before, graph, rows, words)
        held = before
    weights = np.full((outputs, -(-count // rows) * rows), outputs * count, np.int32)
    weights[:, :count] = order[:, None] * count + inputs
    delta = np.zeros(outputs * count, np.int8)
    if graph.tolerance:
        delta[weights[:, :count]] = graph.code_of_node[words] - codes
    sections = weights[_dealt(outputs, config)].reshape(outputs, -1, rows).swapaxes(0, 1)
    weights = np.ascontiguousarray(sections).reshape(-1, rows)
    used = np.full(weights.shape[0], rows, np.int32)
    used[-outputs:] = count - (weights.shape[0] // outputs - 1) * rows
    return Placement(weights, inverse_positions(weights, outputs * count), used), delta, held


def _dealt(outputs: int, config: CrossbarConfig) -> np.ndarray:
    """Places in the tour in the order of programming: neighbours follow on one crossbar."""
    crossbars = config.crossbars or 1
    if config.schedule == "block" or crossbars == 1:
        return np.arange(outputs)
    runs = [len(range(first, outputs, crossbars)) for first in range(crossbars)]
    starts = np.concatenate([[0], np.cumsum(runs)])
    step = np.arange(outputs)
    return starts[step % crossbars] + step // crossbars


def transport_bound(
    old: np.ndarray, new: np.ndarray, config: CrossbarConfig, tolerance: int = 0
) -> int:
    """The least writes with which the words of one output can be overwritten by those of another.

    Exact, by an assignment solver that knows nothing of graphs of words: for tests and small
    layers.

    Args:
      old, new: codes [inputs].
      tolerance: largest error of a new code.
    """
    held = encode(jnp.asarray(old), config)
    cost = np.full((old.size, new.size), config.columns)
    for error in range(-tolerance, tolerance + 1):
        near = np.clip(new.astype(np.int32) + error, config.min_code, config.max_code)
        words = encode(jnp.asarray(near), config)
        changes = hamming_distance(held[:, None], words[None], config)
        cost = np.minimum(cost, np.asarray(changes))
    return int(cost[scipy.optimize.linear_sum_assignment(cost)].sum())
