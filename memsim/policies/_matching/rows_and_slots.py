"""Rows for inputs and slots for outputs, so that few cells change.

Rows of given slots, and slots of given rows, are an assignment problem, exact; both together are a
quadratic one, by local search from many starts. Offline, on the host.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numba
import numpy as np

from memsim.codes import encode
from memsim.config import CrossbarConfig
from memsim.policies._matching.flow import Graph

# Starts of a search for slots, for each order that is tried, and rounds of rows after slots after
# rows; inputs by which it is judged how slots go together.
_STARTS, _ROUNDS, _SAMPLE = 2, 3, 256


class Prices(NamedTuple):
    """The price of overwriting a word so that a code is held there within the tolerance.

    Attributes:
      cost: int32 [words, codes], price * cell changes + squared error.
      word: int32 [words, codes], the word node that costs so little.
    """

    cost: np.ndarray
    word: np.ndarray


def prices_of(graph: Graph) -> Prices:
    """Works out the price of every word and code."""
    words, codes = graph.code_of_node.size, graph.node_of_code.size
    cost = np.full((words, codes), np.iinfo(np.int32).max, np.int32)
    word = np.zeros((words, codes), np.int32)
    # smaller errors first: ties take them
    for error in sorted(range(-graph.tolerance, graph.tolerance + 1), key=abs):
        code = np.arange(max(0, -error), min(codes, codes - error))
        node = graph.node_of_code[code + error]
        here = graph.price * graph.changes[:, node].astype(np.int32) + error**2
        better = here < cost[:, code]
        cost[:, code] = np.where(better, here, cost[:, code])
        word[:, code] = np.where(better, node, word[:, code])
    return Prices(cost, word)


class Fit(NamedTuple):
    """The best rows and slots that were found.

    Attributes:
      cost: of all words together.
      order: int64 [slots], the output in each slot.
      row: int64 [rows], the input in each row.
    """

    cost: float
    order: np.ndarray
    row: np.ndarray


class Search:
    """The search for rows and slots of one layer."""

    def __init__(self, graph: Graph, config: CrossbarConfig, tries: int) -> None:
        self.graph, self.prices = graph, prices_of(graph)
        self._bits = _bits(graph, config)
        self._tries = tries
        self._random = np.random.default_rng(0)  # the same plan every time

    def some_of(self, count: int, most: int) -> np.ndarray:
        """Draws places among so many, in their order; all of them if they are not more."""
        if count <= most:
            return np.arange(count)
        return np.sort(self._random.choice(count, most, replace=False))

    def fit(self, held: np.ndarray, codes: np.ndarray) -> Fit:
        """Fits inputs on rows and outputs in slots.

        Args:
          held: int32 [rows, slots], word nodes.
          codes: int32 [inputs, outputs], at least as many inputs as rows, as many outputs as slots.
        """
        best: Fit | None = None
        for order in self._orders(held, codes):
            # rows by slots, slots by rows, until neither changes
            for _ in range(_ROUNDS):
                row, cost = self._assign(held, codes[:, order])
                if best is None or cost < best.cost:
                    best = Fit(cost, order, row)
                changed, _ = self._assign(held.T, codes[row].T)
                if np.array_equal(changed, order):
                    break
                order = changed
        if best is None:
            raise AssertionError("there is an order at least.")
        return best

    def _assign(self, held: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, float]:
        """Gives each row of `held` a row of `codes` of its own, exactly at least cost."""
        from scipy.optimize import linear_sum_assignment

        # one layout of arrays takes one compilation
        held, codes = np.ascontiguousarray(held), np.ascontiguousarray(codes)
        costs = _costs(held, codes, self.prices.cost)
        row, column = linear_sum_assignment(costs)
        return column, float(costs[row, column].sum())

    def _orders(self, held: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
        """Finds orders of slots in which their bits go together as those of what is held do."""
        slots = held.shape[1]
        if slots == 1:
            return [np.zeros(1, np.int64)]
        sample = self.graph.node_of_code[codes[self.some_of(len(codes), _SAMPLE)]]
        pairs, alone = _agreement(self._bits[held], self._bits[sample])
        count = 4 + _STARTS * self._tries
        starts = np.asarray([self._random.permutation(slots) for _ in range(count)])
        starts[0] = np.arange(slots)
        gains = np.asarray([_climb(pairs, alone, start) for start in starts])
        return list(starts[np.argsort(-gains, kind="stable")[: self._tries]])


def _bits(graph: Graph, config: CrossbarConfig) -> np.ndarray:
    """Gives the bits of every word node as +1 and -1, float32 [words, bits]."""
    size = graph.code_of_node.size
    words = np.arange(size)
    if config.encoding == "differential":  # only those that stand for a code
        codes = jnp.arange(graph.lowest, graph.lowest + graph.node_of_code.size)
        words = np.zeros(size, np.int64)
        words[graph.node_of_code] = np.asarray(encode(codes, config))
    bits = words[:, None] >> np.arange(int(words.max()).bit_length()) & 1
    signs: np.ndarray = (2 * bits - 1).astype(np.float32)
    return signs


def _agreement(held: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measures how well slots would go together.

    Args:
      held, new: +1 and -1, [rows, slots, bits] each, of as many slots.

    Returns:
      (pairs [slots, slots, outputs, outputs], alone [slots, outputs]): what it adds that two slots
      take two outputs, and that one takes one.
    """

    def products(bits: np.ndarray) -> np.ndarray:  # mean over rows, of each two slots and bits
        rows, slots, count = bits.shape
        flat = bits.reshape(rows, -1)
        each = (flat.T @ flat / np.float32(rows)).reshape(slots, count, slots, count)
        gram: np.ndarray = each.transpose(0, 2, 1, 3).reshape(slots * slots, -1)
        return gram

    slots = held.shape[1]
    pairs = (products(held) @ products(new).T).reshape(slots, slots, slots, slots)
    return pairs, held.mean(axis=0) @ new.mean(axis=0).T


