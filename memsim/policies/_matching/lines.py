"""Matched placement: every weight goes where the cells already hold nearly the same word.

Within one output any position (section, row) is as good as any other, so the step from one output
to the next is a transport problem on words, solved exactly. Offline, on the host.
"""

import dataclasses
from typing import NamedTuple

import numba
import numpy as np

from memsim.chip import Stuck
from memsim.config import MATCHED_BITS, CrossbarConfig
from memsim.placement import Placement, inverse_positions
from memsim.policies._matching.faulty_rows import RowKinds, row_kinds, take_faulty_rows
from memsim.policies._matching.flow import Graph, assign, scratch, word_graph
from memsim.policies._matching.tour import find_tour


class Rules(NamedTuple):
    """The rules that a policy asks of matching; see `Matched`."""

    tolerance: int = 0
    price: int | None = None
    pool: str = "output"
    avoids_faults: bool = False
    negates_rows: bool = False


class Lines(NamedTuple):
    """Weights led through all outputs of a layer, one line of them for every position.

    Attributes:
      graph: of the words.
      tour: int64 [outputs], their order.
      codes: int32 [outputs, positions], in the order of the tour, from the graph's lowest.
      inputs: int32 [outputs, positions], which input each weight belongs to.
      words: int32 [outputs, positions], the word nodes programmed.
      rows: where the positions are; by position, as they are numbered in the end.
    """

    graph: Graph
    tour: np.ndarray
    codes: np.ndarray
    inputs: np.ndarray
    words: np.ndarray
    rows: RowKinds


def lead_through_outputs(
    codes: np.ndarray, config: CrossbarConfig, rules: Rules, stuck: Stuck | None = None
) -> Lines:
    """Orders the outputs of a layer and matches each to the one before.

    Args:
      codes: signed integers [outputs, inputs].
      rules: of the policy.
      stuck: cells to avoid, of the layer's crossbars; None for none.
    """
    # codes count from the lowest from here on
    graph, seen = graph_of(codes, config, rules)
    seen = seen - graph.lowest
    # the order of outputs is chosen first, then what goes from each to the next
    order = find_tour(seen, graph)
    rows = row_kinds(stuck, seen.shape, _dealt(len(seen), config), config)
    inputs, words = np.empty(seen.shape, np.int32), np.empty(seen.shape, np.int32)
    # positions that may take one another's weights: of a section, or of all
    pool = config.rows if rules.pool == "section" else seen.shape[1]
    for start in range(0, seen.shape[1], pool):
        members = slice(start, start + pool)
        of_pool = np.ascontiguousarray(seen[:, members])
        taken, held = np.empty_like(of_pool), np.empty_like(of_pool)
        of_rows = rows._replace(of=np.ascontiguousarray(rows.of[:, members]))
        _lead(of_pool, order, of_rows, graph, scratch(graph), taken, held)
        inputs[:, members], words[:, members] = taken + start, held
    return Lines(graph, order, np.take_along_axis(seen[order], inputs, 1), inputs, words, rows)


