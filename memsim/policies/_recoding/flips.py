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
      placement: which weight sits in which (section, word).
      held: words [crossbars, physical_words] before the layer; None for erased cells.
      config: with flags.

    Returns:
      (flips, held): words [sections, words], or [sections, words of a row] for flags of sections,
      of the bits to complement; the words held afterwards. Both `config.word_dtype`.
    """
    # the sections in the order of programming, and what they overwrite
    weights = placement.weights
    sections, held = scheduled(len(weights), held, config)
    words, masks = words_of_codes(config), np.asarray(config.column_masks, np.int64)
    walk = (codes, weights, sections, words, config.min_code)
    if config.flags == "section":
        flips = np.zeros((len(weights), config.words_per_row), config.word_dtype)
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
    codes, weights, sections, words, lowest, whole, changes, held, flipped
):
    """Decides word by word.

    Args:
      codes: [weights].
      weights: of the placement; past the last one is an unused word.
      sections: int32 [steps, crossbars], programmed at each step; idle past the last section.
      words: int32 [codes], from the code `lowest`.
      whole: all bits of a word, that of its flag included.
      changes: uint8 [2, 65536], cells that differ, by the halves of the bits that differ.
      held: int32 [crossbars, words], words before; returned: after.
      flipped: bool [sections, words], returned.
    """
    steps, crossbars = sections.shape
    for step in range(steps):
        for crossbar in range(crossbars):
            section = sections[step, crossbar]
            # an idle crossbar
            if section == len(weights):
                continue
            for i in range(weights.shape[1]):
                if weights[section, i] == codes.size:
                    continue
                # changes of the plain word (flag 0) and of its complement (flag 1)
                word = words[codes[weights[section, i]] - lowest]
                plain = held[crossbar, i] ^ word
                turned = plain ^ whole
                cells = changes[0, plain & 0xFFFF] + changes[1, plain >> 16]
                # a tie stays plain
                if changes[0, turned & 0xFFFF] + changes[1, turned >> 16] < cells:
                    flipped[section, i] = True
                    word ^= whole
                held[crossbar, i] = word


@numba.njit(cache=True, nogil=True)
def _flip_columns(  # type: ignore[no-untyped-def]
    codes, weights, sections, words, lowest, masks, held, flips
):
    """Decides column by column of every section; arguments as of `_flip_words`.

    Args:
      masks: int64 [columns], the bits of each.
      held: int32 [crossbars, words of all rows], the row of flags last.
      flips: [sections, words of a row], returned: the bits to complement.
    """
    steps, crossbars = sections.shape
    across, count, columns = flips.shape[1], weights.shape[1], masks.size
    plain, turned = np.empty(columns, np.int64), np.empty(columns, np.int64)
    for step in range(steps):
        for crossbar in range(crossbars):
            section = sections[step, crossbar]
            # an idle crossbar
            if section == len(weights):
                continue
            for slot in range(across):
                # a slot that the section does not use keeps its flags
                if weights[section, slot] == codes.size:
                    continue
                for column in range(columns):
                    # the flag cell itself may change
                    flag = held[crossbar, count + slot] & masks[column]
                    plain[column] = flag != 0
                    turned[column] = flag != masks[column]
                # cells of each column that differ from plain, and from complemented words
                for i in range(slot, count, across):
                    if weights[section, i] == codes.size:
                        continue
                    differs = held[crossbar, i] ^ words[codes[weights[section, i]] - lowest]
                    for column in range(columns):
                        here = differs & masks[column]
                        plain[column] += here != 0
                        turned[column] += here != masks[column]
                # columns that take fewer changes complemented
                flip = 0
                for column in range(columns):
                    if turned[column] < plain[column]:
                        flip |= masks[column]
                for i in range(slot, count, across):
                    if weights[section, i] < codes.size:
                        held[crossbar, i] = words[codes[weights[section, i]] - lowest] ^ flip
                # flags are the row after the others
                held[crossbar, count + slot] = flip
                flips[section, slot] = flip
