"""Matching on wide crossbars: each section follows well on what its own crossbar holds.

Crossbar after crossbar and step after step, the outputs that go best with what is held are chosen,
with the slots they go to and the inputs of every row. Offline, on the host.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np

from memsim.chip import Stuck
from memsim.config import CrossbarConfig
from memsim.placement import Placement, inverse_positions
from memsim.policies._matching.faulty_rows import RowKinds, word_kinds
from memsim.policies._matching.flow import Graph
from memsim.policies._matching.lines import Rules, graph_of, polish
from memsim.policies._matching.rows_and_slots import Run, Search
from memsim.policies._matching.share import Share
from memsim.policies._matching.units import Pairs, Units
from memsim.schedule import layer_schedule

# Inputs, or outputs, that are looked at at once, at most: more take long and save little.
_MOST_INPUTS = 1024


class Effort(NamedTuple):
    """The work that goes into a section.

    Attributes:
      candidates: crossbars and groups of which it is worked out what they cost, those that promise
        most.
      tries: orders of slots that are tried for each.
      climbs: orders from which slots are exchanged for the one that costs least; if any, one for
        each candidate.
    """

    candidates: int
    tries: int
    climbs: int


# By the weights of a layer, at most.
_EFFORT = (
    (2**16, Effort(6, 20, 16)),
    (2**18, Effort(2, 4, 1)),
    (2**20, Effort(2, 3, 0)),
    (2**31, Effort(2, 1, 0)),
)


class Section(NamedTuple):
    """A section: of slots the outputs, of rows the inputs, of words the nodes programmed.

    Attributes:
      outputs: int64 [slots].
      inputs: int64 [rows].
      negated: bool [rows], those that store negatives.
      words: uint16 [rows, slots].
    """

    outputs: np.ndarray
    inputs: np.ndarray
    negated: np.ndarray
    words: np.ndarray


class Layer(NamedTuple):
    """One layer as matching sees it.

    Attributes:
      codes: uint16 [outputs, inputs], from the graph's lowest.
      nodes: uint16 [outputs, inputs], the words of the codes.
      graph: of the words.
      config: of the crossbars.
      effort: that goes into a section.
      faults: the kinds of the words of its crossbars, to avoid stuck cells; None not to.
      signs: that rows may have: 1, or 2 where they may be negated.
    """

    codes: np.ndarray
    nodes: np.ndarray
    graph: Graph
    config: CrossbarConfig
    effort: Effort
    faults: RowKinds | None
    signs: int

    def negative(self, codes: np.ndarray) -> np.ndarray:
        """Gives the codes of negatives, from the graph's lowest like `codes`."""
        of_zero = -2 * self.graph.lowest
        mirrored: np.ndarray = (of_zero - codes.astype(np.int32)).astype(codes.dtype)
        return mirrored

    def stored(self, section: "Section") -> np.ndarray:
        """Gives the codes that a section stores, uint16 [rows, slots]."""
        codes = self.codes[np.ix_(section.outputs, section.inputs)].T
        stored: np.ndarray = np.where(section.negated[:, None], self.negative(codes), codes)
        return stored


class Filled(NamedTuple):
    """A layer whose sections are filled.

    Attributes:
      placement: of its weights.
      crossbars: int32 [sections].
      delta: int8 [weights], or int16 where stuck cells are avoided, what is added to each code.
      error: float64 [outputs], the mean error of what is then held.
      held: int32 [crossbars, rows, words of a row], word nodes afterwards.
      negated: bool [sections, rows], rows that store negatives.
    """

    placement: Placement
    crossbars: np.ndarray
    delta: np.ndarray
    error: np.ndarray
    held: np.ndarray
    negated: np.ndarray


