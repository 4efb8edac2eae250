"""The transport problem on words: which cells to change so that one multiset becomes another.

Words are the nodes of a graph, those that differ in one cell are joined, and what one output holds
flows to what the next one needs: a minimum cost flow, exact. On the host, in compiled loops.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numba
import numpy as np

from memsim.codes import encode
from memsim.config import CrossbarConfig
from memsim.policies._matching.word_flow import transport_words


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
      masks: int64 [changes], the XOR of every change of a cell, where each leads from a word to a
        word, by entries; empty where one does not.
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
    masks: np.ndarray


@functools.cache
def word_graph(config: CrossbarConfig, tolerance: int = 0, price: int = 1) -> Graph:
    """Builds the graph of a config's words.

    Args:
      tolerance: largest error of a code, in codes.
      price: what a cell change costs, in squared code errors.
    """
    # nodes: every word, or those that stand for a code if differential
    codes = np.arange(config.min_code, config.max_code + 1)
    code_words = np.asarray(encode(jnp.asarray(codes), config)).astype(np.int64)
    words = np.sort(code_words) if config.encoding == "differential" else np.arange(2**config.bits)
    node_of_code = np.searchsorted(words, code_words).astype(np.int32)
    code_of_node = np.full(words.size, -1, np.int32)
    code_of_node[node_of_code] = np.arange(codes.size)
    # arcs: every change of one cell to another level, an XOR of its bits
    changes = [
        level << ((mask & -mask).bit_length() - 1)
        for mask in config.column_masks
        for level in range(1, 2 ** mask.bit_count())
    ]
    reached = words[:, None] ^ np.asarray(changes)
    # a change that leads to no node is no arc
    place = np.minimum(np.searchsorted(words, reached), words.size - 1)
    known = words[place] == reached
    arcs, size = len(changes), words.size
    # an arc is numbered by the word it leaves and the change it makes
    number = np.arange(size)[:, None] * arcs + np.arange(arcs)
    target = np.where(known, place, -1)
    out = np.where(known, number, -1)
    back = np.where(known, place * arcs + np.arange(arcs), -1)  # a change undoes itself
    cost = np.full((size, arcs), price)
    arrays: tuple[np.ndarray, ...] = (target, out, back, cost)
    if tolerance:
        arrays = _tolerate(arrays, node_of_code, code_of_node, tolerance)
    # cells that differ, each counted once however many of its bits do
    differ = words[:, None] ^ words
    changed = sum(((differ & mask) != 0).astype(np.uint8) for mask in config.column_masks)
    target, out, back, cost = (np.ascontiguousarray(x, np.int32) for x in arrays)
    longest = price * config.cells_per_word + tolerance**2
    # without gaps among the words, and codes beside them, sets of words step as one
    plain = not tolerance and words.size == 2**config.bits
    masks = np.asarray(changes if plain else [], np.int64)
    return Graph(
        target, out, back, cost, changed, node_of_code, code_of_node, config.min_code, tolerance,
        price, longest, masks,
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
    # one entry for every error within the tolerance
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
    # two rows of blocks: arcs out of words, then those into codes, seen from the codes
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


def scratch(graph: Graph) -> np.ndarray:
    """Makes room for the flow on every arc: int32 [arcs]."""
    return np.zeros(int(max(graph.out.max(), graph.back.max())) + 1, np.int32)


@numba.njit(cache=True, nogil=True)
def transport(excess, graph, flow):  # type: ignore[no-untyped-def]
    """Sends what nodes have too much to nodes that lack it at the least cost. Primal-dual.

    Args:
      excess: int32 [nodes], positive for too much; what is left is returned in it.
      flow: int32 [arcs], zeros; the flow is returned in it.

    Returns:
      The cost.
    """
    if graph.masks.size:
        return graph.price * transport_words(excess, graph.masks, flow)
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
    # each round: distances by Dijkstra, then all flow that they allow
    while True:
        # reduced distances from every excess to the nearest lack
        first[:] = -1
        distance[:] = graph.longest + 1
        queued, nearest, supply = 0, graph.longest + 1, False
        # all nodes with too much start at distance 0
        for v in range(nodes):
            if excess[v] > 0:
                supply = True
                distance[v] = 0
                member[queued], after[queued], first[0] = v, first[0], queued
                queued += 1
        if not supply:
            return total
        # buckets in order of distance; reduced costs are small integers, never negative
        d = 0
        while d < nearest and d <= graph.longest:
            while first[d] >= 0:
                v = member[first[d]]
                first[d] = after[first[d]]
                # a node may wait in several buckets: only its last distance counts
                if distance[v] != d:
                    continue
                # no node further off is needed in this round
                if excess[v] < 0:
                    nearest = d
                    break
                for e in range(entries):
                    w = target[v, e]
                    if w < 0:
                        continue
                    # taking flow back earns its cost; else a new unit goes along the arc
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
        # potentials keep all reduced costs at 0 or above
        for v in range(nodes):
            potential[v] += min(distance[v], nearest)
        # augment along arcs of reduced cost 0
        entry[:] = 0
        seen[:] = False
        for source in range(nodes):
            while excess[source] > 0:
                # depth first, and no entry is tried twice in a round
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
                            # a step forward along an arc of reduced cost 0
                            if c + potential[v] == potential[w]:
                                depth += 1
                                path[depth] = w
                                seen[w] = True
                                forward = True
                                break
                        entry[v] += 1
                    # a dead end: back by one, past the arc that led here
                    if not forward:
                        depth -= 1
                        if depth >= 0:
                            entry[path[depth]] += 1
                if depth < 0:
                    break
                # as much as both ends and every flow taken back allow
                amount = min(excess[source], -excess[path[depth]])
                # first the bound, then the change, arc by arc
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
                # nodes of this path may serve the next one
                for k in range(depth + 1):
                    seen[path[k]] = False


@numba.njit(cache=True, nogil=True)
def assign(held, codes, graph, flow, item, word):  # type: ignore[no-untyped-def]
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
        # with a tolerance codes are nodes of their own, and lack what they need
        excess[words + codes[i] if tolerant else graph.node_of_code[codes[i]]] -= 1
    transport(excess, graph, flow)
    # positions follow the flow: from word to word first, whenever there are some to move
    moving = True
    while moving:
        moving = False
        # positions pass on along words, one arc at a time
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
    # then each takes an item of the code that its word serves
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
        # without a tolerance a word serves its own code alone
        if not tolerant:
            c = graph.code_of_node[v]
            while at[v] >= 0:
                i = at[v]
                at[v] = following[i]
                item[i], word[i] = of[c], v
                of[c] = next_item[of[c]]
