"""Rows with stuck cells: which codes they can hold, and which weights had best sit there.

Offline, on the host. A row is of a kind, by its stuck cells; kind 0 is whole. Where words share
rows, each word is of a kind.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numba
import numpy as np

from memsim.chip import Stuck
from memsim.codes import decode, encode
from memsim.config import CrossbarConfig
from memsim.schedule import layer_schedule

_FAR = 1 << 60


class RowKinds(NamedTuple):
    """The rows that a layer meets, and what they can hold. Codes count from the lowest.

    Attributes:
      of: int32 [outputs, positions], the kind of the row that each position (section * rows + row)
        is at, at each place of the tour; kinds that hold fewer codes first, after 0, a whole row.
      target: int32 [kinds, codes], the code to program so that a row of that kind holds this one;
        -1 where it cannot.
      least: int32 [kinds, codes], the least error of a code there.
      value: int32 [kinds, codes], the code that a row of that kind holds when programmed with this.
      carried: whether a row holds the output before; if weight stationary it is erased.
    """

    of: np.ndarray
    target: np.ndarray
    least: np.ndarray
    value: np.ndarray
    carried: bool


def row_kinds(
    stuck: Stuck | None, shape: tuple[int, ...], dealt: np.ndarray, config: CrossbarConfig
) -> RowKinds:
    """Finds what the rows of a layer can hold.

    Args:
      stuck: of the layer's crossbars; None for whole rows.
      shape: (outputs, inputs) of the weight matrix.
      dealt: int64 [outputs], places in the tour in the order of programming.
    """
    outputs, inputs = shape
    carried = config.crossbars is not None
    if stuck is None:
        own = np.arange(config.max_code - config.min_code + 1, dtype=np.int32)[None]
        return RowKinds(
            np.zeros((outputs, inputs), np.int32), own, np.zeros_like(own), own, carried
        )
    number_of_row, target, least, value = _kinds(stuck, config)
    sections = -(-inputs // config.rows)
    # the crossbar of every section, in the order of the tour
    schedule = layer_schedule(sections * outputs, config)
    crossbar = (schedule.slots % len(number_of_row)).reshape(sections, outputs)
    of_place = np.empty_like(crossbar)
    of_place[:, dealt] = crossbar
    of = number_of_row[of_place].swapaxes(0, 1).reshape(outputs, -1)[:, :inputs]
    return RowKinds(np.ascontiguousarray(of), target, least, value, carried)


def word_kinds(stuck: Stuck, config: CrossbarConfig) -> RowKinds:
    """Finds what the words of crossbars can hold; `of` is int32 [crossbars, rows, words of a row].

    Args:
      stuck: of the crossbars.
    """
    of, target, least, value = _kinds(stuck, config)
    of = of.reshape(-1, config.rows, config.words_per_row)
    return RowKinds(of, target, least, value, config.crossbars is not None)


def _kinds(stuck: Stuck, config: CrossbarConfig) -> tuple[np.ndarray, ...]:
    """Gives the kind of every word, int32 [crossbars, words], then as `_holdable` of each kind."""
    # words of one kind have the same stuck cells: both masks in one number
    both = np.asarray(stuck.at_0, np.int64) << 32 | np.asarray(stuck.at_1, np.int64)
    masks, kind = np.unique(np.append(both.reshape(-1), 0), return_inverse=True)
    target, least, value = _holdable(masks >> 32, masks & 0xFFFFFFFF, config)
    # the whole one holds most and sorts last: move it to the front
    rank = np.argsort(np.count_nonzero(target >= 0, axis=1), kind="stable")
    rank = np.concatenate([[0], rank[rank != 0]])
    number = np.argsort(rank).astype(np.int32)
    return number[kind[:-1]].reshape(both.shape), target[rank], least[rank], value[rank]


def _holdable(at_0: np.ndarray, at_1: np.ndarray, config: CrossbarConfig) -> tuple[np.ndarray, ...]:
    """Finds `RowKinds.target`, `least`, `value` of rows with these stuck cells, words [kinds]."""
    words, value_of_word = _values(config)
    codes = np.arange(words.size)
    held = (words & ~(at_0 | at_1)[:, None]) | at_1[:, None]
    value = value_of_word[held]
    target = np.full(value.shape, -1)
    np.put_along_axis(target, value, np.broadcast_to(codes, value.shape), axis=1)
    target = np.where(value == codes, codes, target)  # itself where it can
    can = target >= 0
    below = np.maximum.accumulate(np.where(can, codes, -codes.size), axis=1)
    above = np.minimum.accumulate(np.where(can, codes, 2 * codes.size)[:, ::-1], axis=1)[:, ::-1]
    least = np.minimum(codes - below, above - codes)
    return target.astype(np.int32), least.astype(np.int32), value.astype(np.int32)


@functools.cache
def _values(config: CrossbarConfig) -> tuple[np.ndarray, np.ndarray]:
    """Lists the word of every code, and the code that every word is read as; codes from the
    lowest.
    """
    codes = jnp.arange(config.min_code, config.max_code + 1)
    every = jnp.arange(sum(config.column_masks) + 1, dtype=config.word_dtype)
    values = np.asarray(decode(every, config)).astype(np.int64) - config.min_code
    return np.asarray(encode(codes, config)).astype(np.int64), values


@numba.njit(cache=True, nogil=True)
def take_faulty_rows(held, kinds, codes, rows, graph, item, word):  # type: ignore[no-untyped-def]
    """Gives every position on a faulty row an item, so that the errors it forces are least in all.

    Least is the sum of the squared errors past the tolerance, exactly; after that, each position
    takes what costs it least.

    Args:
      held: int32 [positions], the word node programmed before.
      kinds: int32 [positions], of the rows.
      codes: int32 [items], code of each, from the graph's lowest; at least as many as positions.
      rows: the `RowKinds`.
      item: int32 [positions], returned: the item each position takes; -1 on a whole row.
      word: int32 [positions], returned: the word node it is programmed with.
    """
    # items left of each code
    left = np.zeros(graph.node_of_code.size, np.int32)
    for code in codes:
        left[code] += 1
    present = np.flatnonzero(left)
    # rows that hold fewest codes choose first
    faulty = np.flatnonzero(kinds)
    faulty = faulty[np.argsort(kinds[faulty], kind="mergesort")]
    taken = np.full(held.size, -1, np.int32)  # codes
    for i in faulty:  # first what is there already
        code = graph.code_of_node[held[i]]
        if rows.target[kinds[i], code] == code and left[code] > 0:
            taken[i] = code
            left[code] -= 1
    for i in faulty:  # then what can be held within the tolerance
        if taken[i] >= 0:
            continue
        least = _FAR
        for code in present:
            if left[code] > 0 and rows.least[kinds[i], code] <= graph.tolerance:
                cost, _ = cheapest(code, kinds[i], held[i], rows, graph)
                if cost < least:
                    least, taken[i] = cost, code
        if taken[i] >= 0:
            left[taken[i]] -= 1
    # the rest shares out errors: augmenting paths keep the sum least
    dual = np.zeros(left.size, np.int64)
    for i in faulty:
        if taken[i] < 0:
            _augment(i, faulty, kinds, present, left, taken, dual, graph.tolerance, rows.least)
    # codes to items: linked lists, lowest item first
    of = np.full(left.size, -1, np.int32)
    following = np.empty(codes.size, np.int32)
    for j in range(codes.size - 1, -1, -1):
        following[j] = of[codes[j]]
        of[codes[j]] = j
    item[:] = -1
    for i in faulty:
        item[i] = of[taken[i]]
        of[taken[i]] = following[item[i]]
        _, word[i] = cheapest(taken[i], kinds[i], held[i], rows, graph)


@numba.njit(cache=True, nogil=True)
def cheapest(code, kind, held, rows, graph):  # type: ignore[no-untyped-def]
    """Finds (cost, word node) to hold a code on a row: price * cell changes + squared error.

    Errors go up to the tolerance; where the row cannot hold the code that well, they are the least.
    """
    reach, step = graph.tolerance, 1
    if rows.least[kind, code] > reach:
        reach, step = rows.least[kind, code], 2 * rows.least[kind, code]
    # codes within reach, or the two at the least error that the row allows
    least, word = _FAR, -1
    for error in range(-reach, reach + 1, step):
        near = code + error
        if 0 <= near < graph.node_of_code.size and rows.target[kind, near] >= 0:
            node = graph.node_of_code[rows.target[kind, near]]
            cost = graph.price * graph.changes[held, node] + error**2
            if cost < least:
                least, word = cost, node
    return least, word


@numba.njit(cache=True, nogil=True)
def price_faulty_words(held, kinds, rows, graph, weight):  # type: ignore[no-untyped-def]
    """Prices faulty words as `cheapest` does, errors past the tolerance so many times as high.

    Args:
      held: uint16 [words], the word node programmed before.
      kinds: int32 [words].
      rows: the `RowKinds`.
      weight: of such an error.

    Returns:
      (int32 [words, codes], int32 [words, codes]): the cost, and the word node to program.
    """
    cost = np.empty((held.size, graph.node_of_code.size), np.int32)
    word = np.empty_like(cost)
    for k in range(held.size):
        for code in range(graph.node_of_code.size):
            cost[k, code], word[k, code] = cheapest(code, kinds[k], held[k], rows, graph)
            cost[k, code] += (weight - 1) * _forced(rows.least[kinds[k], code], graph.tolerance)
    return cost, word


@numba.njit(cache=True, nogil=True)
def _augment(start, faulty, kinds, present, left, taken, dual, tolerance, least):  # type: ignore[no-untyped-def]
    """Gives one more position a code by a shortest augmenting path; others may change theirs.

    The Hungarian method, codes with as many places as there are items.

    Args:
      start: the position.
      faulty: int64, positions on faulty rows.
      present: int64, codes that items have.
      left: int32 [codes], items not taken; returned.
      taken: int32 [positions], code of each, -1 for none; returned.
      dual: int64 [codes], zeros at first; returned.
      least: `RowKinds.least`.
    """
    # Dijkstra over codes, from the position that needs one
    distance = np.full(left.size, _FAR, np.int64)
    through = np.full(left.size, -1, np.int64)
    done = np.zeros(left.size, np.bool_)
    for code in present:
        distance[code] = _forced(least[kinds[start], code], tolerance) - dual[code]
        through[code] = start
    while True:
        # the nearest code that is not done
        end = -1
        for code in present:
            if not done[code] and (end < 0 or distance[code] < distance[end]):
                end = code
        done[end] = True
        # one with an item to spare ends the path
        if left[end] > 0:
            break
        # else one of its positions may give it up for another code
        for i in faulty:
            if taken[i] != end:
                continue
            paid = distance[end] + dual[end] - _forced(least[kinds[i], end], tolerance)
            # duals keep reduced costs at 0 or above
            for code in present:
                cost = paid + _forced(least[kinds[i], code], tolerance) - dual[code]
                if not done[code] and cost < distance[code]:
                    distance[code], through[code] = cost, i
    for code in present:
        if done[code]:
            dual[code] += distance[code] - distance[end]
    left[end] -= 1
    # positions on the path each take the code of the next
    while True:
        i = through[end]
        end, taken[i] = taken[i], end
        if i == start:
            return


@numba.njit(cache=True, nogil=True)
def _forced(least, tolerance):  # type: ignore[no-untyped-def]
    return np.int64(least) ** 2 if least > tolerance else 0