def fill_sections(
    codes: np.ndarray,
    held: np.ndarray,
    config: CrossbarConfig,
    rules: Rules,
    share: Share,
    stuck: Stuck | None = None,
) -> Filled:
    """Fills the sections of a layer, given what crossbars hold.

    Args:
      codes: signed integers [outputs, inputs].
      held: int32 [crossbars, rows, words of a row], word nodes before the layer.
      config, rules: of the crossbars and of the policy.
      share: the crossbars that it may take.
      stuck: cells to avoid, of the crossbars; None for none.
    """
    graph, seen = graph_of(codes, config, rules)
    effort = next(effort for most, effort in _EFFORT if seen.size <= most)
    faults = None if stuck is None else word_kinds(stuck, config)
    search = Search(graph, config, effort.tries, faults)
    seen = np.ascontiguousarray(seen - graph.lowest, np.uint16)
    nodes = graph.node_of_code.astype(np.uint16)[seen]
    layer = Layer(seen, nodes, graph, config, effort, faults, 1 + rules.negates_rows)
    units = Units(seen, nodes, graph, config, rules)
    count, before, held = units.sections, held.astype(np.uint16), held.astype(np.uint16)
    # first on the crossbars that all layers share, the rest on some that no other will take
    steps, kept = -(-count // len(held)), range(share.first, share.first + share.kept)
    parts = [(range(share.common), steps, count - share.kept), (kept, 1, share.kept)]
    if share.keeps_whole:
        parts.reverse()
    filled: list[tuple[int, Section]] = []
    for part in parts:
        filled += _fill(layer, units, held, *part, search, whole_first=share.keeps_whole)
    if config.crossbars is None:  # sections go by the number of their crossbar
        filled.sort(key=lambda one: one[0])
    crossbars = np.asarray([crossbar for crossbar, _ in filled], np.int32)
    sections = [section for _, section in filled]
    if graph.tolerance:  # each word once more, knowing all that follow on it
        held = before
        for one in np.unique(crossbars):
            here = [sections[i] for i in np.flatnonzero(crossbars == one)]
            whole = np.ones(held[one].shape, np.bool_) if faults is None else faults.of[one] == 0
            _polish_crossbar(here, held[one], whole, layer)
    placement, delta, error, negated = _placed(sections, crossbars, layer)
    return Filled(placement, crossbars, delta, error, held.astype(np.int32), negated)


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
    layer: Layer,
    units: Units,
    held: np.ndarray,
    taking: range,
    steps: int,
    count: int,
    search: Search,
    *,
    whole_first: bool,
) -> Iterator[tuple[int, Section]]:
    """Fills sections one after another, each the one that follows best on any of some crossbars.

    Args:
      units: with inputs left; changed.
      held: uint16 [crossbars, rows, words of a row], word nodes; returned: afterwards.
      taking: the crossbars.
      steps: sections that a crossbar takes at most.
      count: sections to fill.
      whole_first: short sections wait until there are no others.

    Yields:
      (crossbar, section).
    """
    effort, held = layer.effort, held[taking.start : taking.stop]

    def fit(
        pair: tuple[int, int], climbs: int = min(1, effort.climbs), run: Run = map
    ) -> tuple[float, Section]:
        crossbar, unit = pair
        rows, slots = units.shape[unit]
        inputs = _some(units.inputs[unit], max(_MOST_INPUTS, rows))
        outputs = _some(units.outputs[unit], max(_MOST_INPUTS, slots))
        codes = layer.codes[np.ix_(outputs, inputs)]
        if layer.signs == 2:
            codes = np.concatenate([codes, layer.negative(codes)], axis=1)
        words = search.words(held[crossbar, :rows, :slots], taking[crossbar])
        if units.fixed:
            cost, order, row = search.fit_slots(words, codes)
        else:
            cost, order, row = search.fit(words, codes, layer.signs, climbs, run)
        programmed = words.programmed(codes[np.ix_(order, row)].T).astype(np.uint16)
        negated, row = row >= inputs.size, row % inputs.size
        return cost / (rows * slots), Section(outputs[order], inputs[row], negated, programmed)

    pairs = Pairs(units, held, whole_first)
    taken = np.zeros(len(held), np.int64)
    known: dict[tuple[int, int], tuple[float, Section]] = {}
    with ThreadPoolExecutor(effort.candidates) as pool:
        for _ in range(count):
            # of those that promise most the one that costs least by the word; of equals the first
            best = pairs.best(effort.candidates)
            new = [pair for pair in best if pair not in known]
            known.update(zip(new, pool.map(fit, new), strict=True))
            crossbar, unit = min(best, key=lambda pair: known[pair][0])
            _, section = known[crossbar, unit]
            if effort.climbs > 1 and section.outputs.size > 1 and not units.fixed:
                _, section = fit((crossbar, unit), effort.climbs, pool.map)
            held[crossbar, : section.inputs.size, : section.outputs.size] = section.words
            # what it changes: its crossbar and its unit
            units.take(unit, section.outputs, section.inputs)
            taken[crossbar] += 1
            pairs.update(crossbar, unit, taken[crossbar] == steps)
            known = {
                pair: fits
                for pair, fits in known.items()
                if crossbar != pair[0] and unit != pair[1]
            }
            yield taking[crossbar], section


