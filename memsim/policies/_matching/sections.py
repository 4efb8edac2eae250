"""Matching on wide crossbars: each section follows well on what its own crossbar holds.

Crossbar after crossbar and step after step, the outputs that go best with what is held are chosen,
with the slots they go to and the inputs of every row. Offline, on the host.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np

from memsim.config import CrossbarConfig
from memsim.placement import Placement, inverse_positions
from memsim.policies._matching.flow import Graph
from memsim.policies._matching.lines import Rules, graph_of, polish
from memsim.policies._matching.rows_and_slots import Search
from memsim.policies._matching.share import Share
from memsim.policies._matching.units import Pairs, Units
from memsim.schedule import layer_schedule

# Inputs, or outputs, that are looked at at once, at most: more take long and save little.
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


class Filled(NamedTuple):
    """A layer whose sections are filled.

    Attributes:
      placement: of its weights.
      crossbars: int32 [sections].
      delta: int8 [weights], what is added to each code.
      error: float64 [outputs], the mean error of what is then held.
      held: int32 [crossbars, rows, words of a row], word nodes afterwards.
    """

    placement: Placement
    crossbars: np.ndarray
    delta: np.ndarray
    error: np.ndarray
    held: np.ndarray


def fill_sections(
    codes: np.ndarray, held: np.ndarray, config: CrossbarConfig, rules: Rules, share: Share
) -> Filled:
    """Fills the sections of a layer, given what crossbars hold.

    Args:
      codes: signed integers [outputs, inputs].
      held: int32 [crossbars, rows, words of a row], word nodes before the layer.
      config, rules: of the crossbars and of the policy.
      share: the crossbars that it may take.
    """
    graph, seen = graph_of(codes, config, rules)
    candidates, tries = next(effort for most, *effort in _EFFORT if seen.size <= most)
    search = Search(graph, config, tries)
    seen = np.ascontiguousarray(seen - graph.lowest, np.uint16)
    nodes = graph.node_of_code.astype(np.uint16)[seen]
    layer = Layer(seen, nodes, graph, config, candidates)
    units = Units(seen, nodes, graph, config, rules)
    count, before, held = units.sections, held.astype(np.uint16), held.astype(np.uint16)
    # first on the crossbars that all layers share, the rest on some that no other will take
    steps, kept = -(-count // len(held)), slice(share.first, share.first + share.kept)
    filled = list(_fill(layer, units, held[: share.common], steps, count - share.kept, search))
    filled += [
        (share.first + crossbar, section)
        for crossbar, section in _fill(layer, units, held[kept], 1, share.kept, search)
    ]
    crossbars = np.asarray([crossbar for crossbar, _ in filled], np.int32)
    sections = [section for _, section in filled]
    if graph.tolerance:  # each word once more, knowing all that follow on it
        held = before
        for one in np.unique(crossbars):
            here = [sections[i] for i in np.flatnonzero(crossbars == one)]
            _polish_crossbar(here, held[one], layer)
    placement, delta, error = _placed(sections, layer)
    return Filled(placement, crossbars, delta, error, held.astype(np.int32))


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


def _fill(
    layer: Layer, units: Units, held: np.ndarray, steps: int, count: int, search: Search
) -> Iterator[tuple[int, Section]]:
    """Fills sections one after another, each the one that follows best on any of some crossbars.

    Args:
      units: with inputs left; changed.
      held: uint16 [crossbars, rows, words of a row], word nodes; returned: afterwards.
      steps: sections that a crossbar takes at most.
      count: sections to fill.

    Yields:
      (crossbar, section).
    """

    def fit(pair: tuple[int, int]) -> tuple[float, np.ndarray, np.ndarray]:
        crossbar, unit = pair
        rows, slots = units.shape[unit]
        inputs = _some(units.inputs[unit], max(_MOST_INPUTS, rows))
        outputs = _some(units.outputs[unit], max(_MOST_INPUTS, slots))
        codes, here = layer.codes[np.ix_(outputs, inputs)], held[crossbar, :rows, :slots]
        cost, order, row = search.fit_slots(here, codes) if units.fixed else search.fit(here, codes)
        return cost / (rows * slots), outputs[order], inputs[row]

    pairs = Pairs(units, held, layer.graph.code_of_node.size)
    taken = np.zeros(len(held), np.int64)
    known: dict[tuple[int, int], tuple[float, np.ndarray, np.ndarray]] = {}
    with ThreadPoolExecutor(layer.candidates) as pool:
        for _ in range(count):
            # of those that promise most the one that costs least by the word; of equals the first
            best = pairs.best(layer.candidates)
            new = [pair for pair in best if pair not in known]
            known.update(zip(new, pool.map(fit, new), strict=True))
            crossbar, unit = min(best, key=lambda pair: known[pair][0])
            _, outputs, inputs = known[crossbar, unit]
            here = held[crossbar, : inputs.size, : outputs.size]
            here[:] = search.prices.word[here, layer.codes[np.ix_(outputs, inputs)].T]
            # what it changes: its crossbar and its unit
            units.take(unit, outputs, inputs)
            taken[crossbar] += 1
            pairs.update(crossbar, unit, taken[crossbar] == steps)
            known = {
                pair: fits
                for pair, fits in known.items()
                if crossbar != pair[0] and unit != pair[1]
            }
            yield crossbar, Section(outputs, inputs, here.copy())


def _some(numbers: np.ndarray, most: int) -> np.ndarray:
    """Takes numbers at even distances if they are more than so many."""
    size = numbers.size
    return numbers if size <= most else numbers[np.arange(most) * size // most]


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
