"""Published competitors: Flip-N-Write, and an offset per layer in the style of ARAS.

Both place as `unsorted` and choose what is stored: complements, or shifted words. They choose
layer after layer, for a chip without faults that starts erased; later passes repeat the choice.
Offline, on the host, in compiled loops.

References:
  Cho and Lee, Flip-N-Write: A Simple Deterministic Technique to Improve PRAM Write Performance,
  Energy and Endurance, MICRO 2009.
  ARAS, arXiv 2410.17931. Its re-encoding formula is not in the public text: the offset is ours.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numba
import numpy as np

from memsim.codes import AnyArray, encode
from memsim.config import CrossbarConfig
from memsim.placement import Placement
from memsim.policies._matching.flow import word_graph
from memsim.schedule import network_schedule


class Coded(NamedTuple):
    """A layer placed, before it is chosen what to store.

    Attributes:
      placement: which weight sits in which (section, row).
      codes: signed integers [weights], in the order of `Placement`.
    """

    placement: Placement
    codes: np.ndarray


def choose_flips(
    coded: Coded, held: np.ndarray | None, config: CrossbarConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Flip-N-Write: stores complements where fewer cells change, flags counted; ties stay plain.

    Args:
      held: words [crossbars, physical_rows] before the layer; None for erased cells.
      config: with flags.

    Returns:
      (flips, held): words [sections, rows], or [sections, 1] for flags of sections, of the bits to
      complement; the words held afterwards. Both `config.word_dtype`.
    """
    weights, _, used_rows = coded.placement
    sections, held = _scheduled(used_rows, held, config)
    words, masks = _words(config), np.asarray(config.column_masks, np.int64)
    walk = (coded.codes, weights, used_rows, sections, words, config.min_code)
    if config.flags == "section":
        flips = np.zeros((used_rows.size, 1), config.word_dtype)
        _flip_columns(*walk, masks, held, flips)
    else:
        flipped = np.zeros(weights.shape, np.bool_)
        _flip_words(*walk, int(masks.sum()), _changes(config), held, flipped)
        flips = flipped * config.word_dtype.type(masks.sum())
    return flips, held.astype(config.word_dtype)


def choose_offset(
    coded: Coded, held: np.ndarray | None, config: CrossbarConfig
) -> tuple[np.ndarray, np.ndarray]:
    """ARAS-style: the offset of all codes that takes the layer fewest writes; ties the smallest.

    Among those with which every word `code + 2**(bits - 1) + offset` is one of `bits` bits.

    Args:
      held: words [crossbars, rows] before the layer; None for erased cells.

    Returns:
      (offset, held): int32 scalar; words held afterwards, `config.word_dtype`.
    """
    weights, _, used_rows = coded.placement
    sections, held = _scheduled(used_rows, held, config)
    graph, size = word_graph(config), 2**config.bits
    word_of, changes = graph.node_of_code, graph.changes  # unsigned words: each is its own node
    last = np.full(held.shape, -1, np.int32)
    first, pairs = np.zeros((size, size), np.int64), np.zeros((size, size), np.int64)
    _count_pairs(
        coded.codes, weights, used_rows, sections, config.min_code, held, last, first, pairs
    )
    word, entered = np.nonzero(first)
    old, new = np.nonzero(pairs)

    def price(offset: int) -> tuple[int, int, int]:
        entering = changes[word, word_of[entered + offset]] @ first[word, entered]
        writes = entering + changes[word_of[old + offset], word_of[new + offset]] @ pairs[old, new]
        return int(writes), abs(offset), offset

    lowest, highest = int(coded.codes.min()), int(coded.codes.max())
    _, _, offset = min(map(price, range(config.min_code - lowest, config.max_code - highest + 1)))
    after = np.where(last < 0, held, word_of[last + offset])
    return np.asarray(offset, np.int32), after.astype(config.word_dtype)


def _scheduled(
    used_rows: AnyArray, held: np.ndarray | None, config: CrossbarConfig
) -> tuple[AnyArray, np.ndarray]:
    """The sections programmed at each step [steps, crossbars], and a copy of what is held, int32.

    A word and its flag take 31 bits at most.
    """
    sections = network_schedule([used_rows], config)[0].sections
    erased = np.zeros((sections.shape[1], config.physical_rows), np.int32)
    return sections, erased if held is None else held.astype(np.int32)


@functools.cache
def _words(config: CrossbarConfig) -> np.ndarray:
    """int32 [codes], the word of the code `config.min_code + i`."""
    codes = np.arange(config.min_code, config.max_code + 1, dtype=np.int32)
    return np.asarray(encode(jnp.asarray(codes), config)).astype(np.int32)


@functools.cache
def _changes(config: CrossbarConfig) -> np.ndarray:
    """uint8 [2, 65536], cells of which a bit is set in the low and in the high half of a word."""
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
            if section == used_rows.size:
                continue
            for row in range(used_rows[section]):
                word = words[codes[weights[section, row]] - lowest]
                plain = held[crossbar, row] ^ word
                turned = plain ^ whole
                cells = changes[0, plain & 0xFFFF] + changes[1, plain >> 16]
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
            if section == used_rows.size:
                continue
            for column in range(columns):
                flag = held[crossbar, rows] & masks[column]
                plain[column] = flag != 0
                turned[column] = flag != masks[column]
            for row in range(used_rows[section]):
                differs = held[crossbar, row] ^ words[codes[weights[section, row]] - lowest]
                for column in range(columns):
                    here = differs & masks[column]
                    plain[column] += here != 0
                    turned[column] += here != masks[column]
            flip = 0
            for column in range(columns):
                if turned[column] < plain[column]:
                    flip |= masks[column]
            for row in range(used_rows[section]):
                held[crossbar, row] = words[codes[weights[section, row]] - lowest] ^ flip
            held[crossbar, rows] = flip
            flips[section, 0] = flip


@numba.njit(cache=True, nogil=True)
def _count_pairs(  # type: ignore[no-untyped-def]
    codes, weights, used_rows, sections, lowest, held, last, first, pairs
):
    """Counts which codes follow each other in a row; arguments as of `_flip_words`.

    Args:
      last: int32 [crossbars, rows], -1; returned: the last code in each row, from `lowest`.
      first: int64 [words, codes], zeros; returned: codes that overwrite what was held.
      pairs: int64 [codes, codes], zeros; returned: codes that overwrite a code.
    """
    steps, crossbars = sections.shape
    for step in range(steps):
        for crossbar in range(crossbars):
            section = sections[step, crossbar]
            if section == used_rows.size:
                continue
            for row in range(used_rows[section]):
                code = codes[weights[section, row]] - lowest
                if last[crossbar, row] < 0:
                    first[held[crossbar, row], code] += 1
                else:
                    pairs[last[crossbar, row], code] += 1
                last[crossbar, row] = code