def _some(numbers: np.ndarray, most: int) -> np.ndarray:
    """Takes numbers at even distances if they are more than so many."""
    size = numbers.size
    return numbers if size <= most else numbers[np.arange(most) * size // most]


def _polish_crossbar(
    sections: list[Section], held: np.ndarray, whole: np.ndarray, layer: Layer
) -> None:
    """Finds the words that cost each word of a crossbar least through all its sections.

    Args:
      sections: in the order of their steps; their words are changed.
      held: uint16 [rows, words of a row], word nodes before; returned: after.
      whole: bool [rows, words of a row], words without stuck cells; the others stay as they are.
      layer: theirs.
    """
    codes = np.full((len(sections), *held.shape), -1, np.int32)
    words = np.zeros_like(codes)
    for step, section in enumerate(sections):
        rows, slots = section.words.shape
        codes[step, :rows, :slots] = layer.stored(section)
        words[step, :rows, :slots] = section.words
    _polish_words(codes, held, whole, layer.graph, words)
    for step, section in enumerate(sections):
        rows, slots = section.words.shape
        section.words[:] = words[step, :rows, :slots]


@numba.njit(cache=True, nogil=True)
def _polish_words(codes, held, whole, graph, words):  # type: ignore[no-untyped-def]
    """Calls `polish` for every word of a crossbar.

    Args:
      codes: int32 [steps, rows, slots], -1 where a section has none.
      held: uint16 [rows, slots], word nodes before; returned: afterwards.
      whole: bool [rows, slots], words to look at.
      words: int32 [steps, rows, slots]; returned.
    """
    for row in range(held.shape[0]):
        for slot in range(held.shape[1]):
            steps = np.flatnonzero(codes[:, row, slot] >= 0)
            if steps.size == 0:
                continue
            if whole[row, slot]:
                after = np.empty(steps.size, np.int32)
                polish(codes[steps, row, slot], held[row, slot], graph, after)
                for k in range(steps.size):
                    words[steps[k], row, slot] = after[k]
            held[row, slot] = words[steps[-1], row, slot]


def _placed(
    sections: list[Section], crossbars: np.ndarray, layer: Layer
) -> tuple[Placement, np.ndarray, np.ndarray, np.ndarray]:
    """Gives filled sections as a placement, the errors that they leave and the rows negated.

    See `Filled`.
    """
    seen, graph, faults = layer.codes, layer.graph, layer.faults
    inputs = seen.shape[1]
    rows, words = layer.config.rows, layer.config.words_per_row
    weights = np.full((len(sections), rows, words), seen.size, np.int32)
    negated = np.zeros((len(sections), rows), np.bool_)
    delta = np.zeros(seen.shape, np.int8 if faults is None else np.int16)
    error = np.zeros(seen.shape, np.int16)
    for number, section in enumerate(sections):
        k, v = section.words.shape
        place = np.ix_(section.outputs, section.inputs)
        weights[number, :k, :v] = section.inputs[:, None] + inputs * section.outputs
        negated[number, :k] = section.negated
        programmed = graph.code_of_node[section.words]
        held = programmed
        if faults is not None:
            held = faults.value[faults.of[crossbars[number], :k, :v], programmed]
        # more or less than was to be stored: of negatives the other way round
        more = np.where(section.negated, -1, 1)[:, None]
        stored = layer.stored(section).astype(np.int32)
        delta[place], error[place] = (more * (programmed - stored)).T, (more * (held - stored)).T
    flat = weights.reshape(len(sections), -1)
    placement = Placement(
        flat,
        inverse_positions(flat, seen.size),
        np.asarray([len(section.inputs) for section in sections], np.int32),
        np.asarray([len(section.outputs) for section in sections], np.int32),
    )
    return placement, delta.reshape(-1), error.mean(axis=1, dtype=np.float64), negated
