"""Flip-N-Write: which words, or columns of sections, are stored complemented."""

import functools

import numba
import numpy as np

from memsim.config import CrossbarConfig
from memsim.placement import Placement
from memsim.policies._recoding.walk import scheduled, words_of_codes


def choose_flips(
    codes: np.ndarray,
    placement: Placement,
    held: np.ndarray | None,
    config: CrossbarConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses complements (Flip-N-Write) where fewer cells change, flags counted; ties stay plain.

    Args:
      codes: signed integers [weights], in the order of `Placement`.
      placement: which weight sits in which (section, row).
      held: words [crossbars, physical_rows] before the layer; None for erased cells.
      config: with flags.

    Returns:
      (flips, held): words [sections, rows], or [sections, 1] for flags of sections, of the bits to
      complement; the words held afterwards. Both `config.word_dtype`.
    """
    # the sections in the order of programming, and what they overwrite
    weights, _, used_rows = placement
    sections, held = scheduled(used_rows, held, config)
    words, masks = words_of_codes(config), np.asarray(config.column_masks, np.int64)
    walk = (codes, weights, used_rows, sections, words, config.min_code)
    if config.flags == "section":
        flips = np.zeros((used_rows.size, 1), config.word_dtype)
        _flip_columns(*walk, masks, held, flips)
    else:
        flipped = np.zeros(weights.shape, np.bool_)
        _flip_words(*walk, int(masks.sum()), _changes(config), held, flipped)
        # the flag is a bit of the word, complemented with it
        flips = flipped * config.word_dtype.type(masks.sum())
    return flips, held.astype(config.word_dtype)


@functools.cache
def _changes(config: CrossbarConfig) -> np.ndarray:
    """Counts, uint8 [2, 65536], cells of which a bit is set in the low and in the high half of a
    word.
    """
    half = np.arange(2**16)
    table = np.zeros((2, half.size), np.uint8)
    for mask in config.column_masks:  # no cell lies across the halves
        table[0] += (half & mask) != 0
        table[1] += (half & (mask >> 16)) != 0
    return table


@numba.njit(cache=True, nogil=True)
def _flip_words(  # type: ignore[no-untyped-def]
    codes, weights, used_rows, sections, words, lowest, whole, changes, held, flipped
):
    """Decides word by word.

    Args:
      codes: [weights].
      weights, used_rows: of the placement.
      sections: int32 [steps, crossbars], programmed at each step; idle past the last section.
      words: int32 [codes], from the code `lowest`.
      whole: all bits of a word, that of its flag included.
      changes: uint8 [2, 65536], cells that differ, by the halves of the bits that differ.
      held: int32 [crossbars, rows], words before; returned: after.
      flipped: bool [sections, rows], returned.
    """
    steps, crossbars = sections.shape
    for step in range(steps):
        for crossbar in range(crossbars):
            section = sections[step, crossbar]
            # an idle crossbar
            if section == used_rows.size:
                continue
            for row in range(used_rows[section]):
                # changes of the plain word (flag 0) and of its complement (flag 1)
                word = words[codes[weights[section, row]] - lowest]
                plain = held[crossbar, row] ^ word
                turned = plain ^ whole
                cells = changes[0, plain & 0xFFFF] + changes[1, plain >> 16]
                # a tie stays plain
                if changes[0, turned & 0xFFFF] + changes[1, turned >> 16] < cells:
                    flipped[section, row] = True
                    word ^= whole
                held[crossbar, row] = word


@numba.njit(cache=True, nogil=True)
def _flip_columns(  # type: ignore[no-untyped-def]
    codes, weights, used_rows, sections, words, lowest, masks, held, flips
):
    """Decides column by column of every section; arguments as of `_flip_words`.

    Args:
      masks: int64 [columns], the bits of each.
      held: int32 [crossbars, rows + 1], the flags last.
      flips: [sections, 1], returned: the bits to complement.
    """
    steps, crossbars = sections.shape
    rows, columns = weights.shape[1], masks.size
    plain, turned = np.empty(columns, np.int64), np.empty(columns, np.int64)
    for step in range(steps):
        for crossbar in range(crossbars):
            section = sections[step, crossbar]
            # an idle crossbar
            if section == used_rows.size:
                continue
            for column in range(columns):
                # the flag cell itself may change
                flag = held[crossbar, rows] & masks[column]
                plain[column] = flag != 0
                turned[column] = flag != masks[column]
            # cells of each column that differ from plain, and from complemented words
            for row in range(used_rows[section]):
                differs = held[crossbar, row] ^ words[codes[weights[section, row]] - lowest]
                for column in range(columns):
                    here = differs & masks[column]
                    plain[column] += here != 0
                    turned[column] += here != masks[column]
            # columns that take fewer changes complemented
            flip = 0
            for column in range(columns):
                if turned[column] < plain[column]:
                    flip |= masks[column]
            for row in range(used_rows[section]):
                held[crossbar, row] = words[codes[weights[section, row]] - lowest] ^ flip
            # flags are the row after the others
            held[crossbar, rows] = flip
            flips[section, 0] = flip
