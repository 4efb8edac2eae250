"""Slots exchanged while rows follow: what an exchange can save is told by duals before it is tried.

Offline, on the host, in compiled loops.
"""

import numba
import numpy as np

from memsim.policies._matching.assignment import assign_signed

# Exchanges of those that promise most that are tried before giving up; numbers that may be kept to
# judge by, at most.
_TRIES, _MOST = 10, 2**23


@numba.njit(cache=True, nogil=True)
def costs_in_slots(held, codes, price):  # type: ignore[no-untyped-def]
    """Lists what outputs cost in every slot, row by row; of some rows if they are too many.

    Args:
      held: int32 [slots, rows], entries of `price`.
      codes: uint16 [outputs, inputs].
      price: integers [entries, codes].

    Returns:
      Integers [rows, slots, outputs, inputs].
    """
    slots, rows = held.shape
    outputs, inputs = codes.shape
    number = min(rows, max(1, _MOST // (slots * outputs * inputs)))
    step = rows // number
    listed = np.empty((number, slots, outputs, inputs), price.dtype)
    for k in range(len(listed)):
        for slot in range(slots):
            of_word = price[held[slot, k * step]]
            for output in range(outputs):
                of_code, cost = codes[output], listed[k, slot, output]
                for i in range(inputs):
                    cost[i] = of_word[of_code[i]]
    return listed


@numba.njit(cache=True, nogil=True)
def exchange_slots(held, codes, signs, first, price, listed):  # type: ignore[no-untyped-def]
    """Exchanges the outputs of two slots as long as all words then cost less.

    Args:
      held, codes, price: see `costs_in_slots`, which `listed` is from.
      signs: of inputs, 1 or 2: then their negatives come after all.
      first: int32 [slots], the output in each slot at first.

    Returns:
      (the cost of all words, the output in each slot, the input in each row: int32 [rows]).
    """
    slots, rows = held.shape
    order, row = first.copy(), np.empty(rows, np.int32)
    costs = np.zeros((rows, codes.shape[1]), np.int32)
    for slot in range(slots):
        add_costs(held[slot], codes[order[slot]], price, 1, costs)
    dual = assign_signed(costs, signs, row)
    least = total_cost(costs, row)
    saving = np.zeros((slots, slots), np.int64)
    other_costs, other_row = np.empty_like(costs), np.empty_like(row)
    improved = True
    while improved:
        improved = False
        _judge(listed, order, costs, dual, saving)
        promising = np.argsort(-saving.reshape(-1), kind="mergesort")
        for k in promising[:_TRIES]:
            a, b = k // slots, k % slots
            if saving[a, b] <= 0:
                break
            # rows follow the exchange, exactly
            x, y = order[a], order[b]
            other_costs[:] = costs
            _replace(held[a], codes[x], codes[y], price, other_costs)
            _replace(held[b], codes[y], codes[x], price, other_costs)
            other_dual = assign_signed(other_costs, signs, other_row)
            total = total_cost(other_costs, other_row)
            if total < least:
                least, dual, improved = total, other_dual, True
                order[a], order[b], row[:] = y, x, other_row
                costs, other_costs = other_costs, costs
                break
    return least, order, row


@numba.njit(cache=True, nogil=True)
def _replace(held, codes, others, price, costs):  # type: ignore[no-untyped-def]
    """Brings `costs` [rows, inputs] up to date where one slot takes another output."""
    for row in range(held.size):
        of_word, of_row = price[held[row]], costs[row]
        for i in range(codes.size):
            of_row[i] += of_word[others[i]] - of_word[codes[i]]


@numba.njit(cache=True, nogil=True)
def total_cost(costs, row):  # type: ignore[no-untyped-def]
    total = np.int64(0)
    for i in range(row.size):
        total += costs[i, row[i]]
    return total


@numba.njit(cache=True, nogil=True)
def _judge(listed, order, costs, dual, saving):  # type: ignore[no-untyped-def]
    """Estimates what exchanges save: no more than that, by weak duality, were all rows looked at.

    Args:
      listed, order: see `exchange_slots`.
      costs: int32 [rows, inputs].
      dual: int32 [inputs], of the present assignment.
      saving: int64 [slots, slots], returned: of a slot and a later one.
    """
    slots, inputs = order.size, dual.size
    step = len(costs) // len(listed)
    # narrow numbers, and sums that are stored before they are compared, make fast loops
    reduced, without, after = np.empty((3, inputs), listed.dtype)
    saving[:] = 0
    for k in range(len(listed)):
        of_row, cost = listed[k], costs[k * step]
        for i in range(inputs):
            reduced[i] = cost[i] - dual[i]
        before = reduced.min()
        for a in range(slots):
            own = of_row[a, order[a]]
            for i in range(inputs):
                without[i] = reduced[i] - own[i]
            for b in range(a + 1, slots):
                other, here, there = of_row[b, order[b]], of_row[a, order[b]], of_row[b, order[a]]
                for i in range(inputs):
                    after[i] = without[i] - other[i] + here[i] + there[i]
                least = after[0]
                for cost_then in after:
                    least = min(least, cost_then)
                saving[a, b] += before - least


@numba.njit(cache=True, nogil=True)
def add_costs(held, codes, price, sign, costs):  # type: ignore[no-untyped-def]
    """Adds what the words of one slot cost, in every row, to `costs` [rows, inputs]."""
    for row in range(held.size):
        of_word = price[held[row]]
        of_row = costs[row]
        if sign > 0:
            for i in range(codes.size):
                of_row[i] += of_word[codes[i]]
        else:
            for i in range(codes.size):
                of_row[i] -= of_word[codes[i]]
