"""Counts the writes of whole networks while they are planned, so that the least is kept.

`matched` works section by section, and on few sections what is best for each need not be best for
all. So it counts what its plan takes beside what `unsorted` and `sws` take on the same crossbars.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np

from memsim.config import CrossbarConfig
from memsim.placement import negate_rows
from memsim.policies._recoding.walk import words_of_codes
from memsim.policies.base import Arrangement
from memsim.schedule import chosen_schedule, layer_schedule

# How often a network is matched, at most.
_MOST_TRIES = 7


class Written(NamedTuple):
    """The writes of consecutive layers, whatever the crossbars hold before them.

    Attributes:
      writes: cells that change, but for the first word of each place.
      first, last: words [crossbars, words], the first and the last one of each place.
      used: bool [crossbars, words], places that have any; crossbars up to the last that has.
    """

    writes: int
    first: np.ndarray
    last: np.ndarray
    used: np.ndarray


class Choice(NamedTuple):
    """How a network is arranged.

    Attributes:
      order: `matched`, `sws` or `unsorted`.
      given_up: crossbars that layers could keep, but share, see `share_of`.
      keeps_whole: see `Share`.
      final: whether nothing else is left to try.
    """

    order: str = "matched"
    given_up: int = 0
    keeps_whole: bool = False
    final: bool = False


class Trial(NamedTuple):
    """A choice, and the writes of its first pass and of a steady one."""

    choice: Choice
    first: int
    steady: int


def written_by(arrangement: Arrangement, codes: np.ndarray, config: CrossbarConfig) -> Written:
    """Counts what one layer writes.

    Args:
      arrangement: of the layer.
      codes: signed integers [outputs, inputs].
      config: with a number of crossbars.
    """
    weights = np.asarray(arrangement.placement.weights)
    if arrangement.crossbars is None:
        schedule = layer_schedule(len(weights), config)
    else:
        schedule = chosen_schedule(np.asarray(arrangement.crossbars), config)
    programmed = codes.reshape(-1)
    if arrangement.delta is not None and np.any(arrangement.delta):
        programmed = programmed.astype(np.int16) + arrangement.delta
    if arrangement.negated is not None:
        narrow = programmed.astype(np.int16)
        programmed = negate_rows(narrow, arrangement.negated, arrangement.placement)
    # layers wait to be joined: they keep no more than they use
    shape = (int((schedule.slots % schedule.sections.shape[1]).max()) + 1, config.words)
    first, last = np.zeros((2, *shape), config.word_dtype)
    used = np.zeros(shape, np.bool_)
    words = words_of_codes(config).astype(config.word_dtype)
    lowest, cells = config.min_code, _cells(config)
    writes = _write(schedule.sections, weights, programmed, lowest, words, cells, first, last, used)
    return Written(int(writes), first, last, used)


def joined(before: Written | None, after: Written, config: CrossbarConfig) -> Written:
    """Gives what layers write that follow one another."""
    if before is None:
        return after
    most = max(len(before.used), len(after.used))
    before, after = _on_crossbars(before, most), _on_crossbars(after, most)
    both = before.used & after.used
    between = _changes(before.last, after.first, both, _cells(config))
    return Written(
        before.writes + after.writes + int(between),
        np.where(before.used, before.first, after.first),
        np.where(after.used, after.last, before.last),
        before.used | after.used,
    )


def _on_crossbars(written: Written, crossbars: int) -> Written:
    """Adds crossbars that nothing is written to."""
    more = [(0, crossbars - len(written.used)), (0, 0)]
    return Written(written.writes, *(np.pad(x, more) for x in written[1:]))


def tried(choice: Choice, written: Written, config: CrossbarConfig) -> Trial:
    """Counts the first pass of a network, on erased crossbars, and the steady one after it."""
    writes, first, last, used = written
    cells = _cells(config)
    erased = np.zeros_like(first)
    return Trial(
        choice,
        writes + int(_changes(erased, first, used, cells)),
        writes + int(_changes(last, first, used, cells)),
    )


def next_choice(trials: list[Trial], most: int) -> Choice | None:
    """Says how to arrange a network that has been arranged in some ways; None to keep the last.

    Kept is what takes least in a steady pass, of those that take no more than `unsorted` and `sws`
    in either pass; if there are none, what takes least in a steady pass.

    Args:
      trials: so far, in turn; the others beside the first one.
      most: crossbars that can be given up, see `share_of`.
    """
    own = [trial for trial in trials if trial.choice.order == "matched"]
    others = [trial for trial in trials if trial.choice.order != "matched"]
    most_first = min(trial.first for trial in others)
    most_steady = min(trial.steady for trial in others)

    def rank(trial: Trial) -> tuple[bool, int, int]:
        more = trial.first > most_first or trial.steady > most_steady
        return more, trial.steady, trial.first

    # what is written in pass after pass is short sections, if whole ones are kept
    if rank(own[0])[0] and most > 0 and len(own) == 1:
        return Choice(keeps_whole=True)
    few, *others_tried = own[1:] or own
    if few.first > most_first and few.steady <= most_steady and len(own) < _MOST_TRIES:
        # a first pass fills every crossbar that is kept for one section: so some are given up, but
        # as few as will do
        enough = None
        for trial in others_tried:
            few, enough = (few, trial) if trial.first <= most_first else (trial, enough)
        given_up = _between(few, enough, most_first, most)
        if given_up is not None:
            return Choice("matched", given_up, keeps_whole=True)

    best = min([*own, *others], key=rank)
    return None if best is own[-1] else best.choice._replace(final=True)


def _between(few: Trial, enough: Trial | None, most_first: int, most: int) -> int | None:
    """Guesses how many crossbars to give up, more than too few; None if no more are to be tried."""
    low = few.choice.given_up
    if enough is None:
        return most if low < most else None
    high = enough.choice.given_up
    if high - low < 2:
        return None
    # as if each saved the same, rounded up: too few help nothing
    share = (few.first - most_first) / (few.first - enough.first)
    return min(high - 1, low + math.ceil(share * (high - low)))


def next_start(held: dict[str, Any], config: CrossbarConfig) -> dict[str, Any] | None:
    """Gives what to start a network from that is arranged anew; None to keep it as it is.

    Args:
      held: what its last layer left: under `written` what it writes in each order, under `choice`
        and `trials` how it is arranged and what was tried before, under `most` the crossbars that
        can be given up.
      config: of the crossbars.
    """
    if "written" not in held:
        return None
    written, choice = held["written"], held.get("choice", Choice())
    trials = held.get("trials", []) + [
        tried(choice if order == "matched" else Choice(order), of_order, config)
        for order, of_order in written.items()
    ]
    following = next_choice(trials, held["most"])
    return None if following is None else {"choice": following, "trials": trials}


def _cells(config: CrossbarConfig) -> tuple[int, int]:
    """Gives the bits of a cell, and a word with the lowest bit of each."""
    return config.cell_bits, sum(mask & -mask for mask in config.column_masks)


@numba.njit(cache=True, nogil=True)
def _write(sections, weights, codes, lowest, words, cells, first, last, used):  # type: ignore[no-untyped-def]
    """Programs a layer and counts the cells that change where a word was written before.

    Args:
      sections: int32 [steps, crossbars], past the last one where a crossbar idles.
      weights: int32 [sections, words], see `Placement`.
      codes: integers [weights].
      lowest: code of the first of `words`.
      words: of all codes.
      cells: see `_cells`.
      first, last, used: see `Written`; returned.
    """
    writes = 0
    for step in range(sections.shape[0]):
        for crossbar in range(sections.shape[1]):
            section = sections[step, crossbar]
            if section == weights.shape[0]:
                continue
            for place in range(weights.shape[1]):
                weight = weights[section, place]
                if weight == codes.size:
                    continue
                word = words[np.int64(codes[weight]) - lowest]
                if used[crossbar, place]:
                    writes += _distance(last[crossbar, place], word, cells)
                else:
                    first[crossbar, place], used[crossbar, place] = word, True
                last[crossbar, place] = word
    return writes


@numba.njit(cache=True, nogil=True)
def _changes(old, new, at, cells):  # type: ignore[no-untyped-def]
    """Counts the cells that change from the words `old` to `new`, in some places."""
    writes = 0
    for crossbar in range(at.shape[0]):
        for place in range(at.shape[1]):
            if at[crossbar, place]:
                writes += _distance(old[crossbar, place], new[crossbar, place], cells)
    return writes


@numba.njit(cache=True, nogil=True)
def _distance(old, new, cells):  # type: ignore[no-untyped-def]
    """Counts the cells that differ, as `hamming_distance`."""
    bits, lowest = cells
    differs = np.int64(old) ^ np.int64(new)
    changed = np.int64(0)
    for bit in range(bits):
        changed |= (differs >> bit) & lowest
    # ones of a word of 32 bits: sums of two, of four, of eight
    changed -= (changed >> 1) & 0x55555555
    changed = (changed & 0x33333333) + ((changed >> 2) & 0x33333333)
    changed = (changed + (changed >> 4)) & 0x0F0F0F0F
    return ((changed * 0x01010101) & 0xFFFFFFFF) >> 24