def graph_of(codes: np.ndarray, config: CrossbarConfig, rules: Rules) -> tuple[Graph, np.ndarray]:
    """Gives the graph that codes are matched on, and the codes as it sees them, int32."""
    dropped = max(0, config.bits - MATCHED_BITS)
    dropped = -(-dropped // config.cell_bits) * config.cell_bits  # whole cells
    codes = codes.astype(np.int32)
    # codes by their high order: rounded as the words are cut
    if dropped and config.encoding in ("twos_complement", "offset_binary"):
        codes = codes >> dropped
    elif dropped:
        codes = np.sign(codes) * (np.abs(codes) >> dropped)
    config = dataclasses.replace(config, bits=config.bits - dropped)
    # so high a price by default that no error is made which saves no write
    price = 12 * rules.tolerance**2 if rules.price is None else rules.price
    return word_graph(config, rules.tolerance, max(1, price)), codes


@numba.njit(cache=True, nogil=True)
def _lead(codes, tour, rows, graph, flow, inputs, words):  # type: ignore[no-untyped-def]
    """Leads every position of a pool through all outputs.

    Args:
      codes: int32 [outputs, positions], from the graph's lowest.
      tour: int64 [outputs], their order.
      rows: the `RowKinds` of the pool's positions.
      inputs: int32 [outputs, positions], returned in the order of the tour: which input sits there.
      words: int32 [outputs, positions], returned: the word node programmed.
    """
    erased = np.zeros(codes.shape[1], np.int32)
    for k in range(tour.size):
        new, kinds, item, word = codes[tour[k]], rows.of[k], inputs[k], words[k]
        # faulty rows choose first, they have the least choice
        item[:] = -1
        if np.any(kinds):
            held = words[k - 1] if k > 0 and rows.carried else erased
            take_faulty_rows(held, kinds, new, rows, graph, item, word)
        # what they left goes to whole rows
        whole = np.flatnonzero(item < 0)
        free = np.ones(new.size, np.bool_)
        free[item[item >= 0]] = False
        items = np.flatnonzero(free)
        # the first output may lie anywhere: `arrange` chooses by what is held
        if k == 0:
            item[whole], word[whole] = items, graph.node_of_code[new[items]]
            continue
        # the others go where the output before left nearly the same word
        chosen, served = np.empty(whole.size, np.int32), np.empty(whole.size, np.int32)
        assign(words[k - 1][whole], new[items], graph, flow, chosen, served)
        item[whole], word[whole] = items[chosen], served


def arrange(
    led: Lines, held: np.ndarray, config: CrossbarConfig, rules: Rules
) -> tuple[Placement, np.ndarray, np.ndarray, np.ndarray]:
    """Arranges led weights in sections and rows, given what the crossbar holds before.

    Args:
      held: int32 [rows], word nodes.

    Returns:
      (placement, delta, error, held): delta [weights], what is added to each code, int8 or, where
      stuck cells may take more, int16; the mean error of what is then held, float64 [outputs]; the
      word nodes held afterwards.
    """
    graph, order, codes, inputs, words, kinds = led
    outputs, count = codes.shape
    rows = config.rows
    slot, held = np.empty(count, np.int32), held.copy()
    before = held.copy()
    alike = np.zeros(count, np.int32)
    if np.any(kinds.of):  # positions at rows of the same kinds throughout
        alike = np.unique(kinds.of, axis=1, return_inverse=True)[1].astype(np.int32)
    # within a section alone if its index says so
    if rules.pool == "section":
        alike = alike * -(-count // rows) + np.arange(count, dtype=np.int32) // rows
    _arrange(
        graph.code_of_node[words[0]], words[-1], alike, held, rows, graph, scratch(graph), slot
    )
    # positions in the order of sections and rows
    at = np.argsort(slot)
    codes, inputs, words = (x[:, at] for x in (codes, inputs, words))
    # with a tolerance each row chooses its words once more, knowing all that follow
    if graph.tolerance:
        words = np.ascontiguousarray(words)
        _polish_rows(np.ascontiguousarray(codes), before, kinds, graph, rows, words)
        held = before
    # unused rows at the end hold one past the last weight
    weights = np.full((outputs, -(-count // rows) * rows), outputs * count, np.int32)
    weights[:, :count] = order[:, None] * count + inputs
    avoids = rules.avoids_faults
    # what is then held, less what was asked for
    programmed, error = graph.code_of_node[words], np.empty(outputs)
    error[order] = (kinds.value[kinds.of, programmed] - codes).mean(axis=1)
    delta = np.zeros(outputs * count, np.min_scalar_type(-(2**config.bits)) if avoids else np.int8)
    if graph.tolerance or avoids:
        delta[weights[:, :count]] = programmed - codes
    # section-major: a section of every output, then the next one
    sections = weights[_dealt(outputs, config)].reshape(outputs, -1, rows).swapaxes(0, 1)
    weights = np.ascontiguousarray(sections).reshape(-1, rows)
    used = np.full(weights.shape[0], rows, np.int32)
    used[-outputs:] = count - (weights.shape[0] // outputs - 1) * rows
    positions = inverse_positions(weights, outputs * count)
    placement = Placement(weights, positions, used, np.ones_like(used))
    return placement, delta, error, held


@numba.njit(cache=True, nogil=True)
def _arrange(codes, last, alike, held, rows, graph, flow, slot):  # type: ignore[no-untyped-def]
    """Chooses the section and row of every position, so that sections follow well on one another.

    Args:
      codes: int32 [positions], the code of the word at the first output, from the graph's lowest.
      last: int32 [positions], the word node at the last output.
      alike: int32 [positions], which can take one another's section and row: those of one number.
      held: int32 [rows], the word nodes the crossbar holds; returned: what it holds afterwards.
      rows: of a crossbar.
      slot: int32 [positions], returned: section * rows + row of each.
    """
    free = np.ones(codes.size, np.bool_)
    # section by section: each takes the lines that follow best on what is held
    for start in range(0, codes.size, rows):
        here = alike[start : start + rows]
        # lines of one kind of rows may change places, others not
        for kind in np.unique(here):
            at = np.flatnonzero(here == kind)
            chosen = np.flatnonzero(free & (alike == kind))
            item, word = np.empty(at.size, np.int32), np.empty(at.size, np.int32)
            assign(held[at], codes[chosen], graph, flow, item, word)
            # the section leaves the last words of its lines to the next one
            taken = chosen[item]
            slot[taken] = start + at
            held[at] = last[taken]
            free[taken] = False


@numba.njit(cache=True, nogil=True)
def _polish_rows(codes, held, kinds, graph, rows, words):  # type: ignore[no-untyped-def]
    """Calls `polish` for every row that is whole, through all its sections.

    Args:
      codes: int32 [outputs, positions], position section * rows + row.
      held: int32 [rows], word nodes before; returned: afterwards.
      kinds: the `RowKinds`.
      words: int32 [outputs, positions], returned.
    """
    outputs, count = codes.shape
    for row in range(min(rows, count)):
        # sections follow one another on a row, outputs within each
        sections = (count - row - 1) // rows + 1
        steps, after = (
            np.empty(sections * outputs, np.int32),
            np.empty(sections * outputs, np.int32),
        )
        whole = True
        for s in range(sections):
            for k in range(outputs):
                steps[s * outputs + k] = codes[k, s * rows + row]
                after[s * outputs + k] = words[k, s * rows + row]
                whole &= kinds.of[k, s * rows + row] == 0
        # faulty rows were chosen exactly already
        if whole:
            polish(steps, held[row], graph, after)
        # back to their places
        for s in range(sections):
            for k in range(outputs):
                words[k, s * rows + row] = after[s * outputs + k]
        held[row] = after[-1]


@numba.njit(cache=True, nogil=True)
def polish(codes, held, graph, words):  # type: ignore[no-untyped-def]
    """Finds the words that cost a row least, for the weights that follow one another there.

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
        # cost[e]: the least so far, if this code is off by e - tolerance
        before[:] = cost
        for e in range(width):
            code = codes[k] + e - tolerance
            cost[e] = 1 << 60
            if code < 0 or code >= count:
                continue
            node, error = graph.node_of_code[code], (e - tolerance) ** 2
            # the first step starts from the word that is held
            if k == 0:
                cost[e] = price * changes[held, node] + error
                continue
            # from every choice at the step before
            for f in range(width):
                last = codes[k - 1] + f - tolerance
                if last < 0 or last >= count:
                    continue
                here = before[f] + price * changes[graph.node_of_code[last], node] + error
                if here < cost[e]:
                    cost[e], choice[k, e] = here, f
    # from the best end back to the start
    e = int(np.argmin(cost))
    for k in range(codes.size - 1, -1, -1):
        words[k] = graph.node_of_code[codes[k] + e - tolerance]
        e = choice[k, e]


def _dealt(outputs: int, config: CrossbarConfig) -> np.ndarray:
    """Places in the tour in the order of programming: neighbours follow on one crossbar."""
    crossbars = config.crossbars or 1
    if config.schedule == "block" or crossbars == 1:
        return np.arange(outputs)
    runs = [len(range(first, outputs, crossbars)) for first in range(crossbars)]
    starts = np.concatenate([[0], np.cumsum(runs)])
    step = np.arange(outputs)
    return starts[step % crossbars] + step // crossbars
