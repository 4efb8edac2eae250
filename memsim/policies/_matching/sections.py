"""Matching on wide or many crossbars: each section follows well on what its crossbar holds.

Crossbar after crossbar and step after step, the outputs that resemble most what is held are chosen,
with the slots they go to and the inputs of every row. Rows are an assignment problem, exact; slots
a quadratic one, by local search. Offline, on the host.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numba
import numpy as np

from memsim.codes import encode
from memsim.config import CrossbarConfig
from memsim.placement import Placement, inverse_positions
from memsim.policies._matching.flow import Graph
from memsim.policies._matching.lines import Rules, graph_of, polish
from memsim.schedule import layer_schedule

# Inputs among which those of a section are chosen, at most: more take long and save little.
_MOST_INPUTS = 1024
# Units of which it is worked out what they cost, those first that promise most.
_CANDIDATES = 3
# Slot orders that are tried for a section of a small layer, and of a large one.
_TRIES, _TRIES_OF_LARGE, _LARGE = 6, 1, 2**20
# Starts of the search for one of them, and rounds of rows after slots after rows.
_STARTS, _ROUNDS = 8, 3


class Prices(NamedTuple):
    """What it costs to overwrite a word so that a code is held there within the tolerance.

    Attributes:
      cost: int32 [words, codes], price * cell changes + squared error.
      word: int32 [words, codes], the word node that costs so little.
    """

    cost: np.ndarray
    word: np.ndarray


class Unit(NamedTuple):
    """Outputs that share sections, and the inputs that these have still to hold.

    Attributes:
      outputs: int64 [slots].
      inputs: int64.
    """

    outputs: np.ndarray
    inputs: np.ndarray


class Section(NamedTuple):
    """A section: of each slot the output, of each row the input, of each word the node programmed.

    Attributes:
      outputs: int64 [slots].
      inputs: int64 [rows].
      words: int32 [rows, slots].
    """

    outputs: np.ndarray
    inputs: np.ndarray
    words: np.ndarray


def fill_sections(
    codes: np.ndarray, held: np.ndarray, config: CrossbarConfig, rules: Rules
) -> tuple[Placement, np.ndarray, np.ndarray, np.ndarray]:
    """Fills the sections of a layer, one after another, each by what its crossbar holds then.

    Args:
      codes: signed integers [outputs, inputs].
      held: int32 [crossbars, rows, words of a row], word nodes before the layer.
      config, rules: of the crossbars and of the policy.

    Returns:
      (placement, delta, error, held): delta int8 [weights], what is added to each code; the mean
      error of what is then held, float64 [outputs]; the word nodes held afterwards.
    """
    graph, seen = graph_of(codes, config, rules)
    seen = np.ascontiguousarray(seen - graph.lowest)
    outputs, inputs = seen.shape
    units = _units(seen, graph, config, rules)
    count = -(-inputs // config.rows) * -(-outputs // config.words_per_row)
    # the sections of each crossbar, in the order of its steps
    step, crossbar = np.divmod(layer_schedule(count, config).slots, len(held))
    sections: list[Section | None] = [None] * count
    held, before = held.copy(), held
    search = _Search(seen, graph, config)
    for number in np.lexsort((step, crossbar)):
        chosen, section = search.next_section(units, held[crossbar[number]])
        sections[number] = section
        left = np.setdiff1d(units[chosen].inputs, section.inputs, assume_unique=True)
        units[chosen] = units[chosen]._replace(inputs=left)
        if not left.size:
            del units[chosen]
        rows, slots = section.words.shape
        held[crossbar[number], :rows, :slots] = section.words
    filled = [section for section in sections if section is not None]
    if graph.tolerance:  # each word once more, knowing all that follow on it
        held = before.copy()
        for one in range(len(held)):
            here = np.flatnonzero(crossbar == one)
            _polish_crossbar([filled[i] for i in here[np.argsort(step[here])]], held[one], search)
    return *_placed(filled, seen, graph, config), held


def _units(seen: np.ndarray, graph: Graph, config: CrossbarConfig, rules: Rules) -> list[Unit]:
    """Groups outputs so that those of one slot, in group after group, are of like magnitude."""
    outputs, inputs = seen.shape
    words = config.words_per_row
    groups, full = -(-outputs // words), outputs // words
    order = np.argsort(np.abs(seen + graph.lowest).mean(axis=1), kind="stable")
    # slots of the short group have one output more
    sizes = np.where(np.arange(words) < outputs - full * words, groups, full)
    runs = np.split(order, np.cumsum(sizes)[:-1])
    together = [np.asarray([run[k] for run in runs if k < run.size]) for k in range(groups)]
    pools = [np.arange(inputs)]
    if rules.by_section:
        pools = np.split(pools[0], np.arange(config.rows, inputs, config.rows))
    return [Unit(of_group, pool) for of_group in together for pool in pools]


def _prices(graph: Graph) -> Prices:
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


class _Search:
    """The search for the sections of one layer."""

    def __init__(self, seen: np.ndarray, graph: Graph, config: CrossbarConfig) -> None:
        self.graph, self.seen = graph, seen
        self.prices = _prices(graph)
        self._rows = config.rows
        self._bits = _bits(graph, config)
        self._random = np.random.default_rng(0)  # the same plan every time
        self._tries = _TRIES if seen.size < _LARGE else _TRIES_OF_LARGE

    def next_section(self, units: list[Unit], held: np.ndarray) -> tuple[int, Section]:
        """Chooses the section that follows best on what a crossbar holds.

        Args:
          units: with inputs left.
          held: int32 [rows, words of a row], word nodes.

        Returns:
          (place of its unit, section).
        """
        best: tuple[float, int, Section] | None = None
        for number in self._most_promising(units, held):
            cost, section = self._fill(units[number], held)
            per_word = cost / section.words.size
            if best is None or per_word < best[0]:
                best = per_word, number, section
        if best is None:
            raise AssertionError("there are units left.")
        return best[1:]

    def _most_promising(self, units: list[Unit], held: np.ndarray) -> np.ndarray:
        """Ranks the units by the words held that they lack, at several resolutions."""
        if len(units) <= _CANDIDATES:
            return np.arange(len(units))
        size = self.graph.code_of_node.size
        lacking = np.empty(len(units))
        for number, unit in enumerate(units):
            rows, slots = min(len(held), unit.inputs.size), unit.outputs.size
            nodes = self.graph.node_of_code[self.seen[np.ix_(unit.outputs, unit.inputs)]]
            lacking[number] = _lacking(held[:rows, :slots].T.copy(), nodes, size) / (rows * slots)
        return np.argsort(lacking, kind="stable")[:_CANDIDATES]

    def _fill(self, unit: Unit, held: np.ndarray) -> tuple[float, Section]:
        """Finds the rows and slots of a unit's next section, and what it costs."""
        rows, slots = min(self._rows, unit.inputs.size), unit.outputs.size
        inputs = unit.inputs
        if inputs.size > max(_MOST_INPUTS, rows):
            inputs = np.sort(self._random.choice(inputs, max(_MOST_INPUTS, rows), replace=False))
        held = np.ascontiguousarray(held[:rows, :slots])
        codes = np.ascontiguousarray(self.seen[np.ix_(unit.outputs, inputs)].T)
        best: tuple[float, np.ndarray, np.ndarray] | None = None
        for order in self._slot_orders(held, codes):
            # rows by slots, slots by rows, until neither changes
            for _ in range(_ROUNDS):
                row, cost = _assign(_row_costs(held, codes[:, order], self.prices.cost))
                if best is None or cost < best[0]:
                    best = cost, order, row
                of_slots = _slot_costs(held, codes[row], self.prices.cost)
                changed, _ = _assign(of_slots)
                if np.array_equal(changed, order):
                    break
                order = changed
        if best is None:
            raise AssertionError("there is an order at least.")
        cost, order, row = best
        words = self.prices.word[held, codes[row][:, order]]
        return cost, Section(unit.outputs[order], inputs[row], words)

    def _slot_orders(self, held: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
        """Finds orders of slots in which their bits go together as those of what is held do."""
        slots = held.shape[1]
        if slots == 1:
            return [np.zeros(1, np.int64)]
        nodes = self.graph.node_of_code[codes]
        pairs, alone = _agreement(self._bits[held], self._bits[nodes])
        starts = np.asarray([self._random.permutation(slots) for _ in range(_STARTS)])
        starts[0] = np.arange(slots)
        gains = np.asarray([_climb(pairs, alone, start) for start in starts])
        return list(starts[np.argsort(-gains, kind="stable")[: self._tries]])


def _assign(costs: np.ndarray) -> tuple[np.ndarray, float]:
    """Gives each row a column of its own, exactly at least cost: (columns, cost)."""
    from scipy.optimize import linear_sum_assignment

    row, column = linear_sum_assignment(costs)
    return column, float(costs[row, column].sum())


def _bits(graph: Graph, config: CrossbarConfig) -> np.ndarray:
    """Gives the bits of every word node as +1 and -1, float32 [words, bits]."""
    size = graph.code_of_node.size
    words = np.arange(size)
    if config.encoding == "differential":  # only those that stand for a code
        codes = jnp.arange(graph.lowest, graph.lowest + graph.node_of_code.size)
        words = np.zeros(size, np.int64)
        words[graph.node_of_code] = np.asarray(encode(codes, config))
    bits = words[:, None] >> np.arange(int(words.max()).bit_length()) & 1
    return (2 * bits - 1).astype(np.float32)


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
        return each.transpose(0, 2, 1, 3).reshape(slots * slots, -1)

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
def _row_costs(held, codes, price):  # type: ignore[no-untyped-def]
    """Computes what every input costs on every row, int32 [rows, inputs].

    Args:
      held: int32 [rows, slots], word nodes.
      codes: int32 [inputs, slots].
      price: int32 [words, codes].
    """
    costs = np.zeros((held.shape[0], codes.shape[0]), np.int32)
    for row in range(held.shape[0]):
        for slot in range(held.shape[1]):
            of_word = price[held[row, slot]]
            for i in range(codes.shape[0]):
                costs[row, i] += of_word[codes[i, slot]]
    return costs


@numba.njit(cache=True, nogil=True)
def _slot_costs(held, codes, price):  # type: ignore[no-untyped-def]
    """Computes what every output costs in every slot, int32 [slots, outputs].

    Args:
      held: int32 [rows, slots], word nodes.
      codes: int32 [rows, outputs].
      price: int32 [words, codes].
    """
    costs = np.zeros((held.shape[1], codes.shape[1]), np.int32)
    for row in range(held.shape[0]):
        for slot in range(held.shape[1]):
            of_word = price[held[row, slot]]
            for output in range(codes.shape[1]):
                costs[slot, output] += of_word[codes[row, output]]
    return costs


@numba.njit(cache=True, nogil=True)
def _lacking(held, nodes, size):  # type: ignore[no-untyped-def]
    """Counts words held that an output lacks, and lacks in their high-order bits, slot by slot.

    Args:
      held, nodes: int32 [slots, rows] and [slots, inputs], word nodes.
      size: of all words.
    """
    total, counts = 0, np.zeros(size, np.int64)
    for slot in range(held.shape[0]):
        width = 1
        while width < size:
            counts[:] = 0
            for node in nodes[slot]:
                counts[node // width] -= 1
            for node in held[slot]:
                counts[node // width] += 1
                total += counts[node // width] > 0
            width *= 2
    return total


def _polish_crossbar(sections: list[Section], held: np.ndarray, search: _Search) -> None:
    """Finds the words that cost each word of a crossbar least through all its sections.

    Args:
      sections: in the order of their steps; their words are changed.
      held: int32 [rows, words of a row], word nodes before; returned: after.
      search: of the layer.
    """
    for row in range(held.shape[0]):
        for slot in range(held.shape[1]):
            here = [x for x in sections if row < x.words.shape[0] and slot < x.words.shape[1]]
            if not here:
                continue
            steps = np.asarray([search.seen[x.outputs[slot], x.inputs[row]] for x in here])
            after = np.asarray([x.words[row, slot] for x in here])
            polish(steps, held[row, slot], search.graph, after)
            for section, word in zip(here, after, strict=True):
                section.words[row, slot] = word
            held[row, slot] = after[-1]


def _placed(
    sections: list[Section], seen: np.ndarray, graph: Graph, config: CrossbarConfig
) -> tuple[Placement, np.ndarray, np.ndarray]:
    """Gives filled sections as a placement, and the errors that they leave; see `fill_sections`."""
    outputs, inputs = seen.shape
    rows, words = config.rows, config.words_per_row
    weights = np.full((len(sections), rows, words), seen.size, np.int32)
    delta, error = np.zeros(seen.shape, np.int8), np.zeros(outputs)
    for number, section in enumerate(sections):
        k, v = section.words.shape
        place = np.ix_(section.outputs, section.inputs)
        weights[number, :k, :v] = section.inputs[:, None] + inputs * section.outputs
        delta[place] = (graph.code_of_node[section.words] - seen[place].T).T
    error = delta.mean(axis=1, dtype=np.float64)
    flat = weights.reshape(len(sections), -1)
    placement = Placement(
        flat,
        inverse_positions(flat, seen.size),
        np.asarray([len(section.inputs) for section in sections], np.int32),
        np.asarray([len(section.outputs) for section in sections], np.int32),
    )
    return placement, delta.reshape(-1), error