@numba.njit(cache=True, nogil=True)
def _climb(pairs, alone, order):  # type: ignore[no-untyped-def]
    """Exchanges outputs of two slots as long as they then agree better.

    Args:
      pairs, alone: from `_agreement`.
      order: int64 [slots], the output of each slot; returned.

    Returns:
      What is reached.
    """
    slots = order.size
    least = 1e-3 * slots  # sums of 32 bits are not exact: less might go back and forth
    improved = True
    while improved:
        improved = False
        for a in range(slots):
            for b in range(a + 1, slots):
                x, y = order[a], order[b]
                gain = alone[a, y] + alone[b, x] - alone[a, x] - alone[b, y]
                gain += 2 * (pairs[a, b, y, x] - pairs[a, b, x, y])
                for c in range(slots):
                    if c != a and c != b:
                        z = order[c]
                        gain += 2 * (pairs[a, c, y, z] + pairs[b, c, x, z])
                        gain -= 2 * (pairs[a, c, x, z] + pairs[b, c, y, z])
                if gain > least:
                    order[a], order[b] = y, x
                    improved = True
    total = 0.0
    for a in range(slots):
        total += alone[a, order[a]]
        for b in range(slots):
            if b != a:
                total += pairs[a, b, order[a], order[b]]
    return total


@numba.njit(cache=True, nogil=True)
def _costs(held, codes, price):  # type: ignore[no-untyped-def]
    """Computes what every row of codes costs on every row held, int32 [rows, rows of codes].

    Args:
      held: int32 [rows, words], word nodes.
      codes: int32 [rows of codes, words].
      price: int32 [words, codes].
    """
    costs = np.zeros((held.shape[0], codes.shape[0]), np.int32)
    for row in range(held.shape[0]):
        for word in range(held.shape[1]):
            of_word = price[held[row, word]]
            for i in range(codes.shape[0]):
                costs[row, i] += of_word[codes[i, word]]
    return costs
