"""Matching on wide crossbars: each section follows well on what its own crossbar holds.

Crossbar after crossbar and step after step, the outputs that go best with what is held are chosen,
with the slots they go to and the inputs of every row. Offline, on the host.
"""

from typing import NamedTuple

import numba
import numpy as np

from memsim.config import CrossbarConfig
from memsim.placement import Placement, inverse_positions
from memsim.policies._matching.flow import Graph
from memsim.policies._matching.lines import Rules, graph_of, polish
from memsim.policies._matching.rows_and_slots import Search
from memsim.schedule import layer_schedule

# Inputs that are assigned to rows at once, at most: more take long and save little.
_MOST_INPUTS = 1024
# Of layers up to so many weights: groups of which it is worked out what they cost, those that
# promise most, and orders of slots that are tried for each.
_EFFORT = ((2**16, 6, 20), (2**20, 2, 3), (2**31, 1, 1))


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


class Layer(NamedTuple):
    """One layer as matching sees it.

    Attributes:
      codes: int32 [outputs, inputs], from the graph's lowest.
      graph: of the words.
      config: of the crossbars.
      candidates: groups of which it is worked out what they cost, at every step.
    """

    codes: np.ndarray
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
    layer = Layer(np.ascontiguousarray(seen - graph.lowest), graph, config, candidates)
    units = _units(layer, rules)
    count = sum(-(-unit.inputs.size // config.rows) for unit in units)
    # the sections of each crossbar, in the order of its steps
    step, crossbar = np.divmod(layer_schedule(count, config).slots, len(held))
    before, held = held, held.copy()
    by_number: dict[int, Section] = {}
    for number in np.lexsort((step, crossbar)):
        by_number[number] = _next_section(layer, units, held[crossbar[number]], search)
    sections = [by_number[number] for number in range(count)]
    if graph.tolerance:  # each word once more, knowing all that follow on it
        held = before.copy()
        for one in range(len(held)):
            here = np.flatnonzero(crossbar == one)
            _polish_crossbar([sections[i] for i in here[np.argsort(step[here])]], held[one], layer)
    return *_placed(sections, layer), held


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


def _units(layer: Layer, rules: Rules) -> list[Unit]:
    """Groups outputs so that those of one slot, in group after group, are of like magnitude."""
    outputs, inputs = layer.codes.shape
    rows, words = layer.config.rows, layer.config.words_per_row
    groups, full = -(-outputs // words), outputs // words
    magnitude = np.abs(layer.codes + layer.graph.lowest).mean(axis=1)
    order = np.argsort(magnitude, kind="stable")
    # slots of the short group have one output more
    sizes = np.where(np.arange(words) < outputs - full * words, groups, full)
    runs = np.split(order, np.cumsum(sizes)[:-1])
    grouped = [np.asarray([run[k] for run in runs if k < run.size]) for k in range(groups)]
    pools = [np.arange(inputs)]
    if rules.by_section:
        pools = np.split(pools[0], np.arange(rows, inputs, rows))
    return [Unit(of_group, pool) for of_group in grouped for pool in pools]


def _next_section(layer: Layer, units: list[Unit], held: np.ndarray, search: Search) -> Section:
    """Chooses the section that follows best on what a crossbar holds, and takes it off its unit.

    Args:
      units: with inputs left; changed.
      held: int32 [rows, words of a row], word nodes; returned: afterwards.
    """
    # the unit, its slots and rows that cost least by the word
    best: tuple[float, int, Section] | None = None
    for number in _most_promising(layer, units, held):
        unit = units[number]
        rows, slots = min(len(held), unit.inputs.size), unit.outputs.size
        inputs = unit.inputs[search.some_of(unit.inputs.size, max(_MOST_INPUTS, rows))]
        codes = layer.codes[np.ix_(unit.outputs, inputs)].T
        fit = search.fit(held[:rows, :slots], codes)
        per_word = fit.cost / (rows * slots)
        if best is None or per_word < best[0]:
            words = search.prices.word[held[:rows, :slots], codes[np.ix_(fit.row, fit.order)]]
            best = per_word, number, Section(unit.outputs[fit.order], inputs[fit.row], words)
    if best is None:
        raise AssertionError("there are units left.")
    _, number, section = best
    rows, slots = section.words.shape
    held[:rows, :slots] = section.words
    left = np.setdiff1d(units[number].inputs, section.inputs)
    units[number] = units[number]._replace(inputs=left)
    if not left.size:
        del units[number]
    return section


def _most_promising(layer: Layer, units: list[Unit], held: np.ndarray) -> np.ndarray:
    """Ranks units by the words held that they lack, at several resolutions; gives the first."""
    if len(units) <= layer.candidates:
        return np.arange(len(units))
    nodes, size = layer.graph.node_of_code, layer.graph.code_of_node.size
    lacking = np.empty(len(units))
    for number, unit in enumerate(units):
        rows, slots = min(len(held), unit.inputs.size), unit.outputs.size
        words = nodes[layer.codes[np.ix_(unit.outputs, unit.inputs)]]
        of_slots = np.ascontiguousarray(held[:rows, :slots].T)
        lacking[number] = _lacking(of_slots, words, size) / (rows * slots)
    return np.argsort(lacking, kind="stable")[: layer.candidates]


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


def _polish_crossbar(sections: list[Section], held: np.ndarray, layer: Layer) -> None:
    """Finds the words that cost each word of a crossbar least through all its sections.

    Args:
      sections: in the order of their steps; their words are changed.
      held: int32 [rows, words of a row], word nodes before; returned: after.
      layer: theirs.
    """
    for row in range(held.shape[0]):
        for slot in range(held.shape[1]):
            here = [x for x in sections if row < x.words.shape[0] and slot < x.words.shape[1]]
            if not here:
                continue
            steps = np.asarray([layer.codes[x.outputs[slot], x.inputs[row]] for x in here])
            after = np.asarray([x.words[row, slot] for x in here])
            polish(steps, held[row, slot], layer.graph, after)
            for section, word in zip(here, after, strict=True):
                section.words[row, slot] = word
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
