"""Matching on wide crossbars: each section follows well on what its own crossbar holds.

Crossbar after crossbar and step after step, the outputs that go best with what is held are chosen,
with the slots they go to and the inputs of every row. Offline, on the host.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np

from memsim.config import CrossbarConfig
from memsim.placement import Placement, inverse_positions
from memsim.policies._matching.flow import Graph
from memsim.policies._matching.lines import Rules, graph_of, polish
from memsim.policies._matching.rows_and_slots import Fit, Search
from memsim.schedule import layer_schedule

# Inputs that are assigned to rows at once, at most: more take long and save little.
_MOST_INPUTS = 1024
# Of layers up to so many weights: groups of which it is worked out what they cost, those that
# promise most, and orders of slots that are tried for each.
_EFFORT = ((2**16, 6, 20), (2**18, 4, 6), (2**20, 2, 3), (2**31, 2, 1))


class Section(NamedTuple):
    """A section: of each slot the output, of each row the input, of each word the node programmed.

    Attributes:
      outputs: int64 [slots].
      inputs: int64 [rows].
      words: uint16 [rows, slots].
    """

    outputs: np.ndarray
    inputs: np.ndarray
    words: np.ndarray


class Layer(NamedTuple):
    """One layer as matching sees it.

    Attributes:
      codes: uint16 [outputs, inputs], from the graph's lowest.
      nodes: uint16 [outputs, inputs], the words of the codes.
      graph: of the words.
      config: of the crossbars.
      candidates: groups of which it is worked out what they cost, at every step.
    """

    codes: np.ndarray
    nodes: np.ndarray
    graph: Graph
    config: CrossbarConfig
    candidates: int


def fill_sections(
    codes: np.ndarray, held: np.ndarray, config: CrossbarConfig, rules: Rules
) -> tuple[Placement, np.ndarray, np.ndarray, np.ndarray]:
    """Fills the sections of a layer, given what crossbars hold.

    Args:
      codes: signed integers [outputs, inputs].
      held: int32 [crossbars, rows, words of a row], word nodes before the layer.
      config, rules: of the crossbars and of the policy.

    Returns:
      (placement, delta, error, held): delta int8 [weights], what is added to each code; the mean
      error of what is then held, float64 [outputs]; the word nodes held afterwards.
    """
    graph, seen = graph_of(codes, config, rules)
    candidates, tries = next(effort for most, *effort in _EFFORT if seen.size <= most)
    search = Search(graph, config, tries)
    seen = np.ascontiguousarray(seen - graph.lowest, np.uint16)
    nodes = graph.node_of_code.astype(np.uint16)[seen]
    layer = Layer(seen, nodes, graph, config, candidates)
    units = Units(layer, rules)
    count = units.sections
    # the sections of each crossbar, in the order of its steps
    step, crossbar = np.divmod(layer_schedule(count, config).slots, len(held))
    before, held = held.astype(np.uint16), held.astype(np.uint16)
    by_number: dict[int, Section] = {}
    with ThreadPoolExecutor(candidates) as pool:
        for number in np.lexsort((step, crossbar)):
            section = _next_section(layer, units, held[crossbar[number]], search, pool)
            by_number[number] = section
    sections = [by_number[number] for number in range(count)]
    if graph.tolerance:  # each word once more, knowing all that follow on it
        held = before
        for one in range(len(held)):
            here = np.flatnonzero(crossbar == one)
            of_steps = [sections[i] for i in here[np.argsort(step[here])]]
            _polish_crossbar(of_steps, held[one], layer)
    return *_placed(sections, layer), held.astype(np.int32)


def held_after(
    placement: Placement,
    codes: np.ndarray,
    delta: np.ndarray,
    held: np.ndarray,
    config: CrossbarConfig,
    rules: Rules,
) -> np.ndarray:
    """Gives what crossbars one word wide hold after a layer, word nodes like `held`.

    Args:
      placement, delta: of the layer, see `fill_sections`.
      codes, held, config, rules: see `fill_sections`.
    """
    graph, seen = graph_of(codes, config, rules)
    words = graph.node_of_code[seen.reshape(-1) + delta - graph.lowest]
    crossbars = layer_schedule(len(placement.weights), config).slots % len(held)
    after = held.copy()
    # later sections overwrite earlier ones
    for number, crossbar in enumerate(crossbars):
        rows = placement.used_rows[number]
        after[crossbar, :rows, 0] = words[placement.weights[number, :rows]]
    return after


class Units:
    """Outputs that share sections, unit by unit, and the inputs that each has still to hold."""

    def __init__(self, layer: Layer, rules: Rules) -> None:
        """Groups outputs so that those of one slot, in unit after unit, are of like magnitude."""
        outputs, inputs = layer.codes.shape
        rows, words = layer.config.rows, layer.config.words_per_row
        groups, full = -(-outputs // words), outputs // words
        magnitude = np.abs(layer.codes + np.int32(layer.graph.lowest)).mean(axis=1)
        order = np.argsort(magnitude, kind="stable")
        # slots of the short group have one output more
        sizes = np.where(np.arange(words) < outputs - full * words, groups, full)
        runs = np.split(order, np.cumsum(sizes)[:-1])
        grouped = [np.asarray([run[k] for run in runs if k < run.size]) for k in range(groups)]
        pools = [np.arange(inputs)]
        if rules.by_section:
            pools = np.split(pools[0], np.arange(rows, inputs, rows))
        self._layer, self._rows = layer, rows
        self._outputs = [of_group for of_group in grouped for _ in pools]
        self._inputs = pools * groups
        # the words that each has still to hold
        self._counts = np.stack([self._levels(i, self._inputs[i]) for i in range(len(self))])

    def __len__(self) -> int:
        return len(self._outputs)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return self._outputs[number], self._inputs[number]

    @property
    def sections(self) -> int:
        """The sections that they fill."""
        return sum(-(-inputs.size // self._rows) for inputs in self._inputs)

    def promising(self, held: np.ndarray, most: int) -> list[int]:
        """Ranks units by the words held that they lack, at several resolutions; gives the first."""
        shapes = np.asarray(
            [
                (min(self._rows, inputs.size), outputs.size)
                for outputs, inputs in zip(self._outputs, self._inputs, strict=True)
            ]
        )
        left = np.flatnonzero(shapes[:, 0])
        if left.size <= most:
            return list(left.tolist())
        lacking, size = np.full(len(self), np.inf), self._layer.graph.code_of_node.size
        for rows, slots in np.unique(shapes[left], axis=0):
            of_held = _levels(held[:rows, :slots], size)
            alike = np.flatnonzero(np.all(shapes == (rows, slots), axis=1))
            lacking[alike] = _lacking(of_held, self._counts, alike) / (rows * slots)
        return list(np.argsort(lacking, kind="stable")[:most].tolist())

    def take(self, number: int, inputs: np.ndarray) -> None:
        """Takes inputs off a unit: they are held now."""
        left = np.ones(self._layer.codes.shape[1], np.bool_)
        left[inputs] = False
        self._counts[number] -= self._levels(number, inputs)
        self._inputs[number] = self._inputs[number][left[self._inputs[number]]]

    def _levels(self, number: int, inputs: np.ndarray) -> np.ndarray:
        nodes = self._layer.nodes[np.ix_(self._outputs[number], inputs)]
        found: np.ndarray = _levels(nodes, self._layer.graph.code_of_node.size)
        return found


def _next_section(
    layer: Layer, units: Units, held: np.ndarray, search: Search, pool: ThreadPoolExecutor
) -> Section:
    """Chooses the section that follows best on what a crossbar holds, and takes it off its unit.

    Args:
      units: with inputs left; changed.
      held: uint16 [rows, words of a row], word nodes; returned: afterwards.
      pool: candidates are looked at side by side.
    """

    def fit(number: int) -> tuple[float, np.ndarray, Fit]:
        outputs, inputs = units[number]
        rows = min(len(held), inputs.size)
        inputs = _some(inputs, max(_MOST_INPUTS, rows))
        found = search.fit(held[:rows, : outputs.size], layer.codes[np.ix_(outputs, inputs)])
        return found.cost / (rows * outputs.size), inputs, found

    # the unit, its slots and rows that cost least by the word; of equals the first
    numbers = units.promising(held, layer.candidates)
    number, (_, inputs, best) = min(
        zip(numbers, pool.map(fit, numbers), strict=True), key=lambda one: one[1][0]
    )
    outputs, inputs = units[number][0][best.order], inputs[best.row]
    here = held[: inputs.size, : outputs.size]
    here[:] = search.prices.word[here, layer.codes[np.ix_(outputs, inputs)].T]
    units.take(number, inputs)
    return Section(outputs, inputs, here.copy())


def _some(inputs: np.ndarray, most: int) -> np.ndarray:
    """Takes inputs at even distances if they are more than so many."""
    return inputs if inputs.size <= most else inputs[np.arange(most) * inputs.size // most]


@numba.njit(cache=True, nogil=True)
def _lacking(held, counts, numbers):  # type: ignore[no-untyped-def]
    """Counts what is held past what units have, bin by bin: int64, for some numbers of units."""
    lacking = np.zeros(numbers.size, np.int64)
    for i in range(numbers.size):
        for k in range(held.size):
            lacking[i] += max(0, held[k] - counts[numbers[i], k])
    return lacking


@numba.njit(cache=True, nogil=True)
def _levels(nodes, size):  # type: ignore[no-untyped-def]
    """Counts words, and those of the same high-order bits, ever fewer.

    Args:
      nodes: uint16, word nodes, of two axes.
      size: of all words.

    Returns:
      int32 [bins], one resolution after another.
    """
    counts = np.zeros(2 * size + 32, np.int32)
    for row in range(nodes.shape[0]):
        for node in nodes[row]:
            counts[node] += 1
    # bins of twice as many words are sums of two
    first, bins = 0, size
    while bins > 2:
        after = first + bins
        for k in range(bins):
            counts[after + k // 2] += counts[first + k]
        first, bins = after, (bins + 1) // 2
    return counts


def _polish_crossbar(sections: list[Section], held: np.ndarray, layer: Layer) -> None:
    """Finds the words that cost each word of a crossbar least through all its sections.

    Args:
      sections: in the order of their steps; their words are changed.
      held: int32 [rows, words of a row], word nodes before; returned: after.
      layer: theirs.
    """
    codes = np.full((len(sections), *held.shape), -1, np.int32)
    words = np.zeros_like(codes)
    for step, section in enumerate(sections):
        rows, slots = section.words.shape
        codes[step, :rows, :slots] = layer.codes[np.ix_(section.outputs, section.inputs)].T
        words[step, :rows, :slots] = section.words
    _polish_words(codes, held, layer.graph, words)
    for step, section in enumerate(sections):
        rows, slots = section.words.shape
        section.words[:] = words[step, :rows, :slots]


@numba.njit(cache=True, nogil=True)
def _polish_words(codes, held, graph, words):  # type: ignore[no-untyped-def]
    """Calls `polish` for every word of a crossbar.

    Args:
      codes: int32 [steps, rows, slots], -1 where a section has none.
      held: uint16 [rows, slots], word nodes before; returned: afterwards.
      words: int32 [steps, rows, slots], returned.
    """
    for row in range(held.shape[0]):
        for slot in range(held.shape[1]):
            steps = np.flatnonzero(codes[:, row, slot] >= 0)
            if steps.size == 0:
                continue
            after = np.empty(steps.size, np.int32)
            polish(codes[steps, row, slot], held[row, slot], graph, after)
            for k in range(steps.size):
                words[steps[k], row, slot] = after[k]
            held[row, slot] = after[-1]


def _placed(sections: list[Section], layer: Layer) -> tuple[Placement, np.ndarray, np.ndarray]:
    """Gives filled sections as a placement, and the errors that they leave; see `fill_sections`."""
    seen, graph = layer.codes, layer.graph
    inputs = seen.shape[1]
    rows, words = layer.config.rows, layer.config.words_per_row
    weights = np.full((len(sections), rows, words), seen.size, np.int32)
    delta = np.zeros(seen.shape, np.int8)
    for number, section in enumerate(sections):
        k, v = section.words.shape
        place = np.ix_(section.outputs, section.inputs)
        weights[number, :k, :v] = section.inputs[:, None] + inputs * section.outputs
        delta[place] = graph.code_of_node[section.words].T - seen[place].astype(np.int32)
    error = delta.mean(axis=1, dtype=np.float64)
    flat = weights.reshape(len(sections), -1)
    placement = Placement(
        flat,
        inverse_positions(flat, seen.size),
        np.asarray([len(section.inputs) for section in sections], np.int32),
        np.asarray([len(section.outputs) for section in sections], np.int32),
    )
    return placement, delta.reshape(-1), error
