"""Rows for inputs and slots for outputs, so that few cells change.

Rows of given slots, and slots of given rows, are an assignment problem, exact; both together are a
quadratic one, by local search from many starts. Offline, on the host, in compiled loops.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numba
import numpy as np

from memsim.codes import encode
from memsim.config import CrossbarConfig
from memsim.policies._matching.assignment import FAR, assign_rows, assign_signed
from memsim.policies._matching.exchange import (
    add_costs,
    costs_in_slots,
    exchange_slots,
    total_cost,
)
from memsim.policies._matching.faulty_rows import RowKinds, price_faulty_words
from memsim.policies._matching.flow import Graph

# Starts of a search for slots, for each order that is tried, and rounds of rows after slots after
# rows; inputs by which it is judged how slots go together.
_STARTS, _ROUNDS, _SAMPLE = 2, 3, 256

Run = Callable[[Callable[..., "Fit"], Iterable["Fit"]], Iterable["Fit"]]


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


class Words(NamedTuple):
    """The words that some rows and slots of a crossbar hold.

    Attributes:
      nodes: uint16 [rows, slots].
      entries: int32 [rows, slots], of each its entry in the prices; a faulty word has its own.
      prices: of these words.
    """

    nodes: np.ndarray
    entries: np.ndarray
    prices: Prices

    def programmed(self, codes: np.ndarray) -> np.ndarray:
        """Gives the word nodes to program, int32 [rows, slots], for codes like them."""
        nodes: np.ndarray = self.prices.word[self.entries, codes]
        return nodes


class Fit(NamedTuple):
    """The best rows and slots that were found.

    Attributes:
      cost: of all words.
      order: int32 [slots], the output in each slot.
      row: int32 [rows], the input in each row; of signed ones the negatives come after all.
    """

    cost: int
    order: np.ndarray
    row: np.ndarray


class Search:
    """The search for rows and slots of one layer; the same every time, on any thread."""

    def __init__(
        self, graph: Graph, config: CrossbarConfig, tries: int, faults: RowKinds | None
    ) -> None:
        slots, starts = config.words_per_row, 4 + _STARTS * tries
        cost, word = prices_of(graph)
        # what a row costs decides how narrow numbers may be: narrow ones make fast loops
        narrow = np.int16 if slots * cost.max() <= np.iinfo(np.int16).max else np.int32
        self._prices = Prices(cost.astype(narrow), word)
        self._graph, self._faults = graph, faults
        # errors that stuck cells force cost as much as a sum of costs can hold
        self._weight = (FAR // 2) // (slots * graph.node_of_code.size**2)
        self._node_of_code = graph.node_of_code.astype(np.uint16)
        self._bits = _bits(graph, config)
        self._tries = tries
        rng = np.random.default_rng(0)
        self._starts = np.asarray([rng.permutation(slots) for _ in range(starts)], np.int32)
        self._starts[0] = np.arange(slots)

    def words(self, nodes: np.ndarray, crossbar: int) -> Words:
        """Prices words.

        Args:
          nodes: uint16 [rows, slots], those of the first rows and slots of a crossbar.
          crossbar: its number.
        """
        entries = nodes.astype(np.int32)
        if self._faults is None:
            return Words(nodes, entries, self._prices)
        kinds = self._faults.of[crossbar, : nodes.shape[0], : nodes.shape[1]]
        faulty = kinds > 0
        entries[faulty] = len(self._prices.cost) + np.arange(np.count_nonzero(faulty))
        priced = price_faulty_words(
            nodes[faulty], kinds[faulty], self._faults, self._graph, self._weight
        )
        prices = Prices(*map(np.concatenate, zip(self._prices, priced, strict=True)))
        return Words(nodes, entries, prices)

    def fit(self, words: Words, codes: np.ndarray, signs: int, climbs: int, run: Run = map) -> Fit:
        """Fits inputs on rows and outputs in slots.

        Args:
          words: of the rows and slots.
          codes: uint16 [outputs, signs * inputs]: as many outputs as slots, no fewer inputs than
            rows; where there are two signs, the negatives of all after them.
          signs: 1, or 2 for rows that may be negated.
          climbs: of the orders that are tried, those from which slots are exchanged.
          run: what calls a function for each; the `map` of a pool does it side by side.
        """
        nodes, held = (np.ascontiguousarray(x.T) for x in (words.nodes, words.entries))
        price = words.prices.cost
        orders = _orders(nodes, codes, self._node_of_code, self._bits, self._starts, self._tries)
        fits = [Fit(*_alternate(held, codes, signs, order, price)) for order in orders]
        fits.sort(key=lambda fit: fit.cost)
        if climbs and len(held) > 1:
            listed = costs_in_slots(held, codes, price)

            def climb(fit: Fit) -> Fit:
                return Fit(*exchange_slots(held, codes, signs, fit.order, price, listed))

            fits = list(run(climb, fits[:climbs]))
        return min(fits, key=lambda fit: fit.cost)

    def fit_slots(self, words: Words, codes: np.ndarray) -> Fit:
        """Fits outputs in slots where inputs have rows of their own.

        Args:
          words: of the rows and slots.
          codes: uint16 [outputs, rows], no fewer outputs than slots.
        """
        held = np.ascontiguousarray(words.entries.T)
        costs = _slot_costs(held, codes, words.prices.cost)
        order = np.empty(len(held), np.int32)
        assign_rows(costs, order)
        return Fit(total_cost(costs, order), order, np.arange(held.shape[1], dtype=np.int32))


def _bits(graph: Graph, config: CrossbarConfig) -> tuple[np.ndarray, int]:
    """Gives the bits of every word node, uint32 [words], and how many they are."""
    words = np.arange(graph.code_of_node.size, dtype=np.uint32)
    if config.encoding == "differential":  # only those that stand for a code
        codes = jnp.arange(graph.lowest, graph.lowest + graph.node_of_code.size)
        words[graph.node_of_code] = np.asarray(encode(codes, config))
    return words, int(words.max()).bit_length()


@numba.njit(cache=True, nogil=True)
def _alternate(held, codes, signs, first, price):  # type: ignore[no-untyped-def]
    """Goes from slots to rows to slots to rows, from one order of slots; see `Fit`.

    Args:
      held: int32 [slots, rows], entries of `price`.
      codes, signs: see `Search.fit`.
      first: int32 [slots], outputs in each slot.
      price: integers [entries, codes].
    """
    slots, rows = held.shape
    best, best_order, best_row = np.int64(-1), first.copy(), np.empty(rows, np.int32)
    row, order, change = np.empty(rows, np.int32), np.full(slots, -1, np.int32), first.copy()
    costs = np.zeros((rows, codes.shape[1]), np.int32)
    for _ in range(_ROUNDS):
        # costs of rows follow the slots that changed
        for slot in range(slots):
            if change[slot] == order[slot]:
                continue
            if order[slot] >= 0:
                add_costs(held[slot], codes[order[slot]], price, -1, costs)
            add_costs(held[slot], codes[change[slot]], price, 1, costs)
        order[:] = change
        assign_signed(costs, signs, row)
        total = total_cost(costs, row)
        if best < 0 or total < best:
            best, best_order[:], best_row[:] = total, order, row
        if slots == 1:
            break
        # then slots by rows
        assign_rows(_slot_costs(held, codes[:, row], price), change)
        if np.all(change == order):
            break
    return best, best_order, best_row


@numba.njit(cache=True, nogil=True)
def _slot_costs(held, codes, price):  # type: ignore[no-untyped-def]
    """Computes what every output costs in every slot, int32 [slots, outputs].

    Args:
      held: int32 [slots, rows], entries of `price`.
      codes: uint16 [outputs, rows].
      price: see `_alternate`.
    """
    costs = np.zeros((len(held), len(codes)), np.int32)
    for slot in range(len(held)):
        for output in range(len(codes)):
            total = 0
            for row in range(held.shape[1]):
                total += price[held[slot, row], codes[output, row]]
            costs[slot, output] = min(total, FAR - 1)  # many forced errors may sum to more
    return costs


@numba.njit(cache=True, nogil=True)
def _orders(held, codes, node_of_code, bits, starts, tries):  # type: ignore[no-untyped-def]
    """Finds orders of slots in which their bits go well with those of what is held.

    Args:
      held: uint16 [slots, rows], word nodes.
      codes: see `_alternate`.
      node_of_code: uint16 [codes].
      bits: see `_products`.
      starts: int32 [starts, slots], orders to climb from; of fewer slots they leave out the others.
      tries: orders to give.

    Returns:
      int32 [tries, slots], the best first.
    """
    slots, inputs = held.shape[0], codes.shape[1]
    if slots == 1:
        return np.zeros((1, 1), np.int32)
    of_held, mean = _products(held, 1, bits)
    of_new, new_mean = _products(node_of_code[codes], max(1, inputs // _SAMPLE), bits)
    pairs = _agreement(of_held, of_new, slots)
    alone = np.zeros((slots, slots), np.float32)
    for k in range(bits[1]):
        for slot in range(slots):
            alone[slot] += mean[slot, k] * new_mean[:, k]
    climbed = np.empty((len(starts), slots), np.int32)
    gains = np.empty(len(starts), np.float32)
    for k in range(len(starts)):
        climbed[k] = starts[k][starts[k] < slots]
        gains[k] = -_climb(pairs, alone, climbed[k])
    return climbed[np.argsort(gains, kind="mergesort")[:tries]]


@numba.njit(cache=True, nogil=True)
def _products(words, step, bits):  # type: ignore[no-untyped-def]
    """Averages the product of each two bits, +1 or -1, over rows, and each bit.

    Args:
      words: uint16 [slots, rows], nodes; every so many of them are looked at.
      bits: uint32 [words], the bits of each node, and uint32, how many there are.

    Returns:
      (float32 [slots * bits, slots * bits], float32 [slots, bits]).
    """
    slots, rows = words.shape[0], -(-words.shape[1] // step)
    of_node, count = bits
    size = slots * count
    # each bit of all rows side by side
    packed = np.zeros((size, -(-rows // 64)), np.uint64)
    for slot in range(slots):
        for row in range(rows):
            word = of_node[words[slot, row * step]]
            for k in range(count):
                bit = np.uint64(word >> k & 1) << np.uint64(row % 64)
                packed[slot * count + k, row // 64] |= bit
    products, mean = np.empty((size, size), np.float32), np.empty(size, np.float32)
    share = np.float32(2 / rows)
    none = np.zeros_like(packed[0])
    for i in range(size):
        mean[i] = share * _unlike(packed[i], none) - 1
        for j in range(i, size):
            products[i, j] = products[j, i] = 1 - share * _unlike(packed[i], packed[j])
    return products, mean.reshape(slots, count)


@numba.njit(cache=True, nogil=True)
def _unlike(one, other):  # type: ignore[no-untyped-def]
    """Counts the bits that differ, words of 64; the compiler makes one instruction a word of it."""
    total = np.int64(0)
    for k in range(one.size):
        word = one[k] ^ other[k]
        word -= word >> np.uint64(1) & np.uint64(0x5555555555555555)
        low = word & np.uint64(0x3333333333333333)
        word = low + (word >> np.uint64(2) & np.uint64(0x3333333333333333))
        word = word + (word >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
        total += np.int64(word * np.uint64(0x0101010101010101) >> np.uint64(56))
    return total


@numba.njit(cache=True, nogil=True, fastmath=True)
def _agreement(held, new, slots):  # type: ignore[no-untyped-def]
    """Measures what it adds that two slots take two outputs.

    Args:
      held, new: float32 [slots * bits, slots * bits], see `_products`.
      slots: as many as outputs.

    Returns:
      float32 [slots, slots, outputs, outputs].
    """
    count = len(held) // slots
    # one vector of all pairs of outputs for each two bits
    vectors = np.empty((count, count, slots * slots), np.float32)
    for i in range(count):
        for j in range(count):
            for x in range(slots):
                for y in range(slots):
                    vectors[i, j, x * slots + y] = new[x * count + i, y * count + j]
    pairs = np.zeros((slots, slots, slots, slots), np.float32)
    of_pair = np.empty(slots * slots, np.float32)
    for a in range(slots):
        for b in range(a + 1, slots):
            of_pair[:] = 0
            for i in range(count):
                for j in range(count):
                    share, vector = held[a * count + i, b * count + j], vectors[i, j]
                    for k in range(of_pair.size):
                        of_pair[k] += share * vector[k]
            pairs[a, b] = of_pair.reshape(slots, slots)
            pairs[b, a] = pairs[a, b].T
    return pairs


@numba.njit(cache=True, nogil=True)
def _climb(pairs, alone, order):  # type: ignore[no-untyped-def]
    """Exchanges outputs of two slots as long as they then agree better.

    Args:
      pairs: from `_agreement`.
      alone: float32 [slots, outputs], what it adds that a slot takes an output.
      order: int32 [slots], the output of each slot; returned.

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
