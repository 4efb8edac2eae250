"""The words that follow one another in one place of a crossbar, chosen to differ in few cells."""

import math

import numba
import numpy as np

from memsim.chip import Stuck

__all__ = ["follow_cheaply"]

# Places looked at side by side, one in each lane of a vector instruction.
_LANES = 32


def follow_cheaply(
    codes: np.ndarray,
    held: np.ndarray,
    price: float,
    values: np.ndarray,
    words: np.ndarray,
    masks: np.ndarray,
    stuck: Stuck,
) -> np.ndarray:
    """Finds, for every place, the codes of least squared error plus price times cell changes.

    A shortest path over all words, exact: the least cost of ending in each word spreads cell by
    cell to the words that differ there.

    Args:
      codes: int32 [steps, places], from the lowest code; -1 where a place is not programmed.
      held: int32 [places], the word before; returned: the word afterwards.
      price: what a cell that changes costs, in squared code errors.
      values: int32 [words], the code that a word is read as.
      words: int32 [codes], the word that a code is programmed with.
      masks: int32 [cells], the bits of each cell.
      stuck: int32 [places], bits that cannot change, and how they are.

    Returns:
      int32 [steps, places], the codes held then, and to program; -1 where there are none.
    """
    chosen = np.full(codes.shape, -1, np.int32)
    used = np.flatnonzero((codes >= 0).any(axis=0))
    at_1 = stuck.at_1[used]
    frozen = stuck.at_0[used] | at_1
    here = np.full((len(codes), used.size), -1, np.int32)
    _follow(codes[:, used], held[used], np.float32(price), values, words, masks, frozen, at_1, here)
    last = len(codes) - 1 - np.argmax(here[::-1] >= 0, axis=0)
    held[used] = here[last, np.arange(used.size)]
    chosen[:, used] = np.where(here >= 0, values[here], -1)
    return chosen


@numba.njit(cache=True, nogil=True, parallel=True)
def _follow(codes, held, price, values, words, masks, frozen, at_1, chosen):  # type: ignore[no-untyped-def]
    steps, places = codes.shape
    for block in numba.prange((places + _LANES - 1) // _LANES):
        first, lanes = block * _LANES, min(_LANES, places - block * _LANES)
        side_by_side = slice(first, first + lanes)
        here = codes[:, side_by_side]
        cost = np.full((values.size, lanes), np.float32(math.inf))
        for lane in range(lanes):
            cost[held[first + lane], lane] = 0
        origin = np.empty((steps, values.size, lanes), np.int16)
        prices, wanted = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
        for k in range(steps):
            for word in range(values.size):
                origin[k, word] = word
            # a place that is not programmed changes nothing: at no price can it
            for lane in range(lanes):
                prices[lane] = price if here[k, lane] >= 0 else math.inf
                wanted[lane] = here[k, lane]
            # each word is reached from the cheapest before it, at a price for every cell
            for mask in masks:
                _spread(cost, origin[k], mask, prices)
            _add_errors(cost, values, words, wanted, frozen[side_by_side], at_1[side_by_side])
        # from the best end back to the start
        for lane in range(lanes):
            word = int(np.argmin(cost[:, lane]))
            for k in range(steps - 1, -1, -1):
                if here[k, lane] >= 0:
                    chosen[k, first + lane] = word
                word = int(origin[k, word, lane])


@numba.njit(cache=True, nogil=True)
def _spread(cost, origin, mask, prices):  # type: ignore[no-untyped-def]
    """Lets every word be reached from those that differ from it in one cell.

    Args:
      cost: float32 [words, lanes], the least so far; changed.
      origin: int16 [words, lanes], the word that the path comes from; changed.
      mask: the bits of the cell.
      prices: float32 [lanes], of a change.
    """
    low = mask & -mask
    best, source = np.empty(prices.size, np.float32), np.empty(prices.size, np.int16)
    for first in range(len(cost)):
        if first & mask:
            continue
        # the cheapest level of the cell, and from there to all others
        best[:], source[:] = cost[first], origin[first]
        for level in range(low, mask + 1, low):
            one, its = cost[first | level], origin[first | level]
            for lane in range(prices.size):
                cheaper = one[lane] < best[lane]
                best[lane] = one[lane] if cheaper else best[lane]
                source[lane] = its[lane] if cheaper else source[lane]
        for level in range(0, mask + 1, low):
            one, its = cost[first | level], origin[first | level]
            for lane in range(prices.size):
                reached = best[lane] + prices[lane]
                cheaper = reached < one[lane]
                one[lane] = reached if cheaper else one[lane]
                its[lane] = source[lane] if cheaper else its[lane]


@numba.njit(cache=True, nogil=True)
def _add_errors(cost, values, words, wanted, frozen, at_1):  # type: ignore[no-untyped-def]
    """Adds what each word is off by, where one is programmed; the least is 0 again.

    Args:
      cost: float32 [words, lanes]; changed.
      values: int32 [words], the code that a word is read as.
      words: int32 [codes], the word that a code is programmed with.
      wanted: float32 [lanes], the code that is programmed; -1 for none.
      frozen, at_1: int32 [lanes], bits of stuck cells, and those of them that are 1.
    """
    least = np.full(wanted.size, np.float32(math.inf))
    for word in range(values.size):
        value, programmed = np.float32(values[word]), words[values[word]]
        for lane in range(wanted.size):
            error = value - wanted[lane]
            # a word that is not what its code leaves is infinitely off
            left = programmed & ~frozen[lane] | at_1[lane]
            error = error if left == word else np.float32(math.inf)
            here = cost[word, lane] + (error * error if wanted[lane] >= 0 else np.float32(0))
            cost[word, lane] = here
            least[lane] = here if here < least[lane] else least[lane]
    # costs stay small, and so exact
    for word in range(values.size):
        for lane in range(wanted.size):
            cost[word, lane] -= least[lane]
